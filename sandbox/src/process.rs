//! Processes that are ours: started so that they cannot outlive us, found again with all their children, ended as one.

use std::ffi::OsString;
use std::fs::{self, File};
use std::future::ready;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};

use crate::{POLL, SandboxError};

/// How long the kernel may take to stop or end a process that was told to.
const SETTLE: Duration = Duration::from_secs(10);
/// How long a folder that was removed is looked after.
const STAYS_AWAY: Duration = Duration::from_millis(20);

/// A temporary directory with the account that the server in it runs under.
#[derive(Debug)]
pub(crate) struct Home {
    dir: tempfile::TempDir,
    owner: Option<(Uid, Gid)>,
}

impl Home {
    /// A fresh directory. With `demoted`, and when we are root, it belongs to an ordinary account.
    pub(crate) fn new(prefix: &str, demoted: bool) -> Result<Self, SandboxError> {
        let owner = if demoted && Uid::effective().is_root() { Some(ordinary_account()?) } else { None };
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        // root's TMPDIR may lie in a directory that no other account can enter.
        let dir = if owner.is_some() { builder.tempdir_in("/tmp") } else { builder.tempdir() };
        let home = Self { dir: dir.map_err(failed("create a temporary directory"))?, owner };
        home.hand_over(home.path())?;
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether what is started here runs as root.
    pub(crate) fn is_root(&self) -> bool {
        self.owner.is_none() && Uid::effective().is_root()
    }

    /// Writes a file that only the server's account may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, SandboxError> {
        let path = self.path().join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .map_err(failed(format!("write {name}")))?;
        self.hand_over(&path)?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path) -> Result<(), SandboxError> {
        let Some((uid, gid)) = self.owner else { return Ok(()) };
        nix::unistd::chown(path, Some(uid), Some(gid))
            .map_err(|e| failed("give a file to the server's account")(e.into()))
    }

    /// A command that runs `program` in this directory under its account, dies with us, and writes to `log`.
    pub(crate) fn command(&self, program: &Path, log: &str) -> Result<Command, SandboxError> {
        let file =
            File::options().create(true).append(true).open(self.path().join(log)).map_err(failed("open a log"))?;
        let errors = file.try_clone().map_err(failed("open a log"))?;
        let mut command = Command::new("setpriv");
        if let Some((uid, gid)) = self.owner {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
        }
        command.args(["--pdeathsig", "KILL", "--"]).arg(program);
        command.current_dir(self.path()).stdin(Stdio::null()).stdout(file).stderr(errors);
        // What a developer's shell sets for psql or mysql must not reach a private server.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["PG", "MYSQL_", "MARIADB_"].iter().any(|prefix| name_text.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        Ok(command)
    }

    /// The last lines of a log, at most 4 KiB.
    pub(crate) fn log_tail(&self, log: &str) -> String {
        tail(&self.path().join(log)).unwrap_or_default()
    }

    /// Runs a tool to its end.
    pub(crate) async fn run(&self, program: &'static str, command: Command, log: &str) -> Result<(), SandboxError> {
        let process = Process::spawn(program, command).await?;
        match process.wait(Duration::from_secs(120)).await? {
            status if status.success() => Ok(()),
            status => Err(SandboxError::Ended { program, status: status.to_string(), log: self.log_tail(log) }),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A program that was given up while it was being started may write for a moment longer, and make its folder anew.
        for _ in 0..2 {
            settle(|| {
                let _ = fs::remove_dir_all(self.path());
                !self.path().exists()
            });
            std::thread::park_timeout(STAYS_AWAY);
        }
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// `initdb` and `postgres` refuse to run as root, `mysqld` and `mariadbd` want to be persuaded.
fn ordinary_account() -> Result<(Uid, Gid), SandboxError> {
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = User::from_name(name) {
            return Ok((user.uid, user.gid));
        }
    }
    Err(SandboxError::Missing { program: "an account named postgres or nobody".to_owned() })
}

pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> SandboxError {
    let what = what.into();
    move |source| SandboxError::Io { what, source }
}

struct Order {
    command: Command,
    reply: tokio::sync::oneshot::Sender<io::Result<Child>>,
}

/// Starts the command on a thread that lives as long as we do.
///
/// The death signal of Linux is sent when the parent *thread* ends, prctl(2), and the threads of a runtime end with it.
async fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        let body = move || {
            for mut order in inbox {
                if let Err(Ok(mut unwanted)) = order.reply.send(order.command.spawn()) {
                    let _ = unwanted.kill();
                    let _ = unwanted.wait();
                }
            }
        };
        // Without the thread the inbox is gone, and each order is refused.
        let _ = std::thread::Builder::new().name("sandbox-spawner".to_owned()).spawn(body);
        orders
    });
    let (reply, answer) = tokio::sync::oneshot::channel();
    let gone = || io::Error::other("the thread that starts servers is gone");
    spawner.send(Order { command, reply }).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

/// A running program and its descendants. Dropped, all of them are killed.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    pub(crate) async fn spawn(program: &'static str, mut command: Command) -> Result<Self, SandboxError> {
        use std::os::unix::process::CommandExt;
        // A group of its own: Ctrl-C in a terminal is for us, and we end the servers when we no longer need them.
        command.process_group(0);
        let child = spawn(command).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => SandboxError::Missing { program: format!("setpriv, which starts {program}") },
            _ => failed(format!("start {program}"))(source),
        })?;
        let pid = Pid::from_raw(child.id().cast_signed());
        Ok(Self { program, pid, child: Mutex::new(child) })
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    pub(crate) async fn wait(&self, deadline: Duration) -> Result<ExitStatus, SandboxError> {
        crate::poll(&format!("the end of {}", self.program), deadline, || ready(self.ended())).await
    }

    /// Sends a signal to the first process alone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), SandboxError> {
        // Once it was waited for, its number may be another's.
        if self.ended().is_some() {
            return Err(SandboxError::NotRunning { program: self.program });
        }
        kill(self.pid, signal).map_err(|e| failed(format!("signal {}", self.program))(e.into()))
    }

    /// It and all its descendants, zombies left out.
    pub(crate) fn tree(&self) -> Vec<u32> {
        if self.ended().is_some() {
            return Vec::new();
        }
        family(self.pid).iter().filter(|s| s.state != 'Z').map(|s| s.pid.as_raw().cast_unsigned()).collect()
    }

    /// Stops every process of the tree, parents first, so that none can fork behind our back.
    ///
    /// The process group is not enough: each of PostgreSQL's children makes itself a session and group of its own.
    fn stop_all(&self) -> Vec<Stat> {
        let mut stopped: Vec<Stat> = Vec::new();
        loop {
            let news: Vec<Stat> = family(self.pid).into_iter().filter(|s| !stopped.iter().any(|o| o.same(s))).collect();
            if news.is_empty() {
                return stopped;
            }
            for stat in &news {
                let _ = kill(stat.pid, Signal::SIGSTOP);
                settle(|| {
                    Stat::read(stat.pid).is_none_or(|now| !now.same(stat) || matches!(now.state, 'T' | 't' | 'Z' | 'X'))
                });
            }
            stopped.extend(news);
        }
    }

    /// Freezes the whole tree (SIGSTOP): sockets stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        if self.ended().is_none() {
            self.stop_all();
        }
    }

    /// Lets a frozen tree go on (SIGCONT), children first.
    pub(crate) fn thaw(&self) {
        if self.ended().is_none() {
            for stat in family(self.pid).iter().rev() {
                let _ = kill(stat.pid, Signal::SIGCONT);
            }
        }
    }

    /// Kills the whole tree (SIGKILL) and returns when all of it is gone.
    pub(crate) fn kill9(&self) {
        if self.ended().is_some() {
            return;
        }
        let tree = self.stop_all();
        for stat in &tree {
            let _ = kill(stat.pid, Signal::SIGKILL);
        }
        let _ = self.child().wait();
        settle(|| tree.iter().all(|stat| Stat::read(stat.pid).is_none_or(|now| !now.same(stat) || now.state == 'Z')));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Waits, off any runtime since `Drop` has none, for what the kernel does within milliseconds.
fn settle(done: impl Fn() -> bool) {
    let end = Instant::now() + SETTLE;
    while !done() && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A line of `/proc/PID/stat`, proc(5).
#[derive(Debug)]
struct Stat {
    pid: Pid,
    state: char,
    parent: i32,
    /// Clock ticks since boot; tells a process from a later one with the same number.
    started: u64,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: Pid, text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { pid, state, parent, started })
    }

    fn same(&self, other: &Self) -> bool {
        self.pid == other.pid && self.started == other.started
    }
}

/// A process and its descendants, parents before children.
fn family(root: Pid) -> Vec<Stat> {
    let mut strangers: Vec<Stat> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Stat::read(Pid::from_raw(pid)))
        .collect();
    let mut family: Vec<Stat> = strangers.extract_if(.., |s| s.pid == root).collect();
    let mut asked = 0;
    while let Some(parent) = family.get(asked).map(|s| s.pid.as_raw()) {
        family.extend(strangers.extract_if(.., |s| s.parent == parent));
        asked += 1;
    }
    family
}

/// A port of 127.0.0.1 that nobody listens on. Another process may still take it first: starts are tried again.
///
/// It lies below the kernel's ephemeral ports (32768 and up): a client that reconnects to a server that is down could else
/// be given the server's own port as its source, connect to itself, and keep the server from coming back.
pub(crate) fn free_port() -> Result<u16, SandboxError> {
    use std::hash::{BuildHasher, RandomState};
    for _ in 0..200 {
        let offset = RandomState::new().hash_one(std::process::id()) % 17_000;
        let port = u16::try_from(15_000 + offset).unwrap_or(15_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(failed("find a free port")(io::ErrorKind::AddrInUse.into()))
}

/// Whether a server ended because somebody else has its port.
pub(crate) fn port_was_taken(error: &SandboxError) -> bool {
    matches!(error, SandboxError::Ended { log, .. } if log.to_ascii_lowercase().contains("address already in use"))
}

/// Whether the accounts that servers run under can start the program.
pub(crate) fn open_to_all(program: &Path) -> bool {
    let may = |path: &Path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    fs::canonicalize(program).is_ok_and(|path| path.ancestors().all(may))
}

/// Where `make servers` puts what it gets: below the workspace that this was built in, and below the working directory.
pub(crate) fn fetched() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned);
    let here = std::env::current_dir().ok();
    workspace.into_iter().chain(here).map(|root| root.join("target/servers")).filter(|dir| dir.is_dir()).collect()
}

/// A program in its directory, which may be down for a while.
#[derive(Debug)]
pub(crate) struct Server {
    program: &'static str,
    // Before the directory, so that nobody writes into it while it is removed.
    current: Mutex<Option<Arc<Process>>>,
    home: Home,
    log: &'static str,
}

impl Server {
    pub(crate) fn new(program: &'static str, home: Home, log: &'static str) -> Self {
        Self { program, current: Mutex::new(None), home, log }
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    pub(crate) fn log_tail(&self) -> String {
        self.home.log_tail(self.log)
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn running(&self) -> Result<Arc<Process>, SandboxError> {
        let process = self.current().clone().filter(|p| p.ended().is_none());
        process.ok_or(SandboxError::NotRunning { program: self.program })
    }

    /// Starts `program` with `arguments` and returns once `ready` says so; kills it if that takes longer than `deadline`.
    pub(crate) async fn launch<R>(
        &self,
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
        deadline: Duration,
        ready: impl FnMut(&Process) -> R,
    ) -> Result<(), SandboxError>
    where
        R: Future<Output = bool>,
    {
        // Old complaints would be taken for new ones.
        let log = self.home.path().join(self.log);
        if log.exists() {
            fs::rename(&log, log.with_extension("old")).map_err(failed("set the old log aside"))?;
        }
        let mut command = self.home.command(program, self.log)?;
        command.args(arguments);
        let process = Arc::new(Process::spawn(self.program, command).await?);
        *self.current() = Some(Arc::clone(&process));
        let outcome = self.until_ready(&process, deadline, ready).await;
        if outcome.is_err() {
            self.kill9();
        }
        outcome
    }

    /// Waits until `ready`, or until the process ends.
    pub(crate) async fn until_ready<R>(
        &self,
        process: &Process,
        deadline: Duration,
        mut ready: impl FnMut(&Process) -> R,
    ) -> Result<(), SandboxError>
    where
        R: Future<Output = bool>,
    {
        let answered = tokio::time::timeout(deadline, async {
            loop {
                if let Some(status) = process.ended() {
                    let (program, status, log) = (self.program, status.to_string(), self.log_tail());
                    return Err(SandboxError::Ended { program, status, log });
                }
                if ready(process).await {
                    return Ok(());
                }
                tokio::time::sleep(POLL).await;
            }
        });
        let what = format!("{} being ready", self.program);
        answered.await.unwrap_or(Err(SandboxError::Timeout { what, deadline }))
    }

    pub(crate) fn kill9(&self) {
        if let Ok(process) = self.running() {
            process.kill9();
        }
    }

    pub(crate) fn freeze(&self) {
        if let Ok(process) = self.running() {
            process.freeze();
        }
    }

    pub(crate) fn thaw(&self) {
        if let Ok(process) = self.running() {
            process.thaw();
        }
    }

    /// Asks it to end by `signal` and waits; nothing to do if it is down already.
    pub(crate) async fn stop(&self, signal: Signal, deadline: Duration) -> Result<(), SandboxError> {
        let Ok(process) = self.running() else { return Ok(()) };
        process.thaw();
        process.signal(signal)?;
        process.wait(deadline).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_parentheses_in_its_name_is_still_read() {
        let text = "42 (a) S) T 7 42 42 0 -1 4194304 1 0 0 0 1 2 3 4 20 0 1 0 98765 1000 10 0";
        let stat = Stat::parse(Pid::from_raw(42), text).unwrap();
        assert_eq!((stat.state, stat.parent, stat.started), ('T', 7, 98765));
        assert!(Stat::parse(Pid::from_raw(42), "42 (cut off").is_none());
    }

    #[test]
    fn our_own_family_begins_with_us() {
        let us = Pid::this();
        assert_eq!(family(us).first().map(|s| s.pid), Some(us));
    }

    #[test]
    fn free_ports_stay_out_of_the_way_of_clients() {
        let port = free_port().unwrap();
        assert!((15_000..32_000).contains(&port));
    }

    #[test]
    fn a_program_behind_a_closed_directory_is_not_open_to_all() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mysqld");
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!open_to_all(&program));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open_to_all(&program));
    }
}
