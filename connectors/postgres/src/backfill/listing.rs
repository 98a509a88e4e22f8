//! Which tables are captured now, how large they are, and how busy the server is.
//!
//! A table that comes into the publication is not listed before the transactions have ended that had it locked for
//! writing right then: what they wrote before is in no log of ours, and no snapshot shows it while they run.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use figvine_change::{Load, ReadOrder, SourceError, TableSize};
use tokio_postgres::Row;
use tokio_postgres::types::PgLsn;

use crate::catalogue::{Catalogue, TableFacts};
use crate::connector::Postgres;
use crate::error::of_query;
use crate::publication::{self, refusal};

/// How long the sizes of files may wait for a table that is being rewritten.
const LOCK_WAIT: &str = "1s";

/// What a running source remembers of tables that came into its publication.
#[derive(Debug, Default)]
pub(crate) struct Added(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// Tables that cannot be captured and were warned of.
    warned: HashSet<String>,
    /// Tables that came in, with the transactions that are waited for; `None` as long as nobody looked.
    waiting: HashMap<String, Option<Vec<String>>>,
}

impl Added {
    /// Tables came into the publication.
    pub(crate) fn take(&self, tables: Vec<String>) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.waiting.extend(tables.into_iter().map(|table| (table, None)));
    }

    fn is_to_be_warned_of(&self, table: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).warned.insert(table.to_owned())
    }

    /// The tables that are still waited for, when these transactions write into these tables.
    fn still(&self, writers: &[Writer]) -> HashSet<String> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_table = |table: &String| {
            let ids = writers.iter().filter(|writer| writer.table == *table).map(|writer| writer.id.clone());
            ids.collect::<Vec<String>>()
        };
        memory.waiting.retain(|table, waited| {
            let waited = match waited {
                Some(waited) => {
                    waited.retain(|id| of_table(table).contains(id));
                    waited
                }
                None => waited.insert(of_table(table)),
            };
            !waited.is_empty()
        });
        let older = writers.iter().filter(|writer| writer.is_older).map(|writer| &writer.table);
        memory.waiting.keys().chain(older).cloned().collect()
    }
}

pub(crate) async fn tables(postgres: &Postgres) -> Result<Vec<TableSize>, SourceError> {
    let catalogue = postgres.catalogue().await?;
    let server = catalogue.server().await?;
    let config = &postgres.config;
    let Some(followed) = publication::follow(config, &postgres.globs, &catalogue, &server).await? else {
        return Ok(Vec::new());
    };
    for (table, unfit) in &followed.unfit {
        if postgres.added.is_to_be_warned_of(&table.qualified()) {
            let refusal = refusal(table, *unfit);
            let hint = refusal.hint.as_deref().unwrap_or_default();
            tracing::warn!(code = refusal.code, hint, "{refusal}; it is left out");
        }
    }
    postgres.added.take(followed.added);
    let waiting = postgres.added.still(&writers(&catalogue, &config.publication).await?);
    for table in &waiting {
        tracing::info!(%table, "is captured; its rows are not read before older transactions that write into it end");
    }
    let captured: Vec<&TableFacts> =
        followed.captured.iter().filter(|table| !waiting.contains(&table.qualified())).collect();
    sizes(&catalogue, &captured).await
}

/// A transaction that has a published table locked for writing.
#[derive(Debug)]
struct Writer {
    /// `schema.name`.
    table: String,
    /// The transaction, in the server's words.
    id: String,
    /// Whether it is older than the table's entry in the publication: it is waited for whoever made that, and
    /// should we have been restarted meanwhile.
    is_older: bool,
}

async fn writers(catalogue: &Catalogue, publication: &str) -> Result<Vec<Writer>, SourceError> {
    // The age of a transaction id from before the last half of all numbers is negative: such an entry is old enough.
    let query = "
        select distinct n.nspname || '.' || c.relname, l.virtualtransaction,
               coalesce(age(r.xmin) >= 0 and age(a.backend_xid) >= age(r.xmin), false)
        from pg_locks l
        join pg_class b on b.oid = l.relation
        join pg_class c on c.oid in (b.oid, pg_partition_root(b.oid))
        join pg_namespace n on n.oid = c.relnamespace
        left join pg_stat_activity a on a.pid = l.pid
        left join pg_publication_rel r on r.prrelid = c.oid
                  and r.prpubid = (select oid from pg_publication where pubname = $1)
        where l.locktype = 'relation' and l.granted and l.pid is distinct from pg_backend_pid()
          and l.database = (select oid from pg_database where datname = current_database())
          and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
          and exists (select from pg_publication_tables t
                      where t.pubname = $1 and t.schemaname = n.nspname and t.tablename = c.relname)";
    let rows = catalogue.client().query(query, &[&publication]).await;
    let rows = rows.map_err(|e| of_query(e, "looking for transactions that write"))?;
    Ok(rows.iter().map(|row| Writer { table: row.get(0), id: row.get(1), is_older: row.get(2) }).collect())
}

async fn sizes(catalogue: &Catalogue, captured: &[&TableFacts]) -> Result<Vec<TableSize>, SourceError> {
    let names: Vec<String> = captured.iter().map(|table| table.qualified()).collect();
    let asking = |e| of_query(e, "asking for the sizes of tables");
    // The planner's own way: rows per page as last counted, times the pages that there are. Where nobody counted, a row
    // is taken for a hundred bytes.
    let query = |pages: &str| {
        format!(
            "select n.nspname::text, c.relname::text,
                    coalesce(sum(case when l.reltuples < 0 or l.relpages = 0 then s.pages * (b.size / 100)
                                      else l.reltuples / l.relpages * s.pages end), 0)::bigint,
                    coalesce(sum(s.pages * b.size), 0)::bigint
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             cross join (select current_setting('block_size')::bigint as size) b
             left join lateral (select c.oid as id where c.relkind <> 'p'
                                union all select t.relid from pg_partition_tree(c.oid) t where c.relkind = 'p' and t.isleaf) f on true
             left join pg_class l on l.oid = f.id
             left join lateral (select ({pages})::bigint as pages) s on true
             where n.nspname || '.' || c.relname = any ($1) and c.relkind in ('r', 'p') group by 1, 2"
        )
    };
    let client = catalogue.client();
    client.batch_execute(&format!("set lock_timeout = '{LOCK_WAIT}'")).await.map_err(asking)?;
    let rows = match client.query(&query("pg_relation_size(l.oid) / b.size"), &[&names]).await {
        Err(error) if error.code().is_some_and(|code| code.code() == "55P03") => {
            client.query(&query("l.relpages"), &[&names]).await
        }
        answer => answer,
    };
    let rows = rows.map_err(asking)?;
    let sized = |table: &&TableFacts| {
        let is_it = |row: &&Row| row.get::<_, &str>(0) == table.schema && row.get::<_, &str>(1) == table.name;
        let row = rows.iter().find(is_it)?;
        let number = |at: usize| u64::try_from(row.get::<_, i64>(at)).unwrap_or_default();
        Some(TableSize {
            schema: table.schema.as_str().into(),
            name: table.name.as_str().into(),
            rows: number(2),
            bytes: number(3),
            order: match table.identity {
                'i' => ReadOrder::Key,
                _ if table.has_primary_key => ReadOrder::Key,
                _ => ReadOrder::Physical,
            },
        })
    };
    Ok(captured.iter().filter_map(sized).collect())
}

/// Looks kept of how far the log was, at most.
const LOOKS: usize = 1000;

/// How far the log was when it was looked at. PostgreSQL's own `replay_lag` is the time of the last record that a standby has
/// replayed: of one that has stopped to replay it says nothing.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<VecDeque<(Instant, u64)>>);

impl Looks {
    /// How long a standby lacks what it lacks, now that the log is at `newest` and the standby has replayed up to `replayed`.
    fn lag(&self, now: Instant, newest: u64, replayed: u64) -> Duration {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if looks.len() < LOOKS && looks.back().is_none_or(|(_, lsn)| *lsn < newest) {
            looks.push_back((now, newest));
        }
        while looks.front().is_some_and(|(_, lsn)| *lsn <= replayed) {
            looks.pop_front();
        }
        looks.front().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

pub(crate) async fn load(postgres: &Postgres) -> Result<Load, SourceError> {
    let catalogue = postgres.catalogue().await?;
    // Walsenders of logical slots are readers like us. What we may not see is null.
    let query = "
        with standbys as (
          select r.* from pg_stat_replication r
          where not exists (select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical'))
        select (select count(*) from pg_stat_activity
                where state = 'active' and backend_type = 'client backend' and application_name not like 'figvine %'),
               (select max(extract(epoch from replay_lag))::float8 from standbys),
               case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
               (select min(replay_lsn) from standbys)";
    let row =
        catalogue.client().query_one(query, &[]).await.map_err(|e| of_query(e, "asking how busy the server is"))?;
    let told = row.get::<_, Option<f64>>(1).and_then(|lag| Duration::try_from_secs_f64(lag).ok());
    let lsn = |at: usize| row.get::<_, Option<PgLsn>>(at).map(u64::from);
    let seen = lsn(2).zip(lsn(3)).map(|(newest, replayed)| postgres.looks.lag(Instant::now(), newest, replayed));
    Ok(Load { active_sessions: u32::try_from(row.get::<_, i64>(0)).unwrap_or_default(), replica_lag: told.max(seen) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_are_waited_for_who_wrote_when_the_table_came_in_or_are_older() {
        let writer = |id: &str, is_older| Writer { table: "public.t".into(), id: id.into(), is_older };
        let waits = |added: &Added, writers: &[Writer]| added.still(writers).contains("public.t");
        let added = Added::default();
        assert!(!waits(&added, &[writer("4/1", false)]));
        assert!(waits(&added, &[writer("4/1", true)]));
        added.take(vec!["public.t".into()]);
        assert!(waits(&added, &[writer("4/1", false), writer("5/1", false)]));
        assert!(waits(&added, &[writer("4/1", false), writer("6/1", false)]));
        assert!(!waits(&added, &[writer("4/2", false), writer("6/1", false)]));
        assert!(!waits(&added, &[writer("4/1", false)]), "it was waited for once");
    }

    #[test]
    fn a_standby_that_does_not_replay_falls_behind_with_the_time() {
        let looks = Looks::default();
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(looks.lag(at(0), 100, 100), Duration::ZERO);
        assert_eq!(looks.lag(at(3), 200, 100), Duration::ZERO, "just seen");
        assert_eq!(looks.lag(at(6), 300, 150), Duration::from_secs(3));
        assert_eq!(looks.lag(at(9), 300, 250), Duration::from_secs(3), "of what came at 6");
        assert_eq!(looks.lag(at(12), 300, 300), Duration::ZERO);
    }
}
