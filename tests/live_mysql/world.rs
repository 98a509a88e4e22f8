//! One database of either kind, one NATS server, and the program.

use std::path::PathBuf;
use std::process::Command;

use async_nats::jetstream;
use figvine_sandbox::mysql_async::Conn;
use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::{MariaDb, MySql, MySqlOptions, Mysqld, Nats, NatsOptions, wait_for};
use tempfile::TempDir;

use crate::harness::{Bridge, Event, Finished, LONG, STREAM, events, figvine, finish};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    MySql,
    MariaDb,
}

#[derive(Debug)]
enum Server {
    MySql(MySql),
    MariaDb(MariaDb),
}

/// A database, a NATS server, and a place for files.
#[derive(Debug)]
pub(crate) struct World {
    server: Server,
    pub(crate) nats: Nats,
    pub(crate) home: TempDir,
}

impl World {
    /// Both servers, an empty database `shop`, and a configuration of one source `shop` over its tables.
    pub(crate) async fn start(kind: Kind) -> Self {
        let settings = [("log_bin_trust_function_creators", "ON"), ("innodb_lock_wait_timeout", "2")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = MySqlOptions { settings, ..MySqlOptions::default() };
        let server = match kind {
            Kind::MySql => Server::MySql(MySql::start(options).await.expect("MySQL")),
            Kind::MariaDb => Server::MariaDb(MariaDb::start(options).await.expect("MariaDB")),
        };
        let nats = Nats::start(NatsOptions::default()).await.expect("NATS");
        let home = tempfile::tempdir().expect("a temporary directory");
        let world = Self { server, nats, home };
        world
            .server()
            .connect("")
            .await
            .expect("connects")
            .query_drop("create database shop")
            .await
            .expect("a database");
        let key = if kind == Kind::MySql { "mysql" } else { "mariadb" };
        let (nats, url) = (world.nats.url(), world.server().url("shop"));
        let text = format!(
            "nats: {{ url: \"{nats}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    {key}: {{ url: \"{url}\" }}\n    tables: [\"shop.*\"]\n"
        );
        std::fs::write(world.config(), text).expect("writes the configuration");
        world
    }

    pub(crate) fn server(&self) -> &Mysqld {
        match &self.server {
            Server::MySql(server) => server,
            Server::MariaDb(server) => server,
        }
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("figvine.yaml")
    }

    /// Adds lines of the source to the configuration, two levels in.
    pub(crate) fn configure_more(&self, more: &str) {
        let text = std::fs::read_to_string(self.config()).expect("reads the configuration");
        std::fs::write(self.config(), text + more).expect("writes the configuration");
    }

    /// Adds settings of the engine to the configuration.
    pub(crate) fn configure_engine(&self, more: &str) {
        let text = std::fs::read_to_string(self.config()).expect("reads the configuration");
        std::fs::write(self.config(), text.replacen(": { url: \"m", &format!(": {{ {more}, url: \"m"), 1))
            .expect("writes the configuration");
    }

    pub(crate) async fn client(&self) -> Conn {
        self.server().connect("shop").await.expect("connects")
    }

    /// Runs statements, each of them ended by `;` and a line's end.
    pub(crate) async fn run(&self, sql: &str) {
        let mut client = self.client().await;
        for statement in sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
            client.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    pub(crate) fn figvine(&self, args: &[&str]) -> Command {
        figvine(&self.config(), args)
    }

    pub(crate) fn bridge(&self) -> Bridge {
        Bridge::start(self.figvine(&["run"]), self.home.path())
    }

    pub(crate) async fn finish(&self, args: &[&str]) -> Finished {
        finish(self.figvine(args)).await
    }

    /// Brings everything that is committed into the stream, and ends.
    pub(crate) async fn drain(&self) {
        let finished = self.finish(&["run", "--until", "now"]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        let client = async_nats::connect(self.nats.url()).await.expect("connects to NATS");
        events(&jetstream::new(client), STREAM).await
    }

    /// The sequence of the stream's last message, 0 without any; `None` while nobody answers.
    pub(crate) async fn last_sequence(&self) -> Option<u64> {
        let client = async_nats::connect(self.nats.url()).await.ok()?;
        let stream = jetstream::new(client).get_stream(STREAM).await.ok()?;
        Some(stream.cached_info().state.last_sequence)
    }

    /// Waits until the stream has grown by so many messages, while `bridge` runs.
    pub(crate) async fn wait_growth(&self, bridge: &mut Bridge, growth: u64) {
        let before = wait_for("the stream", LONG, async || self.last_sequence().await).await.expect("the stream");
        let waited = wait_for("the stream to grow", LONG, async || {
            bridge.must_run();
            self.last_sequence().await.filter(|now| *now >= before + growth)
        });
        waited.await.map(drop).unwrap_or_else(|e| panic!("{e} to {}\n{}", before + growth, bridge.log()));
    }
}
