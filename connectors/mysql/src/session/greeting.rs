//! The server's first packet: "Protocol::HandshakeV10" in MySQL's documentation.

use figvine_change::{SourceError, SourceErrorKind};

use crate::error::{ServerError, Told, failure, garbled, of_server};

/// What the server says of itself before we say a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    /// `9.7.4-2`, `5.5.5-10.11.19-MariaDB`.
    pub(super) version: String,
    pub(super) capabilities: u32,
    /// What our proof of the password is mixed with; without its closing NUL.
    pub(super) nonce: Vec<u8>,
    pub(super) plugin: String,
}

impl Greeting {
    pub(super) fn read(packet: &[u8]) -> Result<Self, SourceError> {
        match packet.first() {
            Some(10) => Self::fields(packet).ok_or_else(|| garbled("the server's greeting")),
            Some(0xff) => Err(of_server(ServerError::read(packet), "connecting")),
            _ => Err(failure(SourceErrorKind::Refused, "FV-1116", "the server does not greet as MySQL does")
                .hint("Check host and port in the url.")),
        }
    }

    fn fields(packet: &[u8]) -> Option<Self> {
        let mut rest = packet.get(1..)?;
        let version = text(&mut rest)?;
        let _thread = rest.split_off(..4)?;
        let mut nonce = rest.split_off(..8)?.to_vec();
        let _filler = rest.split_off_first()?;
        let low = rest.split_off(..2)?.first_chunk::<2>()?;
        let _charset = rest.split_off_first()?;
        let _status = rest.split_off(..2)?;
        let high = rest.split_off(..2)?.first_chunk::<2>()?;
        let &length = rest.split_off_first()?;
        // MariaDB keeps capabilities of its own in the last four of these; we need none.
        let _reserved = rest.split_off(..10)?;
        let second = usize::from(length).saturating_sub(8).max(13).min(rest.len());
        nonce.extend_from_slice(rest.split_off(..second)?);
        if nonce.last() == Some(&0) {
            nonce.pop();
        }
        // Some servers end the name without a NUL.
        let name = rest.split(|&b| b == 0).next().unwrap_or_default();
        Some(Self {
            version,
            capabilities: u32::from(u16::from_le_bytes(*low)) | u32::from(u16::from_le_bytes(*high)) << 16,
            nonce,
            plugin: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

/// A text that ends with NUL.
pub(super) fn text(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|&b| b == 0)?;
    let text = rest.split_off(..end)?;
    rest.split_off_first()?;
    Some(String::from_utf8_lossy(text).into_owned())
}
