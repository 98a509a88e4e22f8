//! Live tests: the connector against real servers, and what befalls them.

mod live {
    pub(crate) mod harness;

    mod backfill;
    mod failover;
    mod images;
    mod log;
    mod look_up;
    mod made;
    mod statements;
    mod tables;
    mod values;
    mod xa;
}
