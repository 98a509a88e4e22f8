//! What a snapshot shows, in places of the log.
//!
//! - A transaction stands in the log before the engine commits it: whatever a snapshot shows stands before the log's
//!   end as it is told after the snapshot was made.
//! - MySQL adds a transaction to `gtid_executed` after the engine committed it: what is in the set before the snapshot
//!   is made is shown. Without GTIDs, `performance_schema.log_status` holds commits up for the moment in which it
//!   reads the place.
//! - MariaDB tells the place that a consistent snapshot belongs to: it shows what ends before it, and nothing else.
//!
//! Engines without snapshots show a statement's rows at once and keep others out until it is in the log: the log's end
//! is asked for again when their rows were read.

use figvine_change::{Sight, SourceError, SourceErrorKind, Transaction};

use crate::catalogue::{Catalogue, LogFile, LogStatus, Server, field};
use crate::config::Flavour;
use crate::error::{Told, failure};
use crate::gtid::{MySqlSet, Uuid};
use crate::position::sequence;

/// Begins a transaction whose reads are of one moment, and which writes nothing.
const SNAPSHOT: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// What a snapshot surely shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// These transactions.
    Gtids(MySqlSet),
    /// What stands before a place, as [`Transaction::sequence`] sorts.
    Before(Box<str>),
}

impl Shown {
    /// Whether a transaction is among them, by its name and its sequence.
    pub(super) fn has(&self, id: &str, at: &str) -> bool {
        match self {
            Self::Gtids(set) => gtid(id).is_some_and(|(server, tag, number)| set.contains(server, tag, number)),
            Self::Before(place) => at <= &**place,
        }
    }
}

impl Shown {
    /// Whether a transaction that the log told of is not shown yet, and will be. One without a GTID is older than all
    /// that have one: a server takes up GTIDs only when the others are over.
    pub(super) fn awaits(&self, transaction: &Transaction) -> bool {
        let is_of_a_kind = matches!(self, Self::Before(_)) || gtid(&transaction.id).is_some();
        is_of_a_kind && !self.shows(transaction)
    }
}

impl Sight for Shown {
    fn shows(&self, transaction: &Transaction) -> bool {
        self.has(&transaction.id, &transaction.sequence)
    }
}

/// `<uuid>:<number>` or `<uuid>:<tag>:<number>`.
fn gtid(id: &str) -> Option<(Uuid, &str, u64)> {
    let (server, rest) = id.split_once(':')?;
    let (tag, number) = rest.split_once(':').unwrap_or(("", rest));
    Some((server.parse().ok()?, tag, number.parse().ok()?))
}

/// A moment of the database.
#[derive(Debug, Clone)]
pub(super) struct Moment {
    pub(super) shown: Shown,
    /// All that is shown stands before it.
    pub(super) high: Box<str>,
    /// Microseconds since 1970, by the server's clock.
    pub(super) at: i64,
}

impl Moment {
    /// Begins a snapshot.
    pub(super) async fn begin(catalogue: &mut Catalogue, server: &Server) -> Result<Self, SourceError> {
        let what = "beginning a snapshot";
        match server.flavour {
            Flavour::MariaDb => {
                catalogue.ask(SNAPSHOT, what).await?;
                let place = snapshot_place(catalogue).await?;
                let at = clock(&catalogue.ask_one(&format!("SELECT {CLOCK}"), what).await?);
                Ok(Self { shown: Shown::Before(place.clone()), high: place, at })
            }
            Flavour::MySql => {
                let (shown, at) = low(catalogue, server).await?;
                catalogue.ask(SNAPSHOT, what).await?;
                Ok(Self { shown, high: log_end(catalogue, server).await?, at })
            }
        }
    }

    /// Begins a snapshot that shows transactions, and tells the time; `None` where none would yet.
    pub(super) async fn behind(
        catalogue: &mut Catalogue,
        server: &Server,
        transactions: &[Transaction],
    ) -> Result<Option<i64>, SourceError> {
        let what = "beginning a snapshot";
        let awaits = |shown: &Shown| transactions.iter().any(|transaction| shown.awaits(transaction));
        match server.flavour {
            Flavour::MariaDb => {
                catalogue.ask(SNAPSHOT, what).await?;
                if awaits(&Shown::Before(snapshot_place(catalogue).await?)) {
                    catalogue.ask("COMMIT", what).await?;
                    return Ok(None);
                }
                Ok(Some(clock(&catalogue.ask_one(&format!("SELECT {CLOCK}"), what).await?)))
            }
            Flavour::MySql => {
                let (shown, at) = low(catalogue, server).await?;
                if awaits(&shown) {
                    return Ok(None);
                }
                catalogue.ask(SNAPSHOT, what).await?;
                Ok(Some(at))
            }
        }
    }

    /// The log's end after rows of an engine without snapshots were read; ends the transaction.
    pub(super) async fn end_of_log(catalogue: &mut Catalogue, server: &Server) -> Result<Box<str>, SourceError> {
        match server.flavour {
            Flavour::MariaDb => {
                catalogue.ask(SNAPSHOT, "asking for the newest place of the log").await?;
                snapshot_place(catalogue).await
            }
            Flavour::MySql => log_end(catalogue, server).await,
        }
    }
}

/// What is committed by now, surely.
pub(super) async fn shown_now(catalogue: &mut Catalogue, server: &Server) -> Result<Shown, SourceError> {
    match server.flavour {
        Flavour::MySql => Ok(low(catalogue, server).await?.0),
        Flavour::MariaDb => {
            catalogue.ask(SNAPSHOT, "looking at what is committed").await?;
            let place = snapshot_place(catalogue).await?;
            catalogue.ask("COMMIT", "looking at what is committed").await?;
            Ok(Shown::Before(place))
        }
    }
}

/// Seconds since 1970, with microseconds.
const CLOCK: &str = "UNIX_TIMESTAMP(NOW(6))";

/// As microseconds.
fn clock(seconds: &str) -> i64 {
    let (whole, micros) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let micros: i64 = micros.get(..6).unwrap_or(micros).parse().unwrap_or(0);
    whole.parse::<i64>().unwrap_or(0).saturating_mul(1_000_000).saturating_add(micros)
}

async fn low(catalogue: &mut Catalogue, server: &Server) -> Result<(Shown, i64), SourceError> {
    if server.has_gtids() {
        let what = "asking for the server's transactions";
        let rows = catalogue.ask(&format!("SELECT @@global.gtid_executed, {CLOCK}"), what).await?;
        let row = rows.first().cloned().unwrap_or_default();
        let set = field(&row, 0).parse().map_err(|error: crate::gtid::GtidError| {
            failure(SourceErrorKind::Refused, "FV-1116", "the server's set of transactions cannot be read")
                .because(error)
        })?;
        return Ok((Shown::Gtids(set), clock(field(&row, 1))));
    }
    let sql = format!(
        "SELECT local->>'$.binary_log_file', local->>'$.binary_log_position', {CLOCK} FROM performance_schema.log_status"
    );
    let rows = catalogue.ask(&sql, "asking for the place of the log").await.map_err(|error| match error.kind {
        SourceErrorKind::Refused => SourceError {
            code: "FV-1602",
            what: "the server has no GTIDs, and its user may not ask where the log and the tables agree".into(),
            ..error
        }
        .hint(
            "`GRANT BACKUP_ADMIN ON *.*` and `GRANT SELECT ON performance_schema.log_status` to the user, or set \
             `gtid_mode = ON`.",
        ),
        _ => error,
    })?;
    let row = rows.first().cloned().unwrap_or_default();
    let offset = field(&row, 1).parse().unwrap_or(0);
    Ok((Shown::Before(sequence(field(&row, 0), offset)), clock(field(&row, 2))))
}

async fn log_end(catalogue: &mut Catalogue, server: &Server) -> Result<Box<str>, SourceError> {
    match catalogue.log_status(server).await {
        Ok(Some(LogStatus { file: LogFile { name, size }, .. })) => Ok(sequence(&name, size)),
        Ok(None) => Err(failure(SourceErrorKind::Refused, "FV-1202", "the server keeps no binary log")),
        Err(error) if error.kind == SourceErrorKind::Refused => Err(SourceError { code: "FV-1602", ..error }
            .hint("Existing rows are placed in the log: `GRANT REPLICATION CLIENT ON *.*` to the user.")),
        Err(error) => Err(error),
    }
}

/// MariaDB: the place that the snapshot of this connection belongs to.
async fn snapshot_place(catalogue: &mut Catalogue) -> Result<Box<str>, SourceError> {
    let rows = catalogue.ask("SHOW STATUS LIKE 'binlog\\_snapshot\\_%'", "placing a snapshot in the log").await?;
    let value =
        |name: &str| rows.iter().find(|row| field(row, 0).eq_ignore_ascii_case(name)).map_or("", |row| field(row, 1));
    match (value("binlog_snapshot_file"), value("binlog_snapshot_position").parse()) {
        (file, Ok(offset)) if !file.is_empty() => Ok(sequence(file, offset)),
        _ => Err(failure(SourceErrorKind::Refused, "FV-1202", "the server keeps no binary log")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_shows_what_is_in_its_set_or_before_its_place() {
        let uuid = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
        let set = Shown::Gtids(format!("{uuid}:1-5:tag:3").parse().expect("a set"));
        for (id, is_shown) in [("5", true), ("6", false), ("tag:3", true), ("tag:4", false), ("other:3", false)] {
            assert_eq!(set.has(&format!("{uuid}:{id}"), ""), is_shown, "{id}");
        }
        assert!(!set.has("binlog.000001:400", ""));
        let place = Shown::Before(sequence("binlog.000010", 400));
        for (file, offset, is_shown) in
            [("binlog.000010", 400, true), ("binlog.000010", 401, false), ("binlog.000009", 9000, true)]
        {
            assert_eq!(place.has("", &sequence(file, offset)), is_shown, "{file}:{offset}");
        }
    }

    #[test]
    fn the_servers_clock_is_read_to_the_microsecond() {
        assert_eq!(clock("1764342000.000123"), 1_764_342_000_000_123);
        assert_eq!(clock("1764342000"), 1_764_342_000_000_000);
    }
}
