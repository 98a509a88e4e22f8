//! The way to NATS: addresses, credentials, TLS; for the client library and for
//! the publisher's own connection alike.

mod client;
mod connection;
mod credentials;
mod tls;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

pub use connection::{Connection, ServerInfo, Socket};

/// How long one server may take from the first packet to the answer to our greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Server addresses, `nats://host:port` or `tls://host:port`; at least one.
    pub urls: Vec<String>,
    /// Who we are.
    pub auth: Auth,
    /// TLS, where configured beyond what the address says.
    pub tls: Tls,
}

/// Ways to authenticate.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// A credentials file: JWT and seed.
    Creds(PathBuf),
    /// A file with an nkey seed.
    Nkey(PathBuf),
    /// A JWT and its seed in two files.
    Jwt {
        /// The JWT.
        jwt: PathBuf,
        /// The seed.
        seed: PathBuf,
    },
    /// User and password.
    User {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A token.
    Token(SecretString),
}

/// TLS settings.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of our certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
    /// TLS before the server's greeting.
    pub first: bool,
}

/// A failure on the way to NATS.
///
/// `Display` tells what we know, never a secret; what we were told by others is in `source()`.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NatsError {
    /// What it means.
    pub kind: NatsErrorKind,
    /// What happened, naming the server or the file; lowercase, without a full stop.
    pub what: String,
    /// What we were told.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatsErrorKind {
    /// The server cannot be reached, went away, or is too busy: try again.
    Unreachable,
    /// The server refuses us, or our credentials or certificates cannot be used: stop.
    Refused,
    /// What answers does not speak the protocol as we know it: try again, it may be a proxy that is starting.
    Protocol,
}

impl NatsErrorKind {
    /// Whether trying again can help.
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Self::Unreachable | Self::Protocol => true,
            Self::Refused => false,
        }
    }
}

impl NatsError {
    fn new(kind: NatsErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    fn unreachable(what: impl Into<String>) -> Self {
        Self::new(NatsErrorKind::Unreachable, what)
    }

    fn refused(what: impl Into<String>) -> Self {
        Self::new(NatsErrorKind::Refused, what)
    }

    fn protocol(what: impl Into<String>) -> Self {
        Self::new(NatsErrorKind::Protocol, what)
    }

    /// What a server's `-ERR` line means. The words are those of nats-server's `server/errors.go`.
    #[must_use]
    pub fn from_server(server: &str, words: &str) -> Self {
        let words = words.trim().trim_matches('\'');
        let lower = words.to_ascii_lowercase();
        let refused = ["authorization violation", "authentication", "permissions violation", "account", "payload"];
        // A busy server gives up waiting for our greeting: that is no verdict on it.
        let kind = if refused.iter().any(|word| lower.contains(word)) && !lower.contains("timeout") {
            NatsErrorKind::Refused
        } else {
            NatsErrorKind::Unreachable
        };
        Self::new(kind, format!("nats server {server} says: {words}"))
    }
}
