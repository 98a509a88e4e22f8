//! The contract of [`Source`] and [`Connector`], as checks that every
//! connector's live tests run against a real server.
//!
//! A connector's test brings three things: the connector, set to capture some
//! tables of a database that nobody else writes to; `commit`, which commits
//! transactions that touch those tables; and `elsewhere`, which moves the
//! server's log without touching them.
//!
//! ```text
//! #[tokio::test]
//! async fn the_connector_keeps_its_contract() {
//!     let (connector, database) = ...;
//!     let commit = async || {
//!         database.run("insert into t values (...), (...), (...)").await;
//!         database.run("update t set key = ..., small = ...").await;
//!         vec![3, 6]
//!     };
//!     let elsewhere = async || database.run("insert into not_captured values (...)").await;
//!     conformance::holds(&connector, Places::Fixed, commit, elsewhere).await.expect("the contract");
//! }
//! ```
//!
//! `commit` is called several times and each time tells, per transaction in the
//! order of the commits, how many changes must be seen of it: one per row, two
//! per row whose key changes, one per table of a truncate, one per wanted
//! message; shapes are not counted. It
//! - commits a transaction of three changes or more, so that one can be resumed inside;
//! - writes no NULL, so that any that is seen is a mistake, and should change
//!   rows in such a way that the log leaves values out;
//! - should change keys, and spread over several tables, as far as the server can.

use std::future::Future;
use std::time::Duration;

use crate::{
    Batch, Body, Cell, Change, Connector, Durable, Position, Row, RowChange, Source, SourceError, Table, Within,
};

/// How long a connector may take until something that must come has come.
const DEADLINE: Duration = Duration::from_secs(60);

/// A promise of the contract that was not kept.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Broken {
    /// Which, and where.
    pub what: String,
    /// What the connector said.
    #[source]
    pub source: Option<SourceError>,
}

/// What a connector gave for one call of `commit`.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Where the session began: before the first change.
    pub from: Position,
    /// All changes.
    pub changes: Vec<Seen>,
    /// How another session tells the places behind them.
    pub places: Places,
}

/// Whether another session tells the same place behind a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// In the same words.
    Fixed,
    /// In words of its own: what it still waits for may be less. What follows behind each must be the same all the same.
    Reworded,
}

/// A change, as far as it must be the same on every replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// [`crate::Transaction::position`].
    pub transaction: Box<str>,
    /// [`crate::Transaction::sequence`].
    pub sequence: Box<str>,
    /// [`Change::ordinal`].
    pub ordinal: u64,
    /// [`Change::part`].
    pub part: u32,
    /// [`Change::last`].
    pub last: bool,
    /// The place behind it.
    pub position: Position,
    /// Whether it is a [`Body::Shape`]: a new session may be told of more of them.
    pub is_shape: bool,
    /// What happened, with all values.
    pub body: String,
}

/// Checks the whole contract, one promise after the other. At its end the
/// server was told to discard log up to a place inside the first changes.
///
/// # Errors
/// The first promise that is not kept.
pub async fn holds<C: Connector>(
    connector: &C,
    places: Places,
    commit: impl AsyncFn() -> Vec<usize>,
    elsewhere: impl AsyncFn(),
) -> Result<(), Broken> {
    let recorded = record(connector, places, &commit).await?;
    resumes_behind_every_change(connector, &recorded).await?;
    loses_nothing_when_calls_are_dropped(connector, &recorded).await?;
    keeps_what_is_not_durable(connector, &recorded).await?;
    moves_on_when_idle(connector, &recorded, &commit, &elsewhere).await
}

/// Opens the log where nothing was ever read, commits, and reads it all back:
/// order, one `last` per transaction, rows that fit their tables, nothing null.
///
/// # Errors
/// When a promise is not kept.
pub async fn record<C: Connector>(
    connector: &C,
    places: Places,
    commit: &impl AsyncFn() -> Vec<usize>,
) -> Result<Recorded, Broken> {
    let (_teller, durable) = Durable::channel();
    let mut source = within("opening the log", connector.open(None, durable)).await?;
    let from = source.started_at().clone();
    let expected = commit().await;
    if expected.iter().all(|&count| count < 3) {
        return Err(broken("`commit` commits no transaction of three changes or more"));
    }
    let changes = read(&mut source, expected.iter().sum(), false).await?;
    source.close().await;
    in_order(&changes, &expected)?;
    Ok(Recorded { from, changes, places })
}

/// Opens the log behind each change in turn, inside transactions and between
/// them: what comes is exactly what lies behind, the same in every respect.
///
/// # Errors
/// When a promise is not kept.
pub async fn resumes_behind_every_change<C: Connector>(connector: &C, recorded: &Recorded) -> Result<(), Broken> {
    let behind_each = recorded.changes.iter().enumerate().map(|(at, change)| (&change.position, at + 1));
    for (from, next) in std::iter::once((&recorded.from, 0)).chain(behind_each) {
        // Behind the last one nothing comes: `moves_on_when_idle` starts there.
        let Some(rest) = recorded.changes.get(next..).filter(|rest| rest.iter().any(|seen| !seen.is_shape)) else {
            continue;
        };
        let (_teller, durable) = Durable::channel();
        let mut source = within("opening the log again", connector.open(Some(from.clone()), durable)).await?;
        if source.started_at() != from {
            return Err(broken(format!("opened at {from}, a session says that it starts at {}", source.started_at())));
        }
        let resumed = read(&mut source, rows(rest).count(), false).await?;
        source.close().await;
        same(&resumed, rest, recorded.places, &format!("a session opened at {from}"))?;
    }
    Ok(())
}

/// Reads by calls that are dropped after a moment: nothing is lost or given twice.
///
/// # Errors
/// When a promise is not kept.
pub async fn loses_nothing_when_calls_are_dropped<C: Connector>(
    connector: &C,
    recorded: &Recorded,
) -> Result<(), Broken> {
    let (_teller, durable) = Durable::channel();
    let opened = connector.open(Some(recorded.from.clone()), durable);
    let mut source = within("opening the log again", opened).await?;
    let read = read(&mut source, rows(&recorded.changes).count(), true).await?;
    source.close().await;
    same(&read, &recorded.changes, recorded.places, "a session whose calls are dropped")
}

/// Tells a session that changes up to some place are stored, reads all, and
/// ends it: what lies behind that place is still there.
///
/// # Errors
/// When a promise is not kept.
pub async fn keeps_what_is_not_durable<C: Connector>(connector: &C, recorded: &Recorded) -> Result<(), Broken> {
    let inside = recorded.changes.iter().position(|seen| !seen.is_shape && !seen.last);
    let Some((at, stored)) = inside.and_then(|at| Some((at, recorded.changes.get(at)?))) else {
        return Err(broken("no change lies inside a transaction"));
    };
    let (teller, durable) = Durable::channel();
    let mut source = within("opening the log again", connector.open(Some(recorded.from.clone()), durable)).await?;
    teller.send_replace(Some(stored.position.clone()));
    read(&mut source, rows(&recorded.changes).count(), false).await?;
    source.close().await;

    let rest = recorded.changes.get(at + 1..).unwrap_or_default();
    let (_teller, durable) = Durable::channel();
    let opened = connector.open(Some(stored.position.clone()), durable);
    let mut source = within("opening the log at what is durable", opened).await?;
    let resumed = read(&mut source, rows(rest).count(), false).await?;
    source.close().await;
    same(&resumed, rest, recorded.places, "a session opened at what is durable")
}

/// Opens the log behind all changes. While only other things are written, no
/// change comes and [`Batch::end`] moves on until it has reached the newest
/// place; what is committed later lies behind it.
///
/// # Errors
/// When a promise is not kept.
pub async fn moves_on_when_idle<C: Connector>(
    connector: &C,
    recorded: &Recorded,
    commit: &impl AsyncFn() -> Vec<usize>,
    elsewhere: &impl AsyncFn(),
) -> Result<(), Broken> {
    let from = recorded.changes.last().map_or(&recorded.from, |seen| &seen.position);
    let (_teller, durable) = Durable::channel();
    let mut source = within("opening the log again", connector.open(Some(from.clone()), durable)).await?;
    elsewhere().await;
    let newest = within("asking for the newest place", connector.newest()).await?;
    let idle = async {
        loop {
            let batch = source.next().await?;
            let Some(batch) = batch else { return Ok(Err(broken("an idle log ends"))) };
            if !batch.changes.is_empty() {
                return Ok(Err(broken(format!("a session opened at {from}, behind all changes, gives some"))));
            }
            if let Some(end) = batch.end
                && connector.is_reached(&newest, &end)
            {
                return Ok(Ok(end));
            }
        }
    };
    let end = within(&format!("moving on to {newest} on an idle log"), idle).await??;
    source.close().await;

    let expected = commit().await;
    let (_teller, durable) = Durable::channel();
    let mut source = within("opening the log at an idle end", connector.open(Some(end), durable)).await?;
    let changes = read(&mut source, expected.iter().sum(), false).await?;
    source.close().await;
    in_order(&changes, &expected)?;
    match changes.iter().find(|new| recorded.changes.iter().any(|old| identity(old) == identity(new))) {
        Some(seen) => Err(broken(format!("{} comes twice", named(seen)))),
        None => Ok(()),
    }
}

fn broken(what: impl Into<String>) -> Broken {
    Broken { what: what.into(), source: None }
}

/// Waits for what a connector must do in time.
async fn within<T>(doing: &str, done: impl Future<Output = Result<T, SourceError>>) -> Result<T, Broken> {
    match tokio::time::timeout(DEADLINE, Box::pin(done)).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Broken { what: format!("{doing} failed"), source: Some(error) }),
        Err(_) => Err(broken(format!("{doing} took too long"))),
    }
}

/// Reads until so many changes (shapes apart) have come, the last of them its transaction's last.
/// With `impatient` calls are dropped, each after a little more time than the one before.
async fn read<S: Source>(source: &mut S, count: usize, impatient: bool) -> Result<Vec<Seen>, Broken> {
    let mut changes = Vec::new();
    let all = async {
        let mut patience = Duration::ZERO;
        while rows(&changes).count() < count {
            let batch = if impatient {
                let Ok(batch) = tokio::time::timeout(patience, source.next()).await else {
                    patience += Duration::from_millis(1);
                    continue;
                };
                patience = Duration::ZERO;
                batch?
            } else {
                source.next().await?
            };
            let Some(batch) = batch else { return Ok(Err(broken("the log ends"))) };
            for change in &batch.changes {
                match seen(&batch, change) {
                    Ok(seen) => changes.push(seen),
                    Err(broken) => return Ok(Err(broken)),
                }
            }
        }
        Ok(Ok(()))
    };
    let read = within("reading the log", all).await;
    match read {
        Err(Broken { what, source }) => {
            let what = format!("{what}: {} of {count} changes came", rows(&changes).count());
            Err(Broken { what, source })
        }
        Ok(done) => done.map(|()| changes),
    }
}

/// The changes that every session gives: all but shapes.
fn rows(changes: &[Seen]) -> impl Iterator<Item = &Seen> {
    changes.iter().filter(|seen| !seen.is_shape)
}

fn identity(seen: &Seen) -> (&str, u64, u32, bool) {
    (&seen.transaction, seen.ordinal, seen.part, seen.is_shape)
}

fn named(seen: &Seen) -> String {
    format!("change {}.{} of transaction {}", seen.ordinal, seen.part, seen.transaction)
}

/// Commit order, one `last` per transaction, as many changes of each as were made.
fn in_order(changes: &[Seen], expected: &[usize]) -> Result<(), Broken> {
    for pair in changes.windows(2) {
        let [a, b] = pair else { continue };
        let is_ordered = match a.transaction == b.transaction {
            true => a.sequence == b.sequence && (a.is_shape || b.is_shape || within_of(a) < within_of(b)),
            false => a.sequence < b.sequence && a.sequence.len() == b.sequence.len(),
        };
        if !is_ordered {
            return Err(broken(format!("{} comes behind {}", named(b), named(a))));
        }
        if a.last == (a.transaction == b.transaction) {
            let says = if a.last { "is the last" } else { "is not the last" };
            return Err(broken(format!("{} says that it {says}, and is followed by {}", named(a), named(b))));
        }
    }
    if let Some(seen) = changes.last().filter(|seen| !seen.last) {
        return Err(broken(format!("{} does not say that it is the last", named(seen))));
    }
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for seen in rows(changes) {
        match counts.last_mut() {
            Some((transaction, count)) if **transaction == *seen.transaction => *count += 1,
            _ => counts.push((&seen.transaction, 1)),
        }
    }
    if !counts.iter().map(|(_, count)| count).eq(expected) {
        return Err(broken(format!("transactions of {expected:?} changes were committed, {counts:?} came")));
    }
    Ok(())
}

fn within_of(seen: &Seen) -> Within {
    Within { ordinal: seen.ordinal, part: seen.part }
}

/// Shapes apart, and the words of places where a session has its own, `now` is exactly `then`.
fn same(now: &[Seen], then: &[Seen], places: Places, whose: &str) -> Result<(), Broken> {
    let (mut now, mut then) = (rows(now), rows(then));
    loop {
        match (now.next(), then.next()) {
            (None, None) => return Ok(()),
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b))
                if places == Places::Reworded && *a == (Seen { position: a.position.clone(), ..b.clone() }) => {}
            (Some(a), Some(b)) if identity(a) == identity(b) => {
                return Err(broken(format!("{} is not the same in {whose}", named(a))));
            }
            (a, b) => {
                let [a, b] = [a, b].map(|seen| seen.map_or_else(|| "nothing".to_owned(), named));
                return Err(broken(format!("{whose} gives {a} in place of {b}")));
            }
        }
    }
}

fn seen(batch: &Batch, change: &Change) -> Result<Seen, Broken> {
    let Some(transaction) = batch.transaction(change) else { return Err(broken("a change without a transaction")) };
    let place = format!("change {}.{} of transaction {}", change.ordinal, change.part, transaction.position);
    let position = match (change.last, &transaction.end) {
        (false, _) => {
            let within = Within { ordinal: change.ordinal, part: change.part };
            Position { log: transaction.start.clone(), within: Some(within) }
        }
        (true, Some(end)) => Position::between(end.clone()),
        (true, None) => return Err(broken(format!("{place} is the last, and its transaction's end is not told"))),
    };
    if Position::parse(&position.to_string()).as_ref() != Some(&position) {
        return Err(broken(format!("the position of {place} does not read back")));
    }
    let table = |index: u32| batch.table(index).ok_or_else(|| broken(format!("{place} has no table")));
    let body = match &change.body {
        Body::Row(row) => row_text(batch, row, table(row.table)?, &place)?,
        Body::Truncate { table: index } => format!("truncate {}", table(*index)?.qualified_name()),
        Body::Shape { table: index } => format!("shape {}", table(*index)?.qualified_name()),
        Body::Message { prefix, content } => {
            format!("message {} {}", batch.bytes(prefix).escape_ascii(), batch.bytes(content).escape_ascii())
        }
    };
    Ok(Seen {
        transaction: transaction.position.clone(),
        sequence: transaction.sequence.clone(),
        ordinal: change.ordinal,
        part: change.part,
        last: change.last,
        position,
        is_shape: matches!(change.body, Body::Shape { .. }),
        body,
    })
}

fn row_text(batch: &Batch, change: &RowChange, table: &Table, place: &str) -> Result<String, Broken> {
    let mut text = format!("{:?} {}", change.op, table.qualified_name());
    let halves = [
        ("before", change.before, change.before_is_key),
        ("after", change.after, false),
        // Of the other half only the key is promised.
        ("rekeyed", change.rekeyed, true),
    ];
    for (name, row, key_only) in halves {
        let Some(row) = row else { continue };
        text.push_str(&format!(" {name}({})", cells_text(batch, row, key_only, table, place)?));
    }
    Ok(text)
}

fn cells_text(batch: &Batch, row: Row, key_only: bool, table: &Table, place: &str) -> Result<String, Broken> {
    let cells = batch.row(row);
    if cells.len() != table.columns.len() {
        let (cells, columns) = (cells.len(), table.columns.len());
        return Err(broken(format!("{place} has {cells} cells, its table {columns} columns")));
    }
    let mut text = String::new();
    for (index, (cell, column)) in cells.iter().zip(&table.columns).enumerate() {
        if key_only && !table.key.contains(&index) {
            continue;
        }
        let value = match cell {
            Cell::Null => return Err(broken(format!("column {} of {place} is null, which none was", column.name))),
            Cell::Unchanged => "unchanged".to_owned(),
            Cell::Value(range) if range.start <= range.end && range.end as usize <= batch.data.len() => {
                format!("'{}'", batch.bytes(range).escape_ascii())
            }
            Cell::Value(_) => return Err(broken(format!("column {} of {place} lies outside its batch", column.name))),
        };
        text.push_str(&format!("{}={value} ", column.name));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
