//! `figvine demo`
//!
//! The proof at its end does not rest on the bridge: the witness, which comes with the database, reads the same log, and
//! both must tell the same.

mod database;
mod witness;

use std::collections::{BTreeMap, HashSet};
use std::error::Error;
use std::fmt::Write as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Ordered;
use async_nats::jetstream::{self, Message};
use figvine_sandbox::{Nats, NatsOptions, Sales, SandboxError, Shop, wait_for};
use futures_util::StreamExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::error::chain;
use super::render::{BLUE, BOLD, CYAN, Change, DIM, Domain, GREEN, RED, Screen, YELLOW};
use super::run::stop_on_signals;
use super::tail::{self, Since};
use super::{CliError, Output};
use crate::config::{self, Config};
use crate::http;
use crate::telemetry::{Phase, Telemetry};
use crate::wiring::{self, Failed, Wanted};
use database::{Database, Engine};
use witness::{Counted, Witness};

/// What the shop's changes mean.
const SHOP_RULES: &str = include_str!("../../config/rules/shop.yaml");
/// The type whose events are as many as the orders.
const PLACED: &str = "order_placed.v1";

/// What the shop did before the bridge began.
const PAST_ACTIONS: u32 = 60;
/// How long the bridge may take until it streams, and the stream until it has all.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long the shop is open.
    #[arg(long, value_name = "N", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// What the shop does per second; each is a transaction of one to nine changes.
    #[arg(long, value_name = "R", default_value = "4", value_parser = rate)]
    rate: f64,
    /// With a MySQL instead of a PostgreSQL.
    #[arg(long, conflicts_with = "mariadb")]
    mysql: bool,
    /// With a MariaDB instead of a PostgreSQL.
    #[arg(long)]
    mariadb: bool,
    /// Leave the servers up behind the summary, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

impl Args {
    fn engine(&self) -> Engine {
        match (self.mysql, self.mariadb) {
            (true, _) => Engine::MySql,
            (_, true) => Engine::MariaDb,
            _ => Engine::Postgres,
        }
    }
}

fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse().ok().filter(|rate| (0.01..=10_000.0).contains(rate));
    rate.ok_or("expected a number from 0.01 to 10000")
}

pub(super) async fn demo(args: &Args, output: Output) -> Result<(), CliError> {
    let stop = stop_on_signals()?;
    // A closed terminal must not leave files behind.
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| io_failed("hear signals", error))?;
    let mut listener = JoinSet::new();
    let heard = stop.clone();
    listener.spawn(async move {
        hangup.recv().await;
        heard.cancel();
    });
    let Some(begun) = stop.run_until_cancelled(Box::pin(Stage::set(args.engine()))).await else { return Ok(()) };
    let mut stage = begun?;
    Box::pin(stage.play(args, output, &stop)).await?;
    if args.keep && !stop.is_cancelled() {
        if output == Output::Text {
            super::print("\nThe servers stay up until Ctrl-C; the bridge has ended (`run` starts it again).")?;
        }
        stop.cancelled().await;
    }
    Ok(())
}

/// The servers and the shop. Dropping it ends them and removes their files.
struct Stage {
    database: Database,
    nats: Nats,
    shop: Shop,
}

impl Stage {
    /// Starts the servers and gives the shop a past.
    async fn set(engine: Engine) -> Result<Self, CliError> {
        let nats = Nats::start(NatsOptions::default());
        let (database, nats) = tokio::join!(Box::pin(Database::start(engine)), Box::pin(nats));
        let (database, nats) = (database?, nats.map_err(failed)?);
        let mut shop = Shop::new(1);
        Box::pin(shop.trade(&database.url(), PAST_ACTIONS)).await.map_err(failed)?;
        Ok(Self { database, nats, shop })
    }

    /// Runs the bridge and the shop, shows the events, and proves that none is missing.
    async fn play(&mut self, args: &Args, output: Output, stop: &CancellationToken) -> Result<(), CliError> {
        let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = http::listen(any_port).await?;
        let address = listener.local_addr().map_err(|error| io_failed("tell its own address", error))?;
        let rules = self.nats.dir().join("rules.yaml");
        let schema = self.database.schema();
        let text = SHOP_RULES.replace("from: public.", &format!("from: {schema}."));
        std::fs::write(&rules, text).map_err(|error| io_failed("write its rules", error))?;
        let file = self.nats.dir().join("figvine.yaml");
        let text = format!(
            "# Made by `figvine demo`; gone when it ends.\n\
             nats:\n  url: {}\n\
             sources:\n  shop:\n    {}:\n      url: {}\n    tables: [\"{schema}.*\"]\n    rule_files: [\"{}\"]\n\
             http:\n  listen: {address}\n",
            self.nats.url(),
            self.database.key(),
            self.database.url(),
            rules.display(),
        );
        std::fs::write(&file, &text).map_err(|error| io_failed("write its configuration", error))?;
        let config = config::parse(&file.display().to_string(), &text, &BTreeMap::new())?;

        let mut show = Show { screen: Screen::of_stdout(false), output, tally: Tally::default() };
        if output == Output::Text {
            super::print(self.programme(args, &config, &file.display().to_string(), &show.screen, address))?;
        }

        let telemetry = Arc::new(Telemetry::new());
        let bridge_stop = CancellationToken::new();
        let mut endpoint = JoinSet::new();
        let served = bridge_stop.clone();
        endpoint.spawn(http::serve(listener, Arc::clone(&telemetry), async move { served.cancelled().await }));
        let wanted = Wanted::default();
        let desks = wiring::desks(&config, &wanted);
        let mut bridge = pin!(wiring::run(&config, &wanted, &desks, &telemetry, &bridge_stop));

        tokio::select! {
            biased;
            ended = &mut bridge => return Err(too_early(ended)),
            () = stop.cancelled() => return Ok(()),
            streaming = until_streaming(&telemetry) => streaming?,
        }
        let witness = Box::pin(Witness::call(&self.database)).await?;
        let context = jetstream::new(config.nats().client("figvine demo").await?);
        let stream = config.sources().first().map(|source| source.stream.name.clone()).unwrap_or_default();
        let mut messages = tail::open(&context, &stream, Since::All, Vec::new()).await?;

        let before = self.shop.sales();
        let url = self.database.url();
        let sold = {
            let closing = CancellationToken::new();
            let mut open = pin!(self.shop.run(&url, args.rate, &closing));
            let mut time = pin!(sleep(Duration::from_secs(args.seconds)));
            loop {
                tokio::select! {
                    biased;
                    ended = &mut bridge => return Err(too_early(ended)),
                    () = stop.cancelled(), if !closing.is_cancelled() => closing.cancel(),
                    () = &mut time, if !closing.is_cancelled() => closing.cancel(),
                    sold = &mut open => break sold.map_err(failed)?,
                    message = messages.next() => show.message(message)?,
                }
            }
        };
        let counted = drain(&witness, &mut messages, &mut show, bridge.as_mut()).await?;

        bridge_stop.cancel();
        if let Ok(ended) = timeout(config.shutdown_timeout(), bridge).await {
            ended?;
        }
        let Show { screen, tally, .. } = show;
        let summary = Summary {
            stream,
            tally,
            counted,
            told_by: witness.name(),
            is_rounded: self.database.is_rounded(),
            sold: since(before, sold),
        };
        super::print(if output == Output::Json { summary.json() } else { summary.text(&screen) })?;
        summary.verdict()
    }

    /// What runs where, and what to try.
    fn programme(
        &self,
        args: &Args,
        config: &Config,
        file: &str,
        screen: &Screen,
        address: std::net::SocketAddr,
    ) -> String {
        let stream = config.sources().first().map(|source| source.stream.name.as_str()).unwrap_or_default();
        let database = &self.database;
        let program = std::env::args().next().unwrap_or_else(|| "figvine".to_owned());
        let title = format!("A busy shop for {} seconds, and every change of its database as an event.", args.seconds);
        let mut text = String::new();
        let mut row = |name: &str, what: &str| {
            let _ = writeln!(text, "  {}  {what}", screen.paint(CYAN, &format!("{name:<10}")));
        };
        row("shop", "orders, payments, customers; it knows nothing of the others");
        row(database.name(), &database.url());
        row("bridge", database.way());
        row("NATS", &format!("{}, stream {stream}, subjects cdc.shop.> and events.shop.>", self.nats.url()));
        let rule = screen.paint(DIM, &"─".repeat(screen.width().min(100)));
        let commands = [
            format!("{program} -c {file} tail --type 'order_*'"),
            format!("{program} -c {file} tail --table {}", database.table("orders")),
            database.command("update customers set name = 'You' where id = 1"),
            format!("curl http://{address}/status"),
        ];
        format!(
            "{}\n\n{text}\n{}\n{}\n\n  {} insert   {} update, old → new   {} delete   {} what rules make of them   {} a transaction\n{rule}",
            screen.paint(BOLD, &title),
            screen.paint(BOLD, "Meanwhile, in another terminal:"),
            commands.map(|command| format!("  {command}")).join("\n"),
            screen.paint(GREEN, "+"),
            screen.paint(YELLOW, "~"),
            screen.paint(RED, "-"),
            screen.paint(BLUE, "»"),
            screen.paint(DIM, "╶ tx"),
        )
    }
}

async fn until_streaming(telemetry: &Telemetry) -> Result<(), CliError> {
    let source = telemetry.source("shop");
    let is_streaming = async || (source.current_phase() == Phase::Streaming).then_some(());
    wait_for("the bridge's first connection", DEADLINE, is_streaming).await.map_err(failed)
}

/// Shows what is still to come, until the stream has all that the witness has counted, or far too long.
async fn drain(
    witness: &Witness<'_>,
    messages: &mut Ordered,
    show: &mut Show,
    mut bridge: Pin<&mut impl Future<Output = Result<(), Failed>>>,
) -> Result<Counted, CliError> {
    let deadline = Instant::now() + DEADLINE;
    let mut clock = interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            biased;
            ended = &mut bridge => return Err(too_early(ended)),
            message = messages.next() => show.message(message)?,
            _ = clock.tick() => {
                match witness.count().await? {
                    Some(counted) if show.tally.is_all_of(&counted) || Instant::now() > deadline => return Ok(counted),
                    None if Instant::now() > deadline => return Err(CliError::new(
                        1, "FV-4010", format!("{} cannot read the log", witness.name()))),
                    _ => {}
                }
            }
        }
    }
}

/// What the stream has given.
#[derive(Debug, Default)]
struct Tally {
    changes: BTreeMap<String, [u64; 3]>,
    types: BTreeMap<String, u64>,
    ids: HashSet<String>,
    transactions: HashSet<String>,
    events: u64,
    /// Microseconds from commit to storage.
    lags_us: Vec<i64>,
    /// Orders that were told as a whole, and the lines in them.
    placed: HashSet<String>,
    placed_lines: u64,
}

impl Tally {
    fn add_domain(&mut self, event: &Domain<'_>) {
        self.events += 1;
        self.ids.insert(event.id.clone());
        *self.types.entry(event.event_type.clone()).or_default() += 1;
        if event.event_type == PLACED {
            self.placed.insert(event.key.clone());
            let body: serde_json::Value = serde_json::from_str(event.data).unwrap_or_default();
            self.placed_lines += body["lines"].as_array().map_or(0, |lines| lines.len() as u64);
        }
    }

    /// Whether each change is there, and each order with all its lines, once.
    fn is_all_of(&self, counted: &Counted) -> bool {
        let placed = self.types.get(PLACED).copied().unwrap_or_default();
        self.counted() == *counted
            && placed == counted.inserts("orders")
            && self.placed.len() as u64 == placed
            && self.placed_lines == counted.inserts("order_lines")
    }

    fn add(&mut self, change: &Change<'_>, stored_at_us: Option<i64>) {
        self.events += 1;
        self.ids.insert(change.id.clone());
        *self.types.entry(change.event_type.clone()).or_default() += 1;
        let committed_at = change.committed_at.parse::<jiff::Timestamp>().ok();
        if let (Some(stored_at), Some(committed_at)) = (stored_at_us, committed_at) {
            self.lags_us.push(stored_at - committed_at.as_microsecond());
        }
        // The database calls it one update when a row gets another key; the stream tells it as a delete and an insert.
        let place = match (&*change.op, &change.rekeyed) {
            ("insert", None) => 0,
            ("update", _) | ("insert", Some(_)) => 1,
            ("delete", None) => 2,
            ("delete", Some(_)) => return,
            _ => return,
        };
        self.transactions.insert(change.transaction.clone());
        self.changes.entry(change.table.clone()).or_default()[place] += 1;
    }

    fn counted(&self) -> Counted {
        Counted { changes: self.changes.clone(), transactions: self.transactions.len() as u64 }
    }

    /// The lag in milliseconds that `percent` of the events do not exceed.
    fn lag_ms(&self, percent: usize) -> f64 {
        let mut lags = self.lags_us.clone();
        lags.sort_unstable();
        let place = (lags.len() * percent).div_ceil(100).saturating_sub(1);
        let lag_us = lags.get(place).copied().unwrap_or_default();
        // Lags of a demo fit: 2^32 microseconds are more than an hour.
        f64::from(u32::try_from(lag_us.max(0)).unwrap_or(u32::MAX)) / 1_000.0
    }
}

/// The screen, and what was on it.
struct Show {
    screen: Screen,
    output: Output,
    tally: Tally,
}

impl Show {
    fn message(
        &mut self,
        message: Option<Result<Message, impl Error + Send + Sync + 'static>>,
    ) -> Result<(), CliError> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(tail::unread("the stream").because(error)),
            None => return Err(tail::unread("the stream")),
        };
        if let Some(change) = Change::of(message.headers.as_ref(), &message.payload) {
            self.tally.add(&change, tail::stored_at_us(&message));
        } else if let Some(event) = Domain::of(&message.subject, message.headers.as_ref(), &message.payload) {
            self.tally.add_domain(&event);
        }
        match self.output {
            Output::Json => tail::print_json(&message),
            Output::Text => {
                super::print(self.screen.event(&message.subject, message.headers.as_ref(), &message.payload))
            }
        }
    }
}

struct Summary {
    stream: String,
    tally: Tally,
    counted: Counted,
    /// Who has counted.
    told_by: &'static str,
    /// Whether commits have whole seconds, so that lags are up to one second too long.
    is_rounded: bool,
    sold: Sales,
}

impl Summary {
    /// Whether each change stands in the stream, and once.
    fn is_proven(&self) -> bool {
        self.tally.is_all_of(&self.counted) && self.tally.ids.len() as u64 == self.tally.events
    }

    fn verdict(&self) -> Result<(), CliError> {
        if self.is_proven() {
            return Ok(());
        }
        let what = format!(
            "stream {} and the database differ: {} row changes in {} transactions against {} in {}, {} identities \
             among {} events; {} orders with {} lines were told as a whole, {} orders with {} lines were placed",
            self.stream,
            self.tally.counted().rows(),
            self.tally.transactions.len(),
            self.counted.rows(),
            self.counted.transactions,
            self.tally.ids.len(),
            self.tally.events,
            self.tally.placed.len(),
            self.tally.placed_lines,
            self.counted.inserts("orders"),
            self.counted.inserts("order_lines"),
        );
        Err(CliError::new(1, "FV-4011", what))
    }

    fn text(&self, screen: &Screen) -> String {
        let Self { tally, counted, sold, stream, told_by, is_rounded } = self;
        let mut text = screen.paint(DIM, &"─".repeat(screen.width().min(100)));
        let mut row = |name: &str, what: &str| {
            let _ = write!(text, "\n  {}  {what}", screen.paint(CYAN, &format!("{name:<10}")));
        };
        row(
            "shop",
            &format!(
                "committed {} transactions: {} orders placed, {} paid, {} shipped, {} cancelled, {} new customers",
                counted.transactions, sold.orders, sold.payments, sold.shipped, sold.cancelled, sold.customers
            ),
        );
        row("stream", &format!("{stream} holds {} events", tally.events));
        let width = tally.types.keys().map(|name| name.chars().count()).max().unwrap_or_default();
        for (name, number) in &tally.types {
            row("", &format!("{name:<width$}  {number:>6}"));
        }
        let lag = format!("p50 {:.1} ms, p99 {:.1} ms, from commit to storage", tally.lag_ms(50), tally.lag_ms(99));
        let rounding = if *is_rounded { "; the log tells the time of a commit in whole seconds, cut off" } else { "" };
        row("lag", &format!("{lag}{rounding}"));
        let proof = if self.is_proven() {
            let told = format!("{} row changes in {} transactions", counted.rows(), counted.transactions);
            let word = screen.paint(GREEN, "each change is there, once, and each order with its lines");
            format!("{word}: {told_by} counts {told}, too")
        } else {
            screen.paint(RED, "the stream and the database differ")
        };
        row("proof", &proof);
        text
    }

    fn json(&self) -> String {
        let Self { tally, counted, stream, .. } = self;
        serde_json::json!({
            "schema_version": 1,
            "summary": {
                "stream": stream,
                "events": tally.events,
                "types": tally.types,
                "identities": tally.ids.len(),
                "row_changes": tally.counted().rows(),
                "transactions": tally.transactions.len(),
                "source_row_changes": counted.rows(),
                "source_transactions": counted.transactions,
                "lag_p50_ms": tally.lag_ms(50),
                "lag_p99_ms": tally.lag_ms(99),
                "is_proven": self.is_proven(),
            },
        })
        .to_string()
    }
}

/// What was sold between two moments.
fn since(before: Sales, now: Sales) -> Sales {
    Sales {
        customers: now.customers - before.customers,
        orders: now.orders - before.orders,
        lines: now.lines - before.lines,
        payments: now.payments - before.payments,
        shipped: now.shipped - before.shipped,
        cancelled: now.cancelled - before.cancelled,
        deleted: now.deleted - before.deleted,
        restocked: now.restocked - before.restocked,
        moved: now.moved - before.moved,
    }
}

/// The bridge has no reason to end before it is told to.
fn too_early(ended: Result<(), Failed>) -> CliError {
    match ended {
        Err(error) => error.into(),
        Ok(()) => CliError::new(1, "FV-4010", "the demo's bridge ended too early"),
    }
}

fn failed(error: SandboxError) -> CliError {
    let failed = CliError::new(1, "FV-4010", error.to_string());
    match error.source() {
        Some(source) => failed.because(chain(source)),
        None => failed,
    }
}

fn refused(error: impl Error + Send + Sync + 'static) -> CliError {
    CliError::new(1, "FV-4010", "the demo's database refused a statement").because(error)
}

fn io_failed(what: &str, error: std::io::Error) -> CliError {
    CliError::new(1, "FV-4010", format!("the demo cannot {what}")).because(error)
}
