//! The demo's database, one of three.

use figvine_sandbox::mysql_async::Conn;
use figvine_sandbox::mysql_async::prelude::Queryable;
use figvine_sandbox::{MariaDb, MariaDbOptions, MySql, MySqlOptions, Mysqld, Postgres, PostgresOptions, Shop};

use super::{CliError, failed, refused};

#[derive(Debug, Clone, Copy)]
pub(super) enum Engine {
    Postgres,
    MySql,
    MariaDb,
}

/// A private server with the shop's tables. Dropping it ends it and removes its files.
pub(super) enum Database {
    Postgres { server: Box<Postgres>, client: tokio_postgres::Client },
    MySql(MySql),
    MariaDb(MariaDb),
}

impl Database {
    pub(super) async fn start(engine: Engine) -> Result<Self, CliError> {
        match engine {
            Engine::Postgres => Box::pin(postgres()).await,
            Engine::MySql => {
                let server = Box::pin(MySql::start(MySqlOptions::default())).await.map_err(failed)?;
                create_shop(&server).await?;
                Ok(Self::MySql(server))
            }
            Engine::MariaDb => {
                let server = Box::pin(MariaDb::start(MariaDbOptions::default())).await.map_err(failed)?;
                create_shop(&server).await?;
                Ok(Self::MariaDb(server))
            }
        }
    }

    /// As people write it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "PostgreSQL",
            Self::MySql(_) => "MySQL",
            Self::MariaDb(_) => "MariaDB",
        }
    }

    /// Its key in the configuration.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "postgres",
            Self::MySql(_) => "mysql",
            Self::MariaDb(_) => "mariadb",
        }
    }

    /// Where the shop's tables are.
    pub(super) fn schema(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "public",
            Self::MySql(_) | Self::MariaDb(_) => "shop",
        }
    }

    /// A table of the shop as the configuration and `tail` name it.
    pub(super) fn table(&self, name: &str) -> String {
        match self {
            Self::Postgres { .. } => name.to_owned(),
            Self::MySql(_) | Self::MariaDb(_) => format!("shop.{name}"),
        }
    }

    /// Whether its log has whole seconds. MySQL has microseconds in each transaction's GTID event since 8.0.1.
    pub(super) fn is_rounded(&self) -> bool {
        matches!(self, Self::MariaDb(_))
    }

    pub(super) fn url(&self) -> String {
        match self {
            Self::Postgres { server, .. } => server.url("shop"),
            Self::MySql(server) => server.url("shop"),
            Self::MariaDb(server) => server.url("shop"),
        }
    }

    /// How the bridge reads it.
    pub(super) fn way(&self) -> &'static str {
        match self {
            Self::Postgres { .. } => "reads the log of PostgreSQL through the slot figvine_shop",
            Self::MySql(_) => "reads the binary log of MySQL as a replica does",
            Self::MariaDb(_) => "reads the binary log of MariaDB as a replica does",
        }
    }

    /// What runs a statement from a shell.
    pub(super) fn command(&self, sql: &str) -> String {
        let client = |program: &str, server: &Mysqld| {
            format!("{program} -h 127.0.0.1 -P {} -u root shop -e \"{sql}\"", server.port())
        };
        match self {
            Self::Postgres { server, .. } => format!("psql {} -c \"{sql}\"", server.url("shop")),
            Self::MySql(server) => client("mysql", server),
            Self::MariaDb(server) => client("mariadb", server),
        }
    }
}

async fn postgres() -> Result<Database, CliError> {
    let server = Box::pin(Postgres::start(PostgresOptions::default())).await.map_err(failed)?;
    let first = server.connect("postgres").await.map_err(failed)?;
    first.batch_execute("create database shop").await.map_err(refused)?;
    let client = server.connect("shop").await.map_err(failed)?;
    Shop::create(&client).await.map_err(failed)?;
    // So that the log tells what an update has changed.
    for table in ["customers", "orders", "inventory"] {
        let sql = format!("alter table {table} replica identity full");
        client.batch_execute(&sql).await.map_err(refused)?;
    }
    Ok(Database::Postgres { server: Box::new(server), client })
}

async fn create_shop(server: &Mysqld) -> Result<(), CliError> {
    let mut first: Conn = Box::pin(server.connect("")).await.map_err(failed)?;
    first.query_drop("create database shop character set utf8mb4").await.map_err(refused)?;
    let mut client = Box::pin(server.connect("shop")).await.map_err(failed)?;
    Box::pin(Shop::create_mysql(&mut client)).await.map_err(failed)
}
