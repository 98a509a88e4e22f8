//! The dump: a task of its own that reads, cuts the log into chunks, and finds a
//! connection that is dead, however slow everyone behind it is.

use std::ops::Range;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use figvine_change::{SourceError, SourceErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::spill::{Spill, Spilled};
use super::{FULL_PACKET, Request, Session};
use crate::catalogue::Server;
use crate::dial::Stream;
use crate::error::{ServerError, Told, failure, garbled, of_io, of_server};

/// A chunk is handed on at once when somebody waits for it, and grows up to this
/// many bytes while nobody does. A single event may be longer.
const CHUNK_BYTES: usize = 32 * 1024;
/// Chunks that wait for the decoder.
const CHUNKS: usize = 2;
/// What `max_allowed_packet` may be at most, and so the longest event that a server can send.
const EVENT_BYTES: usize = 1 << 30;
/// An event's header: time, type, server id, length, position, flags.
const HEADER_BYTES: usize = 19;
/// A server that looks for our place in its files says nothing meanwhile.
const FIRST_SILENCE: Duration = Duration::from_secs(120);
/// How long the server may take for what stands before a dump.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the connection may take to close.
const FAREWELL: Duration = Duration::from_secs(5);

/// A compressed transaction from here on does not stay in memory.
const SPILLED_BYTES: usize = 1024 * 1024;
/// TRANSACTION_PAYLOAD.
const PAYLOAD_KIND: u8 = 40;

/// Whole events of the log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chunk {
    /// What came from the server; between the events stand bytes of packets.
    pub(crate) data: Bytes,
    /// The events, in order: ranges of `data`, each from its header to its checksum.
    pub(crate) events: Vec<Range<u32>>,
    /// In place of those: one that is too long for memory.
    pub(crate) spilled: Option<Spilled>,
}

/// The running dump.
#[derive(Debug)]
pub(crate) struct Dump {
    chunks: mpsc::Receiver<Chunk>,
    leave: Option<oneshot::Sender<()>>,
    /// One task. Dropped with us, it closes the connection.
    task: JoinSet<Result<(), SourceError>>,
}

impl Dump {
    /// Asks a fresh session for the log of `server`, and runs it. That the server has no such place comes by
    /// [`Dump::next`].
    pub(crate) async fn begin(mut session: Session, server: &Server, request: &Request) -> Result<Self, SourceError> {
        let identity = session.identify(server.flavour).await?;
        // A name, or a balancer's address, may lead to several servers, whose places are not the same.
        if identity.name() != server.name() {
            let (asked, reads) = (server.name(), identity.name());
            let what = format!("{} leads to several servers: {asked} was asked, {reads} would be read", session.host());
            return Err(failure(SourceErrorKind::Unreachable, "FV-1124", what).hint("Name one server in the url."));
        }
        timeout(ANSWER, session.request(server.flavour, request)).await.map_err(|_| {
            let what = format!("{} does not answer within {} s", session.host(), ANSWER.as_secs());
            failure(SourceErrorKind::Unreachable, "FV-1123", what)
        })??;
        Ok(Self::run(session, request.heartbeat.saturating_mul(3)))
    }

    fn run(session: Session, silence: Duration) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let (leave, left) = oneshot::channel();
        let connection = Connection {
            stream: session.stream,
            input: session.input,
            sequence: session.sequence,
            whole: 0,
            events: Vec::new(),
            long: None,
            silence: silence.max(FIRST_SILENCE),
            later_silence: silence,
        };
        let mut task = JoinSet::new();
        task.spawn(connection.run(sender, left));
        Self { chunks, leave: Some(leave), task }
    }

    /// The next chunk. `None` when the server ended the log. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, SourceError> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        match self.task.join_next().await {
            Some(Ok(ended)) => ended.map(|()| None),
            Some(Err(panicked)) => {
                Err(failure(SourceErrorKind::Unreachable, "FV-1199", "the replication connection's task failed")
                    .because(panicked))
            }
            None => Ok(None),
        }
    }

    /// Leaves: closes the connection, by which the server ends its side too.
    pub(crate) async fn close(mut self) {
        self.chunks.close();
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        // An error on the way out changes nothing for us.
        let _ = timeout(FAREWELL, self.task.join_next()).await;
    }
}

struct Connection {
    stream: Stream,
    input: BytesMut,
    /// The number that the next packet has.
    sequence: u8,
    /// Bytes at the front of `input` that are whole packets, looked through.
    whole: usize,
    /// The events in those.
    events: Vec<Range<u32>>,
    /// An event that is spread over several packets, or goes into a file, as far as it came.
    long: Option<Long>,
    /// How long the server may be silent: three heartbeats, more until the log has begun.
    silence: Duration,
    later_silence: Duration,
}

/// A payload of several packets, or one that goes into a file.
struct Long {
    body: Body,
    /// How much of it came.
    length: usize,
    /// What the present packet still lacks.
    missing: usize,
    /// Whether it is the last one.
    is_last: bool,
}

enum Body {
    Joined(BytesMut),
    /// Without the byte before the event.
    Spilled(Spill),
}

impl Long {
    fn append(&mut self, part: &[u8]) -> std::io::Result<()> {
        let is_first = self.length == 0;
        self.length += part.len();
        match &mut self.body {
            Body::Joined(joined) => joined.extend_from_slice(part),
            Body::Spilled(spill) => spill.append(part.get(usize::from(is_first)..).unwrap_or_default())?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Chunk, Front> {
        match self.body {
            Body::Joined(joined) => {
                event(&joined)?;
                let end = u32::try_from(joined.len()).unwrap_or(u32::MAX);
                let events = std::iter::once(1..end).collect();
                Ok(Chunk { data: joined.freeze(), events, spilled: None })
            }
            Body::Spilled(spill) => {
                let spilled = spill.finish().map_err(no_file)?;
                Ok(Chunk { spilled: Some(spilled), ..Chunk::default() })
            }
        }
    }
}

/// What stands at the front of the input behind the packets looked through.
enum Front {
    /// Not all of a packet, or one that goes into a chunk of its own.
    Part,
    /// The log's end.
    Done,
    /// An error.
    Error(SourceError),
}

impl Connection {
    async fn run(mut self, chunks: mpsc::Sender<Chunk>, mut left: oneshot::Receiver<()>) -> Result<(), SourceError> {
        let mut ended = None;
        let mut deadline = None;
        let mut ready: Option<Chunk> = None;
        loop {
            if ended.is_none() && ready.is_none() {
                match self.look_through() {
                    Ok(whole) => ready = whole,
                    Err(Front::Part) => {}
                    Err(Front::Done) => ended = Some(Ok(())),
                    Err(Front::Error(error)) => ended = Some(Err(error)),
                }
            }
            let has_chunk = ready.is_some() || self.whole > 0;
            if !has_chunk && let Some(ended) = ended {
                return ended;
            }
            let may_read = ended.is_none() && ready.is_none() && self.whole < CHUNK_BYTES;
            // While we do not read, silence is ours.
            let until = *deadline.insert(match deadline {
                Some(until) if may_read => until,
                _ => Instant::now() + self.silence,
            });
            tokio::select! {
                biased;
                // The end first: whoever leaves wants nothing more.
                _ = &mut left => return self.leave().await,
                // Then whoever waits for changes: small chunks while all is quick, large ones else.
                permit = chunks.reserve(), if has_chunk => {
                    let chunk = ready.take().unwrap_or_else(|| self.chunk());
                    // Without a permit nobody reads any more: wait to be told to leave, or be dropped.
                    if let Ok(permit) = permit {
                        permit.send(chunk);
                    }
                }
                read = read(&mut self.stream, &mut self.input), if may_read => {
                    deadline = None;
                    // What came before the connection broke is handed on first.
                    if let Err(error) = read {
                        ended = Some(Err(error));
                    }
                }
                () = sleep_until(until), if may_read => {
                    let seconds = self.silence.as_secs_f64();
                    let what = format!("the server was silent for {seconds:.1} s: three heartbeats are missing");
                    ended = Some(Err(failure(SourceErrorKind::Unreachable, "FV-1123", what)));
                }
            }
        }
    }

    /// Finds the whole packets in the input. Gives an event of its own when it was spread over several.
    fn look_through(&mut self) -> Result<Option<Chunk>, Front> {
        loop {
            if self.long.is_some() {
                return self.join();
            }
            let rest = self.input.get(self.whole..).unwrap_or_default();
            let Some(&[a, b, c, sequence]) = rest.first_chunk::<4>() else { return Err(Front::Part) };
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            let is_long = length > SPILLED_BYTES;
            // Behind the packet's header a zero byte, then the event's time and type.
            if is_long && rest.len() < 4 + 1 + 5 {
                return Err(Front::Part);
            }
            let is_spilled = is_long && rest.get(4) == Some(&0) && rest.get(4 + 1 + 4) == Some(&PAYLOAD_KIND);
            if length == FULL_PACKET || is_spilled {
                // What was found before goes first.
                if self.whole > 0 {
                    return Err(Front::Part);
                }
                let body = if is_spilled {
                    Body::Spilled(Spill::begin().map_err(no_file)?)
                } else {
                    Body::Joined(BytesMut::new())
                };
                self.long = Some(Long { body, length: 0, missing: 0, is_last: false });
                continue;
            }
            let missing = (4 + length).saturating_sub(rest.len());
            if missing > 0 {
                // A long row: room for all of it at once.
                self.input.reserve(missing);
                return Err(Front::Part);
            }
            self.numbered(sequence)?;
            let body = self.input.get(self.whole + 4..self.whole + 4 + length).unwrap_or_default();
            if let Some(&kind) = event(body)?.get(4) {
                self.heard(kind);
            }
            let from = self.whole + 5;
            self.whole += 4 + length;
            let range = u32::try_from(from).ok().zip(u32::try_from(self.whole).ok());
            let (from, end) = range.ok_or_else(|| Front::Error(garbled("the length of an event")))?;
            self.events.push(from..end);
        }
    }

    /// Goes on with an event of several packets.
    fn join(&mut self) -> Result<Option<Chunk>, Front> {
        let Some(mut long) = self.long.take() else { return Ok(None) };
        loop {
            let part = self.input.split_to(long.missing.min(self.input.len()));
            long.missing -= part.len();
            if !part.is_empty() {
                long.append(&part).map_err(no_file)?;
            }
            if long.missing > 0 {
                self.long = Some(long);
                return Err(Front::Part);
            }
            if long.is_last {
                return long.finish().map(Some);
            }
            let Some(&[a, b, c, sequence]) = self.input.first_chunk::<4>() else {
                self.long = Some(long);
                return Err(Front::Part);
            };
            self.numbered(sequence)?;
            self.input.advance(4);
            long.missing = u32::from_le_bytes([a, b, c, 0]) as usize;
            long.is_last = long.missing < FULL_PACKET;
            // One byte more: that before the event.
            if long.length + long.missing > EVENT_BYTES + 1 {
                let error = failure(SourceErrorKind::Refused, "FV-1403", "an event of the log is longer than 1 GiB");
                return Err(Front::Error(error.hint("No server sends such; nothing was skipped.")));
            }
        }
    }

    fn numbered(&mut self, sequence: u8) -> Result<(), Front> {
        if sequence != self.sequence {
            return Err(Front::Error(garbled("the numbering of the server's packets")));
        }
        self.sequence = sequence.wrapping_add(1);
        Ok(())
    }

    /// Once an event comes that does not only begin a file, the server has found our place: from then on a
    /// silence of three heartbeats is one too long.
    fn heard(&mut self, kind: u8) {
        // ROTATE, FORMAT_DESCRIPTION, PREVIOUS_GTIDS, START_ENCRYPTION, BINLOG_CHECKPOINT, GTID_LIST.
        if !matches!(kind, 4 | 15 | 35 | 161 | 163 | 164) {
            self.silence = self.later_silence;
        }
    }

    /// The packets looked through, as a chunk.
    fn chunk(&mut self) -> Chunk {
        let data = self.input.split_to(self.whole).freeze();
        self.whole = 0;
        Chunk { data, events: std::mem::take(&mut self.events), spilled: None }
    }

    async fn leave(mut self) -> Result<(), SourceError> {
        // A dump takes no commands, COM_QUIT neither.
        self.stream.shutdown().await.map_err(|e| of_io(e, "leaving the server"))
    }
}

fn no_file(error: std::io::Error) -> Front {
    let what = "a compressed transaction that is too long for memory cannot be kept in a file";
    let failed = failure(SourceErrorKind::Unreachable, "FV-1125", what);
    Front::Error(failed.hint("It needs room where temporary files are (`TMPDIR`).").because(error))
}

/// The event in a payload: behind a zero byte. Else the log's end, or an error.
fn event(payload: &[u8]) -> Result<&[u8], Front> {
    match payload.split_first() {
        Some((0x00, event)) if event.len() >= HEADER_BYTES => Ok(event),
        Some((0xff, _)) => Err(Front::Error(of_server(ServerError::read(payload), "reading the log"))),
        Some((0xfe, rest)) if rest.len() < 8 => Err(Front::Done),
        _ => Err(Front::Error(garbled("a packet of the log"))),
    }
}

/// Reads what is there. Cancel-safe.
async fn read(stream: &mut Stream, input: &mut BytesMut) -> Result<(), SourceError> {
    if input.capacity() - input.len() < 16 * 1024 {
        input.reserve(CHUNK_BYTES);
    }
    match stream.read_buf(input).await {
        Ok(0) => Err(of_io(std::io::ErrorKind::UnexpectedEof.into(), "reading the log")),
        Ok(_) => Ok(()),
        Err(error) => Err(of_io(error, "reading the log")),
    }
}

#[cfg(test)]
mod tests;
