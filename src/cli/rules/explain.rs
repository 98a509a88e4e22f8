//! `figvine rules explain`

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::recorded::{Recorded, op_of, position_of};
use crate::cli::render::{BOLD, CYAN, Change, DIM, Domain, GREEN, PLAIN, Screen};
use crate::cli::tail::{self, Since, harmless};
use crate::cli::{CliError, Output};
use crate::config::{Config, Source};
use crate::event::Derived;
use crate::map::rules::{EventFixture, Explained, Fixture, Portion, Rule, RuleError, Rules};

/// How long the stream may be silent while it still holds messages.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The transaction: `source.position` of one of its events, or the whole of its `ce-id`.
    position: String,
    /// In the stream of this source, by its rules.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// From where on to look for it: so long ago (`30s 5m 1h 7d`), from a sequence of the stream, or in `all`.
    #[arg(long, value_name = "WHEN", default_value = "all")]
    since: Since,
    /// Print the transaction, and the events that it gives, as a test for `figvine rules test`.
    #[arg(long)]
    fixture: bool,
}

pub(super) async fn explain(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let source = super::source(config, args.source.as_deref())?;
    let position = position_of(&args.position);
    let recorded = find(config, source, position, args.since).await?;
    if recorded.rows.is_empty() && recorded.others.is_empty() {
        let what = format!("the stream holds no change of transaction {position}, but its domain events alone");
        return Err(CliError::new(1, "FV-4045", what)
            .hint("Rules with `also_change_event: false`, and outboxes, leave the changes out that they tell."));
    }
    if args.fixture {
        let name = format!("transaction {position}");
        let fixture = recorded.fixture(name, &source.rules);
        let events = fixture.events(&source.rules).map_err(|error| match error {
            crate::map::rules::FixtureError::Rule(error) => stopped(&error),
            error => unreadable(&error.to_string()),
        })?;
        return crate::cli::print(yaml(&fixture, &events));
    }
    let mut told = Told::of(recorded, position, source)?;
    let failed = told.error.take();
    match output {
        Output::Text => crate::cli::print(told.text(&Screen::of_stdout(false)))?,
        Output::Json => crate::cli::print(told.json())?,
    }
    match failed {
        None => Ok(()),
        Some(error) => Err(stopped(&error)),
    }
}

fn stopped(error: &RuleError) -> CliError {
    let failed = CliError::new(1, error.code(), error.to_string()).hint(error.hint());
    match std::error::Error::source(error) {
        Some(cause) => failed.because(crate::cli::error::chain(cause)),
        None => failed,
    }
}

fn unreadable(what: &str) -> CliError {
    CliError::new(1, "FV-4046", format!("the transaction cannot be read back from its events: {what}"))
}

/// Reads the stream up to its present end, or to the transaction's.
async fn find(config: &Config, source: &Source, position: &str, since: Since) -> Result<Recorded, CliError> {
    let client = config.nats().client("figvine rules explain").await?;
    let name = &source.stream.name;
    let (mut messages, mut left) = tail::open_counted(&jetstream::new(client), name, since, Vec::new()).await?;
    let mut recorded = Recorded::default();
    while left > 0 {
        let message = match timeout(PATIENCE, messages.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return Err(tail::unread("the stream").because(error)),
            // What was there may be gone by now.
            Ok(None) | Err(_) => break,
        };
        left = message.info().map_or(left - 1, |told| told.pending.min(left - 1));
        let headers = message.headers.as_ref();
        let is_of_it = if let Some(domain) = Domain::of(&message.subject, headers, &message.payload) {
            let is_of_it = position_of(&domain.id) == position;
            if is_of_it {
                recorded.add_domain(&domain);
            }
            is_of_it
        } else if let Some(change) = Change::of(headers, &message.payload) {
            // Rows that a backfill read belong to no transaction.
            let is_of_it = change.position == position && change.op != "read";
            if is_of_it {
                recorded.add(&change);
            }
            is_of_it
        } else {
            continue;
        };
        // A transaction's events stand one behind another.
        if !is_of_it && !recorded.is_empty() {
            break;
        }
    }
    if recorded.is_empty() {
        let what = format!("stream {name} holds no event of transaction {position}");
        let hint = "The position is `source.position` of an event, and the first part of `ce-id`. Events in Debezium's envelope do not tell it; what is older than `max_age` of the stream is gone.";
        return Err(CliError::new(1, "FV-4044", what).hint(hint));
    }
    Ok(recorded)
}

/// What is to be said of a transaction.
struct Told {
    source: String,
    position: String,
    id: String,
    committed_at: String,
    keys: Vec<String>,
    others: Vec<String>,
    untold: usize,
    looks_up: bool,
    fixture: Fixture,
    /// With the place of the change in the fixture.
    explained: Vec<(usize, Explained)>,
    events: Vec<EventFixture>,
    error: Option<RuleError>,
}

impl Told {
    fn of(recorded: Recorded, position: &str, source: &Source) -> Result<Self, CliError> {
        let (id, committed_at) = (recorded.id.clone(), recorded.committed_at.clone());
        let (others, untold) = (recorded.others.clone(), recorded.untold());
        let keys = recorded.rows.iter().map(|row| row.key.clone()).collect();
        let fixture = recorded.fixture(position.to_owned(), &source.rules);
        let mut batch = fixture.batch().map_err(|what| unreadable(&what))?;
        for transaction in &mut batch.transactions {
            transaction.id = id.as_str().into();
            transaction.position = position.into();
            transaction.committed_at = committed_at.parse().map_or(0, jiff::Timestamp::as_microsecond);
        }
        let mut rules = Rules::new(Arc::clone(&source.rules)).in_portions(Portion::ALL).without_lookups();
        rules.explain();
        let mut derived = Derived::default();
        let places: Vec<u64> = batch.changes.iter().map(|change| change.ordinal).collect();
        let error = rules.derive(&mut batch, &mut derived).err();
        let place = |told: &Explained| places.get(told.change).and_then(|place| usize::try_from(*place).ok());
        let explained = rules.take_explained().into_iter().filter_map(|told| Some((place(&told)?, told))).collect();
        let events = EventFixture::of(&derived);
        let looks_up = source.rules.rules.iter().any(Rule::looks_up);
        let (source, position) = (source.name.clone(), position.to_owned());
        Ok(Self {
            source,
            position,
            id,
            committed_at,
            keys,
            others,
            untold,
            looks_up,
            fixture,
            explained,
            events,
            error,
        })
    }

    /// The changes, each with what the rules say of it.
    fn changes(&self) -> impl Iterator<Item = (&'static str, &str, &str, Vec<&Explained>)> {
        self.fixture.transaction.iter().zip(&self.keys).enumerate().map(|(place, (change, key))| {
            let (op, table) = op_of(change);
            let said = self.explained.iter().filter(|(of, _)| *of == place).map(|(_, said)| said).collect();
            (op, table, key.as_str(), said)
        })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.others.iter().map(|other| format!("rules do not look at: {other}")).collect();
        if self.untold > 0 {
            notes.push(format!(
                "not seen, since domain events alone tell them: {} change{}",
                self.untold,
                if self.untold == 1 { "" } else { "s" }
            ));
        }
        if self.looks_up {
            notes.push("parts are not looked up here: lists hold what the transaction touched".into());
        }
        notes
    }

    fn text(&self, screen: &Screen) -> String {
        let head = format!(
            "transaction {} at {} of {}, committed at {}",
            self.id, self.position, self.source, self.committed_at
        );
        let mut text = screen.paint(BOLD, &harmless(&head));
        text.push('\n');
        let width = self.explained.iter().map(|(_, told)| told.rule.chars().count()).max().unwrap_or_default();
        for (op, table, key, said) in self.changes() {
            let line = harmless(&format!("{op}  {table}  {key}"));
            let _ = write!(text, "\n{}", screen.paint(CYAN, line.trim_end()));
            if said.is_empty() {
                let _ = write!(text, "\n  {}", screen.paint(DIM, "no rule is about this table"));
            }
            for told in said {
                let style = if told.matched { GREEN } else { PLAIN };
                let _ = write!(text, "\n  {:<width$}  {}", told.rule, screen.paint(style, &harmless(&told.why)));
            }
        }
        for note in self.notes() {
            let _ = write!(text, "\n\n{}", screen.paint(DIM, &harmless(&note)));
        }
        let events = self.events.len();
        let _ = write!(text, "\n\n{events} event{}", if events == 1 { "" } else { "s" });
        for event in &self.events {
            let _ = write!(text, "\n  {}", super::test::line(event));
        }
        text
    }

    fn json(&self) -> Value {
        let changes: Vec<Value> = self
            .changes()
            .map(|(op, table, key, said)| {
                let rules: Vec<Value> = said
                    .iter()
                    .map(|told| json!({ "rule": &*told.rule, "matched": told.matched, "why": told.why }))
                    .collect();
                json!({ "op": op, "table": table, "key": key, "rules": rules })
            })
            .collect();
        json!({
            "schema_version": 1,
            "source": self.source,
            "position": self.position,
            "transaction": self.id,
            "committed_at": self.committed_at,
            "changes": changes,
            "notes": self.notes(),
            "events": self.events,
        })
    }
}

/// A test in YAML: a line for each table, change and event, in JSON, which is YAML.
fn yaml(fixture: &Fixture, events: &[EventFixture]) -> String {
    let line = |value: Value| harmless(&value.to_string());
    let mut text = format!("tests:\n  - name: {}", line(json!(fixture.name)));
    if !fixture.tables.is_empty() {
        text.push_str("\n    tables:");
        for (name, table) in &fixture.tables {
            let _ = write!(text, "\n      {}: {}", line(json!(name)), line(json!(table)));
        }
    }
    text.push_str("\n    transaction:");
    for change in &fixture.transaction {
        let _ = write!(text, "\n      - {}", line(json!(change)));
    }
    text.push_str(if events.is_empty() { "\n    events: []" } else { "\n    events:" });
    for event in events {
        let _ = write!(text, "\n      - {}", line(json!(event)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::rules::Fixtures;

    #[test]
    fn what_is_printed_as_a_test_is_read_as_one() {
        let text = "tests: [{name: \"a: 'b'\\u009b\", tables: {s.t: {key: [id], types: {n: numeric}, columns: [m]}},
            transaction: [{insert: s.t, after: {id: 1, n: '1.10', s: \"#\\u0085\\u2028 é\\n\\t{\", x: null, y: off}}]}]";
        let read = |text: &str| -> Fixtures {
            super::super::test::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"))
        };
        let first = read(text);
        let event =
            EventFixture { event_type: "t.v1".into(), key: Some("1".into()), data: Some(json!({ "a": [1, "b"] })) };
        let events = [event];
        let again = read(&yaml(&first.tests[0], &events));
        assert_eq!(again.tests[0].events, events);
        assert_eq!(yaml(&again.tests[0], &events), yaml(&first.tests[0], &events));
        assert_eq!(json!(again.tests[0].transaction), json!(first.tests[0].transaction));
    }
}
