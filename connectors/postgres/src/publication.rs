//! The publication: which tables the server sends.
//!
//! A managed one holds exactly the tables that the globs mean. A table whose
//! rows the log cannot tell apart is never put into it: PostgreSQL would refuse
//! the application's own UPDATE and DELETE from then on.

use figvine_change::{SourceError, SourceErrorKind};
use tokio_postgres::error::SqlState;

use crate::catalogue::{Catalogue, Server, TableFacts};
use crate::config::{Config, Keyless};
use crate::error::{Told, failure, of_query};
use crate::globs::Globs;
use crate::session::quoted;

/// Why a table that the globs mean cannot be captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// The log has no way to tell its rows apart.
    NoIdentity,
    /// It has one (the whole row), but no key, and keyless tables are refused.
    NoKey,
    /// It is not in the log at all.
    Unlogged,
    /// Its whole row is to be in the log, and a virtual generated column never is.
    HiddenColumns,
}

/// The oldest version whose publications may have stored generated columns.
pub(crate) const GENERATED: u32 = 180_000;

/// The statement that makes a publication. Where the version can, stored generated columns are in it: PostgreSQL refuses
/// the application's UPDATE and DELETE on a published table whose replica identity has generated columns that are not.
pub(crate) fn creation(name: &str, tables: &str, via_root: bool, version: u32) -> String {
    let generated = if version >= GENERATED { ", publish_generated_columns = stored" } else { "" };
    let name = quoted(name);
    format!("CREATE PUBLICATION {name} FOR TABLE {tables} WITH (publish_via_partition_root = {via_root}{generated})")
}

/// The statement that puts stored generated columns into a publication.
pub(crate) fn with_generated(name: &str) -> String {
    format!("ALTER PUBLICATION {} SET (publish_generated_columns = stored)", quoted(name))
}

/// The tables whose stored generated columns a publication leaves out, though the version could send them.
pub(crate) fn without_generated<'a>(
    published: &Published,
    tables: impl IntoIterator<Item = &'a TableFacts>,
    version: u32,
) -> Vec<&'a TableFacts> {
    let leaves_out = version >= GENERATED && !published.generated;
    let tables = tables.into_iter().filter(|table| leaves_out && table.stored_generated > 0);
    tables.filter(|table| !published.with_columns.contains(&table.qualified())).collect()
}

/// The tables that the globs mean and that can stand in a publication of their own: not the
/// partitions when their root stands for them, not the roots when the partitions stand for themselves.
pub(crate) fn meant<'a>(config: &Config, globs: &Globs, tables: &'a [TableFacts]) -> Vec<&'a TableFacts> {
    let is_meant = |table: &TableFacts| globs.matches_table(&table.schema, &table.name);
    let kept = tables.iter().filter(|table| match table.kind {
        'r' if config.via_partition_root => table.ancestors.is_empty(),
        'p' => config.via_partition_root && table.ancestors.is_empty(),
        'r' => true,
        _ => false,
    });
    kept.filter(|table| is_meant(table)).collect()
}

/// Whether a table can be captured.
pub(crate) fn fitness(config: &Config, table: &TableFacts) -> Result<(), Unfit> {
    if table.persistence == 'u' {
        Err(Unfit::Unlogged)
    } else if !table.has_identity() {
        Err(Unfit::NoIdentity)
    } else if table.identity == 'f' && !table.has_primary_key && config.keyless == Keyless::Refuse {
        Err(Unfit::NoKey)
    } else if table.identity == 'f' && table.virtual_generated > 0 {
        Err(Unfit::HiddenColumns)
    } else {
        Ok(())
    }
}

/// What became of a publication.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// It was made.
    pub(crate) is_new: bool,
    /// The tables that came into it, as `schema.name`.
    pub(crate) added: Vec<String>,
}

/// Makes the publication, or brings it up to the configured tables.
pub(crate) async fn ensure(
    config: &Config,
    globs: &Globs,
    catalogue: &Catalogue,
    server: &Server,
) -> Result<Brought, SourceError> {
    let name = &config.publication;
    let published = published(catalogue, name, server.version).await?;
    if !config.publication_managed || server.in_recovery {
        return match published {
            Some(_) => Ok(Brought::default()),
            None => Err(failure(SourceErrorKind::Invalid, "FV-1221", format!("publication {name} does not exist"))
                .hint(format!("Create it on the primary: CREATE PUBLICATION {} FOR TABLE ...;", quoted(name)))),
        };
    }
    let tables = catalogue.tables().await?;
    let meant = meant(config, globs, &tables);
    if meant.is_empty() {
        return Err(failure(SourceErrorKind::Invalid, "FV-1222", "no table is meant by `tables`")
            .hint("The globs are over schema.table, as in `public.*`."));
    }
    for table in &meant {
        fitness(config, table).map_err(|unfit| refusal(table, unfit))?;
    }
    bring_up(config, catalogue, published.as_ref(), &meant, &tables, server.version).await
}

/// A publication while its source runs.
#[derive(Debug)]
pub(crate) struct Followed {
    /// The tables that are captured.
    pub(crate) captured: Vec<TableFacts>,
    /// Those that came into it just now, as `schema.name`.
    pub(crate) added: Vec<String>,
    /// Those that the globs mean and that cannot be captured.
    pub(crate) unfit: Vec<(TableFacts, Unfit)>,
}

/// Brings a managed publication up to the tables that there are by now; `None` where there is no publication. What
/// cannot be captured stays out of it, and what became so stays in it: the log of the others goes on.
pub(crate) async fn follow(
    config: &Config,
    globs: &Globs,
    catalogue: &Catalogue,
    server: &Server,
) -> Result<Option<Followed>, SourceError> {
    let Some(published) = published(catalogue, &config.publication, server.version).await? else { return Ok(None) };
    let tables = catalogue.tables().await?;
    let is_published = |table: &TableFacts| published.tables.contains(&table.qualified());
    if !config.publication_managed || server.in_recovery {
        let is_captured = |table: &&TableFacts| is_published(table) && globs.matches_table(&table.schema, &table.name);
        let captured = tables.iter().filter(is_captured).cloned().collect();
        return Ok(Some(Followed { captured, added: Vec::new(), unfit: Vec::new() }));
    }
    let mut unfit = Vec::new();
    let mut kept = meant(config, globs, &tables);
    kept.retain(|table| match fitness(config, table) {
        Ok(()) => true,
        Err(why) => {
            unfit.push(((*table).clone(), why));
            is_published(table)
        }
    });
    // Without any table there is nothing to bring it up to: it is left for the next start to judge.
    let added = match kept.is_empty() {
        true => Vec::new(),
        false => bring_up(config, catalogue, Some(&published), &kept, &tables, server.version).await?.added,
    };
    kept.retain(|table| is_published(table) || added.contains(&table.qualified()));
    Ok(Some(Followed { captured: kept.into_iter().cloned().collect(), added, unfit }))
}

/// Makes the publication hold the tables that are meant.
async fn bring_up(
    config: &Config,
    catalogue: &Catalogue,
    published: Option<&Published>,
    meant: &[&TableFacts],
    tables: &[TableFacts],
    version: u32,
) -> Result<Brought, SourceError> {
    let name = &config.publication;
    let list = meant.iter().map(|table| table.quoted()).collect::<Vec<_>>().join(", ");
    let root = config.via_partition_root;
    let is_new = published.is_none();
    let statement = match published {
        None => creation(name, &list, root, version),
        // A look leaves what is there as it is.
        Some(_) if config.slot_is_passing => return Ok(Brought::default()),
        Some(published) if published.all_tables => {
            return Err(failure(SourceErrorKind::Invalid, "FV-1223", format!("publication {name} is FOR ALL TABLES"))
                .hint("Say `publication_managed: false` to use it as it is, or configure another name."));
        }
        Some(published) => match difference(name, published, meant, tables, root, version) {
            Some(statement) => statement,
            None => return Ok(Brought::default()),
        },
    };
    tracing::info!(publication = %name, tables = meant.len(), "publication brought up to the configured tables");
    catalogue.client().batch_execute(&statement).await.map_err(|error| {
        // Somebody changed it between our look and now, such as a run before us that was killed: the next look shows it.
        let is_overtaken = error.code() == Some(&SqlState::DUPLICATE_OBJECT);
        let told = of_query(error, "making the publication").hint(
            "A managed publication needs CREATE on the database and the ownership of its tables. \
             `figvine check` prints the SQL for an administrator, or the publication to be given instead.",
        );
        if is_overtaken { SourceError { kind: SourceErrorKind::Unreachable, ..told } } else { told }
    })?;
    let is_news = |table: &&&TableFacts| published.is_none_or(|before| !before.tables.contains(&table.qualified()));
    let added = meant.iter().filter(is_news).map(|table| table.qualified()).collect();
    Ok(Brought { is_new, added })
}

/// Takes away a publication that was made for a look.
pub(crate) async fn remove(catalogue: &Catalogue, name: &str) -> Result<(), SourceError> {
    let statement = format!("DROP PUBLICATION IF EXISTS {}", quoted(name));
    catalogue.client().batch_execute(&statement).await.map_err(|e| of_query(e, "removing the publication"))
}

/// What brings a publication up to the tables; row filters and column lists of those that stay are left alone.
fn difference(
    name: &str,
    published: &Published,
    meant: &[&TableFacts],
    all: &[TableFacts],
    root: bool,
    version: u32,
) -> Option<String> {
    let listed = |tables: Vec<&TableFacts>| tables.iter().map(|table| table.quoted()).collect::<Vec<_>>().join(", ");
    let is_published = |table: &TableFacts| published.tables.contains(&table.qualified());
    let is_meant = |table: &TableFacts| meant.iter().any(|other| other.qualified() == table.qualified());
    let missing = listed(meant.iter().copied().filter(|table| !is_published(table)).collect());
    let surplus = listed(all.iter().filter(|table| is_published(table) && !is_meant(table)).collect());
    let mut statements = Vec::new();
    // Before the tables: from the moment that one is published, its generated columns must be.
    if !without_generated(published, meant.iter().copied(), version).is_empty() {
        statements.push(with_generated(name));
    }
    let name = quoted(name);
    if !missing.is_empty() {
        statements.push(format!("ALTER PUBLICATION {name} ADD TABLE {missing}"));
    }
    if !surplus.is_empty() {
        statements.push(format!("ALTER PUBLICATION {name} DROP TABLE {surplus}"));
    }
    if published.via_root != root {
        statements.push(format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = {root})"));
    }
    if !published.leaves_out.is_empty() {
        statements.push(format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"));
    }
    (!statements.is_empty()).then(|| statements.join("; "))
}

/// Why a table is refused, with what mends it.
pub(crate) fn refusal(table: &TableFacts, unfit: Unfit) -> SourceError {
    let name = table.qualified();
    let leave_out = format!("or leave it out: `\"!{name}\"` in `tables`");
    let (what, hint) = match unfit {
        Unfit::NoIdentity => (
            format!("table {name} has no replica identity: the log cannot tell its rows apart"),
            format!(
                "Give it a primary key, or ALTER TABLE {} REPLICA IDENTITY FULL and `keyless: whole_row`, {leave_out}.",
                table.quoted()
            ),
        ),
        Unfit::NoKey => (
            format!("table {name} has no key"),
            format!("Give it a primary key, say `keyless: whole_row` if the whole row may be its key, {leave_out}."),
        ),
        Unfit::Unlogged => (
            format!("table {name} is unlogged: its changes are not in the log"),
            format!("ALTER TABLE {} SET LOGGED, {leave_out}.", table.quoted()),
        ),
        Unfit::HiddenColumns => (
            format!(
                "table {name} has REPLICA IDENTITY FULL and virtual generated columns, which the log does not hold"
            ),
            format!(
                "Make the columns STORED, or ALTER TABLE {} REPLICA IDENTITY DEFAULT (it needs a primary key), {leave_out}.",
                table.quoted()
            ),
        ),
    };
    failure(SourceErrorKind::Invalid, "FV-1224", what).hint(hint)
}

/// What a publication holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// `schema.name`, sorted.
    pub(crate) tables: Vec<String>,
    pub(crate) all_tables: bool,
    pub(crate) via_root: bool,
    /// Whether stored generated columns are in it (18 and later).
    pub(crate) generated: bool,
    /// Operations that it leaves out.
    pub(crate) leaves_out: Vec<&'static str>,
    /// Tables with a row filter (15 and later).
    pub(crate) filtered: Vec<String>,
    /// Tables with a column list (15 and later).
    pub(crate) with_columns: Vec<String>,
}

/// Reads a publication; `None` when there is none of that name.
pub(crate) async fn published(
    catalogue: &Catalogue,
    name: &str,
    version: u32,
) -> Result<Option<Published>, SourceError> {
    let asking = |e| of_query(e, "reading the publication");
    let generated = if version >= GENERATED { "pubgencols = 's'" } else { "false" };
    let query = format!(
        "select puballtables, pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate, {generated}
         from pg_publication where pubname = $1"
    );
    let Some(row) = catalogue.client().query_opt(&query, &[&name]).await.map_err(asking)? else { return Ok(None) };
    let operations = ["insert", "update", "delete", "truncate"];
    let leaves_out = operations.into_iter().enumerate().filter(|(at, _)| !row.get::<_, bool>(2 + at)).map(|(_, op)| op);
    let since_15 = if version >= 150_000 {
        "(select pr.prqual is not null from pg_publication_rel pr join pg_publication p on p.oid = pr.prpubid
           where p.pubname = $1 and pr.prrelid = c.oid),
         (select pr.prattrs is not null from pg_publication_rel pr join pg_publication p on p.oid = pr.prpubid
           where p.pubname = $1 and pr.prrelid = c.oid)"
    } else {
        "false, false"
    };
    let query = format!(
        "select t.schemaname || '.' || t.tablename, {since_15}
         from pg_publication_tables t join pg_namespace n on n.nspname = t.schemaname
         join pg_class c on c.relnamespace = n.oid and c.relname = t.tablename where t.pubname = $1"
    );
    let rows = catalogue.client().query(&query, &[&name]).await.map_err(asking)?;
    let named = |column: usize| {
        let rows = rows.iter().filter(move |row| row.get::<_, Option<bool>>(column) == Some(true));
        rows.map(|row| row.get::<_, String>(0)).collect()
    };
    let mut tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    tables.sort();
    Ok(Some(Published {
        tables,
        all_tables: row.get(0),
        via_root: row.get(1),
        generated: row.get(6),
        leaves_out: leaves_out.collect(),
        filtered: named(1),
        with_columns: named(2),
    }))
}
