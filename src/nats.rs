//! The way to NATS: addresses, credentials, TLS; for the client library and for
//! the publisher's own connection alike.

use std::path::PathBuf;

use secrecy::SecretString;

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
