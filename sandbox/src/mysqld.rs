//! What a private MySQL and a private MariaDB have in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use nix::sys::signal::Signal;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use crate::process::{Home, Server, failed, fetched, free_port, open_to_all, port_was_taken};
use crate::{SandboxError, Tls, poll};

const LOG: &str = "server.log";
pub(crate) const TOOLS_LOG: &str = "tools.log";
/// Recovery after a kill under load included.
const START: Duration = Duration::from_secs(120);
/// Another process may take a free port before the server does.
const ATTEMPTS: usize = 3;

/// What a private MySQL or MariaDB is started with.
#[derive(Clone, Debug, Default)]
pub struct MySqlOptions {
    /// Lines of the option file, name and value; they win over ours. A name with an empty value stands alone, as
    /// `skip_log_bin` must.
    pub settings: Vec<(String, String)>,
    /// Certificates for the server. Without them a MySQL takes TLS with certificates that it makes for itself, a MariaDB
    /// takes none.
    pub tls: Option<Tls>,
    /// The password of `root`; by default it has none.
    pub password: Option<String>,
    /// Whether writes reach the disk. Not needed to survive [`Mysqld::kill9`], only to measure as in production.
    pub fsync: bool,
    /// Leaves the binary log and its settings, GTIDs and the server's id as the server has them by itself.
    pub server_defaults: bool,
}

/// What tells a MySQL from a MariaDB.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The server's program.
    pub(crate) program: &'static str,
    /// The program that shows its binary log.
    pub(crate) log_reader: &'static str,
    pub(crate) home_prefix: &'static str,
    /// Lines that a private server needs.
    pub(crate) needed: &'static str,
    /// Lines with which the binary log holds all that Figvine reads.
    pub(crate) logging: &'static str,
    /// The command that creates the data directory, without binary log; [`Mysqld`] adds `--datadir` and `--user`.
    pub(crate) initialise: fn(&Home, &Path) -> Result<Command, SandboxError>,
    /// Sets the password of `root`, which is in quotes already.
    pub(crate) set_password: fn(&str) -> String,
}

/// A private MySQL or MariaDB that runs: what can be done with both. Its superuser is `root`.
#[derive(Debug)]
pub struct Mysqld {
    server: Server,
    kind: &'static Kind,
    program: PathBuf,
    options: MySqlOptions,
    port: u16,
}

impl Mysqld {
    pub(crate) async fn start(
        kind: &'static Kind,
        program: PathBuf,
        options: MySqlOptions,
    ) -> Result<Self, SandboxError> {
        // mysqld refuses to run as root unless it is told to, which is for programs that only root can reach.
        let home = Home::new(kind.home_prefix, open_to_all(&program))?;
        create_data(&home, kind, &program).await?;
        if let Some(tls) = &options.tls {
            home.write("server.crt", &tls.cert)?;
            home.write("server.key", &tls.key)?;
            if let Some(ca) = &tls.ca {
                home.write("ca.crt", ca)?;
            }
        }
        let mut mysqld =
            Self { server: Server::new(kind.program, home, LOG), kind, program, options, port: free_port()? };
        mysqld.first_launch().await?;
        if let Some(password) = &mysqld.options.password {
            // A replica has its own: neither sends it to the other.
            let sql = format!("set sql_log_bin = 0; {}", (kind.set_password)(&quoted(password)));
            let mut conn = connect(&mysqld.url_as("root", "")).await?;
            conn.query_drop(sql).await.map_err(refused("set the password of root"))?;
        }
        Ok(mysqld)
    }

    /// A server that is to follow this one: the same program and options, with `settings` added.
    pub(crate) async fn follower(&self, settings: &[(String, String)]) -> Result<Self, SandboxError> {
        let mut options = self.options.clone();
        options.settings.extend_from_slice(settings);
        Self::start(self.kind, self.program.clone(), options).await
    }

    /// Begins to replicate by `sql` and waits until both threads of the replica run.
    pub(crate) async fn follow(&self, sql: String, status: &str, threads: [&str; 2]) -> Result<(), SandboxError> {
        let mut conn = self.connect("").await?;
        conn.query_drop(sql).await.map_err(refused("follow its primary"))?;
        let answer = poll("replication from the primary", Duration::from_secs(30), || async {
            // A connection of its own each time: the probe may be asked again while it was given up half-way.
            let mut conn = self.connect("").await.ok()?;
            let row: Row = conn.query_first(status).await.ok()??;
            let runs = |thread| matches!(row.get_opt::<String, _>(thread), Some(Ok(state)) if state == "Yes");
            threads.into_iter().all(runs).then_some(())
        });
        answer.await
    }

    /// The statement's part that names this server as a source, with the words of [`Kind`]'s dialect in front of each.
    pub(crate) fn source(&self, prefix: &str) -> String {
        let password = quoted(self.options.password.as_deref().unwrap_or_default());
        format!(
            "{prefix}_host = '127.0.0.1', {prefix}_port = {}, {prefix}_user = 'root', {prefix}_password = {password}, \
             {prefix}_connect_retry = 1",
            self.port
        )
    }

    async fn first_launch(&mut self) -> Result<(), SandboxError> {
        for _ in 1..ATTEMPTS {
            match self.launch().await {
                Err(error) if port_was_taken(&error) => self.port = free_port()?,
                outcome => return outcome,
            }
        }
        self.launch().await
    }

    fn option_file(&self) -> String {
        let (dir, port) = (self.dir().display(), self.port);
        let mut file = format!(
            "[mysqld]\ndatadir = {dir}/data\nsocket = {}\npid_file = {dir}/server.pid\ntmpdir = {dir}\nbind_address = 127.0.0.1\n\
             port = {port}\ninnodb_buffer_pool_size = 64M\n{}",
            self.socket().display(),
            self.kind.needed
        );
        if self.server.home().is_root() {
            file.push_str("user = root\n");
        }
        if !self.options.fsync {
            // A killed server loses nothing by them: what it has written stands in the page cache.
            file.push_str("innodb_flush_method = nosync\ninnodb_flush_log_at_trx_commit = 2\nsync_binlog = 0\n");
        }
        if !self.options.server_defaults {
            // A port of this machine is one server's alone.
            file.push_str(&format!("server_id = {port}\nlog_bin = binlog\n{}", self.kind.logging));
        }
        if let Some(tls) = &self.options.tls {
            file.push_str(&format!("ssl_cert = {dir}/server.crt\nssl_key = {dir}/server.key\n"));
            if tls.ca.is_some() {
                file.push_str(&format!("ssl_ca = {dir}/ca.crt\n"));
            }
        }
        file.push_str(&lines(&self.options.settings));
        file
    }

    async fn launch(&self) -> Result<(), SandboxError> {
        // After a kill they name a process that is gone, whose number somebody else may have by now.
        for stale in ["mysql.sock", "mysql.sock.lock", "server.pid"] {
            let _ = fs::remove_file(self.dir().join(stale));
        }
        let file = self.server.home().write("my.cnf", &self.option_file())?;
        let mut argument = std::ffi::OsString::from("--defaults-file=");
        argument.push(file);
        self.server.launch(&self.program, [argument], START, |_| self.greets()).await
    }

    /// Whether the server greets a client: the fifth byte it sends is the version of the protocol, or 255 before an error.
    ///
    /// At the Unix socket, which is there last and which no other server has.
    async fn greets(&self) -> bool {
        // Never so long that a server that hangs would outlive the deadline of the start.
        let greeting = tokio::time::timeout(Duration::from_secs(2), async {
            let mut stream = UnixStream::connect(self.socket()).await.ok()?;
            let mut start = [0; 5];
            stream.read_exact(&mut start).await.ok()?;
            Some(start)
        });
        matches!(greeting.await, Ok(Some([.., 10])))
    }

    /// Waits until the server takes connections.
    ///
    /// # Errors
    /// [`SandboxError::NotRunning`], [`SandboxError::Ended`], or [`SandboxError::Timeout`] after `deadline`.
    pub async fn wait_ready(&self, deadline: Duration) -> Result<(), SandboxError> {
        let process = self.server.running()?;
        self.server.until_ready(&process, deadline, |_| self.greets()).await
    }

    /// A URL of `root`, with the password if there is one: `mysql://root@127.0.0.1:PORT/DATABASE`.
    ///
    /// Servers have no database of ours: create one, or leave the name empty.
    pub fn url(&self, database: &str) -> String {
        self.url_as(&self.user(), database)
    }

    fn url_as(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{}", self.port, utf8_percent_encode(database, NON_ALPHANUMERIC))
    }

    fn user(&self) -> String {
        match &self.options.password {
            None => "root".to_owned(),
            Some(password) => format!("root:{}", utf8_percent_encode(password, NON_ALPHANUMERIC)),
        }
    }

    /// The port on 127.0.0.1; a restart keeps it. It is the `server_id` too, except with the server's own defaults.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("mysql.sock")
    }

    /// The data directory, with the binary log.
    pub fn data_dir(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// A command that shows its binary log: `mysqlbinlog` or `mariadb-binlog`, beside the server's program or in the path.
    /// Arguments are still to be given.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] when it is not on this machine.
    pub fn log_reader(&self) -> Result<tokio::process::Command, SandboxError> {
        let name = self.kind.log_reader;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let beside = self.program.parent().into_iter();
        let above = self.program.parent().and_then(Path::parent).map(|root| root.join("bin"));
        let folders = beside.map(Path::to_owned).chain(above).chain(std::env::split_paths(&path));
        let program = folders.map(|folder| folder.join(name)).find(|program| program.is_file());
        let program = program.ok_or_else(|| SandboxError::Missing { program: name.to_owned() })?;
        let mut command = tokio::process::Command::new(program);
        // What an option file says to it could be anything.
        command.arg("--no-defaults").kill_on_drop(true);
        Ok(command)
    }

    /// The directory with all its files; gone once this is dropped.
    pub fn dir(&self) -> &Path {
        self.server.home().path()
    }

    /// The end of the server's log, at most 4 KiB.
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// The server's process and its children; none while it is down.
    pub fn pids(&self) -> Vec<u32> {
        self.server.running().map(|p| p.tree()).unwrap_or_default()
    }

    /// Connects as `root` by TCP, without TLS. An empty name chooses no database.
    ///
    /// # Errors
    /// [`SandboxError::MySql`] with what the server said.
    pub async fn connect(&self, database: &str) -> Result<Conn, SandboxError> {
        connect(&self.url(database)).await
    }

    /// Kills the server by SIGKILL; returns when it is gone.
    pub fn kill9(&self) {
        self.server.kill9();
    }

    /// Freezes the server by SIGSTOP: connections stay open, nothing answers.
    pub fn freeze(&self) {
        self.server.freeze();
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.server.thaw();
    }

    /// Shuts the server down: clients are thrown out, the logs are closed. The data stay.
    ///
    /// # Errors
    /// [`SandboxError::Timeout`] after 70 seconds.
    pub async fn stop(&self) -> Result<(), SandboxError> {
        self.server.stop(Signal::SIGTERM, Duration::from_secs(70)).await
    }

    /// Starts it again on the same port and data, whatever brought it down; a running server is stopped first.
    ///
    /// # Errors
    /// As its start and [`Mysqld::stop`].
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

pub(crate) async fn connect(url: &str) -> Result<Conn, SandboxError> {
    let url = url.strip_prefix("mariadb:").map_or(url.to_owned(), |rest| format!("mysql:{rest}"));
    let opts = Opts::from_url(&url).map_err(|error| refused("take a connection")(error.into()))?;
    // Else the client would leave the TCP connection for the Unix socket, which the connector under test does not.
    let opts = OptsBuilder::from_opts(opts).prefer_socket(false);
    Conn::new(opts).await.map_err(refused("take a connection"))
}

pub(crate) fn refused(what: &'static str) -> impl FnOnce(mysql_async::Error) -> SandboxError {
    move |source| SandboxError::MySql { what, source }
}

/// Lines of an option file.
fn lines(settings: &[(String, String)]) -> String {
    let line = |(name, value): &(String, String)| match value.as_str() {
        "" => format!("{name}\n"),
        value => format!("{name} = {value}\n"),
    };
    settings.iter().map(line).collect()
}

/// A string of SQL, in the default SQL mode.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Creates `data` in the home: a copy of one that was created before by the same program, or else a new one.
///
/// A new one takes seconds, of which a suite of tests would have hundreds.
async fn create_data(home: &Home, kind: &Kind, program: &Path) -> Result<(), SandboxError> {
    // One at a time in this process: the first makes what the others copy.
    static CREATING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _creating = CREATING.lock().await;
    let data = home.path().join("data");
    let kept = kept_data(kind, program);
    if let Some(kept) = kept.as_deref().filter(|kept| kept.is_dir()) {
        let mut copy = home.command(Path::new("cp"), TOOLS_LOG)?;
        copy.arg("-R").arg(kept).arg(&data);
        if home.run("cp", copy, TOOLS_LOG).await.is_ok() {
            return Ok(());
        }
        // It may belong to an account that shuts ours out.
        let _ = fs::remove_dir_all(&data);
    }
    let mut initialise = (kind.initialise)(home, program)?;
    let mut datadir = std::ffi::OsString::from("--datadir=");
    datadir.push(&data);
    // The folder that TMPDIR names may be shut to the server's account.
    let mut tmpdir = std::ffi::OsString::from("--tmpdir=");
    tmpdir.push(home.path());
    initialise.arg(datadir).arg(tmpdir).arg("--innodb-flush-method=nosync");
    if home.is_root() {
        initialise.arg("--user=root");
    }
    home.run("the creation of a data directory", initialise, TOOLS_LOG).await?;
    if let Some(kept) = kept {
        keep(&data, &kept).await;
    }
    Ok(())
}

/// Where a fresh data directory of this very program is kept, if there is a directory for such things.
fn kept_data(kind: &Kind, program: &Path) -> Option<PathBuf> {
    let found = fs::metadata(program).ok()?;
    let changed = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(fetched().first()?.join(format!("data-{}-{}-{changed}", kind.program, found.len())))
}

/// Keeps a copy of a fresh data directory, readable for all. Failing that, the next server creates its own again.
async fn keep(data: &Path, kept: &Path) {
    let fresh = kept.with_extension(format!("{}.new", std::process::id()));
    let mut copy = tokio::process::Command::new("cp");
    copy.args(["-R", "--no-preserve=mode,ownership"]).arg(data).arg(&fresh).kill_on_drop(true);
    let copied = copy.output().await.is_ok_and(|output| output.status.success());
    // The server's identity, which is to be different in each copy: MySQL makes a new one if there is none.
    let _ = fs::remove_file(fresh.join("auto.cnf"));
    if !copied || fs::rename(&fresh, kept).is_err() {
        let _ = fs::remove_dir_all(&fresh);
    }
}

/// Looks for a program: the one that the environment variable names, or else the first of `candidates` that is there.
pub(crate) fn find(
    variable: &str,
    candidates: impl IntoIterator<Item = PathBuf>,
    wanted: &str,
) -> Result<PathBuf, SandboxError> {
    let missing = || SandboxError::Missing { program: wanted.to_owned() };
    let program = match std::env::var_os(variable) {
        Some(named) => Some(PathBuf::from(named)).filter(|p| p.is_file()),
        None => candidates.into_iter().find(|p| p.is_file()),
    };
    std::path::absolute(program.ok_or_else(missing)?).map_err(failed(format!("find {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_without_value_stands_alone() {
        let settings = [("skip_log_bin".to_owned(), String::new()), ("sql_mode".to_owned(), "ANSI".to_owned())];
        assert_eq!(lines(&settings), "skip_log_bin\nsql_mode = ANSI\n");
    }

    #[test]
    fn a_server_that_is_not_there_names_the_command_that_gets_it() {
        let error = find("FIGVINE_NAMED_NOWHERE", [PathBuf::from("/nowhere/mysqld")], "MySQL").unwrap_err();
        assert_eq!(error.to_string(), "MySQL not found: run `make servers`");
    }

    #[test]
    fn quotes_in_passwords_stay_quotes() {
        assert_eq!(quoted("it's\\"), "'it''s\\\\'");
    }
}
