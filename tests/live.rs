//! Live tests: real PostgreSQL, real NATS, the real program, and what befalls them.
//!
//! Everything runs on free ports and in temporary directories. A server that is
//! missing fails the tests and names the command that gets it.

#![allow(clippy::print_stdout, reason = "seeds, and what a machine lacks, are told")]

mod live {
    pub(crate) mod archive;
    pub(crate) mod golden;
    pub(crate) mod harness;
    pub(crate) mod held;
    pub(crate) mod journal;
    pub(crate) mod orders;

    mod backfill;
    mod basics;
    mod check;
    mod cluster;
    mod debezium;
    mod dry;
    mod echo;
    mod eighteen;
    mod fence;
    mod hostile;
    mod kills;
    mod letters;
    mod lookups;
    mod obstacles;
    mod order;
    mod outages;
    mod positions;
    mod private;
    mod reload;
    mod rules;
    mod rules_explain;
    mod samples;
    mod schemas;
    mod shapes;
    mod standby;
    mod tables;
    mod tls;
    mod traces;
    mod values;
}
