//! Our own connection: greeting, TLS and proof of who we are, then the bare socket.
//!
//! ```text
//! server                      we
//!   INFO {nonce, tls_required, max_payload, ...}
//!            <- (TLS handshake) ->
//!                             CONNECT {proof, headers, no_responders}
//!                             PING
//!   PONG, or -ERR '...'
//! ```
//! With `tls.first` the handshake comes before `INFO`. Source: the client
//! protocol of docs.nats.io (reference/nats-protocol) and ADR-4, ADR-40.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::ServerAddr;
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials::Proof;
use super::{CONNECT_TIMEOUT, NatsError, NatsErrorKind, Settings, client, tls};

/// The longest line of a greeting: `INFO` of a large cluster lists all its servers.
const MAX_GREETING: usize = 64 * 1024;

/// What a server tells of itself.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct ServerInfo {
    /// The server's version, `2.15.1`.
    #[serde(default)]
    pub version: String,
    /// The largest message it takes, headers included, in bytes.
    #[serde(default)]
    pub max_payload: usize,
    /// Whether it knows headers.
    #[serde(default)]
    headers: bool,
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    nonce: String,
}

/// A connection that the server has accepted.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// What the server told of itself.
    pub info: ServerInfo,
    /// What was read behind the greeting.
    pub unread: BytesMut,
    /// The server, `host:port`.
    pub server: String,
}

/// TCP, with TLS or without.
#[derive(Debug)]
pub enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    tls_required: bool,
    name: &'a str,
    lang: &'static str,
    version: &'static str,
    protocol: u8,
    echo: bool,
    headers: bool,
    no_responders: bool,
    #[serde(flatten)]
    proof: Proof,
}

impl Connection {
    /// Connects to the first server that takes us, in the order of the addresses.
    ///
    /// # Errors
    /// That of the last server tried; but a refusal counts more than a server that does not answer.
    pub async fn open(settings: &Settings, name: &str) -> Result<Self, NatsError> {
        let mut failed: Option<NatsError> = None;
        for address in settings.addresses()? {
            let opened = tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(greet(settings, &address, name))).await;
            let error = match opened {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                Err(_) => NatsError::unreachable(format!("nats server {} takes too long", client::name(&address))),
            };
            if failed.as_ref().is_none_or(|f| f.kind != NatsErrorKind::Refused) {
                failed = Some(error);
            }
        }
        Err(failed.unwrap_or_else(|| NatsError::refused("nats.url names no server")))
    }
}

async fn greet(settings: &Settings, address: &ServerAddr, name: &str) -> Result<Connection, NatsError> {
    let server = client::name(address);
    let away = |e: io::Error| NatsError::unreachable(format!("nats server {server} cannot be reached")).because(e);
    if address.is_websocket() {
        return Err(NatsError::refused(format!("nats server {server}: websocket addresses are not supported")));
    }
    let tcp = TcpStream::connect((address.host(), address.port())).await.map_err(away)?;
    tcp.set_nodelay(true).map_err(away)?;
    let mut socket = Socket::Plain(tcp);
    if settings.tls.first {
        socket = encrypt(socket, settings, address, &server).await?;
    }
    let mut unread = BytesMut::with_capacity(16 * 1024);
    let line = line(&mut socket, &mut unread, &server).await?;
    let info = line.strip_prefix("INFO ").ok_or_else(|| match line.strip_prefix("-ERR ") {
        Some(words) => NatsError::from_server(&server, words),
        None => NatsError::protocol(format!("{server} does not greet as a nats server does")),
    })?;
    let info: ServerInfo = serde_json::from_str(info)
        .map_err(|e| NatsError::protocol(format!("the greeting of nats server {server} cannot be read")).because(e))?;
    if !info.headers {
        return Err(NatsError::refused(format!("nats server {server} does not support headers")));
    }
    let tls = settings.tls.first || info.tls_required || address.tls_required() || settings.tls.ca.is_some();
    if tls && !settings.tls.first {
        // Bytes in clear text behind INFO would be taken for those of the encrypted server.
        if !unread.is_empty() {
            return Err(NatsError::protocol(format!("nats server {server} goes on in clear text before tls")));
        }
        socket = encrypt(socket, settings, address, &server).await?;
    }

    let connect = Connect {
        verbose: false,
        pedantic: false,
        tls_required: tls,
        name,
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: false,
        headers: true,
        no_responders: true,
        proof: Proof::new(&settings.auth, address, &info.nonce).await?,
    };
    let mut greeting = b"CONNECT ".to_vec();
    serde_json::to_writer(&mut greeting, &connect)
        .map_err(|e| NatsError::protocol("the greeting cannot be written").because(e))?;
    greeting.extend_from_slice(b"\r\nPING\r\n");
    socket.write_all(&greeting).await.map_err(away)?;
    socket.flush().await.map_err(away)?;
    loop {
        let line = self::line(&mut socket, &mut unread, &server).await?;
        if line == "PONG" {
            return Ok(Connection { socket, info, unread, server });
        }
        if let Some(words) = line.strip_prefix("-ERR ") {
            return Err(NatsError::from_server(&server, words));
        }
        // The server may ping, or tell more of itself, before it answers.
        if line == "PING" {
            socket.write_all(b"PONG\r\n").await.map_err(away)?;
            socket.flush().await.map_err(away)?;
        } else if !line.starts_with("INFO ") && line != "+OK" {
            return Err(NatsError::protocol(format!("nats server {server} answers the greeting with something else")));
        }
    }
}

async fn encrypt(socket: Socket, settings: &Settings, address: &ServerAddr, server: &str) -> Result<Socket, NatsError> {
    let Socket::Plain(tcp) = socket else { return Ok(socket) };
    let name = ServerName::try_from(address.host().to_owned())
        .map_err(|e| NatsError::refused(format!("{server} is no name for a certificate")).because(e))?;
    let connector = TlsConnector::from(Arc::new(tls::client_config(&settings.tls)?));
    match connector.connect(name, tcp).await {
        Ok(stream) => Ok(Socket::Tls(Box::new(stream))),
        // rustls hands its verdicts (unknown authority, wrong name, alert) up as InvalidData.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => {
            Err(NatsError::refused(format!("tls with nats server {server} fails")).because(e))
        }
        Err(e) => Err(NatsError::unreachable(format!("nats server {server} hangs up during tls")).because(e)),
    }
}

/// The next line, without its end.
async fn line(socket: &mut Socket, unread: &mut BytesMut, server: &str) -> Result<String, NatsError> {
    let mut seen = 0;
    loop {
        if let Some(at) = memchr::memchr(b'\n', unread.get(seen..).unwrap_or_default()) {
            let line = unread.split_to(seen + at + 1);
            return Ok(String::from_utf8_lossy(line.trim_ascii()).into_owned());
        }
        seen = unread.len();
        if seen > MAX_GREETING {
            return Err(NatsError::protocol(format!("{server} greets with a line that does not end")));
        }
        let read = socket.read_buf(unread).await.map_err(|e| went_away(server, e))?;
        if read == 0 {
            return Err(NatsError::unreachable(format!("nats server {server} hung up during the greeting")));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tls(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_flush(cx),
            Self::Tls(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tls(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

/// In TLS 1.3 a server refuses our certificate only after we believe that the handshake is over (RFC 8446, 4.4.2.4):
/// its verdict comes with the first read, as invalid data.
fn went_away(server: &str, error: io::Error) -> NatsError {
    if error.kind() == io::ErrorKind::InvalidData {
        NatsError::refused(format!("nats server {server} refuses our certificate")).because(error)
    } else {
        NatsError::unreachable(format!("nats server {server} went away")).because(error)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::{Auth, Tls};
    use super::*;

    /// A server that says `first`, reads until our `PING`, says `then`, and hangs up when we do.
    async fn server(first: &'static str, then: &'static str) -> (Settings, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        let task = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            socket.write_all(first.as_bytes()).await.expect("written");
            let mut heard = Vec::new();
            while !heard.ends_with(b"PING\r\n") && socket.read_buf(&mut heard).await.expect("read") > 0 {}
            let _ = socket.write_all(then.as_bytes()).await;
            String::from_utf8(heard).expect("text")
        });
        (Settings { urls: vec![url], auth: Auth::None, tls: Tls::default() }, task)
    }

    const INFO: &str = "INFO {\"version\":\"2.15.1\",\"max_payload\":1048576,\"headers\":true,\"later\":1}\r\n";

    #[tokio::test]
    async fn a_greeting_tells_who_we_are_and_keeps_what_comes_behind() {
        let (mut settings, task) = server(INFO, "PING\r\nINFO {}\r\n+OK\r\nPONG\r\nMSG a").await;
        settings.auth = Auth::User { user: "me".into(), password: "hush".into() };
        let connection = Connection::open(&settings, "figvine S").await.expect("accepted");
        assert_eq!(connection.info.max_payload, 1_048_576);
        assert_eq!(&connection.unread[..], b"MSG a");
        let heard = task.await.expect("it ends");
        for part in [
            r#""name":"figvine S""#,
            r#""headers":true"#,
            r#""no_responders":true"#,
            r#""echo":false"#,
            r#""verbose":false"#,
            r#""user":"me","pass":"hush""#,
        ] {
            assert!(heard.contains(part), "{part} is missing in {heard}");
        }
        assert!(!format!("{connection:?}").contains("hush"));
    }

    #[tokio::test]
    async fn a_refusal_is_fatal_and_a_busy_server_is_not() {
        for (words, kind) in [
            ("-ERR 'Authorization Violation'\r\n", NatsErrorKind::Refused),
            ("-ERR 'User Authentication Expired'\r\n", NatsErrorKind::Refused),
            ("-ERR 'Authentication Timeout'\r\n", NatsErrorKind::Unreachable),
            ("-ERR 'maximum connections exceeded'\r\n", NatsErrorKind::Unreachable),
            ("", NatsErrorKind::Unreachable),
            ("HTTP/1.1 400 Bad Request\r\n", NatsErrorKind::Protocol),
        ] {
            let (settings, _task) = server(INFO, words).await;
            let error = Connection::open(&settings, "x").await.expect_err("not accepted");
            assert_eq!(error.kind, kind, "{words:?}: {error}");
        }
    }

    #[tokio::test]
    async fn what_does_not_greet_as_nats_is_no_server_of_ours() {
        for (first, kind) in [
            ("+PONG\r\n", NatsErrorKind::Protocol),
            ("INFO {\r\n", NatsErrorKind::Protocol),
            ("INFO {\"headers\":false}\r\n", NatsErrorKind::Refused),
            ("INFO {\"headers\":true,\"tls_required\":true}\r\nPONG\r\n", NatsErrorKind::Protocol),
        ] {
            let (settings, _task) = server(first, "").await;
            let error = Connection::open(&settings, "x").await.expect_err("not accepted");
            assert_eq!(error.kind, kind, "{first:?}: {error}");
        }
    }

    #[tokio::test]
    async fn the_next_server_is_tried_when_one_does_not_answer() {
        let (mut settings, _task) = server(INFO, "PONG\r\n").await;
        let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        settings.urls.insert(0, format!("nats://{closed}"));
        let connection = Connection::open(&settings, "x").await.expect("the second one");
        assert!(settings.urls[1].ends_with(&connection.server));
    }
}
