//! Reads what rules look up.

use std::sync::Arc;

use figvine_change::{ChunkReader as _, Connector, Found, LookUp};

use super::PipelineError;
use crate::map::private::{Action, KeyStore, Private};
use crate::map::rules::{PlanError, RuleError, Rules, Wanted, WantedParts};

/// Looks parts of wholes up.
pub(super) struct Looks<C: Connector> {
    connector: Arc<C>,
    /// Kept from one to the next.
    reader: Option<C::Reader>,
}

impl<C: Connector> Looks<C> {
    pub(super) fn new(connector: Arc<C>) -> Self {
        Self { connector, reader: None }
    }

    /// Tells rules what they want to know, hidden as in the log; how many rows that were.
    pub(super) async fn answer<K: KeyStore>(
        &mut self,
        rules: &mut Rules,
        private: &mut Private<K>,
    ) -> Result<u64, PipelineError> {
        let Some(mut wanted) = rules.take_wanted() else { return Ok(0) };
        refuse_hidden(&wanted, private)?;
        loop {
            let fewer = match self.read(&wanted).await? {
                None => rules.found_too_many(wanted),
                Some(all) => {
                    let (mut rows, mut are_known) = (0, true);
                    for (parts, mut found) in wanted.parts.iter().zip(all) {
                        private.map(&mut found.batch).await?;
                        rows += found.batch.changes.len() as u64;
                        are_known = are_known && rules.found(parts.list, &wanted, &found)?;
                    }
                    if are_known {
                        return Ok(rows);
                    }
                    rules.look_up_fewer(wanted)
                }
            };
            match fewer {
                Some(fewer) => wanted = fewer,
                None => return Ok(0),
            }
        }
    }

    /// The parts of each list; `None` where they are more than may be held.
    async fn read(&mut self, wanted: &Wanted) -> Result<Option<Vec<Found>>, PipelineError> {
        // One that fails, or whose call is dropped half-way, is of no use any more.
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.connector.reader().await?,
        };
        let (mut all, mut left) = (Vec::with_capacity(wanted.parts.len()), wanted.max_bytes);
        for parts in &wanted.parts {
            let request = LookUp {
                schema: parts.schema.clone(),
                name: parts.table.clone(),
                column: parts.on.clone(),
                values: wanted.keys.clone(),
                behind: wanted.behind.clone(),
                bytes: left,
            };
            let found = reader.look_up(&request).await?;
            if !found.is_whole {
                all.clear();
                break;
            }
            left = left.saturating_sub(found.size());
            all.push(found);
        }
        self.reader = Some(reader);
        Ok((all.len() == wanted.parts.len()).then_some(all))
    }
}

/// A key that is hidden finds nothing.
fn refuse_hidden<K: KeyStore>(wanted: &Wanted, private: &Private<K>) -> Result<(), PipelineError> {
    let settings = private.settings();
    let root = &wanted.root;
    let key = root.key.first().and_then(|column| root.columns.get(*column));
    let key = key.map(|column| (&*root.schema, &*root.name, &*column.name));
    let parts = wanted.parts.iter().map(|WantedParts { schema, table, on, .. }| (&**schema, &**table, &**on));
    for (schema, table, column) in key.into_iter().chain(parts) {
        let action = settings.action(schema, table, column);
        if *action != Action::Publish {
            let what = format!("parts cannot be looked up by column {column}, which is {}", action.participle());
            let table = format!("{schema}.{table}").into();
            return Err(RuleError::Plan(PlanError { rule: (*wanted.rule).into(), table, what }).into());
        }
    }
    Ok(())
}
