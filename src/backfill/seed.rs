//! Rows for one consumer alone: to a subject of its own, beside the source's stream.
//!
//! Such a message is no link of the chain. It carries the sequence that the source's stream had when the row held
//! (`Figvine-Stream-Sequence`), so that the consumer takes from there on only what stands behind it, and the
//! event's identity as `Nats-Msg-Id`: what is sent again after a kill is recognised by the consumer's own stream.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{HEADER, ReadMark};
use crate::event::Events;
use crate::stream::wire::Event;

/// The header that says how far the source's stream was.
const SEQUENCE_HEADER: &str = "Figvine-Stream-Sequence";
/// The pause before a slice is sent again.
const PAUSE: Duration = Duration::from_secs(1);

/// Rows on their way to one consumer.
#[derive(Debug)]
pub(super) struct Seed {
    /// Where to.
    pub(super) subject: Box<str>,
    /// Their events.
    pub(super) events: Events,
    /// How far the task is behind them; `None` where no row was gone past.
    pub(super) mark: Option<ReadMark>,
    /// The task that they belong to.
    pub(super) task: Arc<str>,
    /// The last message of the source's stream before them.
    pub(super) behind: u64,
    /// Cancelled once nobody waits for them any more, or those before them could not be taken.
    pub(super) given_up: CancellationToken,
}

/// What became of a seed.
#[derive(Debug)]
pub(super) struct Sown {
    /// The task.
    pub(super) task: Arc<str>,
    /// How far it is; or why no row of it can be taken.
    pub(super) outcome: Result<Option<ReadMark>, String>,
}

/// Publishes seeds in their order, each once the one before is stored. Until no more come.
pub(super) async fn sow(context: Context, mut seeds: mpsc::Receiver<Seed>, sown: mpsc::UnboundedSender<Sown>) {
    while let Some(seed) = seeds.recv().await {
        let outcome = loop {
            if seed.given_up.is_cancelled() {
                break Ok(None);
            }
            match publish(&context, &seed).await {
                Ok(()) => break Ok(seed.mark.clone()),
                Err(Failure::Final(what)) => {
                    seed.given_up.cancel();
                    break Err(what);
                }
                Err(Failure::Transient(what)) => {
                    tracing::warn!(task = %seed.task, "rows cannot be published to {}: {what}", seed.subject);
                    sleep(PAUSE).await;
                }
            }
        };
        if sown.send(Sown { task: Arc::clone(&seed.task), outcome }).is_err() {
            return;
        }
    }
}

enum Failure {
    Transient(String),
    Final(String),
}

async fn publish(context: &Context, seed: &Seed) -> Result<(), Failure> {
    let mut acks = Vec::with_capacity(seed.events.list.len());
    for index in 0..seed.events.list.len() {
        let Some(event) = Event::of(&seed.events, index) else { continue };
        let mut headers = HeaderMap::new();
        for line in String::from_utf8_lossy(event.headers).lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name {
                HEADER => continue,
                "ce-id" => headers.insert("Nats-Msg-Id", value),
                _ => {}
            }
            headers.insert(name, value);
        }
        headers.insert(SEQUENCE_HEADER, seed.behind.to_string());
        let body = bytes::Bytes::copy_from_slice(event.body);
        let sent = context.publish_with_headers(seed.subject.to_string(), headers, body).await;
        acks.push(sent.map_err(|error| Failure::Transient(error.to_string()))?);
    }
    for ack in acks {
        match ack.await {
            Ok(_) => {}
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                return Err(Failure::Final(format!("no stream takes the subject {}", seed.subject)));
            }
            Err(error) => return Err(Failure::Transient(error.to_string())),
        }
    }
    Ok(())
}
