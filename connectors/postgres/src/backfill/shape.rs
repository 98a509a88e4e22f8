//! A table's shape as the log would tell it, and the order in which it is gone through: out of the catalogue, in the
//! snapshot in which its rows are read.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{SourceError, SourceErrorKind, Table};
use tokio_postgres::Row;

use crate::catalogue::Catalogue;
use crate::config::{Config, Keyless, ValueOptions};
use crate::decode::{Relation, RelationColumn};
use crate::error::{Told, failure, of_query};
use crate::globs::Globs;
use crate::session::quoted;
use crate::tables::{Facts, Known, Tables};
use crate::value::Types;

/// What decides which columns and rows of a table are captured, and how.
#[derive(Debug, Clone)]
pub(super) struct Captured {
    pub(super) globs: Globs,
    pub(super) publication: String,
    pub(super) keyless: Keyless,
    pub(super) values: ValueOptions,
}

impl Captured {
    pub(super) fn new(config: &Config, globs: &Globs) -> Self {
        Self {
            globs: globs.clone(),
            publication: config.publication.clone(),
            keyless: config.keyless,
            values: config.values.clone(),
        }
    }
}

/// A table's shape.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) table: Arc<Table>,
    pub(super) is_partitioned: bool,
    /// The publication's row filter.
    pub(super) filter: Option<String>,
    /// The key's columns in the order of their index; `None` where rows are gone through as they lie on disk.
    pub(super) order: Option<Vec<KeyColumn>>,
    /// Whether a change of it can go unnoticed: the attributes of composite types belong to no table.
    pub(super) is_fickle: bool,
}

impl Shape {
    /// As SQL wants it.
    pub(super) fn quoted_name(&self) -> String {
        format!("{}.{}", quoted(&self.table.schema), quoted(&self.table.name))
    }
}

/// A column of a key, as its index keeps it.
#[derive(Debug, Clone)]
pub(super) struct KeyColumn {
    /// Its place among the table's columns.
    pub(super) column: usize,
    pub(super) name: String,
    /// Its type, without modifier, and a domain's base: a literal is cast to it and loses nothing.
    pub(super) base_type: String,
    /// Whether its type is a domain. Over an enum it has no operators until it is cast.
    pub(super) is_domain: bool,
    /// The index's collation as SQL, where it is not the column's.
    pub(super) collation: Option<String>,
    pub(super) is_descending: bool,
    pub(super) nulls_first: bool,
    pub(super) operators: Operators,
}

impl KeyColumn {
    /// The column as it is compared with a literal.
    pub(super) fn compared(&self) -> String {
        let name = quoted(&self.name);
        self.collated(if self.is_domain { format!("{name}::{}", self.base_type) } else { name })
    }

    fn collated(&self, name: String) -> String {
        match &self.collation {
            Some(collation) => format!("({name} COLLATE {collation})"),
            None => name,
        }
    }

    /// The column in ORDER BY. No null is in a key, but the planner takes an index for its order only if that says the
    /// same of nulls.
    pub(super) fn sorted(&self) -> String {
        let name = self.collated(quoted(&self.name));
        let direction = match (self.operators.are_plain, self.is_descending) {
            (true, false) => String::new(),
            (true, true) => " DESC".into(),
            (false, is_descending) => format!(" USING {}", self.operators.strict(is_descending)),
        };
        let nulls = match (self.is_descending, self.nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{name}{direction}{nulls}")
    }
}

/// The operators of a column's operator class, as SQL. They are found by the index and not by name: with an empty
/// search path `citext > citext` would be the comparison of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operators {
    less: String,
    less_equal: String,
    pub(super) equal: String,
    greater_equal: String,
    greater: String,
    /// Whether they are PostgreSQL's own `<` and so on, which also compare rows.
    pub(super) are_plain: bool,
}

const PLAIN: [&str; 5] = ["<", "<=", "=", ">=", ">"];

impl Operators {
    #[cfg(test)]
    pub(super) fn plain() -> Self {
        Self::named("pg_catalog", &PLAIN.map(str::to_owned))
    }

    /// In the order of a btree's strategies.
    pub(super) fn named(schema: &str, names: &[String; 5]) -> Self {
        let are_plain = schema == "pg_catalog" && names.iter().zip(PLAIN).all(|(name, plain)| name == plain);
        let [less, less_equal, equal, greater_equal, greater] =
            names.clone().map(|name| if are_plain { name } else { format!("OPERATOR({}.{name})", quoted(schema)) });
        Self { less, less_equal, equal, greater_equal, greater, are_plain }
    }

    pub(super) fn strict(&self, is_greater: bool) -> &str {
        if is_greater { &self.greater } else { &self.less }
    }

    pub(super) fn loose(&self, is_greater: bool) -> &str {
        if is_greater { &self.greater_equal } else { &self.less_equal }
    }
}

/// Learns a table's shape.
pub(super) async fn learn(
    catalogue: &Catalogue,
    version: u32,
    captured: &Captured,
    (schema, name): (&str, &str),
) -> Result<Shape, SourceError> {
    let asking = |e| of_query(e, "asking for a table's shape");
    let client = catalogue.client();
    let since_15 = if version >= 150_000 { "p.attnames::text[], p.rowfilter" } else { "null::text[], null::text" };
    let query = format!(
        "select c.oid, c.relkind, c.relreplident, p.pubname is not null, {since_15}
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_publication_tables p on p.pubname = $3 and p.schemaname = n.nspname and p.tablename = c.relname
         where n.nspname = $1 and c.relname = $2"
    );
    let row = client.query_opt(&query, &[&schema, &name, &captured.publication]).await.map_err(asking)?;
    let row = row.ok_or_else(|| gone(schema, name))?;
    let (oid, kind, identity): (u32, i8, i8) = (row.get(0), row.get(1), row.get(2));
    let (is_published, listed, filter): (bool, Option<Vec<String>>, Option<String>) =
        (row.get(3), row.get(4), row.get(5));
    if !is_published || !captured.globs.matches_table(schema, name) {
        return Err(not_captured(schema, name));
    }

    // The log carries generated columns from 18 on, and only where the publication lists them.
    let query = "select attname::text, atttypid, atttypmod, attgenerated <> '' from pg_attribute
                 where attrelid = $1 and attnum > 0 and not attisdropped order by attnum";
    let rows = client.query(query, &[&oid]).await.map_err(asking)?;
    let is_sent = |row: &&Row| {
        let (name, is_generated): (&str, bool) = (row.get(0), row.get(3));
        listed.as_ref().is_none_or(|listed| listed.iter().any(|n| n == name)) && (version >= 180_000 || !is_generated)
    };
    let sent: Vec<&Row> = rows.iter().filter(is_sent).collect();
    let order = order(catalogue, oid, identity).await?;
    let columns = sent.iter().map(|row| RelationColumn {
        identity: order.iter().any(|column| column.name == row.get::<_, &str>(0)),
        name: row.get(0),
        type_oid: row.get(1),
        modifier: row.get(2),
    });
    let relation = Relation { oid, schema, name, identity: identity.unsigned_abs(), columns: columns.collect() };

    let mut facts =
        Facts { types: Types::new(&captured.values), type_names: HashMap::new(), primary_keys: HashMap::new() };
    let mut tables = Tables::new(captured.globs.clone(), captured.keyless);
    if let Some(wanted) = tables.wants(&relation, &facts) {
        catalogue.answer(&wanted, &mut facts).await?;
    }
    tables.learn(&relation, &mut facts);
    let Some(Known::Captured(table)) = tables.get(oid) else { return Err(not_captured(schema, name)) };
    let is_fickle = relation.columns.iter().any(|column| !facts.types.composites(column.type_oid).is_empty());
    Ok(Shape {
        order: in_columns(order, table),
        table: Arc::clone(table),
        is_partitioned: kind == b'p'.cast_signed(),
        filter,
        is_fickle,
    })
}

/// The order, where it is the key's.
fn in_columns(order: Vec<KeyColumn>, table: &Table) -> Option<Vec<KeyColumn>> {
    let place = |column: KeyColumn| {
        let at = table.columns.iter().position(|other| *other.name == *column.name)?;
        table.key.contains(&at).then_some(KeyColumn { column: at, ..column })
    };
    let order = order.into_iter().map(place).collect::<Option<Vec<_>>>()?;
    (!order.is_empty() && order.len() == table.key.len()).then_some(order)
}

/// The columns of the index that keeps the key: the replica identity's, else the primary key.
async fn order(catalogue: &Catalogue, oid: u32, identity: i8) -> Result<Vec<KeyColumn>, SourceError> {
    let query = "
        select a.attname::text,
               (with recursive base(oid, kind, below) as (
                  select t.oid, t.typtype, t.typbasetype from pg_type t where t.oid = a.atttypid
                  union all
                  select t.oid, t.typtype, t.typbasetype from base join pg_type t on base.kind = 'd' and t.oid = base.below)
                select format_type(oid, -1) from base where kind <> 'd'),
               case when i.indcollation[k.at - 1] not in (0, a.attcollation)
                    then (select quote_ident(n.nspname) || '.' || quote_ident(l.collname) from pg_collation l
                          join pg_namespace n on n.oid = l.collnamespace where l.oid = i.indcollation[k.at - 1]) end,
               i.indoption[k.at - 1] & 1 <> 0, i.indoption[k.at - 1] & 2 <> 0,
               array(select p.oprname::text from pg_amop m join pg_operator p on p.oid = m.amopopr
                     where m.amopfamily = o.opcfamily and m.amoplefttype = o.opcintype and m.amoprighttype = o.opcintype
                       and m.amoppurpose = 's' order by m.amopstrategy),
               (select min(n.nspname::text) from pg_amop m join pg_operator p on p.oid = m.amopopr
                join pg_namespace n on n.oid = p.oprnamespace
                where m.amopfamily = o.opcfamily and m.amoplefttype = o.opcintype and m.amoprighttype = o.opcintype
                  and m.amoppurpose = 's'),
               (select typtype = 'd' from pg_type where oid = a.atttypid)
        from pg_index i join pg_class c on c.oid = i.indrelid
        cross join lateral (select u.attnum, u.at::int from unnest(i.indkey) with ordinality as u(attnum, at)) k
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
        join pg_opclass o on o.oid = i.indclass[k.at - 1]
        where i.indrelid = $1 and k.at <= i.indnkeyatts
          and case when $2 then i.indisreplident
                   else i.indisprimary and i.indimmediate and (i.indisvalid or c.relkind = 'p') end
        order by k.at";
    let is_index = identity == b'i'.cast_signed();
    let rows = catalogue.client().query(query, &[&oid, &is_index]).await;
    let rows = rows.map_err(|e| of_query(e, "asking for the order of a key"))?;
    let columns = rows.iter().map(|row| {
        let names: Vec<String> = row.get(5);
        let schema: Option<&str> = row.get(6);
        Some(KeyColumn {
            column: 0,
            name: row.get(0),
            base_type: row.get(1),
            is_domain: row.get(7),
            collation: row.get(2),
            is_descending: row.get(3),
            nulls_first: row.get(4),
            operators: Operators::named(schema?, &names.try_into().ok()?),
        })
    });
    // A btree's operator class has all five operators.
    Ok(columns.collect::<Option<_>>().unwrap_or_default())
}

/// The table is not there any more.
pub(super) fn gone(schema: &str, name: &str) -> SourceError {
    failure(SourceErrorKind::Invalid, "FV-1601", format!("there is no table {schema}.{name}"))
}

fn not_captured(schema: &str, name: &str) -> SourceError {
    failure(SourceErrorKind::Invalid, "FV-1606", format!("table {schema}.{name} is not captured"))
        .hint("The log holds no changes of it for us. Name it in `tables`; a given publication must hold it too.")
}

#[cfg(test)]
pub(super) fn shape_for_tests(table: Arc<Table>) -> Shape {
    Shape { table, is_partitioned: false, filter: None, order: None, is_fickle: false }
}
