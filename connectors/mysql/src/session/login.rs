//! From the server's greeting to its OK: TLS, then authentication.

use figvine_change::{SourceError, SourceErrorKind};
use secrecy::ExposeSecret;

use super::greeting::{Greeting, text};
use super::{Session, scramble};
use crate::dial::Stream;
use crate::error::{ServerError, Told, failure, garbled, of_server};
use crate::url::{ConnectUrl, SslMode};

/// Capability flags: "Capabilities Flags" in MySQL's documentation.
mod client {
    pub(super) const LONG_PASSWORD: u32 = 1;
    pub(super) const LONG_FLAG: u32 = 1 << 2;
    pub(super) const PROTOCOL_41: u32 = 1 << 9;
    pub(super) const SSL: u32 = 1 << 11;
    pub(super) const TRANSACTIONS: u32 = 1 << 13;
    pub(super) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(super) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(super) const CONNECT_ATTRS: u32 = 1 << 20;
    pub(super) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
}

const WANTED: u32 = client::LONG_PASSWORD
    | client::LONG_FLAG
    | client::PROTOCOL_41
    | client::TRANSACTIONS
    | client::SECURE_CONNECTION
    | client::PLUGIN_AUTH
    | client::CONNECT_ATTRS
    | client::PLUGIN_AUTH_LENENC;
/// Without these a server is from before 4.1.
const NEEDED: u32 = client::PROTOCOL_41 | client::SECURE_CONNECTION;
/// What we would take at most; for the dump too.
const MAX_PACKET: u32 = 1 << 30;
/// utf8mb4_general_ci: both servers have it under this number, in all versions.
const CHARSET: u8 = 45;

/// Logs in. The session may speak TLS afterwards.
pub(super) async fn login(mut session: Session, url: &ConnectUrl, program: &str) -> Result<Session, SourceError> {
    let greeting = Greeting::read(&session.packet().await?)?;
    if greeting.capabilities & NEEDED != NEEDED {
        return Err(failure(SourceErrorKind::Refused, "FV-1204", format!("server {} is too old", greeting.version)));
    }
    let mut flags = WANTED & greeting.capabilities;
    if url.ssl_mode != SslMode::Disabled && matches!(session.stream, Stream::Tcp(_)) {
        if greeting.capabilities & client::SSL != 0 {
            flags |= client::SSL;
            session.send(&head(flags)).await?;
            session = upgraded(session, url).await?;
        } else if url.ssl_mode != SslMode::Preferred {
            return Err(failure(SourceErrorKind::Refused, "FV-1113", format!("{} does not speak TLS", session.host))
                .hint("Give the server a certificate, or say `ssl-mode=PREFERRED` in the url if a clear connection is fine."));
        }
    }
    let password = url.password.as_ref().map_or("", |password| password.expose_secret());
    let mut plugin = greeting.plugin;
    let mut nonce = greeting.nonce;
    // The server's default may be a plugin that we do not know and still not be this user's: it switches us to that.
    if scramble::proof(&plugin, &nonce, password).is_none() {
        plugin = scramble::CACHING_SHA2.into();
    }
    let proof = scramble::proof(&plugin, &nonce, password).unwrap_or_default();
    let response = response(flags, &url.user, &proof, &plugin, program);
    session.send(&response).await?;
    loop {
        let packet = session.packet().await?;
        let mut rest = &packet[..];
        match rest.split_off_first() {
            Some(0x00) => return Ok(session),
            Some(0xff) => return Err(of_server(ServerError::read(&packet), "logging in")),
            // AuthSwitchRequest: the user's plugin is another.
            Some(0xfe) => {
                plugin = text(&mut rest).ok_or_else(|| unknown("mysql_old_password"))?;
                // 20 bytes and a NUL; 32 bytes for ed25519, the last of which may be anything.
                nonce = rest.strip_suffix(&[0]).filter(|nonce| nonce.len() == 20).unwrap_or(rest).to_vec();
                let proof = scramble::proof(&plugin, &nonce, password).ok_or_else(|| unknown(&plugin))?;
                session.send(&proof).await?;
            }
            // AuthMoreData of caching_sha2_password: 3 the server had our password's hash; 4 it needs the password.
            Some(0x01) if plugin == scramble::CACHING_SHA2 => match rest {
                [3] => {}
                [4] => whole_password(&mut session, &nonce, password).await?,
                _ => return Err(garbled("the server's wish for authentication")),
            },
            _ => return Err(garbled("the server's wish for authentication")),
        }
    }
}

async fn upgraded(session: Session, url: &ConnectUrl) -> Result<Session, SourceError> {
    // Bytes that came before TLS began are nobody's.
    if !session.input.is_empty() {
        return Err(garbled("what stands before the TLS handshake"));
    }
    let Session { stream, host, .. } = session;
    let upgraded = Session::new(stream.upgrade(url, &host).await?, host);
    Ok(Session { sequence: session.sequence, ..upgraded })
}

/// Gives the password: as it is where nobody can listen, else under the server's RSA key.
async fn whole_password(session: &mut Session, nonce: &[u8], password: &str) -> Result<(), SourceError> {
    let mut clear = Vec::from(password);
    clear.push(0);
    if session.stream.is_private() {
        return session.send(&clear).await;
    }
    session.send(&[2]).await?;
    let packet = session.packet().await?;
    let key = match packet.split_first() {
        Some((0x01, pem)) => pem,
        Some((0xff, _)) => return Err(of_server(ServerError::read(&packet), "logging in")),
        _ => return Err(garbled("the server's public key")),
    };
    let sealed = scramble::sealed(&clear, nonce, key).ok_or_else(|| garbled("the server's public key"))?;
    session.send(&sealed).await
}

fn unknown(plugin: &str) -> SourceError {
    let what = format!("the server wants the authentication `{plugin}`, which we do not know");
    failure(SourceErrorKind::Refused, "FV-1117", what).hint(
        "caching_sha2_password, mysql_native_password, MariaDB's ed25519, and auth_socket over a Unix socket will do.",
    )
}

/// What an SSLRequest is, and a HandshakeResponse41 begins with.
fn head(flags: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&MAX_PACKET.to_le_bytes());
    out.push(CHARSET);
    out.extend_from_slice(&[0; 23]);
    out
}

fn response(flags: u32, user: &str, proof: &[u8], plugin: &str, program: &str) -> Vec<u8> {
    let mut out = head(flags);
    out.extend_from_slice(user.as_bytes());
    out.push(0);
    short(&mut out, proof);
    if flags & client::PLUGIN_AUTH != 0 {
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
    }
    if flags & client::CONNECT_ATTRS != 0 {
        let program: String = program.chars().take(40).collect();
        let mut attributes = Vec::new();
        for (name, value) in [("program_name", program.as_str()), ("_client_name", "figvine")] {
            short(&mut attributes, name.as_bytes());
            short(&mut attributes, value.as_bytes());
        }
        short(&mut out, &attributes);
    }
    out
}

/// Appends bytes behind their length, of one byte: no more than the 250 that mean themselves, cut to so many.
fn short(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = bytes.get(..250).unwrap_or(bytes);
    out.push(u8::try_from(bytes.len()).unwrap_or(0));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
