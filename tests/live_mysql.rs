//! Live tests of the program: real MySQL, real MariaDB, real NATS, and what befalls them.

#![allow(clippy::print_stdout, reason = "seeds, and what a machine lacks, are told")]

#[path = "live/archive.rs"]
mod archive;
#[path = "live/golden.rs"]
mod golden;
#[path = "live/harness.rs"]
#[expect(dead_code, reason = "what concerns PostgreSQL is for the other live tests")]
mod harness;
#[path = "live/held.rs"]
mod held;
#[path = "live/journal.rs"]
#[expect(dead_code, reason = "what concerns PostgreSQL is for the other live tests")]
mod journal;
#[path = "live/orders.rs"]
mod orders;

mod live_mysql {
    pub(crate) mod journal;
    pub(crate) mod world;

    mod backfill;
    mod debezium;
    mod echo;
    mod kills;
    mod letters;
    mod private;
    mod rules;
    mod samples;
    mod schemas;
    mod traces;
}
