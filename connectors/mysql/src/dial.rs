//! The way to a server: TCP or a Unix socket; TLS comes inside the session, when the server has said that it can.

mod tls;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use figvine_change::{SourceError, SourceErrorKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::error::{Told, failure};
use crate::url::{ConnectUrl, Host};

/// A connection to a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub(crate) async fn connect(host: &Host) -> Result<Self, SourceError> {
        match host {
            Host::Unix(path) => UnixStream::connect(path).await.map(Self::Unix).map_err(|e| unreachable(host, e)),
            Host::Tcp(name, port) => {
                let stream = TcpStream::connect((name.as_str(), *port)).await.map_err(|e| unreachable(host, e))?;
                stream.set_nodelay(true).map_err(|e| unreachable(host, e))?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    /// Turns a TCP connection into a TLS one; leaves the others as they are.
    pub(crate) async fn upgrade(self, url: &ConnectUrl, host: &Host) -> Result<Self, SourceError> {
        match (self, host) {
            (Self::Tcp(stream), Host::Tcp(name, _)) => {
                let connector = tls::connector(url)?;
                let named = tls::server_name(name)?;
                let stream = connector.connect(named, stream).await.map_err(|e| tls_failure(host, e))?;
                Ok(Self::Tls(Box::new(stream)))
            }
            (other, _) => Ok(other),
        }
    }

    /// Whether nobody between us and the server can listen: what a password in clear needs.
    pub(crate) fn is_private(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }
}

pub(crate) fn unreachable(host: &Host, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
    failure(SourceErrorKind::Unreachable, "FV-1101", format!("{host} cannot be reached")).because(error)
}

/// A certificate that does not hold is final; anything else in a handshake may be a cut connection.
fn tls_failure(host: &Host, error: io::Error) -> SourceError {
    let is_refusal = error.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>());
    if is_refusal {
        failure(SourceErrorKind::Refused, "FV-1114", format!("no trusted TLS connection to {host}"))
            .hint("Check `ssl-ca`, `ssl-cert` and `ssl-key` in the url, and that the certificate names the host.")
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
