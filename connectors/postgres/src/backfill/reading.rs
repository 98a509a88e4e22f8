//! One chunk, from its request to its rows.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Chunk, ChunkRequest, Cursor, SourceError, SourceErrorKind};
use tokio_postgres::SimpleQueryMessage;

use super::intake::{NotCopied, Rows};
use super::place::{self, Pass, Place};
use super::query::{self, Bounds, literal};
use super::rows::RowError;
use super::shape::{self, KeyColumn, Shape};
use super::sight::Snapshot;
use super::{Known, PostgresReader};
use crate::catalogue::Catalogue;
use crate::error::{Told, failure, of_query};
use crate::session::quoted;

/// A table's schema and name.
pub(super) type Names<'a> = (&'a str, &'a str);

/// Asked once per connection to be planned: that takes 3 ms, many times as long as it runs. What the shape is made of has changed
/// when a row of the catalogue has another place or another maker.
pub(super) const PREPARE: &str = "prepare figvine_begun(name, name, name) as
    select pg_current_snapshot(), pg_is_in_recovery(),
           (extract(epoch from clock_timestamp()) * 1000000)::bigint,
           hashtextextended(concat_ws(' ', c.xmin, c.ctid,
             (select string_agg(concat_ws(',', a.xmin, a.ctid, t.xmin, t.ctid), ' ' order by a.attnum)
              from pg_attribute a left join pg_type t on t.oid = a.atttypid
              where a.attrelid = c.oid and a.attnum > 0),
             '/', (select string_agg(concat_ws(',', i.xmin, i.ctid), ' ' order by i.indexrelid)
              from pg_index i where i.indrelid = c.oid),
             '/', (select concat_ws(' ', p.xmin, p.ctid,
                (select string_agg(concat_ws(',', r.xmin, r.ctid), ' ' order by r.oid) from pg_publication_rel r
                 where r.prpubid = p.oid and (r.prrelid = c.oid
                    or r.prrelid in (select relid from pg_partition_ancestors(c.oid))))) from pg_publication p where p.pubname = $3)), 0),
           hashtextextended((select string_agg(l.oid || ':' || coalesce(pg_relation_filenode(l.oid), 0), ' ' order by l.oid)
                             from unnest(parts.ids) as l(oid)), 0),
           (select sum(pg_relation_size(l.oid)) from unnest(parts.ids) as l(oid)),
           parts.ids, parts.names
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    cross join lateral (
      select array_agg(l.oid::oid order by l.oid) as ids,
             string_agg(quote_ident(m.nspname) || '.' || quote_ident(l.relname), E'\\n' order by l.oid) as names
      from (select coalesce(f.relid, c.oid) as id from (select) one
            left join pg_partition_tree(c.oid) f on c.relkind = 'p' and f.isleaf) leaf
      join pg_class l on l.oid = leaf.id join pg_namespace m on m.oid = l.relnamespace
      where l.relkind in ('r', 'p', 'm')) parts
    where n.nspname = $1 and c.relname = $2";

/// What the transaction of a chunk begins with.
pub(super) struct Begun {
    pub(super) snapshot: Snapshot,
    pub(super) read_at: i64,
    digest: String,
    layout: u64,
    bytes: u64,
    /// The files that hold the table's rows: id and name as SQL.
    parts: Vec<(u32, String)>,
}

impl PostgresReader {
    pub(super) async fn chunk(&mut self, request: &ChunkRequest) -> Result<Chunk, SourceError> {
        let mut catalogue = self.connected().await?;
        let of = (&*request.schema, &*request.name);
        let begun = self.begin(&catalogue, of, "").await?;
        let known = self.known(&catalogue, of, &begun).await?;
        let rows = self.rows(&catalogue, request, &begun, &known).await?;
        let (rows, is_last) = rows;
        if rows.is_full {
            // The rest of the answer is not wanted: a new connection is cheaper than to read it, and a request to cancel
            // may come late and hit what is asked next.
            catalogue = self.connect().await?;
        } else {
            catalogue.client().batch_execute("commit").await.map_err(|e| of_query(e, "ending a chunk"))?;
        }
        let high = self.high(&catalogue, !begun.snapshot.is_whole).await?;
        self.catalogue = Some(catalogue);
        let known = Known { width: rows.width().unwrap_or(known.width), ..known };
        let table = Arc::clone(&known.shape.table);
        self.shapes.insert((request.schema.clone(), request.name.clone()), known);
        let (batch, cursors) = rows.batch(table, begun.read_at);
        Ok(Chunk {
            batch,
            cursors,
            sight: Box::new(begun.snapshot),
            high: high.sequence(),
            is_last,
            read_at: begun.read_at,
        })
    }

    /// The connection between two requests, or another.
    pub(super) async fn connected(&mut self) -> Result<Catalogue, SourceError> {
        match self.catalogue.take().filter(|catalogue| !catalogue.client().is_closed()) {
            Some(catalogue) => Ok(catalogue),
            None => self.connect().await,
        }
    }

    /// Begins the transaction: the lock first, so that nothing rewrites the table behind the snapshot, whose rows it
    /// would not show then.
    pub(super) async fn begin(
        &self,
        catalogue: &Catalogue,
        of: Names<'_>,
        settings: &str,
    ) -> Result<Begun, SourceError> {
        let name = format!("{}.{}", quoted(of.0), quoted(of.1));
        let (Some(schema), Some(table), Some(publication)) =
            (literal(of.0.as_bytes()), literal(of.1.as_bytes()), literal(self.captured.publication.as_bytes()))
        else {
            return Err(shape::gone(of.0, of.1));
        };
        let statement = format!(
            "begin isolation level repeatable read read only; {settings} lock table {name} in access share mode;
             execute figvine_begun({schema}, {table}, {publication})"
        );
        let answer = catalogue.client().simple_query(&statement).await.map_err(|e| self.refused(e, of))?;
        let field = |at: usize| first(&answer, at);
        let strange = || failure(SourceErrorKind::Refused, "FV-1608", "the server does not tell its snapshot");
        if field(0).is_none() {
            return Err(shape::gone(of.0, of.1));
        }
        let mut snapshot: Snapshot = field(0).and_then(|text| text.parse().ok()).ok_or_else(strange)?;
        let ids = field(6).unwrap_or_default().trim_matches(['{', '}']).split(',');
        let ids = ids.filter_map(|id| id.parse::<u32>().ok());
        snapshot.is_whole = field(1) == Some("f");
        Ok(Begun {
            snapshot,
            read_at: field(2).and_then(|text| text.parse().ok()).ok_or_else(strange)?,
            digest: field(3).unwrap_or_default().to_owned(),
            layout: field(4).and_then(|text| text.parse::<i64>().ok()).unwrap_or_default().cast_unsigned(),
            bytes: field(5).and_then(|text| text.parse().ok()).unwrap_or_default(),
            parts: ids.zip(field(7).unwrap_or_default().split('\n').map(str::to_owned)).collect(),
        })
    }

    pub(super) async fn known(
        &self,
        catalogue: &Catalogue,
        of: Names<'_>,
        begun: &Begun,
    ) -> Result<Known, SourceError> {
        let known = self.shapes.get(&(of.0.into(), of.1.into()));
        if let Some(known) = known.filter(|known| known.digest == begun.digest && !known.shape.is_fickle) {
            return Ok(known.clone());
        }
        let shape = shape::learn(catalogue, self.version, &self.captured, of).await?;
        let width = known.map_or(0, |known| known.width);
        Ok(Known { shape, digest: begun.digest.clone(), compared: HashMap::new(), width })
    }

    /// The chunk's rows, and whether none is left behind them.
    async fn rows(
        &self,
        catalogue: &Catalogue,
        request: &ChunkRequest,
        begun: &Begun,
        known: &Known,
    ) -> Result<(Rows, bool), SourceError> {
        let fitting =
            request.bytes.checked_div(known.width).map_or(u32::MAX, |rows| u32::try_from(rows).unwrap_or(u32::MAX));
        let limit = request.rows.min(fitting).max(1);
        match &known.shape.order {
            Some(order) => self.by_key(catalogue, request, &known.shape, order, limit).await,
            None => self.by_place(catalogue, request, begun, &known.shape, limit).await,
        }
    }

    async fn by_key(
        &self,
        catalogue: &Catalogue,
        request: &ChunkRequest,
        shape: &Shape,
        order: &[KeyColumn],
        limit: u32,
    ) -> Result<(Rows, bool), SourceError> {
        let literals = |cursor: &Option<Cursor>| match cursor {
            None => Ok(None),
            Some(cursor) => {
                let key = cursor.key().and_then(|key| query::literals(order, &key));
                key.map(Some).ok_or_else(|| another_key(request))
            }
        };
        let (after, upto) = (literals(&request.after)?, literals(&request.upto)?);
        let casts: Vec<String> = after.iter().chain(&upto).flatten().cloned().collect();
        let bounds = Bounds { after, upto, condition: request.condition.as_deref(), rows: limit };
        let statement = query::by_key(shape, order, &bounds);
        let mut rows = Rows::default();
        let columns = shape.table.columns.len();
        let copied = rows
            .copy(catalogue, &statement, columns, request.bytes, |rows, first| {
                rows.close_key(order, first);
                true
            })
            .await;
        if let Err(refused) = copied {
            return Err(self.of_copy(catalogue, refused, request, &casts).await);
        }
        let is_last = !rows.is_full && rows.seen < limit;
        Ok((rows, is_last))
    }

    async fn by_place(
        &self,
        catalogue: &Catalogue,
        request: &ChunkRequest,
        begun: &Begun,
        shape: &Shape,
        limit: u32,
    ) -> Result<(Rows, bool), SourceError> {
        let parsed = |cursor: &Option<Cursor>| match cursor {
            None => Ok(None),
            Some(cursor) => place::parse(cursor).map(Some).ok_or_else(|| another_key(request)),
        };
        let upto = parsed(&request.upto)?.map(|(place, _)| place);
        let (after, pass) = parsed(&request.after)?.unzip();
        let pass = pass.flatten();
        let mut rows = Rows::default();
        if pass.as_ref().is_some_and(|pass| pass.layout != begun.layout) {
            // An emptied table has nothing left to read.
            if begun.bytes == 0 {
                return Ok((rows, true));
            }
            let what = format!("the rows of table {}.{} have other places by now", request.schema, request.name);
            return Err(failure(SourceErrorKind::Invalid, "FV-1607", what).hint(
                "Without a key they are gone through as they lie on disk, and TRUNCATE, VACUUM FULL, CLUSTER or ALTER TABLE has \
                 written the table anew. Begin with it again.",
            ));
        }
        let pass = pass.unwrap_or_else(|| Pass { layout: begun.layout, begun: begun.snapshot.clone() });
        let (suffix, now) = (place::suffix(&pass), begun.snapshot.xmax);
        let columns = shape.table.columns.len();
        for (oid, part) in &begun.parts {
            let id = if shape.is_partitioned { *oid } else { 0 };
            let (passed, last) = (after.map_or(0, |place| place.part), upto.map_or(id, |place| place.part));
            if id < passed || id > last {
                continue;
            }
            let from = after.filter(|place| place.part == id).unwrap_or(Place { part: id, block: 0, offset: 0 });
            let to = upto.filter(|place| place.part == id).map(Place::ctid);
            let bounds =
                Bounds { condition: request.condition.as_deref(), rows: limit - rows.seen, ..Bounds::default() };
            let statement = query::by_place(shape, part, &from.ctid(), to.as_deref(), &bounds);
            let copied = rows
                .copy(catalogue, &statement, columns + 2, request.bytes, |rows, first| {
                    rows.close_place(first, columns, id, &pass, now, &suffix)
                })
                .await;
            if let Err(refused) = copied {
                return Err(self.of_copy(catalogue, refused, request, &[]).await);
            }
            if rows.is_full || rows.seen >= limit {
                return Ok((rows, false));
            }
        }
        Ok((rows, true))
    }

    /// What a refused COPY means: a part of it is the user's, another the cursor's.
    async fn of_copy(
        &self,
        catalogue: &Catalogue,
        refused: NotCopied,
        request: &ChunkRequest,
        casts: &[String],
    ) -> SourceError {
        let of = (&*request.schema, &*request.name);
        let error = match refused {
            NotCopied::Refused(error) => error,
            NotCopied::Strange(error) => return strange(error, of),
        };
        // Classes 22 (a value that is none) and 42 (no such thing, or not to be used like that), but for a lack of rights
        // and of the table itself.
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        let is_text = (code.starts_with("22") || code.starts_with("42")) && code != "42501" && code != "42P01";
        if !is_text {
            return self.refused(error, of);
        }
        if !casts.is_empty() {
            let tried = format!("rollback; select {}", casts.join(", "));
            if catalogue.client().simple_query(&tried).await.is_err() {
                return another_key(request).because(error);
            }
        }
        match &request.condition {
            Some(condition) => {
                // Words on the text itself; those on values would show them.
                let told = error.as_db_error().filter(|told| told.code().code().starts_with("42"));
                let told = told.map(|told| format!(": {}", told.message())).unwrap_or_default();
                let what = format!(
                    "the condition `{condition}` does not hold for table {}.{}{told}",
                    request.schema, request.name
                );
                failure(SourceErrorKind::Invalid, "FV-1605", what)
                    .hint("It is SQL as behind WHERE. Names outside pg_catalog need their schema.")
                    .because(error)
            }
            None => self.refused(error, of),
        }
    }

    /// What the server's refusal to read a table means.
    pub(super) fn refused(&self, error: tokio_postgres::Error, (schema, name): Names<'_>) -> SourceError {
        let told = error.as_db_error();
        let code = told.map(|told| told.code().code()).unwrap_or_default();
        let failure = match code {
            "42501" if told.and_then(|told| told.routine()) == Some("check_enable_rls") => failure(
                SourceErrorKind::Refused,
                "FV-1603",
                format!("row-level security would hide rows of table {schema}.{name} from us"),
            )
            .hint(format!("ALTER ROLE {} BYPASSRLS;", quoted(&self.url.user))),
            "42501" => failure(
                SourceErrorKind::Refused,
                "FV-1602",
                format!("table {schema}.{name} may not be read by role {}", self.url.user),
            )
            .hint(format!(
                "GRANT USAGE ON SCHEMA {0} TO {2}; GRANT SELECT ON {0}.{1} TO {2}; (and on its partitions, if it has any and no key)",
                quoted(schema),
                quoted(name),
                quoted(&self.url.user)
            )),
            "42P01" | "3F000" => shape::gone(schema, name),
            _ => return of_query(error, &format!("reading table {schema}.{name}")),
        };
        failure.because(error)
    }
}

/// What COPY sends is not what it says.
pub(super) fn strange(error: RowError, (schema, name): Names<'_>) -> SourceError {
    let what = format!("a row of table {schema}.{name} is not in COPY's form");
    failure(SourceErrorKind::Undecodable, "FV-1608", what).because(error)
}

fn another_key(request: &ChunkRequest) -> SourceError {
    let what = format!("the key of table {}.{} is another by now", request.schema, request.name);
    failure(SourceErrorKind::Invalid, "FV-1604", what)
        .hint("A cursor names one value for each of the key's columns, in the order of its index. Begin with the table again.")
}

/// A field of the first row of an answer.
pub(super) fn first(answer: &[SimpleQueryMessage], at: usize) -> Option<&str> {
    answer
        .iter()
        .find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })?
        .try_get(at)
        .ok()?
}
