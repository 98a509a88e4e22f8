//! What servers answer, as failures with something to do about them.
//!
//! Codes: FV-11xx reaching the server, FV-12xx its settings and grants, FV-13xx
//! the log and its place, FV-14xx what stands in the log, FV-16xx existing rows.

use std::error::Error;

use figvine_change::{SourceError, SourceErrorKind};
use tokio_rustls::rustls::{self, AlertDescription};

use crate::decode::reader::DecodeError;
use crate::lsn::Lsn;

/// Makes a failure.
pub(crate) fn failure(kind: SourceErrorKind, code: &'static str, what: impl Into<String>) -> SourceError {
    SourceError { kind, code, what: what.into(), hint: None, source: None }
}

/// Adds to a failure.
pub(crate) trait Told {
    /// What to do.
    fn hint(self, hint: impl Into<String>) -> SourceError;
    /// What we were told.
    fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> SourceError;
}

impl Told for SourceError {
    fn hint(self, hint: impl Into<String>) -> SourceError {
        SourceError { hint: Some(hint.into()), ..self }
    }

    fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> SourceError {
        SourceError { source: Some(source.into()), ..self }
    }
}

/// An error that a server sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{severity}: {message} (SQLSTATE {code})")]
pub(crate) struct ServerError {
    pub(crate) severity: String,
    /// SQLSTATE.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// What a SQLSTATE means for the bridge. `what` says what we were about.
pub(crate) fn of_sqlstate(code: &str, what: &str) -> SourceError {
    use SourceErrorKind::{Invalid, Refused, Unreachable};
    match code {
        "28000" | "28P01" => failure(Refused, "FV-1110", format!("{what}: the server does not let us in"))
            .hint("Check user, password and pg_hba.conf; the role needs LOGIN and REPLICATION."),
        "42501" => failure(Refused, "FV-1201", format!("{what}: the role lacks a privilege"))
            .hint("Run `figvine check`: it prints the grants that are missing."),
        "3D000" => failure(Refused, "FV-1111", format!("{what}: the database does not exist")).hint("Check the url."),
        "55000" => failure(Refused, "FV-1202", format!("{what}: the server is not set up for it"))
            .hint("Run `figvine check`: it names the setting and the SQL that mends it."),
        "55P03" => failure(Unreachable, "FV-1121", format!("{what}: waited too long for running transactions")),
        "42704" | "42P01" => failure(Invalid, "FV-1203", format!("{what}: an object does not exist")),
        // 08 connection, 53 out of resources (too many walsenders, connections), 57P starting, stopping, crashed; 58 the system.
        _ if ["08", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            failure(Unreachable, "FV-1120", format!("{what}: the server cannot serve us now"))
        }
        _ => failure(Refused, "FV-1209", format!("{what}: the server refuses")),
    }
}

/// A query's failure.
pub(crate) fn of_query(error: tokio_postgres::Error, what: &str) -> SourceError {
    let failure = match error.as_db_error() {
        Some(told) => of_sqlstate(told.code().code(), what),
        None => broken(&error, what),
    };
    failure.because(error)
}

/// What the end of a connection means. In TLS 1.3 a server refuses our certificate only after we believe that the
/// handshake is over (RFC 8446, 4.4.2.4): its verdict comes with the first read.
fn broken(error: &(dyn Error + 'static), what: &str) -> SourceError {
    if is_refused_certificate(error) {
        failure(SourceErrorKind::Refused, "FV-1114", format!("{what}: the server refuses our certificate"))
            .hint("Check `sslcert` and `sslkey` in the url: their authority must be the one of `ssl_ca_file`.")
    } else {
        failure(SourceErrorKind::Unreachable, "FV-1100", format!("{what}: the connection broke"))
    }
}

fn is_refused_certificate(error: &(dyn Error + 'static)) -> bool {
    use AlertDescription as Alert;
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(rustls::Error::AlertReceived(alert)) = inner.and_then(|inner| inner.downcast_ref()) {
            return matches!(
                alert,
                Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::DecryptError
                    | Alert::CertificateRequired
            );
        }
        cause = error.source();
    }
    false
}

/// A connection's failure.
pub(crate) fn of_io(error: std::io::Error, what: &str) -> SourceError {
    broken(&error, what).because(error)
}

/// Bytes that are no pgoutput.
pub(crate) fn of_decode(error: DecodeError, near: Option<Lsn>) -> SourceError {
    let place = near.map_or_else(String::new, |lsn| format!(" behind {lsn}"));
    failure(SourceErrorKind::Undecodable, "FV-1401", format!("the log{place} cannot be decoded"))
        .hint("Nothing was skipped. Report it with the server's version; the slot keeps the log from there.")
        .because(error)
}
