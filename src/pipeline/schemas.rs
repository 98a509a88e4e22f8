//! The versions of event types in a session: what is known at its start, and what becomes of drift.

use std::sync::Arc;

use async_nats::jetstream;
use figvine_change::{Batch, Connector, Table, TableSize};

use super::{Pipeline, PipelineError};
use crate::map::private::{Private, PrivateError};
use crate::schema::{OnDrift, Reader, Schemas, of_event, table_type};
use crate::stream::{Drift, SchemaRegistry, Seen, SubjectKeys};
use crate::telemetry::SourceTelemetry;

/// Opens the registry, where events name schemas.
pub(super) async fn open<C: Connector>(
    pipeline: &Pipeline<C>,
    context: &jetstream::Context,
) -> Result<SchemaRegistry, PipelineError> {
    let Some(policy) = pipeline.schemas else { return Ok(SchemaRegistry::none()) };
    let schemas = Arc::new(Schemas::new(&pipeline.events.source, policy));
    Ok(Box::pin(SchemaRegistry::open(context, &pipeline.stream, schemas)).await?)
}

/// Gives tables that have no version yet the one of the shape that the catalogue tells: consumers find it before the
/// first event. Tables that have one get no other from the catalogue, which may be ahead of the log.
pub(super) async fn begin<C: Connector>(
    pipeline: &Pipeline<C>,
    registry: &SchemaRegistry,
    listed: &[TableSize],
    private: &mut Private<SubjectKeys>,
) -> Result<(), PipelineError> {
    let Some(schemas) = registry.schemas() else { return Ok(()) };
    let is_new = |schema: &str, name: &str| !registry.has(&table_type(schemas.source(), schema, name));
    let has_rules = !pipeline.rules.is_empty();
    if has_rules || listed.iter().any(|table| is_new(&table.schema, &table.name)) {
        let mut shapes = match pipeline.connector.shapes().await {
            Ok(shapes) => shapes,
            Err(error) => {
                tracing::warn!(code = error.code, %error, "the shapes of tables cannot be asked for: their events will tell them");
                return Ok(());
            }
        };
        shapes.retain(|table: &Arc<Table>| has_rules || is_new(&table.schema, &table.name));
        let mut batch = Batch::default();
        for table in shapes {
            let mut one = Batch { tables: vec![table], ..Batch::default() };
            match private.map(&mut one).await {
                Ok(()) => batch.tables.append(&mut one.tables),
                // Told when a change of it comes, and by `check`.
                Err(PrivateError::Plan(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let events = pipeline.rules.event_shapes(&batch.tables);
        let drafts: Vec<_> = events
            .iter()
            .map(|(versioned, shape)| (Arc::clone(versioned), of_event(schemas.source(), shape)))
            .collect();
        for Drift { table, breaks, outcome } in registry.admit_events(&drafts).await? {
            let what: Vec<_> = breaks.iter().map(|broken| broken.what.as_str()).collect();
            let what = what.join("; ");
            // What a rule makes is the configuration's: whoever would rather not have it broken mends that.
            if outcome.refuses() {
                return Err(PipelineError::EventDrift { event_type: table, what });
            }
            tracing::warn!(event_type = %table, "the rule's data breaks the schema of its major version, raise `version`: {what}");
        }
        batch.tables.retain(|table| is_new(&table.schema, &table.name));
        note(&pipeline.telemetry, &registry.admit(&batch.tables, Seen::Elsewhere).await?);
    }
    Ok(registry.write_bundle().await?)
}

/// Tells of drift, once for each change of a shape.
pub(super) fn note(telemetry: &SourceTelemetry, drifts: &[Drift]) {
    for Drift { table, breaks, outcome } in drifts {
        telemetry.schema_drift(outcome.word());
        let what: Vec<_> =
            breaks.iter().map(|broken| format!("{} ({})", broken.what, Reader::words(broken.reader))).collect();
        let what = what.join("; ");
        match outcome {
            OnDrift::Stop => tracing::error!(table = %table, "the table's shape breaks its schema: {what}"),
            OnDrift::Park => {
                tracing::error!(table = %table, "the table's shape breaks its schema, its rows are parked: {what}");
            }
            OnDrift::Degrade => tracing::warn!(table = %table, "the table's events have a new major version: {what}"),
        }
    }
}
