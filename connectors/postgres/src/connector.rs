//! The way to one PostgreSQL database.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use figvine_change::{
    Connector, Durable, Engine, Finding, Load, NamedColumn, Position, Retention, SourceError, SourceErrorKind, Table,
    TableSize,
};
use secrecy::ExposeSecret;
use tokio::task::JoinSet;

use crate::backfill::{self, PostgresReader};
use crate::catalogue::Catalogue;
use crate::config::{Config, Keyless};
use crate::error::{Told, failure, of_query};
use crate::globs::{GlobError, Globs};
use crate::lsn::{LogId, Lsn};
use crate::messages::Prefixes;
use crate::normalise::Normaliser;
use crate::session::{Replication, Session};
use crate::source::{PostgresSource, Questions, heartbeat, position};
use crate::tables::{Facts, Tables};
use crate::timeline::Timeline;
use crate::url::{ConnectUrl, UrlError};
use crate::value::Types;
use crate::{check, publication, slot};

/// The oldest version with pgoutput's `messages`.
const OLDEST: u32 = 140_000;
/// The oldest version that decodes its log on a standby.
pub(crate) const STANDBY: u32 = 160_000;
/// How often a status goes to the server at least; less where `wal_sender_timeout` is short.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// One PostgreSQL database as a source.
#[derive(Debug)]
pub struct Postgres {
    pub(crate) config: Config,
    pub(crate) url: ConnectUrl,
    pub(crate) globs: Globs,
    prefixes: Prefixes,
    application: String,
    /// Tables that came into the publication.
    pub(crate) added: backfill::Added,
    /// How far the log was.
    pub(crate) looks: backfill::Looks,
}

/// A configuration that cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A glob over tables or messages.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// A name that a slot cannot have.
    #[error("`{0}` is no name for a replication slot: it has 1 to 63 of a-z, 0-9 and _")]
    SlotName(String),
}

impl Postgres {
    /// Reads the configuration; connects to nothing.
    ///
    /// # Errors
    /// When a part of it cannot hold.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let url = ConnectUrl::parse(config.url.expose_secret())?;
        let globs = Globs::of_tables(&config.tables)?;
        let prefixes = Prefixes::of(&config)?;
        let is_slot_name = |name: &str| {
            (1..=63).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if !is_slot_name(&config.slot) {
            return Err(ConfigError::SlotName(config.slot));
        }
        let application = format!("figvine {}", config.source);
        Ok(Self {
            config,
            url,
            globs,
            prefixes,
            application,
            added: backfill::Added::default(),
            looks: backfill::Looks::default(),
        })
    }

    pub(crate) async fn catalogue(&self) -> Result<Catalogue, SourceError> {
        Catalogue::connect(&self.url, &self.application).await
    }

    /// `application_name` of all our connections.
    pub(crate) fn application(&self) -> &str {
        &self.application
    }

    pub(crate) async fn session(&self) -> Result<Session, SourceError> {
        Session::open(&self.url, &self.application, self.config.lock_timeout.as_millis()).await
    }
}

impl Connector for Postgres {
    type Source = PostgresSource;
    type Reader = PostgresReader;

    async fn check(&self) -> Result<Vec<Finding>, SourceError> {
        check::check(self).await
    }

    async fn newest(&self) -> Result<Position, SourceError> {
        let system = self.session().await?.identify().await?;
        let catalogue = self.catalogue().await?;
        // A record of our own, committed, so that the place is flushed and the stream is sure to pass it.
        // On a standby nothing can be written: what it has replayed will do.
        let server = catalogue.server().await?;
        let query = if server.in_recovery {
            "select pg_last_wal_replay_lsn()::text"
        } else {
            "select pg_logical_emit_message(true, 'figvine.heartbeat', 'newest')::text"
        };
        let row = catalogue
            .client()
            .query_one(query, &[])
            .await
            .map_err(|e| of_query(e, "asking for the newest position"))?;
        let lsn: Lsn = row.get::<_, String>(0).parse().map_err(|_| {
            failure(SourceErrorKind::Refused, "FV-1116", "the server does not say how far its log goes")
        })?;
        Ok(position(LogId { system: system.id, timeline: system.timeline }, lsn))
    }

    async fn was_read(&self) -> Result<bool, SourceError> {
        self.catalogue().await?.was_read(&self.config.slot).await
    }

    async fn retention(&self) -> Result<Option<Retention>, SourceError> {
        let retained = self.catalogue().await?.retained(&self.config.slot).await?;
        Ok(retained.map(|(bytes, safe, limit)| {
            #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
            let safe_ratio = safe.filter(|_| limit > 0).map(|safe| (safe as f64 / limit as f64).clamp(0.0, 1.0));
            Retention { bytes: u64::try_from(bytes).unwrap_or_default(), safe_ratio }
        }))
    }

    async fn tables(&self) -> Result<Vec<TableSize>, SourceError> {
        backfill::tables(self).await
    }

    async fn columns(&self) -> Result<Vec<NamedColumn>, SourceError> {
        let mut columns = self.catalogue().await?.columns().await?;
        columns.retain(|column| self.globs.matches_table(&column.schema, &column.table));
        if self.config.keyless == Keyless::WholeRow {
            let keyed: HashSet<_> =
                columns.iter().filter(|c| c.is_key).map(|c| (c.schema.clone(), c.table.clone())).collect();
            for column in &mut columns {
                column.is_key |= !keyed.contains(&(column.schema.clone(), column.table.clone()));
            }
        }
        Ok(columns)
    }

    async fn shapes(&self) -> Result<Vec<Arc<Table>>, SourceError> {
        backfill::shapes(self, &self.columns().await?).await
    }

    async fn reader(&self) -> Result<PostgresReader, SourceError> {
        PostgresReader::open(self).await
    }

    async fn load(&self) -> Result<Load, SourceError> {
        backfill::load(self).await
    }

    fn is_reached(&self, target: &Position, reached: &Position) -> bool {
        let (Some((aim, target_lsn)), Some((log, lsn))) = (LogId::parse(target), LogId::parse(reached)) else {
            return false;
        };
        // A promotion begins a later timeline, whose places go on from the old one's. Inside a transaction both begin where
        // it is committed, and go on by what was passed of it.
        let leads_on = aim.system == log.system && aim.timeline <= log.timeline;
        leads_on && (lsn > target_lsn || lsn == target_lsn && reached.within >= target.within)
    }

    async fn open(&self, from: Option<Position>, durable: Durable) -> Result<PostgresSource, SourceError> {
        let config = &self.config;
        let catalogue = self.catalogue().await?;
        let server = catalogue.server().await?;
        if server.version < OLDEST {
            return Err(failure(
                SourceErrorKind::Invalid,
                "FV-1204",
                format!("PostgreSQL {} is too old", server.version_text),
            )
            .hint("Version 14 or newer is needed."));
        }
        if server.in_recovery && server.version < STANDBY {
            let what = format!("PostgreSQL {} on a standby gives no changes", server.version_text);
            return Err(failure(SourceErrorKind::Invalid, "FV-1205", what)
                .hint("Point the url at the primary; from version 16 on a standby will do."));
        }
        let mut session = self.session().await?;
        let system = session.identify().await?;
        let log = LogId { system: system.id, timeline: system.timeline };
        // What is lost is said before anything is changed. A publication stands before its slot: the log from the slot's
        // beginning on is read as the catalogue was at each place.
        let place = slot::place(config, &catalogue, &server, &mut session, log, from.as_ref()).await?;
        let brought = publication::ensure(config, &self.globs, &catalogue, &server).await?;
        let is_new = brought.is_new;
        self.added.take(brought.added);
        let place = match place {
            Some(place) => place,
            None => slot::create(config, &catalogue, &server, &mut session, log).await?,
        };
        let begun = session.replicate(&config.slot, &config.publication, place.from).await;
        let session = begun.map_err(|error| self.not_begun(error, from.is_some()))?;
        tracing::info!(slot = %config.slot, from = %place.from, timeline = place.log.timeline, "reading the log");

        let status_every = match server.wal_sender_timeout / 3 {
            Duration::ZERO => STATUS_EVERY,
            third => third.min(STATUS_EVERY),
        };
        let mut beside = JoinSet::new();
        if let Some(every) = config.heartbeat.filter(|_| !server.in_recovery) {
            beside.spawn(heartbeat(self.url.clone(), self.application.clone(), every));
        }
        let within = from.as_ref().and_then(|position| position.within);
        let tables = Tables::new(self.globs.clone(), config.keyless);
        Ok(PostgresSource {
            started_at: Position { within, ..position(place.log, place.from) },
            engine: Engine {
                name: "postgres",
                version: server.version_text.into(),
                database: self.url.database.as_str().into(),
            },
            replication: Replication::run(session, place.log, durable, status_every),
            normaliser: Normaliser::new(
                place.log,
                tables,
                self.prefixes.clone(),
                place.from,
                within,
                config.values.debezium.as_ref().is_some_and(|encoding| encoding.tombstones),
            ),
            facts: Facts {
                types: Types::new(&config.values),
                type_names: HashMap::new(),
                primary_keys: HashMap::new(),
            },
            catalogue: Questions {
                url: self.url.clone(),
                application: self.application.clone(),
                catalogue: Some(catalogue),
            },
            passing_publication: (is_new && config.slot_is_passing).then(|| config.publication.clone()),
            // A primary stays on its timeline for as long as it runs.
            timeline: server.in_recovery.then(|| Timeline::new(self.url.clone(), self.application.clone(), place.log)),
            chunk: None,
            wanted: None,
            ready: VecDeque::new(),
            _beside: beside,
        })
    }
}

impl Postgres {
    /// What START_REPLICATION's refusal means: between our look at the slot and now it may have changed.
    fn not_begun(&self, error: SourceError, has_place: bool) -> SourceError {
        let state = error.source.as_deref().and_then(|told| told.downcast_ref::<crate::error::ServerError>());
        let state = state.map(|told| told.code.clone()).unwrap_or_default();
        let name = &self.config.slot;
        let meant = match state.as_str() {
            "55006" => slot::busy(name, None),
            "42704" if has_place => slot::lost(format!("slot {name} is gone")),
            "55000" => slot::lost(format!("slot {name} can no longer be read from"))
                .hint("The server invalidated it, or removed its log. Drop it and begin anew with another stream."),
            _ => return error,
        };
        SourceError { source: error.source, ..meant }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_at_it_behind_it_and_on_a_later_timeline_of_the_same_cluster() {
        let postgres = Postgres::new(crate::config::tests::example()).expect("a configuration");
        let reached = |target: &str, reached: &str| {
            let [target, reached] = [target, reached].map(|text| Position::parse(text).expect("a position"));
            postgres.is_reached(&target, &reached)
        };
        for there in ["7/1/0/64", "7/1/0/65", "7/2/0/64", "7/1/0/65;0.0"] {
            assert!(reached("7/1/0/64", there), "{there}");
        }
        for before in ["7/1/0/63", "7/2/0/63", "8/1/0/64", "mysql-bin.000001:4"] {
            assert!(!reached("7/1/0/64", before), "{before}");
        }
        assert!(!reached("7/2/0/64", "7/1/0/64"), "an earlier timeline");
        assert!(reached("7/1/0/64;2.0", "7/1/0/64;2.1") && !reached("7/1/0/64;2.1", "7/1/0/64;2.0"));
    }
}
