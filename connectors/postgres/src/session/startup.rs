//! Startup and authentication.

use figvine_change::{SourceError, SourceErrorKind};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;
use secrecy::ExposeSecret;

use super::{Session, server_failure};
use crate::error::{Told, failure, of_io};
use crate::url::ConnectUrl;

/// What an Authentication message asks for.
enum Asked<'a> {
    Nothing,
    Cleartext,
    Md5([u8; 4]),
    /// SASL mechanisms, each ending with NUL.
    Sasl(&'a [u8]),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    Other,
}

fn asked(body: &[u8]) -> Asked<'_> {
    let Some((kind, data)) = body.split_first_chunk::<4>() else { return Asked::Other };
    match (u32::from_be_bytes(*kind), data) {
        (0, _) => Asked::Nothing,
        (3, _) => Asked::Cleartext,
        (5, &[a, b, c, d]) => Asked::Md5([a, b, c, d]),
        (10, mechanisms) => Asked::Sasl(mechanisms),
        (11, data) => Asked::SaslContinue(data),
        (12, data) => Asked::SaslFinal(data),
        _ => Asked::Other,
    }
}

/// Sends the startup message and answers until the server is ready.
pub(super) async fn start(
    session: &mut Session,
    url: &ConnectUrl,
    parameters: &[(&str, &str)],
) -> Result<(), SourceError> {
    session.send(|out| frontend::startup_message(parameters.iter().copied(), out)).await?;
    loop {
        let (tag, body) = session.frame().await?;
        match tag {
            b'R' => match asked(&body) {
                Asked::Nothing => {}
                Asked::Cleartext => {
                    let password = password(url)?;
                    session.send(|out| frontend::password_message(password, out)).await?;
                }
                Asked::Md5(salt) => {
                    let hash = md5_hash(url.user.as_bytes(), password(url)?, salt);
                    session.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                Asked::Sasl(mechanisms) => scram(session, password(url)?, mechanisms).await?,
                Asked::SaslContinue(_) | Asked::SaslFinal(_) | Asked::Other => {
                    let what = "the server wants an authentication that we do not know";
                    return Err(failure(SourceErrorKind::Refused, "FV-1117", what)
                        .hint("SCRAM-SHA-256, md5, a password or a client certificate will do."));
                }
            },
            b'E' => return Err(server_failure(&body, "connecting for replication")),
            b'Z' => return Ok(()),
            // Keys to cancel with, settings, notices.
            _ => {}
        }
    }
}

fn password(url: &ConnectUrl) -> Result<&[u8], SourceError> {
    url.password
        .as_ref()
        .map(|p| p.expose_secret().as_bytes())
        .ok_or_else(|| failure(SourceErrorKind::Refused, "FV-1118", "the server wants a password and the url has none"))
}

async fn scram(session: &mut Session, password: &[u8], mechanisms: &[u8]) -> Result<(), SourceError> {
    let offers = |mechanism: &str| mechanisms.split(|&b| b == 0).any(|offered| offered == mechanism.as_bytes());
    let (mechanism, binding) = match session.stream.server_end_point() {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
        // We could bind and the server did not offer it: it is told, so that a stripped offer is noticed.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    let mut scram = ScramSha256::new(password, binding);
    session.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
    loop {
        let (tag, body) = session.frame().await?;
        match (tag, asked(&body)) {
            (b'E', _) => return Err(server_failure(&body, "authentication")),
            (b'R', Asked::SaslContinue(data)) => {
                scram.update(data).map_err(|e| of_io(e, "SCRAM"))?;
                session.send(|out| frontend::sasl_response(scram.message(), out)).await?;
            }
            (b'R', Asked::SaslFinal(data)) => {
                return scram.finish(data).map_err(|e| {
                    failure(SourceErrorKind::Refused, "FV-1119", "the server does not know our password itself")
                        .because(e)
                });
            }
            _ => {}
        }
    }
}
