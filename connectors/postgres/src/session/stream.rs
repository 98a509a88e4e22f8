//! The replication stream: a task of its own that reads, cuts the log into
//! chunks, and answers the server, however slow everyone behind it is.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use figvine_change::{Durable, SourceError, SourceErrorKind};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};

use super::{Session, server_failure};
use crate::dial::Stream;
use crate::error::{Told, failure, of_io};
use crate::lsn::{LogId, Lsn};

/// A chunk is handed on at once when somebody waits for it, and grows up to this
/// many bytes while nobody does. A single frame may be longer.
const CHUNK_BYTES: usize = 128 * 1024;
/// Chunks that wait for the decoder.
const CHUNKS: usize = 2;
/// A server that leaves so many of our statuses unanswered is gone.
const SILENT_STATUSES: u32 = 6;
/// Though it may be busy: so long it is waited for in any case.
const LEAST_SILENCE: Duration = Duration::from_secs(60);
/// How long the server may take to let us go.
const FAREWELL: Duration = Duration::from_secs(5);
/// Microseconds from 1970 to 2000.
const EPOCH_2000_US: u128 = 946_684_800_000_000;

/// The running stream.
#[derive(Debug)]
pub(crate) struct Replication {
    chunks: mpsc::Receiver<Bytes>,
    leave: Option<oneshot::Sender<()>>,
    /// One task. Dropped with us, it closes the connection.
    task: JoinSet<Result<(), SourceError>>,
}

impl Replication {
    /// Runs a session that has just begun to stream. A status goes to the server at least every `status_every`.
    pub(crate) fn run(session: Session, log: LogId, durable: Durable, status_every: Duration) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let (leave, left) = oneshot::channel();
        let (stream, input) = session.into_parts();
        let connection =
            Connection { stream, input, whole: 0, output: BytesMut::new(), log, received: Lsn(0), durable };
        let mut task = JoinSet::new();
        task.spawn(connection.run(sender, left, status_every));
        Self { chunks, leave: Some(leave), task }
    }

    /// The next chunk: whole CopyData frames. `None` when the server ended the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        match self.task.join_next().await {
            Some(Ok(ended)) => ended.map(|_| None),
            Some(Err(panicked)) => {
                Err(failure(SourceErrorKind::Unreachable, "FV-1199", "the replication connection's task failed")
                    .because(panicked))
            }
            None => Ok(None),
        }
    }

    /// Tells the server the last durable position and leaves; waits until the server has let go of the slot.
    pub(crate) async fn close(mut self) {
        self.chunks.close();
        if let Some(leave) = self.leave.take() {
            let _ = leave.send(());
        }
        // An error on the way out changes nothing for us: the slot is as far as the server heard.
        let _ = timeout(FAREWELL, self.task.join_next()).await;
    }
}

struct Connection {
    stream: Stream,
    input: BytesMut,
    /// Bytes at the front of `input` that are whole CopyData frames, looked through.
    whole: usize,
    output: BytesMut,
    log: LogId,
    /// The furthest place that the server told of.
    received: Lsn,
    durable: Durable,
}

/// What stands at the front of the input behind the frames looked through.
enum Front {
    /// Not all of a frame.
    Part,
    /// A message that is none of the log's: it waits until the frames before it were handed on.
    Waits,
    /// The stream's end.
    Done,
    /// An error.
    Error(SourceError),
}

impl Connection {
    async fn run(
        mut self,
        chunks: mpsc::Sender<Bytes>,
        mut left: oneshot::Receiver<()>,
        status_every: Duration,
    ) -> Result<(), SourceError> {
        let mut tick = interval(status_every);
        let mut ended = None;
        let mut heard = Instant::now();
        let silence = (status_every * SILENT_STATUSES).max(LEAST_SILENCE);
        loop {
            let mut may_read = self.whole < CHUNK_BYTES;
            if ended.is_none() {
                match self.look_through() {
                    Front::Part => may_read = self.whole < CHUNK_BYTES,
                    Front::Waits => may_read = false,
                    Front::Done => ended = Some(Ok(())),
                    Front::Error(error) => ended = Some(Err(error)),
                }
            }
            if !self.output.is_empty() {
                self.flush().await?;
            }
            if self.whole == 0
                && let Some(ended) = ended
            {
                return ended;
            }
            may_read &= ended.is_none();
            if !may_read {
                heard = Instant::now();
            }
            tokio::select! {
                biased;
                // The end first: whoever leaves wants nothing more.
                _ = &mut left => return self.leave().await,
                // Then what keeps the server's disk free, and ourselves connected.
                _ = self.durable.changed() => self.status(false),
                // An answer is asked for: a server that is gone without a word is found by its silence.
                _ = tick.tick() => {
                    if heard.elapsed() > silence {
                        let silent = std::io::Error::from(std::io::ErrorKind::TimedOut);
                        return Err(of_io(silent, "the server says nothing any more"));
                    }
                    self.status(true);
                }
                // Then whoever waits for changes: small chunks while all is quick, large ones else.
                permit = chunks.reserve(), if self.whole > 0 => match permit {
                    Ok(permit) => {
                        let chunk = self.input.split_to(self.whole).freeze();
                        self.whole = 0;
                        permit.send(chunk);
                    }
                    // Nobody reads any more: wait to be told to leave, or be dropped.
                    Err(_) => {
                        self.input.advance(self.whole);
                        self.whole = 0;
                    }
                },
                read = read(&mut self.stream, &mut self.input), if may_read => {
                    read?;
                    heard = Instant::now();
                }
            }
        }
    }

    /// Finds the whole frames in the input; notes and answers keepalives.
    fn look_through(&mut self) -> Front {
        loop {
            let rest = self.input.get(self.whole..).unwrap_or_default();
            let Some(&[tag, length @ ..]) = rest.first_chunk::<5>() else { return Front::Part };
            let whole = (u32::from_be_bytes(length) as usize).saturating_add(1);
            let Some(body) = rest.get(5..whole) else {
                // A long row: room for all of it at once.
                let missing = whole.saturating_sub(rest.len());
                self.input.reserve(missing);
                return Front::Part;
            };
            match tag {
                b'd' => {
                    let (heard, wants_answer) = match body {
                        [b'w', numbers @ ..] => (numbers.get(8..16), false),
                        [b'k', numbers @ ..] => (numbers.get(..8), numbers.get(16).is_some_and(|&reply| reply != 0)),
                        _ => (None, false),
                    };
                    if let Some(lsn) = heard.and_then(|lsn| lsn.first_chunk::<8>()) {
                        self.received = self.received.max(Lsn(u64::from_be_bytes(*lsn)));
                    }
                    if wants_answer {
                        self.status(false);
                    }
                    self.whole += whole;
                }
                b'c' => return Front::Done,
                b'E' => return Front::Error(server_failure(body, "the server ended replication")),
                // Notices, parameter changes: nothing of the log. They stand behind whole frames only when
                // those were handed on; else they wait for that.
                _ if self.whole == 0 => self.input.advance(whole),
                _ => return Front::Waits,
            }
        }
    }

    /// Puts a standby status update into the output: `r`, written, flushed, applied, clock, reply wanted.
    fn status(&mut self, reply: bool) {
        let durable = self.durable.latest().and_then(|position| LogId::parse(&position));
        // Zero says nothing: the slot stays where it is. A place in another log is none in this.
        let flushed = durable.filter(|(log, _)| *log == self.log).map_or(0, |(_, lsn)| lsn.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let clock = i64::try_from(now.as_micros().saturating_sub(EPOCH_2000_US)).unwrap_or(i64::MAX);
        self.output.put_u8(b'd');
        self.output.put_u32(4 + 1 + 8 + 8 + 8 + 8 + 1);
        self.output.put_u8(b'r');
        self.output.put_u64(self.received.0.max(flushed));
        self.output.put_u64(flushed);
        self.output.put_u64(flushed);
        self.output.put_i64(clock);
        self.output.put_u8(u8::from(reply));
    }

    async fn flush(&mut self) -> Result<(), SourceError> {
        let written = async {
            self.stream.write_all_buf(&mut self.output).await?;
            self.stream.flush().await
        };
        written.await.map_err(|e| of_io(e, "telling the server how far we are"))
    }

    /// Last status, CopyDone, and Terminate once the server has ended the stream too.
    async fn leave(mut self) -> Result<(), SourceError> {
        self.status(false);
        frontend::copy_done(&mut self.output);
        self.flush().await?;
        // What the server still sends is not read into anything; it will come again.
        self.whole = 0;
        loop {
            match self.input.first_chunk::<5>().copied() {
                Some([tag, length @ ..]) => {
                    let whole = (u32::from_be_bytes(length) as usize).saturating_add(1);
                    if self.input.len() < whole {
                        read(&mut self.stream, &mut self.input).await?;
                        continue;
                    }
                    self.input.advance(whole);
                    if matches!(tag, b'Z' | b'E') {
                        break;
                    }
                }
                None => read(&mut self.stream, &mut self.input).await?,
            }
        }
        frontend::terminate(&mut self.output);
        self.flush().await?;
        // The server closes when its walsender is gone: only then is the slot free.
        self.input.clear();
        while self.stream.read_buf(&mut self.input).await.is_ok_and(|count| count > 0) {
            self.input.clear();
        }
        Ok(())
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
