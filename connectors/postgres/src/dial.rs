//! The way to a server: TCP or a Unix socket, then TLS as `sslmode` says. The
//! walsender's session and the catalogue's connection share it.

mod tls;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use figvine_change::{SourceError, SourceErrorKind};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::error::{Told, failure};
use crate::url::{ConnectUrl, Host, SslMode};

/// A connection to a server, before its startup message.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// RFC 5929's `tls-server-end-point`, for SCRAM's channel binding.
    pub(crate) fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => tls::server_end_point(stream.get_ref().1.peer_certificates()?.first()?),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

/// Connects to the first host that answers.
pub(crate) async fn dial(url: &ConnectUrl) -> Result<Stream, SourceError> {
    let mut last = None;
    for host in &url.hosts {
        let tried = timeout(url.connect_timeout, Box::pin(dial_host(url, host))).await;
        match tried {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                let seconds = url.connect_timeout.as_secs();
                last = Some(unreachable(host, format!("no answer within {seconds} s")));
            }
        }
    }
    Err(last.unwrap_or_else(|| failure(SourceErrorKind::Invalid, "FV-1112", "the url names no host")))
}

async fn dial_host(url: &ConnectUrl, host: &Host) -> Result<Stream, SourceError> {
    let (name, port) = match host {
        Host::Unix(folder, port) => {
            let path = folder.join(format!(".s.PGSQL.{port}"));
            return UnixStream::connect(&path).await.map(Stream::Unix).map_err(|e| unreachable(host, e));
        }
        Host::Tcp(name, port) => (name, *port),
    };
    let mut stream = TcpStream::connect((name.as_str(), port)).await.map_err(|e| unreachable(host, e))?;
    stream.set_nodelay(true).map_err(|e| unreachable(host, e))?;
    // A peer that vanished is noticed within about two minutes, on connections that mostly wait too.
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive).map_err(|e| unreachable(host, e))?;
    if url.sslmode == SslMode::Disable {
        return Ok(Stream::Tcp(stream));
    }
    // SSLRequest; the server answers with one byte: S, N, or E from servers that know no TLS at all.
    let answer = async {
        stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
        stream.read_u8().await
    };
    match answer.await.map_err(|e| unreachable(host, e))? {
        b'S' => {
            let connector = tls::connector(url)?;
            let named = tls::server_name(name)?;
            let stream = connector.connect(named, stream).await.map_err(|e| tls_failure(host, e))?;
            Ok(Stream::Tls(Box::new(stream)))
        }
        _ if url.sslmode == SslMode::Prefer => Ok(Stream::Tcp(stream)),
        _ => Err(failure(SourceErrorKind::Refused, "FV-1113", format!("{} does not speak TLS", shown(host)))
            .hint("Turn `ssl` on in the server, or say `sslmode=prefer` in the url if a clear connection is fine.")),
    }
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name, port) => format!("{name}:{port}"),
        Host::Unix(folder, port) => format!("{}/.s.PGSQL.{port}", folder.display()),
    }
}

fn unreachable(host: &Host, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
    failure(SourceErrorKind::Unreachable, "FV-1101", format!("{} cannot be reached", shown(host))).because(error)
}

/// A certificate that does not hold is final; anything else in a handshake may be a cut connection.
fn tls_failure(host: &Host, error: io::Error) -> SourceError {
    let is_refusal = error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>());
    if is_refusal {
        failure(SourceErrorKind::Refused, "FV-1114", format!("no trusted TLS connection to {}", shown(host)))
            .hint("Check `sslrootcert`, `sslcert` and `sslkey` in the url, and that the certificate names the host.")
            .because(error)
    } else {
        unreachable(host, error)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
