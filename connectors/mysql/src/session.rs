//! A replica's session: handshake, plain queries, and the dump of the binary log.
//!
//! Our own, since a dump is more than `mysql_async` offers: heartbeats, MariaDB's GTIDs, bounded packets, and no
//! event that is dropped or panicked on. "Client/Server Protocol" in MySQL's and in MariaDB's documentation.

mod dump;
mod greeting;
mod login;
mod rows;
mod scramble;
mod spill;
mod stream;

use bytes::{Buf, BytesMut};
use figvine_change::{SourceError, SourceErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::{Stream, unreachable};
use crate::error::{ServerError, failure, garbled, of_io, of_server};
use crate::url::{ConnectUrl, Host};

pub(crate) use dump::Request;
pub(crate) use rows::{Answer, Failed, Values};
pub(crate) use spill::Spilled;
pub(crate) use stream::{Chunk, Dump};

/// A payload of this length goes on in the next packet.
const FULL_PACKET: usize = 0xff_ffff;
/// What an answer between commands may have: ours are a few rows.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A row of an answer: its fields as text; `None` for null.
pub(crate) type TextRow = Vec<Option<String>>;

/// A session, between commands.
#[derive(Debug)]
pub(crate) struct Session {
    stream: Stream,
    input: BytesMut,
    /// The number that the next packet of this command has, in either direction.
    sequence: u8,
    host: Host,
    /// Bytes at the front of the input that hold the row handed out last.
    looked_at: usize,
    /// A row that came in several packets.
    joined: Vec<u8>,
    /// Rows of an answer are still to be read.
    is_answering: bool,
}

impl Session {
    /// Connects to the first host that lets us in, and logs in. `program` is what the server's lists call us.
    pub(crate) async fn open(url: &ConnectUrl, program: &str) -> Result<Self, SourceError> {
        let mut last = None;
        for host in &url.hosts {
            match timeout(url.connect_timeout, Box::pin(Self::open_at(url, host, program))).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let seconds = url.connect_timeout.as_secs();
                    last = Some(unreachable(host, format!("no answer within {seconds} s")));
                }
            }
        }
        Err(last.unwrap_or_else(|| failure(SourceErrorKind::Invalid, "FV-1112", "the url names no host")))
    }

    async fn open_at(url: &ConnectUrl, host: &Host, program: &str) -> Result<Self, SourceError> {
        let stream = Stream::connect(host).await?;
        let session = Self::new(stream, host.clone());
        login::login(session, url, program).await
    }

    fn new(stream: Stream, host: Host) -> Self {
        Self {
            stream,
            input: BytesMut::with_capacity(16 * 1024),
            sequence: 0,
            host,
            looked_at: 0,
            joined: Vec::new(),
            is_answering: false,
        }
    }

    /// The host that let us in.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Runs a statement, and returns its rows; none where it gives none.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<TextRow>, SourceError> {
        self.query_for(sql, "preparing to read the log").await
    }

    /// The same; `what` says what for.
    pub(crate) async fn query_for(&mut self, sql: &str, what: &str) -> Result<Vec<TextRow>, SourceError> {
        self.command(0x03, sql.as_bytes()).await?;
        let first = self.packet().await?;
        let columns = match first.first() {
            Some(0x00) => return Ok(Vec::new()),
            Some(0xff) => return Err(of_server(ServerError::read(&first), what)),
            // The server asks for a file of ours: it gets none.
            Some(0xfb) | None => return Err(garbled("the server's answer")),
            Some(_) => lenenc(&mut &first[..]).ok_or_else(|| garbled("the server's answer"))?,
        };
        for _ in 0..columns {
            self.packet().await?;
        }
        // We do not announce CLIENT_DEPRECATE_EOF, so an EOF packet stands behind the columns and the rows.
        self.packet().await?;
        let mut rows = Vec::new();
        loop {
            let packet = self.packet().await?;
            match packet.first() {
                Some(0xfe) if packet.len() < 9 => return Ok(rows),
                Some(0xff) => return Err(of_server(ServerError::read(&packet), what)),
                _ => rows.push(text_row(&packet).ok_or_else(|| garbled("a row of the server's answer"))?),
            }
        }
    }

    /// Runs a command that is answered by OK or ERR.
    async fn execute(&mut self, command: u8, body: &[u8], what: &str) -> Result<(), SourceError> {
        self.command(command, body).await?;
        let packet = self.packet().await?;
        match packet.first() {
            Some(0x00) => Ok(()),
            Some(0xff) => Err(of_server(ServerError::read(&packet), what)),
            _ => Err(garbled("the server's answer")),
        }
    }

    /// Sends a command: the numbers of packets begin anew.
    async fn command(&mut self, command: u8, body: &[u8]) -> Result<(), SourceError> {
        self.sequence = 0;
        self.input.advance(std::mem::take(&mut self.looked_at));
        let mut payload = Vec::with_capacity(body.len() + 1);
        payload.push(command);
        payload.extend_from_slice(body);
        self.send(&payload).await
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), SourceError> {
        let mut out = Vec::with_capacity(payload.len() + 4);
        let mut rest = payload;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(FULL_PACKET));
            let length = u32::try_from(part.len()).unwrap_or(0).to_le_bytes();
            out.extend_from_slice(&[length[0], length[1], length[2], self.sequence]);
            out.extend_from_slice(part);
            self.sequence = self.sequence.wrapping_add(1);
            rest = behind;
            // A payload that ends with a full packet is followed by an empty one.
            if part.len() < FULL_PACKET {
                break;
            }
        }
        let sent = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|e| of_io(e, "sending to the server"))
    }

    /// The next payload, joined.
    async fn packet(&mut self) -> Result<BytesMut, SourceError> {
        let mut whole = BytesMut::new();
        loop {
            let header = loop {
                match self.input.first_chunk::<4>() {
                    Some(header) => break *header,
                    None => self.fill().await?,
                }
            };
            let [a, b, c, sequence] = header;
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            // Before authentication (too many connections) the server numbers its error as it likes.
            if sequence != self.sequence && whole.is_empty() && self.sequence != 0 {
                return Err(garbled("the numbering of the server's packets"));
            }
            self.sequence = sequence.wrapping_add(1);
            if whole.len() + length > ANSWER_BYTES {
                return Err(garbled("the length of the server's answer"));
            }
            while self.input.len() < 4 + length {
                self.fill().await?;
            }
            self.input.advance(4);
            let part = self.input.split_to(length);
            if whole.is_empty() {
                whole = part;
            } else {
                whole.extend_from_slice(&part);
            }
            if length < FULL_PACKET {
                return Ok(whole);
            }
        }
    }

    async fn fill(&mut self) -> Result<(), SourceError> {
        self.input.reserve(8 * 1024);
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(of_io(std::io::ErrorKind::UnexpectedEof.into(), "the server's answer")),
            Ok(_) => Ok(()),
            Err(error) => Err(of_io(error, "the server's answer")),
        }
    }
}

/// A name as SQL wants it.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A length-encoded number.
fn lenenc(rest: &mut &[u8]) -> Option<u64> {
    let bytes = match *rest.split_off_first()? {
        small @ ..=0xfa => return Some(small.into()),
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let number = rest.split_off(..bytes)?;
    Some(number.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn text_row(packet: &[u8]) -> Option<TextRow> {
    let mut rest = packet;
    let mut row = Vec::new();
    while let Some(&first) = rest.first() {
        if first == 0xfb {
            rest.split_off_first()?;
            row.push(None);
        } else {
            let length = usize::try_from(lenenc(&mut rest)?).ok()?;
            row.push(Some(String::from_utf8_lossy(rest.split_off(..length)?).into_owned()));
        }
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_text_are_read_and_broken_ones_refused() {
        let row = text_row(b"\x03abc\xfb\x00\xfc\x01\x00z").expect("a row");
        assert_eq!(row, [Some("abc".into()), None, Some(String::new()), Some("z".into())]);
        for broken in [&b"\x04abc"[..], b"\xfc\x01", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xffz", b"\xff"] {
            assert_eq!(text_row(broken), None);
        }
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("a`b"), "`a``b`");
    }
}
