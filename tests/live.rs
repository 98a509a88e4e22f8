//! Live tests: real PostgreSQL, real NATS, the real program, and what befalls them.
//!
//! Everything runs on free ports and in temporary directories. A server that is
//! missing fails the tests and names the command that gets it.

mod live {
    pub(crate) mod harness;

    mod basics;
    mod check;
    mod dry;
    mod hostile;
    mod shapes;
    mod tables;
    mod tls;
    mod values;
}
