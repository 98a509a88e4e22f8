//! The way to one MySQL or MariaDB server.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use figvine_change::{
    Connector, Durable, Engine, Finding, Load, NamedColumn, Position, ReadOrder, Retention, SourceError,
    SourceErrorKind, Table, TableSize,
};
use secrecy::ExposeSecret;

use crate::annotation::Annotations;
use crate::backfill::{self, MysqlRows, PassedOn, RowValues};
use crate::catalogue::{Catalogue, Server, TableFacts};
use crate::config::{Config, Flavour, Keyless};
use crate::error::{Told, failure, same_server_id};
use crate::globs::{GlobError, Globs};
use crate::normalise::Normaliser;
use crate::position::{Place, Reading, in_log};
use crate::session::{Dump, Request, Session};
use crate::source::MysqlSource;
use crate::tables::Tables;
use crate::url::{ConnectUrl, UrlError};
use crate::value::Charsets;
use crate::{check, start};

/// One MySQL or MariaDB server as a source.
#[derive(Debug)]
pub struct Mysql {
    config: Config,
    url: ConnectUrl,
    globs: Globs,
    program: String,
    /// Somebody came under our server id and ended our dump. Whoever comes last reads: a new bridge takes over from one
    /// that is gone without the server's knowing. From then on we wait until nobody reads, else each would end the other for ever.
    is_replaced: Arc<AtomicBool>,
    /// What its sources passed on of the log.
    passed_on: PassedOn,
}

/// A configuration that cannot hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A glob.
    #[error(transparent)]
    Glob(#[from] GlobError),
}

impl Mysql {
    /// Reads the configuration; connects to nothing.
    ///
    /// # Errors
    /// When a part of it cannot hold.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let url = ConnectUrl::parse(config.url.expose_secret())?;
        let globs = Globs::of_tables(&config.tables, url.database.as_deref())?;
        let program = format!("figvine {}", config.source);
        Ok(Self { config, url, globs, program, is_replaced: Arc::default(), passed_on: PassedOn::default() })
    }

    async fn server(&self) -> Result<(Catalogue, Server), SourceError> {
        let mut catalogue = Box::pin(Catalogue::connect(&self.url, &self.program)).await?;
        let server = catalogue.server().await?;
        if server.flavour != self.config.flavour {
            let (found, wanted) = (server.flavour.name(), self.config.flavour.name());
            return Err(failure(SourceErrorKind::Invalid, "FV-1206", format!("the server is {found}, not {wanted}"))
                .hint("Their logs differ: say `mysql:` or `mariadb:` in the configuration, as the server is."));
        }
        Ok((catalogue, server))
    }

    /// Tables that are captured, each with a key, or allowed to be without.
    fn captured<'a>(&self, tables: &'a [TableFacts]) -> Result<Vec<&'a TableFacts>, SourceError> {
        let meant = tables.iter().filter(|t| t.is_base() && self.globs.matches_table(&t.schema, &t.name));
        let meant: Vec<_> = meant.collect();
        if self.config.keyless == Keyless::Refuse
            && let Some(keyless) = meant.iter().find(|table| table.key.is_none())
        {
            let name = keyless.qualified();
            return Err(failure(SourceErrorKind::Invalid, "FV-1224", format!("table {name} has no key")).hint(
                format!(
                    "Give it a primary key, say `keyless: whole_row` if the whole row may be its key, or leave it out: \
                 `\"!{name}\"` in `tables`."
                ),
            ));
        }
        Ok(meant)
    }
}

impl Connector for Mysql {
    type Source = MysqlSource;
    type Reader = MysqlRows;

    async fn check(&self) -> Result<Vec<Finding>, SourceError> {
        Box::pin(check::check(&self.config, &self.url, &self.globs)).await
    }

    async fn newest(&self) -> Result<Position, SourceError> {
        let (mut catalogue, server) = self.server().await?;
        Ok(catalogue.newest(&server).await?.position())
    }

    /// A server does not remember who read its log.
    async fn was_read(&self) -> Result<bool, SourceError> {
        Ok(false)
    }

    /// The server keeps its log by its own rules, not because of us.
    async fn retention(&self) -> Result<Option<Retention>, SourceError> {
        Ok(None)
    }

    async fn tables(&self) -> Result<Vec<TableSize>, SourceError> {
        let (mut catalogue, server) = Box::pin(self.server()).await?;
        let sizes = catalogue.sizes(server.flavour).await?;
        let size =
            |table: &&TableFacts| sizes.iter().find(|size| size.schema == table.schema && size.name == table.name);
        let facts = catalogue.tables().await?;
        let captured = self.captured(&facts)?;
        let tables = captured.iter().map(|table| TableSize {
            schema: table.schema.as_str().into(),
            name: table.name.as_str().into(),
            rows: size(table).map_or(0, |size| size.rows),
            bytes: size(table).map_or(0, |size| size.bytes),
            order: if table.key.is_some() { ReadOrder::Key } else { ReadOrder::OnePass },
        });
        Ok(tables.collect())
    }

    async fn columns(&self) -> Result<Vec<NamedColumn>, SourceError> {
        let (mut catalogue, _) = Box::pin(self.server()).await?;
        let facts = catalogue.tables().await?;
        let columns = catalogue.column_names().await?;
        let base = facts.iter().filter(|fact| fact.is_base() && self.globs.matches_table(&fact.schema, &fact.name));
        let base: HashMap<_, _> = base.map(|fact| ((fact.schema.as_str(), fact.name.as_str()), fact)).collect();
        let mut captured = Vec::with_capacity(columns.len());
        for mut column in columns {
            let Some(fact) = base.get(&(&*column.schema, &*column.table)) else { continue };
            // Without a key the whole row is it.
            column.is_key = match &fact.key {
                Some(key) => key.columns.iter().any(|name| **name == *column.name),
                None => self.config.keyless == Keyless::WholeRow,
            };
            captured.push(column);
        }
        Ok(captured)
    }

    async fn shapes(&self) -> Result<Vec<Arc<Table>>, SourceError> {
        let (mut catalogue, server) = Box::pin(self.server()).await?;
        let values = RowValues {
            keyless: self.config.keyless,
            options: self.config.values.clone(),
            charsets: charsets(&mut catalogue, &server).await?,
        };
        let facts = catalogue.tables().await?;
        let mut shapes = Vec::new();
        for fact in facts.iter().filter(|fact| fact.is_base() && self.globs.matches_table(&fact.schema, &fact.name)) {
            let of = (fact.schema.as_str(), fact.name.as_str());
            shapes.extend(Box::pin(backfill::shape(&mut catalogue, &server, &values, of)).await?);
        }
        Ok(shapes)
    }

    async fn reader(&self) -> Result<MysqlRows, SourceError> {
        let (mut catalogue, server) = Box::pin(self.server()).await?;
        let values = RowValues {
            keyless: self.config.keyless,
            options: self.config.values.clone(),
            charsets: charsets(&mut catalogue, &server).await?,
        };
        let user = catalogue.grants().await?.user;
        let url = self.url.only(catalogue.host());
        Box::pin(MysqlRows::open(url, self.program.clone(), server, values, user, &self.passed_on)).await
    }

    async fn load(&self) -> Result<Load, SourceError> {
        let mut catalogue = Box::pin(Catalogue::connect(&self.url, &self.program)).await?;
        let server = catalogue.server().await?;
        catalogue.load(&server).await
    }

    fn is_reached(&self, target: &Position, reached: &Position) -> bool {
        let Some((target, (reached, _))) = Place::parse(target).zip(Reading::parse(reached)) else { return false };
        match (&target, reached.done()) {
            (Place::MySql(target), Place::MySql(reached)) => target.is_subset(reached),
            (Place::MariaDb(target), Place::MariaDb(reached)) => target.is_reached_by(reached),
            (Place::File { file, position, .. }, Place::File { file: at, position: offset, .. }) => {
                in_log(at, *offset) >= in_log(file, *position)
            }
            _ => false,
        }
    }

    async fn open(&self, from: Option<Position>, _durable: Durable) -> Result<MysqlSource, SourceError> {
        let config = &self.config;
        let (mut catalogue, server) = Box::pin(self.server()).await?;
        if self.is_replaced.load(Ordering::Relaxed) {
            if Box::pin(catalogue.is_replica_there(&server, config.server_id())).await? {
                return Err(same_server_id("opening the log"));
            }
            self.is_replaced.store(false, Ordering::Relaxed);
        }
        let parsed = from.as_ref().map(|position| {
            Reading::parse(position).ok_or_else(|| {
                failure(SourceErrorKind::PositionLost, "FV-1302", format!("`{position}` is no position of this log"))
                    .hint("The stream was written from another kind of database. Give this source a stream of its own.")
            })
        });
        let (reading, passed) = match parsed.transpose()? {
            Some((reading, passed)) => {
                // Verified against what the server has; in a file the place may be put to the next one's beginning.
                let place = Box::pin(start::place(&mut catalogue, &server, Some(&reading.place().position()))).await?;
                let is_same = place == *reading.place();
                (if is_same { reading } else { Reading::from(place) }, passed)
            }
            None => {
                Box::pin(no_prepared(&mut catalogue)).await?;
                (Reading::from(Box::pin(start::place(&mut catalogue, &server, None)).await?), None)
            }
        };
        let mut all = catalogue.tables().await?;
        // Tables and their keys are asked for one after the other: of a table that comes or goes between, one half is told.
        if self.captured(&all).is_err() {
            all = catalogue.tables().await?;
        }
        let captured = self.captured(&all)?;
        let mut keys = HashMap::new();
        let mut names = HashSet::new();
        for table in captured {
            names.insert((table.schema.clone(), table.name.clone()));
            if let Some(key) = &table.key {
                keys.insert((table.schema.as_str().into(), table.name.as_str().into()), key.columns.clone());
            }
        }
        let charsets = charsets(&mut catalogue, &server).await?;
        let url = self.url.only(catalogue.host());
        let session = Box::pin(Session::open(&url, &self.program)).await?;
        let request = Request {
            from: reading.place().clone(),
            server_id: config.server_id(),
            name: config.source.clone(),
            heartbeat: config.heartbeat,
            wants_statements: server.flavour == Flavour::MariaDb && config.reads_statements(),
        };
        let dump = Box::pin(Dump::begin(session, &server, &request)).await?;
        // Over a connection that is older than the dump: what the engine has is of the same life of the server, and no crash
        // comes behind it that the dump survives.
        let recovered = match server.flavour {
            Flavour::MariaDb => Some(Box::pin(catalogue.recovered()).await?),
            Flavour::MySql => None,
        };
        let started_at = Position { within: passed.as_ref().map(|passed| passed.within), ..begun(&reading, &from) };
        tracing::info!(from = %started_at, server = %server.name(), "reading the log");
        let tables =
            Tables::new(self.globs.clone(), config.keyless, &server, config.values.clone(), charsets, keys, names);
        Ok(MysqlSource {
            started_at,
            engine: Engine {
                name: match server.flavour {
                    Flavour::MySql => "mysql",
                    Flavour::MariaDb => "mariadb",
                },
                version: server.version_text.as_str().into(),
                database: self.url.database.clone().unwrap_or_default().into(),
            },
            server,
            heartbeat: config.heartbeat,
            dump,
            normaliser: Normaliser::new(
                tables,
                config.on_statement,
                Annotations::of(config),
                reading,
                passed,
                recovered,
            ),
            url,
            program: self.program.clone(),
            catalogue: Some(catalogue),
            chunk: None,
            wanted: None,
            scout: None,
            is_replaced: Arc::clone(&self.is_replaced),
            passed_on: self.passed_on.clone(),
            ready: VecDeque::new(),
        })
    }
}

async fn charsets(catalogue: &mut Catalogue, server: &Server) -> Result<Charsets, SourceError> {
    let mut charsets = Charsets::new();
    for (collation, charset) in catalogue.collations(server.flavour).await? {
        charsets.tell(collation, &charset);
    }
    Ok(charsets)
}

/// The position that a session begins at: the one it was given, with all that it says.
fn begun(reading: &Reading, from: &Option<Position>) -> Position {
    from.clone().unwrap_or_else(|| Position::between(reading.to_string()))
}

/// At the very first start: rows of a transaction that is already prepared lie before the log that is read,
/// and its COMMIT behind.
async fn no_prepared(catalogue: &mut Catalogue) -> Result<(), SourceError> {
    match catalogue.prepared().await? {
        0 => Ok(()),
        count => Err(failure(
            SourceErrorKind::Unreachable,
            "FV-1315",
            format!("{count} XA transactions are prepared and neither committed nor rolled back"),
        )
        .hint(
            "Reading begins where none is. `XA RECOVER` lists them; the application, or an administrator, ends them.",
        )),
    }
}
