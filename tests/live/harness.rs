//! One database, one NATS server, the program, and eyes on the stream.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions, wait_for};
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio_postgres::Client;

/// How long anything may take that should happen at once.
pub(crate) const SOON: Duration = Duration::from_secs(30);
/// How long a load may take.
pub(crate) const LONG: Duration = Duration::from_secs(180);

/// The database of all tests.
pub(crate) const DATABASE: &str = "postgres";
/// The stream of the source `shop`.
pub(crate) const STREAM: &str = "FIGVINE_SHOP";

/// A database, a NATS server, and a place for files.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) home: TempDir,
}

/// An event of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
    /// The body as it stands in the stream.
    pub(crate) payload: Vec<u8>,
}

impl Event {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// `insert`, `update` ...
    pub(crate) fn op(&self) -> &str {
        self.body["op"].as_str().unwrap_or_default()
    }

    /// The body's text: digits and order as they stand in the stream.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a body of UTF-8")
    }

    /// `schema.table`
    pub(crate) fn table(&self) -> String {
        let name = |field: &str| self.body["source"][field].as_str().unwrap_or_default().to_owned();
        format!("{}.{}", name("schema"), name("table"))
    }
}

impl World {
    /// Both servers as they come, and a configuration of one source `shop` over `public.*`.
    pub(crate) async fn start() -> Self {
        Self::with(PostgresOptions::default(), NatsOptions::default()).await
    }

    pub(crate) async fn with(postgres: PostgresOptions, nats: NatsOptions) -> Self {
        let (postgres, nats) = tokio::join!(Box::pin(Postgres::start(postgres)), Box::pin(Nats::start(nats)));
        let home = tempfile::tempdir().expect("a temporary directory");
        let world = Self { postgres: postgres.expect("PostgreSQL"), nats: nats.expect("NATS"), home };
        world.configure("");
        world
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.home.path().join("figvine.yaml")
    }

    /// Writes the configuration of one source `shop`; `more` are lines of that source, two levels in,
    /// such as `"    format: plain\n"`.
    pub(crate) fn configure(&self, more: &str) {
        let url = self.postgres.url(DATABASE);
        self.write_config(&format!(
            "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"public.*\"]\n{more}",
            self.nats.url()
        ));
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.config_path(), text).expect("writes the configuration");
    }

    pub(crate) async fn sql(&self) -> Client {
        self.postgres.connect(DATABASE).await.expect("connects to PostgreSQL")
    }

    /// Runs a batch of SQL.
    pub(crate) async fn run_sql(&self, sql: &str) {
        self.sql().await.batch_execute(sql).await.expect(sql);
    }

    /// The program with our configuration, not yet started.
    pub(crate) fn figvine(&self, args: &[&str]) -> Command {
        figvine(&self.config_path(), args)
    }

    /// Starts the bridge.
    pub(crate) fn bridge(&self) -> Bridge {
        Bridge::start(self.figvine(&["run"]), self.home.path())
    }

    /// What all bridges of this world have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("figvine.log")).unwrap_or_default()
    }

    /// Runs `figvine` to its end.
    pub(crate) async fn finish(&self, args: &[&str]) -> Finished {
        finish(self.figvine(args)).await
    }

    /// Brings everything that is committed into the stream, and ends.
    pub(crate) async fn drain(&self) {
        let finished = self.finish(&["run", "--until", "now"]).await;
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.nats.url()).await.expect("connects to NATS"))
    }

    /// All events of our stream.
    pub(crate) async fn events(&self) -> Vec<Event> {
        events(&self.jetstream().await, STREAM).await
    }

    /// The slot's confirmed place, in bytes from the log's beginning; `None` without a slot, and while one is being made.
    pub(crate) async fn confirmed(&self) -> Option<i64> {
        let query =
            "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = 'figvine_shop'";
        self.sql().await.query_opt(query, &[]).await.expect("asks for the slot").and_then(|row| row.get(0))
    }
}

/// PostgreSQL 18, where it is there. A test that needs it and cannot have it says so, past the capture of its output.
pub(crate) fn eighteen() -> Option<u32> {
    let found = Postgres::versions().into_iter().find(|version| *version == 18);
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "{test} DID NOT RUN: it needs PostgreSQL 18, run `make servers`");
    }
    found
}

/// The program with a configuration, not yet started.
pub(crate) fn figvine(config: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_figvine"));
    command.arg("-c").arg(config).args(args).env_remove("RUST_LOG");
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end, within [`LONG`].
pub(crate) async fn finish(command: Command) -> Finished {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = tokio::time::timeout(LONG, command.output()).await.expect("ends in time").expect("starts");
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Hands the headers of all messages of our stream to `look`, in order, each with its sequence.
pub(crate) async fn each_header(world: &World, mut look: impl FnMut(u64, Option<&async_nats::HeaderMap>)) {
    let mut stream = world.jetstream().await.get_stream(STREAM).await.expect("the stream");
    let state = stream.info().await.expect("its state").state.clone();
    if state.messages == 0 {
        return;
    }
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, headers_only: true, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    while let Some(message) = tokio::time::timeout(SOON, messages.next()).await.expect("the next message in time") {
        let message = message.expect("a message");
        let sequence = message.info().expect("its place").stream_sequence;
        look(sequence, message.headers.as_ref());
        if sequence >= state.last_sequence {
            break;
        }
    }
}

/// All events of a stream.
pub(crate) async fn events(context: &jetstream::Context, stream: &str) -> Vec<Event> {
    let mut events = Vec::new();
    each_event(context, stream, |event| events.push(event)).await;
    events
}

/// Hands all events of a stream to `look`, in order: of those that are more than memory holds.
pub(crate) async fn each_event(context: &jetstream::Context, stream: &str, mut look: impl FnMut(Event)) {
    let mut stream = context.get_stream(stream).await.expect("the stream");
    let state = stream.info().await.expect("its state").state.clone();
    if state.messages == 0 {
        return;
    }
    let config = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let mut messages = consumer.messages().await.expect("messages");
    while let Some(message) = tokio::time::timeout(SOON, messages.next()).await.expect("the next message in time") {
        let message = message.expect("a message");
        let sequence = message.info().expect("its place").stream_sequence;
        let mut headers = BTreeMap::new();
        for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
            headers.insert(name.to_string(), values.first().map(ToString::to_string).unwrap_or_default());
        }
        // A tombstone has none.
        let body = match message.payload.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&message.payload).expect("a body of JSON"),
        };
        let payload = message.payload.to_vec();
        look(Event { sequence, subject: message.subject.to_string(), headers, body, payload });
        if sequence >= state.last_sequence {
            break;
        }
    }
}

/// A running bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    child: Child,
    log: PathBuf,
}

impl Bridge {
    pub(crate) fn start(mut command: Command, home: &Path) -> Self {
        let log = home.join("figvine.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().expect("starts figvine");
        Self { child, log }
    }

    /// What all bridges of this world have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("signals figvine");
    }

    /// Kills it, as a power failure would.
    pub(crate) fn kill9(mut self) {
        self.child.kill().expect("kills figvine");
        self.child.wait().expect("collects figvine");
    }

    /// The most memory that it ever held, in KiB, without the pages of the program itself: those of a debug build are many, and
    /// the kernel lends them.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("figvine runs");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
            line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number")
        };
        kib("VmHWM:").saturating_sub(kib("RssFile:"))
    }

    /// Fails unless it runs.
    pub(crate) fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("figvine ended: {status}\n{}", self.log());
        }
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("asks for figvine")
    }

    /// Waits for its end; its exit code.
    pub(crate) async fn code(&mut self, within: Duration) -> Option<i32> {
        let waited = wait_for("figvine's end", within, async || self.child.try_wait().expect("asks for figvine")).await;
        waited.unwrap_or_else(|e| panic!("{e}\n{}", self.log())).code()
    }

    /// Stops it in order.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let code = self.code(SOON).await;
        assert_eq!(code, Some(0), "{}", self.log());
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sequence of the stream's last message, 0 without any; `None` while nobody answers.
pub(crate) async fn last_sequence(world: &World) -> Option<u64> {
    let client = async_nats::connect(world.nats.url()).await.ok()?;
    let stream = jetstream::new(client).get_stream(STREAM).await.ok()?;
    Some(stream.cached_info().state.last_sequence)
}

/// Waits until the stream has grown by so many messages, while `bridge` runs.
pub(crate) async fn wait_growth(world: &World, bridge: &mut Bridge, growth: u64) {
    let before = wait_for("the stream", SOON, async || last_sequence(world).await).await.expect("the stream");
    wait_last(world, bridge, before + growth).await;
}

/// As [`wait_growth`], of a stream that will hold no more than `all` messages: a killed bridge may have left few to come.
pub(crate) async fn wait_growth_of(world: &World, bridge: &mut Bridge, all: u64, growth: u64) {
    let before = last_sequence(world).await.unwrap_or(0);
    wait_last(world, bridge, (before + growth).min(all)).await;
}

/// Waits until the stream has come to a sequence, while `bridge` runs.
pub(crate) async fn wait_last(world: &World, bridge: &mut Bridge, sequence: u64) {
    let waited = wait_for("the stream to grow", LONG, async || {
        bridge.must_run();
        last_sequence(world).await.filter(|now| *now >= sequence)
    });
    let waited = waited.await.map(drop);
    waited.unwrap_or_else(|e| panic!("{e} to {sequence}\n{}", bridge.log()));
}

/// Waits until the stream of a bridge that runs holds at least so many messages; fails with what the bridge has logged.
pub(crate) async fn wait_stored(world: &World, bridge: &Bridge, count: u64) {
    let context = world.jetstream().await;
    let waited = wait_for("messages in the stream", SOON, async || {
        let mut stream = context.get_stream(STREAM).await.ok()?;
        (stream.info().await.ok()?.state.messages >= count).then_some(())
    });
    waited.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
}

/// Waits until the stream holds at least so many messages.
pub(crate) async fn wait_messages(world: &World, count: u64) {
    let context = world.jetstream().await;
    let waited = wait_for("messages in the stream", LONG, async || {
        let mut stream = context.get_stream(STREAM).await.ok()?;
        let held = stream.info().await.ok()?.state.messages;
        (held >= count).then_some(())
    });
    waited.await.unwrap_or_else(|e| panic!("{e}"));
}
