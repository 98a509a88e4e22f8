//! The client library, set up from our settings: for streams, tails and KV.

use std::error::Error;
use std::io;
use std::sync::Arc;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, ServerAddr};
use secrecy::ExposeSecret as _;

use super::{Auth, CONNECT_TIMEOUT, NatsError, NatsErrorKind, Settings, credentials};

impl Settings {
    /// The servers' addresses.
    pub(super) fn addresses(&self) -> Result<Vec<ServerAddr>, NatsError> {
        let mut addresses = Vec::with_capacity(self.urls.len());
        for url in &self.urls {
            let address: ServerAddr =
                url.parse().map_err(|e| NatsError::refused("nats.url is no address of a server").because(e))?;
            if address.host().is_empty() {
                return Err(NatsError::refused("nats.url names no host"));
            }
            addresses.push(address);
        }
        if addresses.is_empty() { Err(NatsError::refused("nats.url names no server")) } else { Ok(addresses) }
    }

    /// How the client library is to connect: credentials and TLS as for our own connection.
    ///
    /// # Errors
    /// Refused, where a file of credentials cannot be used.
    pub async fn connect_options(&self) -> Result<ConnectOptions, NatsError> {
        let options = ConnectOptions::new().connection_timeout(CONNECT_TIMEOUT);
        let unusable = |file: &std::path::Path| {
            let what = format!("no valid credentials in {}", file.display());
            move |e: std::io::Error| NatsError::refused(what).because(e)
        };
        let mut options = match &self.auth {
            Auth::None => options,
            Auth::Creds(file) => options.credentials(&credentials::read(file).await?).map_err(unusable(file))?,
            Auth::Nkey(file) => options.nkey(credentials::read(file).await?.trim().to_owned()),
            Auth::Jwt { jwt, seed } => {
                let jwt = credentials::read(jwt).await?.trim().to_owned();
                let pair = nkeys::KeyPair::from_seed(credentials::read(seed).await?.trim())
                    .map_err(|e| NatsError::refused(format!("no valid nkey seed in {}", seed.display())).because(e))?;
                let pair = Arc::new(pair);
                options.jwt(jwt, move |nonce| {
                    let pair = Arc::clone(&pair);
                    async move { pair.sign(&nonce).map_err(async_nats::AuthError::new) }
                })
            }
            Auth::User { user, password } => {
                options.user_and_password(user.clone(), password.expose_secret().to_owned())
            }
            Auth::Token(token) => options.token(token.expose_secret().to_owned()),
        };
        if let Some(ca) = &self.tls.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let (Some(cert), Some(key)) = (&self.tls.cert, &self.tls.key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        if self.tls.first {
            options = options.require_tls(true).tls_first();
        }
        Ok(options)
    }

    /// A client that reconnects by itself, named `name` in the server's list of connections.
    ///
    /// # Errors
    /// Unreachable, where no server answers; refused, where one does not let us in.
    pub async fn client(&self, name: &str) -> Result<Client, NatsError> {
        let addresses = self.addresses()?;
        let servers = names(&addresses);
        let options = self.connect_options().await?.name(name);
        options.connect(addresses).await.map_err(|e| {
            let kind = match e.kind() {
                // A certificate that does not hold will not hold the next time either.
                _ if is_verdict_of_tls(&e) => NatsErrorKind::Refused,
                ConnectErrorKind::ServerParse
                | ConnectErrorKind::Authentication
                | ConnectErrorKind::AuthorizationViolation => NatsErrorKind::Refused,
                ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Tls
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => NatsErrorKind::Unreachable,
            };
            let what = match kind {
                NatsErrorKind::Refused => format!("nats at {servers} does not let us in"),
                NatsErrorKind::Unreachable | NatsErrorKind::Protocol => format!("nats at {servers} cannot be reached"),
            };
            NatsError::new(kind, what).because(e)
        })
    }
}

/// rustls hands its verdicts (unknown authority, wrong name, alert) up as `InvalidData`.
fn is_verdict_of_tls(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The servers as `host:port`, without what an address may hold beside it.
pub(super) fn names(addresses: &[ServerAddr]) -> String {
    addresses.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// One server as `host:port`.
pub(super) fn name(address: &ServerAddr) -> String {
    format!("{}:{}", address.host(), address.port())
}

#[cfg(test)]
mod tests {
    use super::super::Tls;
    use super::*;

    fn settings(url: &str) -> Settings {
        Settings { urls: vec![url.into()], auth: Auth::None, tls: Tls::default() }
    }

    #[tokio::test]
    async fn an_unreachable_server_is_named_without_its_password() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let error =
            settings(&format!("nats://me:hush@127.0.0.1:{port}")).client("test").await.expect_err("nobody there");
        assert_eq!(error.kind, NatsErrorKind::Unreachable);
        assert_eq!(error.what, format!("nats at 127.0.0.1:{port} cannot be reached"));
        assert!(!format!("{error:?}").contains("hush"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in ["http://there", "nats://[", ""] {
            let error = settings(url).addresses().expect_err(url);
            assert_eq!(error.kind, NatsErrorKind::Refused);
        }
        assert!(Settings { urls: vec![], ..settings("x") }.addresses().is_err());
    }
}
