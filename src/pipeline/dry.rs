//! Reads and maps without storing or releasing anything.

use std::sync::Arc;

use figvine_change::{Connector, Durable, Source};
use tokio_util::sync::CancellationToken;

use super::look::Looks;
use super::{Pipeline, PipelineError, Until};
use crate::checkpoint::Writer;
use crate::event::{Derived, Encoder, Events};
use crate::map::private::{Passing, Private};
use crate::map::rules::Rules;

/// The server's limit is not known without asking it; its default is.
const MAX_PAYLOAD: usize = 1024 * 1024;

pub(super) async fn run<C: Connector>(
    pipeline: Pipeline<C>,
    stop: CancellationToken,
    mut show: impl FnMut(&Events) -> std::io::Result<()> + Send,
) -> Result<(), PipelineError> {
    let Pipeline { connector, events: settings, until, private, echoes, rules, parks, .. } = pipeline;
    let goal = match until {
        None => None,
        Some(Until::Position(position)) => Some(position),
        Some(Until::Now) => Some(connector.newest().await?),
    };
    // Nothing is ever told to be durable, so the server releases nothing.
    let (_durable, released) = Durable::channel();
    let mut source = Box::pin(connector.open(None, released)).await?;
    let encoder = Encoder::new(&settings, source.engine(), &Writer::fresh(), MAX_PAYLOAD)?;
    // Nothing is kept, so nothing is parked but shown in its place.
    let mut encoder = encoder.parking(parks);
    // Stores nothing: subjects get keys for this run alone.
    let mut private = Private::new(private, Passing::default());
    let mut rules = Rules::new(rules).parking(parks.poison);
    let mut derived = Derived::default();
    let mut looks = Looks::new(Arc::clone(&connector));
    let mut reached = Some(source.started_at().clone());
    let outcome = loop {
        let is_there = goal.as_ref().zip(reached.as_ref());
        if is_there.is_some_and(|(goal, reached)| connector.is_reached(goal, reached)) {
            break Ok(());
        }
        let mut batch = tokio::select! {
            biased;
            () = stop.cancelled() => break Ok(()),
            batch = source.next() => match batch {
                Ok(Some(batch)) => batch,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            },
        };
        if let Err(error) = private.map(&mut batch).await {
            break Err(error.into());
        }
        echoes.take_out(&mut batch);
        derived.clear();
        let shown = loop {
            let applied = rules.derive(&mut batch, &mut derived);
            let mut events = Events::default();
            let encoded = encoder.encode(&batch, &derived, &mut events);
            drop((rules.take_letters(), encoder.take_letters()));
            if let Err(error) = show(&events) {
                break Err(PipelineError::Show(error));
            }
            if let Err(error) = encoded {
                break Err(error.into());
            }
            if let Err(error) = applied {
                break Err(error.into());
            }
            if events.end.is_some() {
                reached = events.end;
            }
            if !derived.go_on() {
                break Ok(());
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                answered = looks.answer(&mut rules, &mut private) => if let Err(error) = answered {
                    break Err(error);
                },
            }
        };
        if shown.is_err() {
            break shown;
        }
    };
    source.close().await;
    outcome
}
