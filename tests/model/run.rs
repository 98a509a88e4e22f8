//! One run: a source of numbered events, the chain, the broker; and what must hold.

use std::sync::Arc;
use std::time::Duration;

use figvine::checkpoint::{Checkpoint, Writer};
use figvine::event::{EventAt, Events};
use figvine::stream::{Broker, ChainError, OnLoss, Publisher, Settings, Stored};
use figvine::telemetry::Telemetry;
use figvine_change::Position;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::broker::{Faults, Faulty, Message, Random};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Refusals, lost and late answers, dropped connections, new leaders, late frames.
    Faults,
    /// The same, and once the stream loses what it had acknowledged.
    Loss,
    /// The same, and a second bridge writes the same events.
    SecondBridge,
    /// An alien writes while nothing is in flight.
    AlienInAPause,
    /// An alien writes while much is in flight.
    AlienBetween,
    /// The stream is deleted and made anew.
    StreamReplaced,
}

/// Runs a scenario with seeds counted up.
pub(crate) async fn runs(scenario: Scenario, count: u64) {
    for seed in seeds(count) {
        // The runtime's clock stands still but for sleeping: an hour is soon over.
        let outcome = timeout(Duration::from_secs(3600), Box::pin(run(scenario, seed))).await;
        if let Err(what) = outcome.unwrap_or_else(|_| Err("it never ends".into())) {
            panic!("{scenario:?}: {what}; repeat with FIGVINE_MODEL_SEED={seed}");
        }
    }
}

/// The seeds of so many runs, or those that were asked for.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("FIGVINE_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FIGVINE_MODEL_RUNS").unwrap_or(count),
    }
}

fn writer(name: &str) -> Writer {
    Checkpoint::parse(&format!("1 {name} 0")).expect("a checkpoint").writer
}

/// Events `first..first + count`, whose progress counter stands at `progress` behind them.
fn batch(first: u64, count: u64, progress: u64) -> Events {
    let mut events = Events::default();
    let place = |bytes: &Vec<u8>| u32::try_from(bytes.len()).expect("small");
    for event in first..first + count {
        let subject = place(&events.bytes);
        events.bytes.extend_from_slice(b"cdc.s.t");
        let headers = place(&events.bytes);
        events.bytes.extend_from_slice(format!("Figvine-Checkpoint: 1 us {event}+0\r\n").as_bytes());
        let body = place(&events.bytes);
        events.bytes.extend_from_slice(event.to_string().as_bytes());
        events.list.push(EventAt { subject, headers, body, end: place(&events.bytes) });
    }
    events.end = Some(position(first + count - 1, progress));
    events
}

fn position(event: u64, progress: u64) -> Position {
    Position::between(format!("{event}+{progress}"))
}

fn settings(random: &mut Random) -> Settings {
    Settings {
        name: "S".into(),
        source: "s".into(),
        subjects: vec!["cdc.s.>".into()],
        replicas: 1,
        max_age: None,
        max_bytes: None,
        compression: false,
        adopt: false,
        on_loss: OnLoss::Stop,
        ack_timeout: Duration::from_secs(2),
        window_messages: [1, 2, 7, 64, 4096][usize::try_from(random.below(5)).unwrap()],
        window_bytes: [1, 200, 2000, 1 << 20][usize::try_from(random.below(4)).unwrap()],
        release_delay: Duration::ZERO,
    }
}

async fn run(scenario: Scenario, seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let faulty = matches!(scenario, Scenario::Faults | Scenario::Loss | Scenario::SecondBridge);
    let faults = Faults {
        left: if faulty { random.below(12) } else { 0 },
        loss: scenario == Scenario::Loss,
        second: (scenario == Scenario::SecondBridge).then(|| "them".into()),
        alien: scenario == Scenario::AlienBetween,
        replaced: scenario == Scenario::StreamReplaced,
    };
    let settings = settings(&mut random);
    let before = random.below(4);
    let earlier = Message { event: Some(0), checkpoint: Checkpoint::parse("1 earlier 0+0") };
    let before = vec![earlier; usize::try_from(before).unwrap()];
    let mut broker = Faulty::new(before, Random::new(seed ^ 0xf00d), faults, settings.ack_timeout);
    let tail = loop {
        if let Ok(tail) = broker.tail().await {
            break tail;
        }
    };
    let base = tail.last_seq;
    let telemetry = Arc::new(Telemetry::new());
    let publisher = Publisher::new(broker.clone(), &settings, writer("us"), &tail, telemetry.source("s"));

    let (sender, receiver) = mpsc::channel(4);
    let (stored, mut watching) = watch::channel(Stored { sequence: base, position: None, reads: None });
    let total = 40 + random.below(160);
    let mut batches = Vec::new();
    let (mut next, mut progress) = (1, 0);
    while next <= total {
        let count = if random.once_in(6) { 0 } else { random.below(30).min(total - next + 1) };
        progress = if count == 0 { progress + 1 } else { 0 };
        let pause = if random.once_in(4) { random.below(300) } else { 0 };
        batches.push((batch(next, count, progress), Duration::from_millis(pause)));
        next += count;
    }
    let end = batches.last().and_then(|(events, _)| events.end.clone());

    let mut aliens = (scenario == Scenario::AlienInAPause).then(|| random.below(batches.len().min(6) as u64));
    let feed = {
        let broker = broker.clone();
        let aliens_count = 1 + random.below(3);
        async move {
            for (at, (events, pause)) in batches.into_iter().enumerate() {
                if aliens == Some(at as u64) {
                    aliens = None;
                    // Long enough for all to be stored, and for the pause to be one. Before the first
                    // there is none: the alien came while we were connecting.
                    sleep(Duration::from_secs(if at == 0 { 0 } else { 5 })).await;
                    for _ in 0..aliens_count {
                        broker.world().stream.push(Message { event: None, checkpoint: None });
                    }
                }
                if sender.send(events).await.is_err() {
                    return;
                }
                sleep(pause).await;
            }
        }
    };
    // A loss takes back what was told.
    let takes_back = matches!(scenario, Scenario::Loss | Scenario::StreamReplaced);
    let watch = {
        let broker = broker.clone();
        async move {
            let mut sequence = 0;
            while watching.changed().await.is_ok() {
                let told = watching.borrow_and_update().clone();
                let last_seq = broker.world().last_seq();
                if told.sequence > last_seq && !takes_back {
                    return Err(format!("told of {}, the stream ends at {last_seq}", told.sequence));
                }
                if told.sequence < sequence {
                    return Err(format!("told of {} after {sequence}", told.sequence));
                }
                sequence = told.sequence;
                let event = told.position.as_ref().map(|p| p.log.split('+').next().unwrap_or_default().to_owned());
                if event != Some((told.sequence - base).to_string()) {
                    return Err(format!("position {:?} does not belong to message {}", told.position, told.sequence));
                }
            }
            Ok(watching.borrow().clone())
        }
    };
    let (outcome, (), told) = tokio::join!(Box::pin(publisher.run(receiver, stored)), feed, watch);
    let told = told?;
    holds(scenario, &broker, &outcome, &told, base, total, end.as_ref())
}

/// What must hold at the end.
fn holds(
    scenario: Scenario,
    broker: &Faulty,
    outcome: &Result<(), ChainError>,
    told: &Stored,
    base: u64,
    total: u64,
    end: Option<&Position>,
) -> Result<(), String> {
    let world = broker.world();
    let ours = world.stream.get(usize::try_from(base).unwrap()..).unwrap_or_default();
    let prefix = ours.iter().zip(1..).take_while(|(message, event)| message.event == Some(*event)).count() as u64;
    let exact = prefix == ours.len() as u64;
    let wrong = |what: &str| {
        let events: Vec<_> = ours.iter().map(|m| m.event).collect();
        Err(format!("{what}: {outcome:?}, {prefix} of {total} in order, stored {events:?}"))
    };
    let complete = || {
        if !exact || prefix < total {
            return wrong("what is stored is not what was sent");
        }
        if told.position.as_ref() != end || told.sequence != base + total {
            return wrong("what was told at the end is not the end");
        }
        Ok(())
    };
    match (scenario, outcome) {
        (Scenario::Faults, Ok(())) => {
            if prefix == total {
                complete()
            } else {
                wrong("not all is stored, or more")
            }
        }
        (Scenario::Loss | Scenario::SecondBridge, Ok(())) => complete(),
        (Scenario::Loss, Err(ChainError::LostAcknowledged { .. })) if exact => Ok(()),
        (Scenario::SecondBridge, Err(ChainError::Fenced { .. })) if exact => Ok(()),
        // All was stored before the alien or the new stream came.
        (Scenario::AlienBetween | Scenario::StreamReplaced, Ok(())) if world.faults.alien || world.faults.replaced => {
            complete()
        }
        (Scenario::StreamReplaced, Err(ChainError::StreamLost { .. })) => Ok(()),
        (Scenario::AlienInAPause, Err(ChainError::Displaced { .. })) => {
            let behind = ours.get(usize::try_from(prefix).unwrap()..).unwrap_or_default();
            if behind.iter().all(|message| message.event.is_none()) {
                Ok(())
            } else {
                wrong("something of ours stands behind the alien's")
            }
        }
        (Scenario::AlienBetween, Err(ChainError::Displaced { .. })) => {
            if told.sequence <= base + prefix {
                Ok(())
            } else {
                wrong("what the alien displaced was told as stored")
            }
        }
        _ => wrong("an outcome that should not be"),
    }
}
