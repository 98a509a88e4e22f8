//! A broker in memory that fails on purpose, with the rules of a JetStream stream.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use figvine::checkpoint::Checkpoint;
use figvine::stream::wire::Refusal;
use figvine::stream::{Answer, Broker, BrokerError, Gone, Mark, Session, Tail};
use tokio::time::{Instant, sleep, sleep_until};

/// A generator that repeats itself for the same seed (xorshift64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Neighbouring seeds must not begin alike.
        Self((seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// From 0 up to `bound`, which is left out.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in `n`.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Which event; `None` for what an alien wrote.
    pub(crate) event: Option<u64>,
    pub(crate) checkpoint: Option<Checkpoint>,
}

#[derive(Debug, Clone)]
struct Frame {
    session: u64,
    expected: u64,
    asked: Option<u64>,
    message: Message,
}

/// Which faults there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// How many are left.
    pub(crate) left: u64,
    /// The broker loses what it had acknowledged, once.
    pub(crate) loss: bool,
    /// A second bridge writes the same events, under this name.
    pub(crate) second: Option<String>,
    /// An alien writes between our messages, once.
    pub(crate) alien: bool,
    /// The stream is made anew, once.
    pub(crate) replaced: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) stream: Vec<Message>,
    pub(crate) stream_id: &'static str,
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    /// How many messages were there before we began.
    pub(crate) base: u64,
    /// The highest sequence whose answer was heard.
    pub(crate) heard: u64,
    /// The highest sequence that was shown to anybody: its answer is on its way at least.
    answered: u64,
    transit: VecDeque<(Instant, Frame)>,
    sessions: u64,
    ack_timeout: Duration,
    answers: Vec<(u64, Instant, Answer)>,
}

/// The broker as the chain sees it.
#[derive(Debug, Clone)]
pub(crate) struct Faulty(Arc<Mutex<World>>);

/// One session.
#[derive(Debug)]
pub(crate) struct FaultySession {
    world: Arc<Mutex<World>>,
    id: u64,
    inbox: String,
    received: Vec<u8>,
    answers: VecDeque<(Instant, Answer)>,
    dead: bool,
}

impl Faulty {
    pub(crate) fn new(before: Vec<Message>, random: Random, faults: Faults, ack_timeout: Duration) -> Self {
        let base = before.len() as u64;
        Self(Arc::new(Mutex::new(World {
            stream: before,
            stream_id: "first",
            random,
            faults,
            base,
            heard: base,
            answered: base,
            transit: VecDeque::new(),
            sessions: 0,
            ack_timeout,
            answers: Vec::new(),
        })))
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// Waits for what makes a call slow, and says whether it fails.
    async fn call(&self) -> Result<(), BrokerError> {
        let (wait, fails) = {
            let mut world = self.world();
            let fails = world.fault(6);
            (Duration::from_micros(world.random.below(3000)), fails)
        };
        sleep(wait).await;
        self.world().arrivals();
        if fails { Err(BrokerError::Away { what: "the model is away".into(), source: None }) } else { Ok(()) }
    }
}

impl World {
    fn fault(&mut self, once_in: u64) -> bool {
        let happens = self.faults.left > 0 && self.random.once_in(once_in);
        self.faults.left -= u64::from(happens);
        happens
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.stream.len() as u64
    }

    fn mark(&self, sequence: u64) -> Mark {
        match sequence.checked_sub(1).and_then(|at| self.stream.get(usize::try_from(at).unwrap())) {
            None => Mark::Missing,
            Some(Message { checkpoint: None, .. }) => Mark::Foreign,
            Some(Message { checkpoint: Some(checkpoint), .. }) => Mark::Checkpoint(checkpoint.clone()),
        }
    }

    /// Takes in what was still on its way when its session ended.
    fn arrivals(&mut self) {
        let now = Instant::now();
        while self.transit.front().is_some_and(|(due, _)| *due <= now) {
            let (_, frame) = self.transit.pop_front().unwrap();
            let _ = self.store(&frame);
        }
    }

    fn store(&mut self, frame: &Frame) -> Result<u64, Refusal> {
        if frame.expected != self.last_seq() {
            return Err(refusal(400, 10071, "wrong last sequence"));
        }
        self.stream.push(frame.message.clone());
        Ok(self.last_seq())
    }

    fn truncate(&mut self, sequence: u64) {
        self.stream.truncate(usize::try_from(sequence).unwrap());
    }

    /// A frame reaches the broker; false when its session ends here.
    fn arrive(&mut self, frame: &Frame) -> bool {
        self.arrivals();
        self.others_write();
        if self.faults.loss && self.heard > self.base && self.random.once_in(10) {
            self.faults.loss = false;
            let lost = 1 + self.random.below(self.heard - self.base);
            let left = self.heard - lost;
            self.truncate(left);
        }
        if self.faults.replaced && self.heard > self.base && self.random.once_in(10) {
            self.faults.replaced = false;
            self.stream.clear();
            self.stream_id = "second";
        }
        let mut delay = Duration::from_micros(self.random.below(500));
        let mut answers = true;
        if self.fault(40) {
            match self.random.below(6) {
                0 => {
                    let (code, err_code) = [(503, 10077), (429, 10167), (503, 0), (500, 10049)]
                        [usize::try_from(self.random.below(4)).unwrap()];
                    self.answer(frame, delay, Err(refusal(code, err_code, "the model refuses")));
                    return true;
                }
                1 => answers = false,
                2 => delay += self.ack_timeout * 2,
                3 => return false,
                4 => {
                    // What was not answered may be lost with its leader.
                    let unanswered = self.last_seq().saturating_sub(self.answered);
                    let lost = self.random.below(unanswered + 1);
                    let left = self.last_seq() - lost;
                    self.truncate(left);
                }
                _ => {
                    // Slow: it arrives when its session may long be gone.
                    let due = Instant::now() + Duration::from_millis(self.random.below(5000));
                    let due = self.transit.back().map_or(due, |(last, _)| due.max(*last));
                    self.transit.push_back((due, frame.clone()));
                    return true;
                }
            }
        }
        let outcome = self.store(frame);
        if answers {
            self.answer(frame, delay, outcome);
        }
        true
    }

    fn answer(&mut self, frame: &Frame, delay: Duration, outcome: Result<u64, Refusal>) {
        let Some(asked) = frame.asked else { return };
        if let Ok(sequence) = outcome {
            self.answered = self.answered.max(sequence);
        }
        self.answers.push((frame.session, Instant::now() + delay, Answer { asked, outcome }));
    }

    fn others_write(&mut self) {
        if self.faults.alien && self.heard > self.base && self.random.once_in(10) {
            self.faults.alien = false;
            for _ in 0..=self.random.below(2) {
                self.stream.push(Message { event: None, checkpoint: None });
            }
        }
        if let Some(writer) = self.faults.second.clone()
            && self.fault(20)
        {
            for _ in 0..=self.random.below(3) {
                let event = self.last_seq() - self.base + 1;
                let checkpoint = Checkpoint::parse(&format!("1 {writer} {event}+0"));
                self.stream.push(Message { event: Some(event), checkpoint });
            }
        }
    }
}

fn refusal(code: u16, err_code: u32, description: &str) -> Refusal {
    Refusal { code, err_code, description: description.into() }
}

impl Broker for Faulty {
    type Session = FaultySession;

    async fn tail(&mut self) -> Result<Tail, BrokerError> {
        self.call().await?;
        let mut world = self.world();
        let last_seq = world.last_seq();
        // A leader shows what is committed, and that outlives it.
        world.answered = world.answered.max(last_seq);
        Ok(Tail { stream_id: Some(world.stream_id.into()), last_seq, last: world.mark(last_seq) })
    }

    async fn mark(&mut self, sequence: u64) -> Result<Mark, BrokerError> {
        self.call().await?;
        Ok(self.world().mark(sequence))
    }

    async fn open(&mut self) -> Result<FaultySession, BrokerError> {
        self.call().await?;
        let mut world = self.world();
        world.sessions += 1;
        let id = world.sessions;
        drop(world);
        Ok(FaultySession {
            world: Arc::clone(&self.0),
            id,
            inbox: format!("_INBOX.{id}"),
            received: Vec::new(),
            answers: VecDeque::new(),
            dead: false,
        })
    }
}

impl FaultySession {
    /// Takes the frames that have come whole.
    fn take(&mut self) {
        while let Some((frame, size)) = parse(&self.received, self.id) {
            self.received.drain(..size);
            let mut world = self.world.lock().unwrap();
            self.dead |= !world.arrive(&frame);
            for (session, due, answer) in world.answers.drain(..) {
                if session == self.id {
                    let due = self.answers.back().map_or(due, |(last, _)| due.max(*last));
                    self.answers.push_back((due, answer));
                }
            }
            if self.dead {
                return;
            }
        }
    }

    fn heard(&mut self) -> Answer {
        let (_, answer) = self.answers.pop_front().unwrap();
        if let Ok(sequence) = answer.outcome {
            let mut world = self.world.lock().unwrap();
            world.heard = world.heard.max(sequence);
        }
        answer
    }
}

impl Session for FaultySession {
    fn inbox(&self) -> &str {
        &self.inbox
    }

    fn max_payload(&self) -> usize {
        1024
    }

    async fn exchange(&mut self, out: &mut BytesMut) -> Result<Option<Answer>, Gone> {
        if self.answers.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            return Ok(Some(self.heard()));
        }
        if !out.is_empty() && !self.dead {
            // Frames are cut anywhere.
            while !out.is_empty() {
                let most = out.len() as u64;
                let some = usize::try_from(1 + self.world.lock().unwrap().random.below(most)).unwrap();
                self.received.extend_from_slice(&out[..some]);
                out.advance(some);
            }
            self.take();
            if !self.dead {
                return Ok(None);
            }
        }
        match self.answers.front() {
            Some((due, _)) => {
                sleep_until(*due).await;
                Ok(Some(self.heard()))
            }
            None if self.dead => Err(Gone::Disconnected("the model hung up".into())),
            None => pending().await,
        }
    }
}

/// Reads one `HPUB`, as a server does, and its size.
fn parse(bytes: &[u8], session: u64) -> Option<(Frame, usize)> {
    let end = bytes.windows(2).position(|w| w == b"\r\n")?;
    let line = std::str::from_utf8(&bytes[..end]).unwrap();
    let fields: Vec<_> = line.split(' ').collect();
    assert_eq!(fields[0], "HPUB", "only publishes are expected");
    let numbers = &fields[fields.len() - 2..];
    let (headers, all): (usize, usize) = (numbers[0].parse().unwrap(), numbers[1].parse().unwrap());
    let reply = (fields.len() == 5).then(|| fields[2]);
    let size = end + 2 + all + 2;
    if bytes.len() < size {
        return None;
    }
    let text = std::str::from_utf8(&bytes[end + 2..end + 2 + headers]).unwrap();
    let body = std::str::from_utf8(&bytes[end + 2 + headers..end + 2 + all]).unwrap();
    assert!(text.starts_with("NATS/1.0\r\n") && text.ends_with("\r\n\r\n"), "{text:?}");
    assert_eq!(&bytes[size - 2..size], b"\r\n");
    let header = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    assert!(header("Nats-Expected-Stream").is_none_or(|stream| stream == "S"));
    let message = Message {
        event: Some(body.parse().unwrap()),
        checkpoint: Some(header("Figvine-Checkpoint").and_then(Checkpoint::parse).unwrap()),
    };
    let expected = header("Nats-Expected-Last-Sequence").unwrap().parse().unwrap();
    let asked = reply.map(|reply| {
        let (inbox, token) = reply.rsplit_once('.').unwrap();
        assert_eq!(inbox, format!("_INBOX.{session}"));
        token.parse().unwrap()
    });
    Some((Frame { session, expected, asked, message }, size))
}
