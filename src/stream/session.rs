//! The real broker: tails through the client library, sessions over a connection of our own.

use std::future::{poll_fn, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::{Buf as _, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::broker::{Answer, Broker, BrokerError, Gone, Mark, Session, Tail};
use super::setup;
use super::wire::{self, Incoming, Parser};
use crate::checkpoint::{self, Checkpoint, Writer};
use crate::nats::{self, Connection, NatsError, NatsErrorKind};

/// How long the leader may take to answer.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that are read at once when what was in flight is looked at; each comes with its body, up to a MiB or more.
const READS_AT_ONCE: usize = 16;
/// Bytes read at once; an answer has about a hundred.
const READ_BYTES: usize = 16 * 1024;

/// One stream of a JetStream server or cluster.
#[derive(Debug)]
pub struct JetStream {
    settings: nats::Settings,
    context: jetstream::Context,
    stream: String,
}

impl JetStream {
    /// The stream `stream`: read through `context`, written over connections made as `settings` say.
    #[must_use]
    pub fn new(settings: nats::Settings, context: jetstream::Context, stream: impl Into<String>) -> Self {
        Self { settings, context, stream: stream.into() }
    }

    async fn stream(&self) -> Result<jetstream::stream::Stream, BrokerError> {
        self.context.get_stream(&self.stream).await.map_err(|e| match e.kind() {
            GetStreamErrorKind::JetStream(told) if told.code() == 404 => BrokerError::NoStream,
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => BrokerError::Refused {
                what: format!("{} is no name of a stream", self.stream),
                source: Some(Box::new(e)),
            },
            GetStreamErrorKind::Request | GetStreamErrorKind::JetStream(_) => {
                self.away("does not answer", Some(e.into()))
            }
        })
    }

    async fn read(stream: &jetstream::stream::Stream, sequence: u64) -> Result<Mark, BrokerError> {
        // STREAM.MSG.GET, which the leader answers; a direct get may be answered by a replica that lags.
        match stream.get_raw_message(sequence).await {
            Ok(message) => {
                let header = message.headers.get(checkpoint::HEADER);
                Ok(header.and_then(|h| Checkpoint::parse(h.as_str())).map_or(Mark::Foreign, Mark::Checkpoint))
            }
            Err(e) => match e.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(Mark::Missing),
                RawMessageErrorKind::JetStream(told) if told.code() == 404 => Ok(Mark::Missing),
                RawMessageErrorKind::JetStream(_)
                | RawMessageErrorKind::InvalidSubject
                | RawMessageErrorKind::Other => Err(BrokerError::Away {
                    what: format!("message {sequence} of the stream cannot be read"),
                    source: Some(Box::new(e)),
                }),
            },
        }
    }

    fn away(&self, what: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>) -> BrokerError {
        BrokerError::Away { what: format!("stream {} {what}", self.stream), source }
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
        match timeout(READ_TIMEOUT, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.away("does not answer in time", None)),
        }
    }
}

impl Broker for JetStream {
    type Session = Wire;

    async fn tail(&mut self) -> Result<Tail, BrokerError> {
        let call = async {
            let stream = self.stream().await?;
            let info = stream.cached_info();
            let last_seq = info.state.last_sequence;
            let last = if last_seq == 0 { Mark::Missing } else { Self::read(&stream, last_seq).await? };
            let stream_id = info.config.metadata.get(setup::STREAM_ID).map(|id| id.as_str().into());
            Ok(Tail { stream_id, last_seq, last })
        };
        Box::pin(self.within(call)).await
    }

    async fn mark(&mut self, sequence: u64) -> Result<Mark, BrokerError> {
        let call = async {
            let stream = self.stream().await?;
            Self::read(&stream, sequence).await
        };
        Box::pin(self.within(call)).await
    }

    async fn stranger(&mut self, first: u64, last: u64, writer: &Writer) -> Result<Option<(u64, Mark)>, BrokerError> {
        if first > last {
            return Ok(None);
        }
        let stream = Box::pin(self.within(self.stream())).await?;
        let (this, stream) = (&*self, &stream);
        // One by one they would take as many round trips as there are messages in flight.
        let marks = futures_util::stream::iter(first..=last).map(|sequence| async move {
            Ok::<_, BrokerError>((sequence, Box::pin(this.within(Self::read(stream, sequence))).await?))
        });
        let strange = marks.buffered(READS_AT_ONCE).try_filter(|(_, mark)| ready(mark.is_strange_to(writer)));
        std::pin::pin!(strange).try_next().await
    }

    async fn open(&mut self) -> Result<Wire, BrokerError> {
        let name = format!("figvine {}", self.stream);
        let connection = Box::pin(Connection::open(&self.settings, &name)).await.map_err(|e| {
            let what = e.what.clone();
            if e.kind.is_transient() {
                BrokerError::Away { what, source: Some(Box::new(e)) }
            } else {
                BrokerError::Refused { what, source: Some(Box::new(e)) }
            }
        })?;
        let mut wire = Wire::new(connection);
        let subscribe = format!("SUB {}.* 1\r\n", wire.inbox);
        let written = timeout(READ_TIMEOUT, async {
            wire.connection.socket.write_all(subscribe.as_bytes()).await?;
            wire.connection.socket.flush().await
        });
        match written.await {
            Ok(Ok(())) => Ok(wire),
            Ok(Err(e)) => Err(self.away("cannot be written to", Some(Box::new(e)))),
            Err(_) => Err(self.away("cannot be written to in time", None)),
        }
    }
}

/// A session over a connection of our own.
#[derive(Debug)]
pub struct Wire {
    connection: Connection,
    parser: Parser,
    inbox: String,
    /// Bytes were handed to TLS that may not have left it.
    unflushed: bool,
    scratch: Box<[u8]>,
}

impl Wire {
    fn new(mut connection: Connection) -> Self {
        let parser = Parser::new(std::mem::take(&mut connection.unread));
        let inbox = format!("_INBOX.{}", nuid::next());
        Self { connection, parser, inbox, unflushed: false, scratch: vec![0; READ_BYTES].into_boxed_slice() }
    }

    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut BytesMut,
        answer_when_written: bool,
    ) -> Poll<Result<Option<Answer>, Gone>> {
        loop {
            if let Some(answer) = self.understood(out)? {
                return Poll::Ready(Ok(Some(answer)));
            }
            let mut buffer = ReadBuf::new(&mut self.scratch);
            match Pin::new(&mut self.connection.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(self.gone("hung up", None)));
                }
                Poll::Ready(Ok(())) => {
                    self.parser.unread.extend_from_slice(buffer.filled());
                    continue;
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(self.gone("went away", Some(&e)))),
                Poll::Pending => {}
            }
            // Nothing to hear: the reader's waker is set, now write.
            while !out.is_empty() {
                match Pin::new(&mut self.connection.socket).poll_write(cx, out) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(self.gone("takes nothing more", None))),
                    Poll::Ready(Ok(written)) => {
                        out.advance(written);
                        self.unflushed = true;
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(self.gone("went away", Some(&e)))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.unflushed {
                match Pin::new(&mut self.connection.socket).poll_flush(cx) {
                    Poll::Ready(Ok(())) => self.unflushed = false,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(self.gone("went away", Some(&e)))),
                    Poll::Pending => {}
                }
            }
            return if answer_when_written { Poll::Ready(Ok(None)) } else { Poll::Pending };
        }
    }

    /// The next answer among what was read.
    fn understood(&mut self, out: &mut BytesMut) -> Result<Option<Answer>, Gone> {
        while let Some(frame) = self.parser.next_frame().map_err(|e| Gone::Disconnected(e.to_string()))? {
            match frame {
                Incoming::Message { token: Some(asked), status, body } => {
                    return Ok(Some(Answer { asked, outcome: wire::answer(status, &body) }));
                }
                // `out` ends at a frame's end, wherever it begins.
                Incoming::Ping => out.extend_from_slice(b"PONG\r\n"),
                Incoming::Complaint(words) => {
                    let error = NatsError::from_server(&self.connection.server, &words);
                    return Err(match error.kind {
                        NatsErrorKind::Refused => Gone::Refused(error.what),
                        NatsErrorKind::Unreachable | NatsErrorKind::Protocol => Gone::Disconnected(error.what),
                    });
                }
                Incoming::Info { lame_duck: true } => return Err(self.gone("is about to shut down", None)),
                Incoming::Message { token: None, .. } | Incoming::Info { lame_duck: false } | Incoming::Pong => {}
            }
        }
        Ok(None)
    }

    fn gone(&self, what: &str, error: Option<&io::Error>) -> Gone {
        let reason = error.map(|e| format!(": {e}")).unwrap_or_default();
        Gone::Disconnected(format!("nats server {} {what}{reason}", self.connection.server))
    }
}

impl Session for Wire {
    fn inbox(&self) -> &str {
        &self.inbox
    }

    fn max_payload(&self) -> usize {
        // 1 MiB is the server's default.
        if self.connection.info.max_payload == 0 { 1024 * 1024 } else { self.connection.info.max_payload }
    }

    async fn exchange(&mut self, out: &mut BytesMut) -> Result<Option<Answer>, Gone> {
        let answer_when_written = !out.is_empty();
        poll_fn(|cx| self.poll_exchange(cx, out, answer_when_written)).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::nats::Socket;

    async fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let ours = TcpStream::connect(address).await.expect("connected");
        let (theirs, _) = listener.accept().await.expect("accepted");
        let connection = Connection {
            socket: Socket::Plain(ours),
            info: nats::ServerInfo::default(),
            unread: BytesMut::new(),
            server: "there:4222".into(),
        };
        (Wire::new(connection), theirs)
    }

    #[tokio::test]
    async fn what_is_written_arrives_and_a_ping_is_answered_between_frames() {
        let (mut wire, mut theirs) = pair().await;
        theirs.write_all(b"PING\r\nMSG i.7 1 22\r\n{\"stream\":\"S\",\"seq\":7}\r\n").await.expect("written");
        let mut out = BytesMut::from(&b"frame\r\n"[..]);
        loop {
            if let Some(answer) = wire.exchange(&mut out).await.expect("alive") {
                assert_eq!(answer, Answer { asked: 7, outcome: Ok(7) });
                break;
            }
            assert!(out.is_empty());
        }
        while !out.is_empty() {
            assert_eq!(wire.exchange(&mut out).await.expect("alive"), None);
        }
        let mut heard = vec![0; 13];
        theirs.read_exact(&mut heard).await.expect("read");
        assert_eq!(heard, b"frame\r\nPONG\r\n"[..13].to_vec());
    }

    #[tokio::test]
    async fn each_end_of_a_connection_ends_the_session() {
        for (words, gone) in [
            ("", Gone::Disconnected("nats server there:4222 hung up".into())),
            ("INFO {\"ldm\":true}\r\n", Gone::Disconnected("nats server there:4222 is about to shut down".into())),
            ("-ERR 'Stale Connection'\r\n", Gone::Disconnected("nats server there:4222 says: Stale Connection".into())),
            (
                "-ERR 'Maximum Payload Violation'\r\n",
                Gone::Refused("nats server there:4222 says: Maximum Payload Violation".into()),
            ),
            ("nonsense\r\n", Gone::Disconnected(wire::WireError::Operation.to_string())),
        ] {
            let (mut wire, mut theirs) = pair().await;
            theirs.write_all(words.as_bytes()).await.expect("written");
            drop(theirs);
            assert_eq!(wire.exchange(&mut BytesMut::new()).await, Err(gone));
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_read_still_gets_heard() {
        let (mut wire, mut theirs) = pair().await;
        let mut out = BytesMut::from(&vec![b'x'; 64 << 20][..]);
        theirs.write_all(b"HMSG i.9 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n").await.expect("written");
        let answer = wire.exchange(&mut out).await.expect("alive").expect("an answer");
        assert_eq!((answer.asked, answer.outcome.expect_err("nobody").code), (9, 503));
        assert!(!out.is_empty());
    }
}
