//! Sessions, one behind the other, until the end.

use std::time::Duration;

use figvine_change::{Connector, Consequence, SourceErrorKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Pipeline, PipelineError, session};
use crate::stream::{ChainError, OnLoss};
use crate::telemetry::Phase;

/// The shortest and the longest pause between two sessions.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long what was never reached is tried.
const FIRST_PATIENCE: Duration = Duration::from_secs(60);
/// How long another reader of our slot is waited for. A server sees at once that the run before us was killed; past
/// that it is somebody else.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// The same once we have read ourselves: behind a cut line the server may take our own old connection for alive until its
/// `wal_sender_timeout`, by default a minute.
const OWN_BUSY_PATIENCE: Duration = Duration::from_secs(90);
/// How often the run before us may have had more on its way than we saw. A server takes in what is in its buffers at once.
const LATE_MAX: u32 = 3;
/// A session of this length has shown that things work.
const STEADY: Duration = Duration::from_secs(30);

pub(super) async fn run<C: Connector + 'static>(
    pipeline: Pipeline<C>,
    stop: CancellationToken,
) -> Result<(), PipelineError> {
    let began = Instant::now();
    let mut streamed = false;
    let mut busy_since = None;
    let mut late = 0;
    let mut pause = PAUSE_MIN;
    let mut until = pipeline.until.clone();
    loop {
        let session_began = Instant::now();
        let outcome = session::run(&pipeline, &mut until, &stop, &mut streamed).await;
        let error = match outcome {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // What was asked to stop and fails on the way has nothing left to try again.
        if stop.is_cancelled() && error.consequence() == Consequence::Transient {
            tracing::warn!(source = %pipeline.events.source, code = error.code(), %error, "stopped without a last word");
            return Ok(());
        }
        if session_began.elapsed() >= STEADY {
            pause = PAUSE_MIN;
        }
        let is_busy = matches!(&error, PipelineError::Source(told) if told.kind == SourceErrorKind::Busy);
        let busy_for = is_busy.then(|| busy_since.get_or_insert(session_began).elapsed());
        if !is_busy {
            busy_since = None;
        }
        let may_try_again = match &error {
            _ if let Some(busy_for) = busy_for => busy_for < if streamed { OWN_BUSY_PATIENCE } else { BUSY_PATIENCE },
            // Of a run that is gone there is soon nothing more to come, and only at our beginning; one that goes on is alive.
            PipelineError::Chain(ChainError::Late { .. }) => {
                late += 1;
                late <= LATE_MAX && began.elapsed() < BUSY_PATIENCE
            }
            // The tail tells from where to read again, if the source still holds it.
            PipelineError::Chain(ChainError::LostAcknowledged { .. } | ChainError::StreamLost { .. }) => {
                pipeline.stream.on_loss == OnLoss::Reread
            }
            _ => error.consequence() == Consequence::Transient && (streamed || began.elapsed() < FIRST_PATIENCE),
        };
        if !may_try_again {
            return Err(error);
        }
        let told = told(&error);
        tracing::warn!(source = %pipeline.events.source, code = error.code(), again_in_ms = pause.as_millis(), "{told}");
        pipeline.telemetry.phase(Phase::Waiting(told));
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// The error and what it was told, in one line.
fn told(error: &PipelineError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let words = cause.to_string();
        // Libraries often repeat their cause.
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        source = cause.source();
    }
    text
}
