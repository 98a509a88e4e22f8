//! Publishes events so that each is stored once and in order.
//!
//! Every message says which sequence the stream must end at for it to be stored.
//! We are the only writer, so we know that in advance and can have thousands in
//! flight: a message that is lost makes all behind it fail, instead of leaving a gap.
//! After *any* doubt there is one path: the session is dropped, the tail is read
//! from the leader, and a new session goes on behind it. No message is ever tried
//! again by itself.
//!
//! ```text
//!            +--------------------------------------------------------------+
//!            v                                                              |
//!   open -> session: send within the window, hear answers -> doubt -> back off, read the tail
//!                       |                                                   |
//!                       v                                                   v
//!                     done                             stream lost, data lost, or fenced: stop
//! ```
//!
//! Two things depend on there being one writer, and are held against others as far
//! as the protocol allows: a session's first message, and the first behind a pause, go
//! alone, so that whoever wrote meanwhile is found before anything can be
//! interleaved; and what was in flight when a doubt arose is looked at, to see who wrote it.
//!
//! An alien message in the middle of a flight takes the place of one of ours, and those
//! behind it still fit. Therefore every message asks for an answer: the refusal of the one
//! whose place was taken is all that tells.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::broker::{Answer, Broker, BrokerError, Gone, Mark, Session, Tail};
use super::window::{Limits, TooLarge, Window};
use super::wire::Refusal;
use super::{Settings, Stored};
use crate::checkpoint::Writer;
use crate::event::Events;
use crate::telemetry::{Phase, SourceTelemetry};

/// Frames are gathered up to this size before they are written.
const WRITE_BYTES: usize = 256 * 1024;
/// After a pause of this length the next message goes alone.
const ALONE_AFTER: Duration = Duration::from_millis(100);
/// The shortest and the longest pause before a tail is read.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The pause when the stream or the server is full.
const PAUSE_FULL: Duration = Duration::from_secs(5);
/// A broker that has just elected a leader or just started may not know its own streams yet:
/// a loss must be seen this often, with this pause, to be believed.
const LOSS_SEEN: u32 = 4;
const LOSS_PAUSE: Duration = Duration::from_millis(500);

/// Why a chain ends for good.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The stream is gone, or another one stands under its name.
    #[error("stream {stream} is gone or was made anew")]
    StreamLost {
        /// Its name.
        stream: String,
    },
    /// The stream ends before what it had acknowledged.
    #[error("stream {stream} lost what it had acknowledged: it ends at {last_seq}, {acked} was stored")]
    LostAcknowledged {
        /// Its name.
        stream: String,
        /// What was acknowledged.
        acked: u64,
        /// Where it ends.
        last_seq: u64,
    },
    /// Its last message was removed, and no checkpoint stands for it.
    #[error("the last message of stream {stream}, {last_seq}, was removed, and no checkpoint tells where to go on")]
    TailGone {
        /// Its name.
        stream: String,
        /// Where it ends.
        last_seq: u64,
    },
    /// Its last message is none of ours.
    #[error("the last message of stream {stream}, {last_seq}, was not written by figvine")]
    Alien {
        /// Its name.
        stream: String,
        /// Where it ends.
        last_seq: u64,
    },
    /// Another writer is active.
    #[error("another writer is active on stream {stream}: message {sequence} is not ours")]
    Fenced {
        /// Its name.
        stream: String,
        /// The message by which it was found.
        sequence: u64,
    },
    /// The run before us was killed with messages on their way, and the server took them in after we had looked at the
    /// stream's end. Nothing of ours is stored: whoever begins anew begins behind them.
    #[error("stream {stream} took in what an earlier run had sent, up to message {sequence}, while this one began")]
    Late {
        /// Its name.
        stream: String,
        /// Where it ends by now.
        sequence: u64,
    },
    /// A program that is no figvine wrote while we did. Its message may have taken the place of one of ours,
    /// with what follows stored behind it: a chain finds that only afterwards.
    #[error(
        "another writer is active on stream {stream}: message {sequence} was not written by figvine, \
         and may stand in the place of a change"
    )]
    Displaced {
        /// Its name.
        stream: String,
        /// The alien message.
        sequence: u64,
    },
    /// The broker refuses what we publish, and will again.
    #[error("stream {stream} refuses us: {description}")]
    Refused {
        /// Its name.
        stream: String,
        /// In the broker's words.
        description: String,
    },
    /// An event is larger than the broker takes.
    #[error("an event for stream {stream} has {size} bytes, the nats server takes {limit}")]
    TooLarge {
        /// Its name.
        stream: String,
        /// Headers and body, in bytes.
        size: usize,
        /// `max_payload` of the server.
        limit: usize,
    },
}

impl ChainError {
    /// What to do; sentences.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::StreamLost { .. } => {
                "Find out who removed the stream. To begin anew, say `figvine position set --source NAME none --force`; where the source still holds its log, `on_stream_loss: reread` reads it again."
            }
            Self::LostAcknowledged { .. } => {
                "JetStream acknowledges before it syncs to disk. Set `on_stream_loss: reread` to read again what the source still holds."
            }
            Self::TailGone { .. } => "Give the stream a longer max_age, and delete the source's slot to begin anew.",
            Self::Alien { .. } => {
                "Give the source a stream of its own. With `adopt: true` one is taken over that figvine has never written to."
            }
            Self::Fenced { .. } | Self::Late { .. } => {
                "Stop the other one: only one figvine, and no other publisher, may write to a source's stream."
            }
            Self::Displaced { .. } => {
                "Stop the other one: only figvine may write to a source's stream. Then go on from the kept checkpoint, so that what was stored behind it comes again: `figvine position show` prints it, `figvine position set` takes it."
            }
            Self::Refused { .. } => {
                "Compare the stream's limits and the account's permissions with the words of the server."
            }
            Self::TooLarge { .. } => "Raise max_payload of the nats server, or leave the column out.",
        }
    }
}

/// Feeds one stream.
#[derive(Debug)]
pub struct Publisher<B> {
    broker: B,
    link: Link,
    window: Window,
}

/// What stays the same over all sessions.
#[derive(Debug)]
struct Link {
    stream: String,
    stream_id: Option<Box<str>>,
    /// Who wrote the message that we began behind.
    predecessor: Option<Writer>,
    writer: Writer,
    /// Where the stream ended when we began.
    base: u64,
    ack_timeout: Duration,
    telemetry: Arc<SourceTelemetry>,
    /// Failures since the last progress.
    failures: u32,
    random: u64,
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    /// All is stored and no more comes.
    Done,
    /// What is stored is not known.
    Doubt(Doubt),
    /// For good.
    Fatal(ChainError),
}

#[derive(Debug)]
struct Doubt {
    /// For the metric.
    reason: &'static str,
    /// For the log.
    what: String,
    /// The stream or the server is full.
    slow: bool,
}

impl Doubt {
    fn new(reason: &'static str, what: impl Into<String>) -> Self {
        Self { reason, what: what.into(), slow: false }
    }
}

impl<B: Broker> Publisher<B> {
    /// Goes on behind `tail`, the one that [`super::resume`] decided by, as `writer`: the one that stands
    /// in the events' checkpoints.
    pub fn new(broker: B, settings: &Settings, writer: Writer, tail: &Tail, telemetry: Arc<SourceTelemetry>) -> Self {
        let limits = Limits { messages: settings.window_messages.max(1), bytes: settings.window_bytes.max(1) };
        // The pauses of two writers must differ, and a test's must repeat: the writer's name gives them.
        let seed = writer
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let link = Link {
            stream: settings.name.clone(),
            stream_id: tail.stream_id.clone(),
            predecessor: match &tail.last {
                Mark::Checkpoint(checkpoint) => Some(checkpoint.writer.clone()),
                Mark::Missing | Mark::Foreign => None,
            },
            writer,
            base: tail.last_seq,
            ack_timeout: settings.ack_timeout,
            telemetry,
            failures: 0,
            random: seed | 1,
        };
        Self { broker, link, window: Window::new(tail.last_seq, limits) }
    }

    /// Publishes what comes until the channel is closed and all of it is stored. Tells by `stored` how far
    /// the stream is: the sequence of a batch's last event and the position behind the batch, both
    /// or neither; never before the broker says so.
    ///
    /// A broker that is away is waited for, for ever. Dropping the future loses nothing that `stored` told.
    ///
    /// # Errors
    /// Those that waiting does not mend.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Events>,
        stored: watch::Sender<Stored>,
    ) -> Result<(), ChainError> {
        loop {
            let end = self.session(&mut events, &stored).await;
            let doubt = match end {
                End::Done => return Ok(()),
                End::Fatal(error) => return Err(error),
                End::Doubt(doubt) => doubt,
            };
            self.recover(doubt, &stored).await?;
        }
    }

    /// Sends and hears until the end or the first doubt.
    async fn session(&mut self, events: &mut mpsc::Receiver<Events>, stored: &watch::Sender<Stored>) -> End {
        let Self { broker, link, window } = self;
        let mut session = match broker.open().await {
            Ok(session) => session,
            Err(error) => return link.failed(error),
        };
        let inbox = session.inbox().to_owned();
        let max_payload = session.max_payload();
        let mut out = BytesMut::with_capacity(2 * WRITE_BYTES);
        let mut opened = false;
        let mut alone = true;
        let mut closed = false;
        let mut heard = Instant::now();
        link.telemetry.phase(Phase::Streaming);
        loop {
            if window.in_flight() == 0 && heard.elapsed() >= ALONE_AFTER {
                alone = true;
            }
            while out.len() < WRITE_BYTES && window.has_room() && !(alone && window.in_flight() > 0) {
                if window.pending() <= 1 && !closed {
                    match events.try_recv() {
                        Ok(more) => {
                            tell(stored, window.push(more));
                            continue;
                        }
                        Err(mpsc::error::TryRecvError::Empty) => {}
                        Err(mpsc::error::TryRecvError::Disconnected) => closed = true,
                    }
                }
                let pending = window.pending();
                if pending == 0 {
                    break;
                }
                let stream = (!opened).then_some(link.stream.as_str());
                if let Err(TooLarge { size }) = window.send(&inbox, stream, max_payload, &mut out) {
                    return End::Fatal(ChainError::TooLarge { stream: link.stream.clone(), size, limit: max_payload });
                }
                opened = true;
            }
            if closed && window.is_settled() {
                return End::Done;
            }
            let deadline = window.waiting_since().map(|since| since.max(heard) + link.ack_timeout);
            let hungry = !closed && window.pending() == 0 && window.has_room() && !(alone && window.in_flight() > 0);
            tokio::select! {
                biased;
                // Answers first: they make room and tell of the end of a session.
                outcome = session.exchange(&mut out) => match outcome {
                    Ok(None) => {}
                    Ok(Some(answer)) => {
                        if let Err(end) = link.hear(window, answer, stored) {
                            return end;
                        }
                        alone = false;
                        heard = Instant::now();
                    }
                    Err(Gone::Disconnected(what)) => return End::Doubt(Doubt::new("disconnected", what)),
                    Err(Gone::Refused(description)) => {
                        return End::Fatal(ChainError::Refused { stream: link.stream.clone(), description });
                    }
                },
                // Then patience, which must not be outrun by new events.
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return End::Doubt(Doubt::new("timeout", "an answer did not come in time"));
                }
                // New events last: there is no hurry to take what cannot be sent.
                more = events.recv(), if hungry => match more {
                    Some(more) => tell(stored, window.push(more)),
                    None => closed = true,
                },
            }
        }
    }

    /// Finds out what is stored, and begins anew behind it.
    async fn recover(&mut self, doubt: Doubt, stored: &watch::Sender<Stored>) -> Result<(), ChainError> {
        let Self { broker, link, window } = self;
        let mut doubt = doubt;
        let mut losses = 0;
        link.telemetry.resync(doubt.reason);
        tracing::warn!(stream = %link.stream, reason = doubt.reason, "what is stored is in doubt: {}", doubt.what);
        loop {
            link.telemetry.phase(Phase::Waiting(doubt.what.clone()));
            let pause = link.pause(doubt.slow);
            sleep(if losses > 0 { pause.max(LOSS_PAUSE) } else { pause }).await;
            let verdict = match broker.tail().await {
                Ok(tail) => link.judge(window, &tail).map(|()| tail.last_seq),
                Err(BrokerError::NoStream) => Err(ChainError::StreamLost { stream: link.stream.clone() }),
                Err(error) => match link.failed(error) {
                    End::Doubt(next) => {
                        doubt = Doubt { slow: doubt.slow, ..next };
                        continue;
                    }
                    End::Fatal(error) => return Err(error),
                    End::Done => return Ok(()),
                },
            };
            let last_seq = match verdict {
                Ok(last_seq) => last_seq,
                Err(error @ (ChainError::StreamLost { .. } | ChainError::LostAcknowledged { .. })) => {
                    losses += 1;
                    if losses >= LOSS_SEEN {
                        return Err(error);
                    }
                    doubt = Doubt::new("loss", error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            match broker.stranger(window.acked() + 1, last_seq, &link.writer).await {
                Ok(None) => {}
                Ok(Some((sequence, mark))) => return Err(link.fenced(sequence, &mark)),
                Err(_) => {
                    doubt = Doubt::new("disconnected", "what was in flight cannot be read");
                    continue;
                }
            }
            if last_seq > window.acked() {
                link.failures = 0;
            }
            tell(stored, window.rewind(last_seq));
            return Ok(());
        }
    }
}

impl Link {
    /// Takes an answer.
    fn hear(&mut self, window: &mut Window, answer: Answer, stored: &watch::Sender<Stored>) -> Result<(), End> {
        match answer.outcome {
            Ok(sequence) if sequence == answer.asked => {
                let Some((took, news)) = window.answered(sequence) else {
                    return Err(End::Doubt(Doubt::new("order", "answers come out of order")));
                };
                self.failures = 0;
                self.telemetry.ack_seconds(took.as_secs_f64());
                tell(stored, news);
                Ok(())
            }
            Ok(_) => Err(End::Doubt(Doubt::new("order", "a message was stored at another place than expected"))),
            Err(refusal) => Err(self.refused(answer.asked, refusal)),
        }
    }

    /// What a refusal means. Codes: nats-server, `server/errors.json`.
    fn refused(&self, asked: u64, refusal: Refusal) -> End {
        let Refusal { code, err_code, description } = refusal;
        let mut doubt = match (err_code, code) {
            // Message larger than the stream's limit; expected stream does not match; stream sealed.
            (10054 | 10060 | 10109, _) => {
                return End::Fatal(ChainError::Refused { stream: self.stream.clone(), description });
            }
            // Stream full; storage or other resources exhausted.
            (10077 | 10047 | 10023, _) => Doubt { slow: true, ..Doubt::new("full", description) },
            // Wrong last sequence, in two forms.
            (10071 | 10164, _) => Doubt::new("sequence", description),
            // Too many requests.
            (10167, _) => Doubt::new("busy", description),
            (0, 503) => Doubt::new("no_responders", description),
            _ => Doubt::new("refused", description),
        };
        doubt.what = format!("message {asked}: {}", doubt.what);
        End::Doubt(doubt)
    }

    /// What a failing broker means.
    fn failed(&self, error: BrokerError) -> End {
        match error {
            BrokerError::Away { .. } => End::Doubt(Doubt::new("away", error.to_string())),
            // The tail will tell whether that is so.
            BrokerError::NoStream => End::Doubt(Doubt::new("no_stream", error.to_string())),
            BrokerError::Refused { what, .. } => {
                End::Fatal(ChainError::Refused { stream: self.stream.clone(), description: what })
            }
        }
    }

    /// Whether we may go on behind a tail.
    fn judge(&self, window: &Window, tail: &Tail) -> Result<(), ChainError> {
        let stream = || self.stream.clone();
        let last_seq = tail.last_seq;
        if tail.stream_id != self.stream_id {
            return Err(ChainError::StreamLost { stream: stream() });
        }
        if last_seq < window.acked() {
            return Err(ChainError::LostAcknowledged { stream: stream(), acked: window.acked(), last_seq });
        }
        // Nothing of ours is stored, and who wrote is who had written what we began behind.
        if window.acked() == self.base
            && last_seq > self.base
            && let Mark::Checkpoint(checkpoint) = &tail.last
            && self.predecessor.as_ref() == Some(&checkpoint.writer)
        {
            return Err(ChainError::Late { stream: stream(), sequence: last_seq });
        }
        if last_seq > window.highest() {
            return Err(self.fenced(last_seq, &tail.last));
        }
        match &tail.last {
            // What stood there when we began was written by an earlier run.
            _ if last_seq == self.base => Ok(()),
            // Removed by age: the count fits, so it was ours.
            Mark::Missing => Ok(()),
            Mark::Checkpoint(checkpoint) if checkpoint.writer == self.writer => Ok(()),
            mark @ (Mark::Checkpoint(_) | Mark::Foreign) => Err(self.fenced(last_seq, mark)),
        }
    }

    /// Another writer was found by its message. Another figvine's is the very event that we would have put
    /// there, since it went on behind the same tail; an alien's is none.
    fn fenced(&self, sequence: u64, mark: &Mark) -> ChainError {
        let stream = self.stream.clone();
        match mark {
            Mark::Foreign => ChainError::Displaced { stream, sequence },
            Mark::Checkpoint(_) | Mark::Missing => ChainError::Fenced { stream, sequence },
        }
    }

    /// How long to wait: anything up to a bound that doubles with each failure.
    fn pause(&mut self, slow: bool) -> Duration {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let bound = PAUSE_MAX.min(PAUSE_MIN * (1 << self.failures.min(10)));
        self.failures = self.failures.saturating_add(1);
        if slow {
            return PAUSE_FULL;
        }
        let bound = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.random % bound)
    }
}

fn tell(stored: &watch::Sender<Stored>, news: Option<Stored>) {
    if let Some(news) = news {
        stored.send_replace(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::telemetry::Telemetry;

    fn link() -> Link {
        Link {
            stream: "S".into(),
            stream_id: Some("id".into()),
            predecessor: None,
            writer: Writer::fresh(),
            base: 10,
            ack_timeout: Duration::from_secs(2),
            telemetry: Telemetry::new().source("s"),
            failures: 0,
            random: 1,
        }
    }

    fn by(writer: &Writer) -> Mark {
        Mark::Checkpoint(Checkpoint::parse(&format!("1 {} 7", writer.as_str())).expect("valid"))
    }

    fn tail(last_seq: u64, last: Mark) -> Tail {
        Tail { stream_id: Some("id".into()), last_seq, last }
    }

    fn window() -> Window {
        let mut window = Window::new(10, Limits { messages: 10, bytes: 1000 });
        let at = crate::event::EventAt { subject: 0, headers: 1, body: 1, end: 2 };
        window.push(Events { bytes: b"s1s2s3".to_vec(), list: vec![at; 3], end: None, reads: None });
        let mut out = BytesMut::new();
        for _ in 0..3 {
            window.send("i", None, 1000, &mut out).expect("small");
        }
        window.rewind(11);
        window
    }

    #[test]
    fn a_tail_of_ours_is_gone_on_behind() {
        let link = link();
        for last_seq in [11, 12, 13] {
            assert!(link.judge(&window(), &tail(last_seq, by(&link.writer))).is_ok());
            assert!(link.judge(&window(), &tail(last_seq, Mark::Missing)).is_ok());
        }
        let window = Window::new(10, Limits { messages: 1, bytes: 1 });
        for last in [by(&Writer::fresh()), Mark::Foreign, Mark::Missing] {
            assert!(link.judge(&window, &tail(10, last)).is_ok());
        }
    }

    #[test]
    fn a_tail_that_another_wrote_fences_us() {
        let link = link();
        let error = link.judge(&window(), &tail(12, by(&Writer::fresh()))).expect_err("fenced");
        assert!(matches!(error, ChainError::Fenced { sequence: 12, .. }));
        let error = link.judge(&window(), &tail(12, Mark::Foreign)).expect_err("fenced");
        assert!(matches!(error, ChainError::Displaced { sequence: 12, .. }));
        let error = link.judge(&window(), &tail(14, Mark::Missing)).expect_err("fenced");
        assert!(matches!(error, ChainError::Fenced { sequence: 14, .. }));
    }

    #[test]
    fn what_the_run_before_had_on_its_way_is_no_other_writer() {
        let before = Writer::fresh();
        let link = Link { predecessor: Some(before.clone()), ..link() };
        let late = tail(12, by(&before));
        let window = Window::new(link.base, Limits { messages: 1, bytes: 1 });
        let error = link.judge(&window, &late).expect_err("late");
        assert!(matches!(error, ChainError::Late { sequence: 12, .. }));
        assert!(
            link.judge(&window, &tail(12, by(&Writer::fresh()))).is_err_and(|e| matches!(e, ChainError::Fenced { .. }))
        );
        // Behind messages of ours it is alive.
        let error = link.judge(&super::tests::window(), &tail(15, by(&before))).expect_err("fenced");
        assert!(matches!(error, ChainError::Fenced { sequence: 15, .. }));
    }

    #[test]
    fn a_tail_before_what_was_acknowledged_is_a_loss_and_another_mark_another_stream() {
        let link = link();
        let error = link.judge(&window(), &tail(10, by(&link.writer))).expect_err("lost");
        assert!(matches!(error, ChainError::LostAcknowledged { acked: 11, last_seq: 10, .. }));
        let other = Tail { stream_id: None, ..tail(12, by(&link.writer)) };
        assert!(matches!(link.judge(&window(), &other), Err(ChainError::StreamLost { .. })));
    }

    #[test]
    fn a_message_stored_elsewhere_than_expected_is_a_doubt() {
        let (stored, _watching) = watch::channel(Stored::default());
        let answer = Answer { asked: 12, outcome: Ok(13) };
        let end = link().hear(&mut window(), answer, &stored).expect_err("a doubt");
        assert!(matches!(end, End::Doubt(Doubt { reason: "order", .. })));
    }

    #[test]
    fn each_refusal_has_its_meaning() {
        let meaning = |code, err_code| match link().refused(7, Refusal { code, err_code, description: "words".into() })
        {
            End::Doubt(doubt) => (doubt.reason, doubt.slow),
            End::Fatal(error) => {
                assert_eq!(error.to_string(), "stream S refuses us: words");
                ("fatal", false)
            }
            End::Done => ("done", false),
        };
        assert_eq!(meaning(400, 10071), ("sequence", false));
        assert_eq!(meaning(503, 10077), ("full", true));
        assert_eq!(meaning(429, 10167), ("busy", false));
        assert_eq!(meaning(503, 0), ("no_responders", false));
        assert_eq!(meaning(500, 10001), ("refused", false));
        for err_code in [10054, 10060, 10109] {
            assert_eq!(meaning(400, err_code).0, "fatal");
        }
    }

    #[test]
    fn pauses_grow_to_a_second_and_are_longer_when_the_stream_is_full() {
        let mut link = link();
        for failure in 0..30 {
            let bound = PAUSE_MAX.min(PAUSE_MIN * (1 << failure.min(10)));
            assert!(link.pause(false) < bound);
        }
        assert_eq!(link.pause(true), PAUSE_FULL);
    }
}
