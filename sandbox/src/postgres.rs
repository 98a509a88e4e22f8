//! A private PostgreSQL.

use std::ffi::OsString;
use std::fs;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio_postgres::{Client, NoTls};

use crate::process::{Home, Process, Server, failed, fetched, free_port, open_to_all, port_was_taken};
use crate::{SandboxError, Tls};

const LOG: &str = "postgres.log";
const TOOLS_LOG: &str = "tools.log";
/// The oldest major version that Figvine reads from.
const OLDEST: u32 = 15;
/// Recovery after a kill under load included.
const START: Duration = Duration::from_secs(60);
/// Another process may take a free port before the server does.
const ATTEMPTS: usize = 3;

/// How clients prove who they are.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Whoever connects is believed.
    #[default]
    Trust,
    /// SCRAM-SHA-256, for every user and for replication too.
    Scram {
        /// The password of the superuser `postgres`.
        password: String,
    },
}

/// What a private PostgreSQL is started with.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Lines of `postgresql.conf`, name and value; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Lets clients use TLS; `hba` can demand it.
    pub tls: Option<Tls>,
    /// Major version; by default the newest that is installed on the machine.
    pub version: Option<u32>,
    /// Whether writes reach the disk. Not needed to survive [`Postgres::kill9`], only to measure as in production.
    pub fsync: bool,
    /// How clients authenticate.
    pub auth: Auth,
    /// The whole `pg_hba.conf`, instead of the one that follows from `auth`.
    pub hba: Option<String>,
}

/// A private PostgreSQL with `wal_level = logical`, superuser `postgres`, no TLS unless asked for.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    bin: PathBuf,
    port: u16,
    auth: Auth,
}

impl Postgres {
    /// Major versions on this machine that can be started, oldest first.
    ///
    /// Looks into `FIGVINE_PG_BIN`, `/usr/lib/postgresql/*/bin`, `/usr/pgsql-*/bin`, and for what `make servers` got.
    pub fn versions() -> Vec<u32> {
        let mut versions: Vec<u32> = installed().into_iter().chain(got()).map(|(version, _)| version).collect();
        versions.sort_unstable();
        versions.dedup();
        versions
    }

    /// Creates a cluster and starts it; returns when it takes connections.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] without a fitting PostgreSQL or setpriv; [`SandboxError::Ended`] with the log's end when a
    /// setting is refused.
    pub async fn start(options: PostgresOptions) -> Result<Self, SandboxError> {
        let bin = find(options.version)?;
        let home = Home::new("figvine-pg-", true)?;
        let data = home.path().join("data");
        let mut initdb = home.command(&bin.join("initdb"), TOOLS_LOG)?;
        initdb.args(["-E", "UTF8", "--no-locale", "-N", "-U", "postgres", "-D"]).arg(&data);
        match &options.auth {
            Auth::Trust => initdb.arg("--auth=trust"),
            Auth::Scram { password } => {
                let file = home.write("password", password)?;
                initdb.arg("--auth=scram-sha-256").arg("--pwfile").arg(file)
            }
        };
        home.run("initdb", initdb, TOOLS_LOG).await?;

        let mut settings = format!(
            "wal_level = logical\nmax_replication_slots = 20\nmax_wal_senders = 20\nfsync = {}\n",
            if options.fsync { "on" } else { "off" }
        );
        if let Some(tls) = &options.tls {
            home.write("data/server.crt", &tls.cert)?;
            home.write("data/server.key", &tls.key)?;
            settings.push_str("ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n");
            if let Some(ca) = &tls.ca {
                home.write("data/ca.crt", ca)?;
                settings.push_str("ssl_ca_file = 'ca.crt'\n");
            }
        }
        settings.push_str(&lines(&options.settings));
        append(&data.join("postgresql.conf"), &settings)?;
        if let Some(hba) = &options.hba {
            home.write("data/pg_hba.conf", hba)?;
        }
        Self::first_launch(home, bin, options.auth).await
    }

    /// Starts a hot standby that streams from `primary` through a slot named `standby_PORT`.
    ///
    /// `settings` are lines of `postgresql.conf`, beside those of the primary.
    ///
    /// # Errors
    /// As [`Postgres::start`]; [`SandboxError::Ended`] with what `pg_basebackup` said when the primary refuses.
    pub async fn standby_of(primary: &Self, settings: &[(String, String)]) -> Result<Self, SandboxError> {
        let home = Home::new("figvine-pg-", true)?;
        let data = home.path().join("data");
        let slot = format!("standby_{}", free_port()?);
        let mut backup = home.command(&primary.bin.join("pg_basebackup"), TOOLS_LOG)?;
        backup.arg("-D").arg(&data).args([
            "--checkpoint=fast",
            "--no-sync",
            "-X",
            "stream",
            "-R",
            "-C",
            "-S",
            &slot,
            "-d",
        ]);
        backup.arg(primary.url("postgres"));
        home.run("pg_basebackup", backup, TOOLS_LOG).await?;
        let ours = "hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n";
        append(&data.join("postgresql.conf"), &format!("{ours}{}", lines(settings)))?;
        Self::first_launch(home, primary.bin.clone(), primary.auth.clone()).await
    }

    async fn first_launch(home: Home, bin: PathBuf, auth: Auth) -> Result<Self, SandboxError> {
        let mut postgres = Self { server: Server::new("postgres", home, LOG), bin, port: free_port()?, auth };
        for _ in 1..ATTEMPTS {
            match postgres.launch().await {
                Err(error) if port_was_taken(&error) => postgres.port = free_port()?,
                outcome => return outcome.map(|()| postgres),
            }
        }
        postgres.launch().await.map(|()| postgres)
    }

    async fn launch(&self) -> Result<(), SandboxError> {
        // After a kill they name processes that are gone, whose numbers somebody else may have by now.
        for stale in ["postmaster.pid".to_owned(), format!(".s.PGSQL.{}.lock", self.port)] {
            let _ = fs::remove_file(self.socket_dir().join(stale));
        }
        // On the command line, since a standby copies the primary's files.
        let arguments: [OsString; 8] = [
            "-D".into(),
            self.socket_dir().into(),
            "-p".into(),
            self.port.to_string().into(),
            "-k".into(),
            self.socket_dir().into(),
            "-c".into(),
            "listen_addresses=127.0.0.1".into(),
        ];
        self.server.launch(&self.bin.join("postgres"), arguments, START, |p| ready(self.is_ready(p))).await
    }

    /// The eighth line of `postmaster.pid` is the server's state, miscadmin.h; the first tells whose it is.
    fn is_ready(&self, process: &Process) -> bool {
        let Ok(file) = fs::read_to_string(self.socket_dir().join("postmaster.pid")) else { return false };
        let mut lines = file.lines().map(str::trim);
        lines.next() == Some(&process.pid().to_string()) && matches!(lines.nth(6), Some("ready" | "standby"))
    }

    /// Waits until the server takes connections.
    ///
    /// # Errors
    /// [`SandboxError::NotRunning`], [`SandboxError::Ended`], or [`SandboxError::Timeout`] after `deadline`.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<(), SandboxError> {
        let process = self.server.running()?;
        self.server.until_ready(&process, deadline, |p| ready(self.is_ready(p))).await
    }

    /// A URL of the superuser, with the password if there is one.
    pub fn url(&self, database: &str) -> String {
        let user = match &self.auth {
            Auth::Trust => "postgres".to_owned(),
            Auth::Scram { password } => format!("postgres:{}", utf8_percent_encode(password, NON_ALPHANUMERIC)),
        };
        format!("postgres://{user}@127.0.0.1:{}/{}", self.port, utf8_percent_encode(database, NON_ALPHANUMERIC))
    }

    /// The port on 127.0.0.1; a restart keeps it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the Unix socket, which is the data directory.
    pub fn socket_dir(&self) -> PathBuf {
        self.server.home().path().join("data")
    }

    /// The directory with all its files; gone once this is dropped.
    pub fn dir(&self) -> &Path {
        self.server.home().path()
    }

    /// The end of the server's log, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// The postmaster and its children; none while it is down.
    pub fn pids(&self) -> Vec<u32> {
        self.server.running().map(|p| p.tree()).unwrap_or_default()
    }

    /// Connects as the superuser, without TLS. The connection lives until the client is dropped.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] with what the server said.
    pub async fn connect(&self, database: &str) -> Result<Client, SandboxError> {
        connect(&self.url(database)).await
    }

    /// Kills the postmaster and all its children by SIGKILL; returns when they are gone.
    pub fn kill9(&self) {
        self.server.kill9();
    }

    /// Freezes the postmaster and all its children by SIGSTOP: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Makes the server read its settings again (SIGHUP). It does so in its own time.
    ///
    /// # Errors
    /// [`SandboxError::NotRunning`].
    pub fn reload(&self) -> Result<(), SandboxError> {
        self.server.running()?.signal(Signal::SIGHUP)
    }

    /// Makes a standby a primary; returns when it takes writes.
    ///
    /// # Errors
    /// [`SandboxError::Sql`] when it is no standby.
    pub async fn promote(&self) -> Result<(), SandboxError> {
        let refused = |source| SandboxError::Sql { what: "promote", source };
        self.connect("postgres").await?.execute("select pg_promote()", &[]).await.map(drop).map_err(refused)
    }

    /// Shuts the server down in the fast way: clients are thrown out, a checkpoint is written. The data stay.
    ///
    /// A walsender whose client neither reads nor goes away can hold it up until `wal_sender_timeout`.
    ///
    /// # Errors
    /// [`SandboxError::Timeout`] after 70 seconds.
    pub async fn stop(&self) -> Result<(), SandboxError> {
        self.server.stop(Signal::SIGINT, Duration::from_secs(70)).await
    }

    /// Starts it again on the same port and data, whatever brought it down; a running server is stopped first.
    ///
    /// # Errors
    /// As [`Postgres::start`] and [`Postgres::stop`].
    pub async fn restart(&self) -> Result<(), SandboxError> {
        self.stop().await?;
        for _ in 1..ATTEMPTS {
            match self.launch().await {
                Err(error) if port_was_taken(&error) => tokio::time::sleep(Duration::from_millis(500)).await,
                outcome => return outcome,
            }
        }
        self.launch().await
    }
}

pub(crate) async fn connect(url: &str) -> Result<Client, SandboxError> {
    let refused = |source| SandboxError::Sql { what: "take a connection", source };
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(refused)?;
    // Its errors reach the client's calls.
    tokio::spawn(connection);
    Ok(client)
}

/// Lines of `postgresql.conf`.
fn lines(settings: &[(String, String)]) -> String {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('\'', "''");
    settings.iter().map(|(name, value)| format!("{name} = '{}'\n", quoted(value))).collect()
}

fn append(path: &Path, text: &str) -> Result<(), SandboxError> {
    use std::io::Write;
    let write = |path: &Path| fs::File::options().append(true).open(path)?.write_all(text.as_bytes());
    write(path).map_err(failed("write postgresql.conf"))
}

/// Major versions with their directories of programs; those of `FIGVINE_PG_BIN` first.
fn installed() -> Vec<(u32, PathBuf)> {
    let mut found = Vec::new();
    if let Some(bin) = std::env::var_os("FIGVINE_PG_BIN").map(PathBuf::from) {
        let output = Command::new(bin.join("postgres")).arg("--version").output();
        if let Some(major) = output.ok().and_then(|o| major(&String::from_utf8_lossy(&o.stdout))) {
            found.push((major, bin));
        }
    }
    for (folder, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version = name.to_str().and_then(|n| n.strip_prefix(prefix)?.parse().ok());
            let bin = entry.path().join("bin");
            if let Some(version) = version.filter(|v| *v >= OLDEST && bin.join("postgres").exists()) {
                found.push((version, bin));
            }
        }
    }
    found
}

/// The versions that `make servers` got beside the one that is installed, with their directories of programs.
fn got() -> Vec<(u32, PathBuf)> {
    let entries = fetched().into_iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let found = entries.filter_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("postgresql-")?.parse().ok()?;
        let bin = entry.path().join("bin");
        let postgres = bin.join("postgres");
        // It refuses to run as root, and another account may not reach it.
        let starts = if Uid::effective().is_root() { open_to_all(&postgres) } else { postgres.exists() };
        starts.then_some((version, bin))
    });
    found.collect()
}

/// The major version in `postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)` or `postgres (PostgreSQL) 18beta1`.
fn major(text: &str) -> Option<u32> {
    let number = text.split_once("(PostgreSQL) ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn find(version: Option<u32>) -> Result<PathBuf, SandboxError> {
    let installed = installed();
    let got = got();
    let named = || std::env::var_os("FIGVINE_PG_BIN").and(installed.first());
    let newest = |found: &[(u32, PathBuf)]| found.iter().max_by_key(|(v, _)| *v).cloned();
    let chosen = match version {
        Some(version) => installed.iter().chain(&got).find(|(v, _)| *v == version).cloned(),
        None => named().cloned().or_else(|| newest(&installed)).or_else(|| newest(&got)),
    };
    let wanted = version.map_or(format!("PostgreSQL {OLDEST} or later"), |v| format!("PostgreSQL {v}"));
    let (_, bin) = chosen.ok_or(SandboxError::Missing { program: wanted.clone() })?;
    if bin.join("initdb").exists() {
        Ok(bin)
    } else {
        Err(SandboxError::Missing { program: format!("initdb of {wanted}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_tells_its_major_version() {
        assert_eq!(major("postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(major("nonsense"), None);
    }

    #[test]
    fn quotes_in_settings_stay_quotes() {
        let settings = [("search_path".to_owned(), "it's\\".to_owned())];
        assert_eq!(lines(&settings), "search_path = 'it''s\\\\'\n");
    }
}
