//! The control channel: a NATS service by which the command line speaks to a running bridge.
//!
//! Service `figvine`; endpoints `figvine.<source>.status` and `figvine.<source>.backfill.<verb>`, JSON both ways. Whoever may publish to such a subject
//! may give the command: permissions are NATS permissions. Only the bridge that reads a source answers for it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::service::error::Error as Refusal;
use async_nats::service::{Request, ServiceExt};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::backfill::book::Job;
use crate::backfill::desk::{Refused, Shown, shown};
use crate::backfill::{Desk, StartRequest, Wish};
use crate::nats;
use crate::telemetry::{SourceTelemetry, Status, Telemetry};
use crate::wiring::Desks;

/// The service's name.
pub const SERVICE: &str = "figvine";
/// How long a command waits until what it changed is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before NATS is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What can be said of backfills.
pub const VERBS: [&str; 7] = ["plan", "start", "list", "pause", "resume", "cancel", "set"];

/// The subject of a verb.
#[must_use]
pub fn backfill_subject(source: &str, verb: &str) -> String {
    format!("{SERVICE}.{source}.backfill.{verb}")
}

/// The subject on which a source's bridge tells how it is.
#[must_use]
pub fn status_subject(source: &str) -> String {
    format!("{SERVICE}.{source}.status")
}

/// How a bridge is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Of the bridge.
    pub version: String,
    /// Its source.
    #[serde(flatten)]
    pub status: Status,
    /// Backfills that have not ended.
    pub backfills: Vec<Shown>,
}

/// Names one backfill, or all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Its name; `None` for all.
    #[serde(default)]
    pub id: Option<String>,
    /// For `set`: what is to be changed.
    #[serde(default)]
    pub wish: Wish,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The version of the form.
    pub schema_version: u32,
    /// The backfill that was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The backfills that were asked for.
    #[serde(default)]
    pub backfills: Vec<Shown>,
}

impl Answer {
    fn of(backfills: Vec<Shown>) -> Self {
        Self { schema_version: 1, id: None, backfills }
    }
}

/// Serves the desks' sources, each once it is read by us. For ever: whoever calls drops it.
pub async fn serve(nats: nats::Settings, desks: Desks, telemetry: Arc<Telemetry>) {
    let mut sources = JoinSet::new();
    for (source, desk) in desks {
        sources.spawn(serve_source(nats.clone(), telemetry.source(&source), desk));
    }
    while sources.join_next().await.is_some() {}
}

async fn serve_source(nats: nats::Settings, source: Arc<SourceTelemetry>, desk: Arc<Desk>) {
    desk.activated().await;
    loop {
        if let Err(error) = serve_once(&nats, &source, &desk).await {
            tracing::warn!(source = %source.name, "commands cannot be heard just now: {error}");
        }
        sleep(RETRY).await;
    }
}

async fn serve_once(
    nats: &nats::Settings,
    source: &Arc<SourceTelemetry>,
    desk: &Arc<Desk>,
) -> Result<(), async_nats::Error> {
    let name = &source.name;
    let client = nats.client(&format!("figvine {name} control")).await?;
    let service = client
        .service_builder()
        .description("change data capture into JetStream")
        .start(SERVICE, env!("CARGO_PKG_VERSION"))
        .await?;
    let mut endpoints = JoinSet::new();
    let mut requests = service.group(format!("{SERVICE}.{name}")).endpoint("status").await?;
    let (told, listed) = (Arc::clone(source), Arc::clone(desk));
    endpoints.spawn(async move {
        while let Some(request) = requests.next().await {
            let mut backfills = listed.shown(None);
            backfills.retain(|shown| !shown.job.state.is_ended());
            let told = Told { version: env!("CARGO_PKG_VERSION").to_owned(), status: told.status(), backfills };
            respond(request, Ok(&told)).await;
        }
    });
    let group = service.group(format!("{SERVICE}.{name}.backfill"));
    for verb in VERBS {
        let mut requests = group.endpoint(verb).await?;
        let desk = Arc::clone(desk);
        endpoints.spawn(async move {
            while let Some(request) = requests.next().await {
                answer(verb, &desk, request).await;
            }
        });
    }
    while endpoints.join_next().await.is_some() {}
    Ok(())
}

async fn answer(verb: &str, desk: &Desk, request: Request) {
    let answer = answer_to(verb, desk, &request.message.payload).await;
    respond(request, answer).await;
}

async fn respond(request: Request, answer: Result<impl Serialize, Refusal>) {
    let answer = answer.and_then(|answer| {
        serde_json::to_vec(&answer).map(Bytes::from).map_err(|error| refusal(500, &error.to_string()))
    });
    // Whoever asked may be gone.
    let _ = request.respond(answer).await;
}

async fn answer_to(verb: &str, desk: &Desk, payload: &[u8]) -> Result<Answer, Refusal> {
    let refused = |refused: Refused| refusal(400, &refused.to_string());
    let named = |which: &Which| which.id.clone().ok_or_else(|| refusal(400, "a backfill is to be named"));
    let (id, version) = match verb {
        "plan" => {
            let job: Job = desk.plan(&read::<StartRequest>(payload)?).map_err(refused)?;
            return Ok(Answer::of(vec![shown(&job, |_| None)]));
        }
        "list" => {
            let which: Which = read(payload)?;
            let backfills = desk.shown(which.id.as_deref());
            return match which.id {
                Some(id) if backfills.is_empty() => Err(refused(Refused::NoJob(id))),
                _ => Ok(Answer::of(backfills)),
            };
        }
        "start" => {
            let (id, version) = desk.start(&read(payload)?).map_err(refused)?;
            (String::from(id), version)
        }
        _ => {
            let which: Which = read(payload)?;
            let id = named(&which)?;
            let version = match verb {
                "pause" => desk.pause(&id),
                "resume" => desk.resume(&id),
                "cancel" => desk.cancel(&id),
                _ => desk.set(&id, which.wish),
            };
            (id, version.map_err(refused)?)
        }
    };
    if !desk.is_written(version, WRITE_TIMEOUT).await {
        return Err(refusal(503, "it holds, but could not be written yet: a restart may forget it"));
    }
    Ok(Answer { id: Some(id.clone()), ..Answer::of(desk.shown(Some(&id))) })
}

fn read<T: DeserializeOwned + Default>(payload: &[u8]) -> Result<T, Refusal> {
    if payload.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(payload).map_err(|error| refusal(400, &format!("the request cannot be read: {error}")))
}

fn refusal(code: usize, status: &str) -> Refusal {
    Refusal { status: status.to_owned(), code }
}
