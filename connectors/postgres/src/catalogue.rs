//! Questions to the catalogue, over an ordinary connection.

use std::time::Duration;

use figvine_change::{NamedColumn, SourceError};
use secrecy::ExposeSecret;
use tokio::task::JoinSet;
use tokio_postgres::types::Oid;
use tokio_postgres::{Client, NoTls};

use crate::dial::dial;
use crate::error::of_query;
use crate::lsn::Lsn;
use crate::session::DETERMINISTIC;
use crate::tables::{Facts, Wanted};
use crate::url::ConnectUrl;
use crate::value::TypeRow;

/// A connection for queries.
#[derive(Debug)]
pub(crate) struct Catalogue {
    client: Client,
    /// The connection's task: one, ends with us.
    _connection: JoinSet<()>,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// `server_version_num`: 150018.
    pub(crate) version: u32,
    /// `15.18`.
    pub(crate) version_text: String,
    pub(crate) in_recovery: bool,
    /// `wal_sender_timeout`; zero for none.
    pub(crate) wal_sender_timeout: Duration,
}

/// A row of `pg_replication_slots`.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) plugin: Option<String>,
    /// The database it belongs to, where that is another than ours.
    pub(crate) other_database: Option<String>,
    pub(crate) active_pid: Option<i32>,
    pub(crate) wal_status: Option<String>,
    pub(crate) confirmed: Option<Lsn>,
    /// Why it was invalidated, where the server tells (17 and later).
    pub(crate) invalidation: Option<String>,
    /// The server is a standby, which keeps it in step with its primary's (17 and later): nobody may read through it.
    pub(crate) is_followed: bool,
}

/// A table that could be captured.
#[derive(Debug, Clone)]
pub(crate) struct TableFacts {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `pg_class.relkind`: r table, p partitioned, f foreign, v view, m materialized view.
    pub(crate) kind: char,
    /// `pg_class.relreplident`: d default, n nothing, f full, i index.
    pub(crate) identity: char,
    /// `pg_class.relpersistence`: p permanent, u unlogged.
    pub(crate) persistence: char,
    /// A deferrable one does not count: PostgreSQL does not take it for an identity.
    pub(crate) has_primary_key: bool,
    /// With identity `i`: whether the index is still there.
    pub(crate) has_identity_index: bool,
    /// The partitioned tables above it, the nearest first, as `schema.name`.
    pub(crate) ancestors: Vec<String>,
    pub(crate) we_own: bool,
    pub(crate) may_select: bool,
    /// Columns that are computed when a row is written; they are in the log, and sent from version 18 on if the publication
    /// says so.
    pub(crate) stored_generated: i64,
    /// Columns that are computed when a row is read (18 and later): never in the log.
    pub(crate) virtual_generated: i64,
    pub(crate) toastable_columns: i64,
}

impl TableFacts {
    pub(crate) fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// As SQL wants it.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", crate::session::quoted(&self.schema), crate::session::quoted(&self.name))
    }

    /// Whether the server can tell rows of it apart in the log. Without it, UPDATE and DELETE of a published table fail.
    pub(crate) fn has_identity(&self) -> bool {
        match self.identity {
            'd' => self.has_primary_key,
            'i' => self.has_identity_index,
            'f' => true,
            _ => false,
        }
    }
}

impl Catalogue {
    /// Connects.
    pub(crate) async fn connect(url: &ConnectUrl, application: &str) -> Result<Self, SourceError> {
        let stream = dial(url).await?;
        let mut config = tokio_postgres::Config::new();
        config.user(&url.user).dbname(&url.database).application_name(application);
        if let Some(password) = &url.password {
            config.password(password.expose_secret());
        }
        let options: Vec<String> = DETERMINISTIC
            .iter()
            .filter(|(name, _)| *name != "client_encoding")
            .map(|(name, value)| format!("-c {name}={value}"))
            .collect();
        config.options(options.join(" "));
        // TLS, where wanted, is already in the stream.
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        let connected = Box::pin(config.connect_raw(stream, NoTls)).await;
        let (client, connection) = connected.map_err(|e| of_query(e, "connecting"))?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Its error reaches whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self { client, _connection: task })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) async fn server(&self) -> Result<Server, SourceError> {
        let row = self
            .client
            .query_one(
                "select current_setting('server_version_num')::int, split_part(current_setting('server_version'), ' ', 1),
                        pg_is_in_recovery(),
                        (select setting::bigint from pg_settings where name = 'wal_sender_timeout')",
                &[],
            )
            .await
            .map_err(|e| of_query(e, "asking for the server's version"))?;
        Ok(Server {
            version: u32::try_from(row.get::<_, i32>(0)).unwrap_or_default(),
            version_text: row.get(1),
            in_recovery: row.get(2),
            wal_sender_timeout: Duration::from_millis(u64::try_from(row.get::<_, i64>(3)).unwrap_or_default()),
        })
    }

    pub(crate) async fn slot(&self, name: &str, version: u32) -> Result<Option<Slot>, SourceError> {
        let since_17 = if version >= 170_000 {
            "invalidation_reason, synced and pg_is_in_recovery()"
        } else {
            "null::text, false"
        };
        let query = format!(
            "select plugin::text, nullif(database, current_database())::text, active_pid, wal_status, confirmed_flush_lsn::text, {since_17}
             from pg_replication_slots where slot_name = $1"
        );
        let row = self.client.query_opt(&query, &[&name]).await.map_err(|e| of_query(e, "looking for the slot"))?;
        Ok(row.map(|row| Slot {
            plugin: row.get(0),
            other_database: row.get(1),
            active_pid: row.get(2),
            wal_status: row.get(3),
            confirmed: row.get::<_, Option<&str>>(4).and_then(|lsn| lsn.parse().ok()),
            invalidation: row.get(5),
            is_followed: row.get(6),
        }))
    }

    /// Whether transactions were decoded through the slot. The server forgets it when it crashes.
    pub(crate) async fn was_read(&self, slot: &str) -> Result<bool, SourceError> {
        let query = "select coalesce(total_txns, 0) > 0 from pg_stat_replication_slots where slot_name = $1";
        let row = self.client.query_opt(query, &[&slot]).await.map_err(|e| of_query(e, "asking what was read"))?;
        Ok(row.is_some_and(|row| row.get(0)))
    }

    /// The oldest running transaction beside ours: what the creation of a slot waits for.
    pub(crate) async fn oldest_transaction(&self) -> Result<Option<(i32, String)>, SourceError> {
        let query = "select pid, coalesce(nullif(application_name, ''), backend_type) from pg_stat_activity
                     where backend_xid is not null and pid <> pg_backend_pid() order by xact_start limit 1";
        let row =
            self.client.query_opt(query, &[]).await.map_err(|e| of_query(e, "looking for running transactions"))?;
        Ok(row.map(|row| (row.get(0), row.get(1))))
    }

    /// All tables outside the system's schemas.
    pub(crate) async fn tables(&self) -> Result<Vec<TableFacts>, SourceError> {
        let query = "
            select n.nspname::text, c.relname::text, c.relkind, c.relreplident, c.relpersistence,
                   exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary and i.indimmediate),
                   exists (select from pg_index i where i.indrelid = c.oid and i.indisreplident),
                   array(select pn.nspname || '.' || pc.relname
                         from pg_partition_ancestors(c.oid) with ordinality as a(relid, at)
                         join pg_class pc on pc.oid = a.relid join pg_namespace pn on pn.oid = pc.relnamespace
                         where a.relid <> c.oid order by a.at)::text[],
                   pg_has_role(c.relowner, 'usage'),
                   has_table_privilege(c.oid, 'select') and has_schema_privilege(n.oid, 'usage'),
                   (select count(*) from pg_attribute a where a.attrelid = c.oid and a.attgenerated = 's' and not a.attisdropped),
                   (select count(*) from pg_attribute a where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped),
                   (select count(*) from pg_attribute a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attstorage <> 'p')
            from pg_class c join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p', 'f', 'v', 'm') and c.relpersistence <> 't'
              and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
            order by 1, 2";
        let rows = self.client.query(query, &[]).await.map_err(|e| of_query(e, "listing the tables"))?;
        let char_of = |byte: i8| char::from(byte.unsigned_abs());
        let facts = rows.iter().map(|row| TableFacts {
            schema: row.get(0),
            name: row.get(1),
            kind: char_of(row.get(2)),
            identity: char_of(row.get(3)),
            persistence: char_of(row.get(4)),
            has_primary_key: row.get(5),
            has_identity_index: row.get(6),
            ancestors: row.get(7),
            we_own: row.get(8),
            may_select: row.get(9),
            stored_generated: row.get(10),
            virtual_generated: row.get(11),
            toastable_columns: row.get(12),
        });
        Ok(facts.collect())
    }

    /// The columns of all tables outside the system's schemas, each with whether it belongs to the replica identity's index,
    /// else to the primary key.
    pub(crate) async fn columns(&self) -> Result<Vec<NamedColumn>, SourceError> {
        let query = "
            select n.nspname::text, c.relname::text, a.attname::text,
                   exists (select from pg_index i where i.indrelid = c.oid and a.attnum = any (i.indkey)
                           and case c.relreplident when 'i' then i.indisreplident else i.indisprimary end)
            from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
            where c.relkind in ('r', 'p') and c.relpersistence <> 't' and a.attnum > 0 and not a.attisdropped
              and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
            order by 1, 2, a.attnum";
        let rows = self.client.query(query, &[]).await.map_err(|e| of_query(e, "listing the columns"))?;
        let text = |row: &tokio_postgres::Row, at: usize| row.get::<_, &str>(at).into();
        let column =
            |row| NamedColumn { schema: text(row, 0), table: text(row, 1), name: text(row, 2), is_key: row.get(3) };
        Ok(rows.iter().map(column).collect())
    }

    /// Answers what a RELATION made us ask. Whatever no longer exists gets an answer too:
    /// its values are text then.
    pub(crate) async fn answer(&self, wanted: &Wanted, facts: &mut Facts) -> Result<(), SourceError> {
        let mut asked = wanted.types.clone();
        while !asked.is_empty() {
            let mut rows = self.types(&asked).await?;
            for oid in &asked {
                if !rows.iter().any(|row| row.oid == *oid) {
                    rows.push(TypeRow {
                        oid: *oid,
                        schema: String::new(),
                        name: format!("{oid}"),
                        kind: 'b',
                        category: 'U',
                        element: 0,
                        delimiter: b',',
                        base: 0,
                        base_modifier: -1,
                        attributes: Vec::new(),
                    });
                }
            }
            facts.types.add(rows);
            let mut more: Vec<u32> = wanted.types.iter().flat_map(|oid| facts.types.missing(*oid)).collect();
            more.sort_unstable();
            more.dedup();
            asked = more;
        }
        if !wanted.type_names.is_empty() {
            let (oids, modifiers): (Vec<Oid>, Vec<i32>) = wanted.type_names.iter().copied().unzip();
            let query = "select t.oid, t.modifier, format_type(t.oid, t.modifier)
                         from unnest($1::oid[], $2::int4[]) as t(oid, modifier)";
            let rows = self.client.query(query, &[&oids, &modifiers]).await;
            for row in rows.map_err(|e| of_query(e, "asking for type names"))? {
                let name: Option<String> = row.get(2);
                let name = name.unwrap_or_else(|| "text".into());
                facts.type_names.insert((row.get::<_, Oid>(0), row.get(1)), name.into());
            }
        }
        if let Some(table) = wanted.primary_key {
            // The columns behind `indnkeyatts` are only included. A deferrable key is none: within a statement two
            // rows may have the same, so that it does not tell them apart.
            let query = "select a.attname::text from pg_index i
                         cross join lateral unnest(i.indkey) with ordinality as k(attnum, at)
                         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                         where i.indrelid = $1 and i.indisprimary and i.indimmediate and i.indisvalid and k.at <= i.indnkeyatts";
            let rows =
                self.client.query(query, &[&table]).await.map_err(|e| of_query(e, "asking for a primary key"))?;
            facts.primary_keys.insert(table, rows.iter().map(|row| row.get(0)).collect());
        }
        Ok(())
    }

    async fn types(&self, oids: &[Oid]) -> Result<Vec<TypeRow>, SourceError> {
        let query = "
            select t.oid, n.nspname::text, t.typname::text, t.typtype, t.typcategory,
                   case when t.typcategory = 'A' then t.typelem else 0 end, t.typdelim, t.typbasetype, t.typtypmod,
                   array(select a.attname::text from pg_attribute a
                         where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum),
                   array(select a.atttypid from pg_attribute a
                         where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped order by a.attnum)
            from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.oid = any ($1)";
        let rows = self.client.query(query, &[&oids]).await.map_err(|e| of_query(e, "asking for types"))?;
        let rows = rows.iter().map(|row| {
            let names: Vec<String> = row.get(9);
            let types: Vec<Oid> = row.get(10);
            TypeRow {
                oid: row.get::<_, Oid>(0),
                schema: row.get(1),
                name: row.get(2),
                kind: char::from(row.get::<_, i8>(3).unsigned_abs()),
                category: char::from(row.get::<_, i8>(4).unsigned_abs()),
                element: row.get::<_, Oid>(5),
                delimiter: row.get::<_, i8>(6).unsigned_abs(),
                base: row.get::<_, Oid>(7),
                base_modifier: row.get(8),
                attributes: names.into_iter().zip(types).collect(),
            }
        });
        Ok(rows.collect())
    }

    /// Bytes of log that the slot keeps, what it may still keep, and the limit (`max_slot_wal_keep_size`, -1 for none).
    pub(crate) async fn retained(&self, slot: &str) -> Result<Option<(i64, Option<i64>, i64)>, SourceError> {
        let query = "
            select (pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
                                    restart_lsn))::bigint,
                   safe_wal_size,
                   (select setting::bigint * 1024 * 1024 from pg_settings where name = 'max_slot_wal_keep_size')
            from pg_replication_slots where slot_name = $1 and restart_lsn is not null";
        let row =
            self.client.query_opt(query, &[&slot]).await.map_err(|e| of_query(e, "measuring the retained log"))?;
        Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
    }
}
