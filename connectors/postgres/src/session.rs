//! A walsender's session: startup, commands, and the replication stream.
//!
//! Our own, over `postgres-protocol`, since `tokio-postgres` knows neither
//! `replication=database` nor CopyBoth. See "Streaming Replication Protocol" in
//! PostgreSQL's documentation.

mod startup;
mod stream;

use std::time::Duration;

use bytes::BytesMut;
use figvine_change::{SourceError, SourceErrorKind};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::{Stream, dial};
use crate::error::{ServerError, Told, failure, of_io};
use crate::lsn::Lsn;
use crate::url::ConnectUrl;

pub(crate) use stream::Replication;

/// How long the server may say nothing to a command. The creation of a slot waits for running transactions, under a
/// `lock_timeout` of its own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What makes the text of values the same on every server and in every session,
/// whatever the database's or the role's own settings are.
pub(crate) const DETERMINISTIC: [(&str, &str); 9] = [
    ("client_encoding", "UTF8"),
    ("datestyle", "ISO"),
    ("intervalstyle", "iso_8601"),
    ("extra_float_digits", "3"),
    ("timezone", "UTC"),
    ("lc_monetary", "C"),
    ("bytea_output", "hex"),
    // How names are written: values of regclass and its kin, and the types of columns.
    ("search_path", "pg_catalog"),
    ("quote_all_identifiers", "off"),
];

/// A session, between commands.
#[derive(Debug)]
pub(crate) struct Session {
    stream: Stream,
    input: BytesMut,
}

/// What IDENTIFY_SYSTEM says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct System {
    pub(crate) id: u64,
    pub(crate) timeline: u32,
}

/// How long a slot lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasts {
    /// As long as the session.
    Session,
    /// Until it is dropped.
    Forever,
    /// Until it is dropped, on the standbys too (17 and later).
    Promotion,
}

impl Session {
    /// Connects, and starts up in `replication=database` mode. `lock_timeout_ms` bounds how long a command
    /// (the creation of a slot) waits for running transactions.
    pub(crate) async fn open(url: &ConnectUrl, application: &str, lock_timeout_ms: u128) -> Result<Self, SourceError> {
        let mut session = Self { stream: dial(url).await?, input: BytesMut::with_capacity(16 * 1024) };
        let lock_timeout = lock_timeout_ms.to_string();
        let mut parameters = vec![
            ("user", url.user.as_str()),
            ("database", &url.database),
            ("replication", "database"),
            ("application_name", application),
            ("lock_timeout", &lock_timeout),
        ];
        parameters.extend(DETERMINISTIC);
        startup::start(&mut session, url, &parameters).await?;
        Ok(session)
    }

    /// Asks who the server is.
    pub(crate) async fn identify(&mut self) -> Result<System, SourceError> {
        let rows = self.command("IDENTIFY_SYSTEM").await?;
        let field = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(|field| field.as_deref());
        let system = field(0).and_then(|f| f.parse().ok()).zip(field(1).and_then(|f| f.parse().ok()));
        let (id, timeline) = system.ok_or_else(|| {
            failure(SourceErrorKind::Refused, "FV-1116", "the server does not say which system it is")
        })?;
        Ok(System { id, timeline })
    }

    /// The timelines that lead to `timeline`, each with the place where the next one left it.
    pub(crate) async fn history(&mut self, timeline: u32) -> Result<Vec<(u32, Lsn)>, SourceError> {
        // The first has none.
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self.command(&format!("TIMELINE_HISTORY {timeline}")).await?;
        let content = rows.first().and_then(|row| row.get(1)).and_then(|field| field.as_deref()).unwrap_or_default();
        let entry = |line: &str| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        };
        Ok(content.lines().filter_map(entry).collect())
    }

    /// Creates a logical slot for pgoutput. Returns the place from which on it holds the log.
    pub(crate) async fn create_slot(&mut self, slot: &str, version: u32, lasts: Lasts) -> Result<Lsn, SourceError> {
        let options = match (version, lasts) {
            (..150_000, _) => "NOEXPORT_SNAPSHOT",
            (170_000.., Lasts::Promotion) => "(SNAPSHOT 'nothing', FAILOVER true)",
            _ => "(SNAPSHOT 'nothing')",
        };
        let temporary = if lasts == Lasts::Session { "TEMPORARY " } else { "" };
        let command = format!("CREATE_REPLICATION_SLOT {} {temporary}LOGICAL pgoutput {options}", quoted(slot));
        let rows = self.command(&command).await?;
        let place = rows.first().and_then(|row| row.get(1)).and_then(|field| field.as_deref()?.parse().ok());
        place.ok_or_else(|| {
            failure(SourceErrorKind::Refused, "FV-1116", "the server does not say where the new slot begins")
        })
    }

    /// Starts to stream. Consumes the session: from here on it speaks CopyBoth.
    pub(crate) async fn replicate(mut self, slot: &str, publication: &str, from: Lsn) -> Result<Self, SourceError> {
        let publication = quoted(publication).replace('\'', "''");
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (proto_version '1', publication_names '{publication}', messages 'true')",
            quoted(slot)
        );
        self.send(|out| frontend::query(&command, out)).await?;
        loop {
            match self.frame().await? {
                (b'W', _) => return Ok(self),
                (b'E', body) => return Err(server_failure(&body, "replication cannot start")),
                _ => {}
            }
        }
    }

    /// Runs one command and returns its rows, as text.
    async fn command(&mut self, command: &str) -> Result<Vec<Vec<Option<String>>>, SourceError> {
        self.send(|out| frontend::query(command, out)).await?;
        let what = command.split(' ').next().unwrap_or_default();
        let mut rows = Vec::new();
        let mut refused = None;
        loop {
            match self.frame().await? {
                (b'D', body) => rows.push(data_row(&body)),
                (b'E', body) => refused = Some(server_error(&body)),
                (b'Z', _) => break,
                _ => {}
            }
        }
        match refused {
            Some(told) => Err(crate::error::of_sqlstate(&told.code, &format!("{what} failed")).because(told)),
            None => Ok(rows),
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<(), SourceError> {
        let mut out = BytesMut::new();
        let sent = match write(&mut out) {
            Ok(()) => self.stream.write_all(&out).await,
            Err(error) => Err(error),
        };
        sent.map_err(|e| of_io(e, "sending to the server"))
    }

    /// The next message as tag and body.
    async fn frame(&mut self) -> Result<(u8, BytesMut), SourceError> {
        loop {
            if let Some(&[tag, length @ ..]) = self.input.first_chunk::<5>() {
                let whole = (u32::from_be_bytes(length) as usize).saturating_add(1);
                if self.input.len() >= whole {
                    let mut frame = self.input.split_to(whole);
                    return Ok((tag, frame.split_off(5.min(frame.len()))));
                }
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), SourceError> {
        self.input.reserve(8 * 1024);
        let read = timeout(ANSWER_TIMEOUT, self.stream.read_buf(&mut self.input)).await;
        match read.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(0) => Err(of_io(std::io::ErrorKind::UnexpectedEof.into(), "the server's answer")),
            Ok(_) => Ok(()),
            Err(error) => Err(of_io(error, "the server's answer")),
        }
    }

    fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.input)
    }
}

/// An identifier as SQL and the replication commands want it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn server_failure(body: &[u8], what: &str) -> SourceError {
    let told = server_error(body);
    crate::error::of_sqlstate(&told.code, what).because(told)
}

/// Fields of an ErrorResponse: a type byte and a text that ends with NUL, each.
fn server_error(body: &[u8]) -> ServerError {
    let mut told = ServerError { severity: String::new(), code: String::new(), message: String::new() };
    for field in body.split(|&b| b == 0) {
        if let Some((kind, value)) = field.split_first() {
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                b'V' => told.severity = value,
                b'C' => told.code = value,
                b'M' => told.message = value,
                _ => {}
            }
        }
    }
    told
}

/// Fields of a DataRow: a count, then a length (-1 for null) and bytes, each.
fn data_row(body: &[u8]) -> Vec<Option<String>> {
    let mut rest = body.get(2..).unwrap_or_default();
    let mut fields = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        let (value, behind) = behind.split_at_checked(length.unwrap_or(0)).unwrap_or((behind, &[]));
        fields.push(length.map(|_| String::from_utf8_lossy(value).into_owned()));
        rest = behind;
    }
    fields
}
