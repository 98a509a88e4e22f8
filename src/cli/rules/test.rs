//! `figvine rules test`

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use serde_saphyr::{MessageFormatter, UserMessageFormatter};

use crate::cli::render::{DIM, GREEN, RED, Screen};
use crate::cli::{CliError, Output};
use crate::config::Config;
use crate::map::rules::{EventFixture, Fixture, FixtureError, Fixtures};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Files of tests: YAML with the key `tests`.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// By the rules of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// How one test ended.
struct Ran {
    file: String,
    name: String,
    differences: Vec<Difference>,
    error: Option<String>,
}

impl Ran {
    fn passed(&self) -> bool {
        self.differences.is_empty() && self.error.is_none()
    }
}

/// Where the events are not those that the test says.
#[derive(Debug, PartialEq)]
enum Difference {
    /// It did not come.
    Missing(EventFixture),
    /// It came, and is not in the test.
    Unexpected(EventFixture),
    /// Another one came in its place.
    Changed { expected: EventFixture, told: EventFixture },
}

pub(super) fn test(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let source = super::source(config, args.source.as_deref())?;
    // A file with a mistake is told before any test has run.
    let files = args.files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    let mut ran = Vec::new();
    for (file, fixtures) in args.files.iter().zip(&files) {
        for fixture in &fixtures.tests {
            let (differences, error) = match fixture.events(&source.rules) {
                Ok(told) => (differences(&fixture.events, told), None),
                Err(error) => (Vec::new(), Some(words(&error))),
            };
            ran.push(Ran { file: file.display().to_string(), name: fixture.name.clone(), differences, error });
        }
    }
    let failed = ran.iter().filter(|ran| !ran.passed()).count();
    match output {
        Output::Text => crate::cli::print(text(&ran, failed, &Screen::of_stdout(false)))?,
        Output::Json => crate::cli::print(json(&ran, failed))?,
    }
    match failed {
        0 => Ok(()),
        failed => Err(CliError::new(1, "FV-4043", format!("{failed} of {} failed", count(ran.len())))),
    }
}

fn count(tests: usize) -> String {
    format!("{tests} test{}", if tests == 1 { "" } else { "s" })
}

fn read(file: &Path) -> Result<Fixtures, CliError> {
    let unusable = |what: String| {
        CliError::new(1, "FV-4042", what).hint("A file of tests holds `tests`, each with name, transaction and events.")
    };
    let name = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| unusable(format!("{name}: the file cannot be read: {}", error.kind())))?;
    let fixtures = parse(&text).map_err(|error| {
        let place = error.location().map_or_else(String::new, |at| format!("{}:{}:", at.line(), at.column()));
        let told = UserMessageFormatter.format_message(&error);
        unusable(format!("{name}:{place} {}", told.trim_end_matches('.')))
    })?;
    if fixtures.tests.is_empty() {
        return Err(unusable(format!("{name}: there are no tests")));
    }
    match fixtures.tests.iter().find(|test| test.transaction.is_empty()) {
        Some(Fixture { name: test, .. }) => Err(unusable(format!("{name}: test '{test}' has no changes"))),
        None => Ok(fixtures),
    }
}

pub(super) fn parse(text: &str) -> Result<Fixtures, serde_saphyr::Error> {
    // Words such as `off` and `yes` are values of columns, no booleans.
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options)
}

/// What ended a test, with its causes and code.
fn words(error: &FixtureError) -> String {
    let told = crate::cli::error::chain(error);
    match error {
        FixtureError::Transaction(_) => told,
        FixtureError::Rule(error) => format!("{}: {told}", error.code()),
    }
}

/// What is wrong with the events, in order; nothing where they are what the test says.
fn differences(expected: &[EventFixture], told: Vec<EventFixture>) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut told = VecDeque::from(told);
    for (place, wanted) in expected.iter().enumerate() {
        // What was to come in this place comes later: what stands here is too much.
        if let Some(before) = told.iter().position(|next| wanted.is_met_by(next)) {
            found.extend(told.drain(..before).map(Difference::Unexpected));
            told.pop_front();
            continue;
        }
        let rest = expected.get(place + 1..).unwrap_or_default();
        let is_meant = |next: &EventFixture| {
            next.event_type == wanted.event_type && !rest.iter().any(|later| later.is_met_by(next))
        };
        let in_its_place = if told.front().is_some_and(is_meant) { told.pop_front() } else { None };
        found.push(match in_its_place {
            Some(told) => Difference::Changed { expected: wanted.clone(), told },
            None => Difference::Missing(wanted.clone()),
        });
    }
    found.extend(told.into_iter().map(Difference::Unexpected));
    found
}

/// An event on one line.
pub(super) fn line(event: &EventFixture) -> String {
    let mut line = event.event_type.clone();
    match &event.key {
        Some(Value::String(key)) => drop(write!(line, "  {key}")),
        Some(key) => drop(write!(line, "  {key}")),
        None => {}
    }
    if let Some(data) = &event.data {
        let _ = write!(line, "  {data}");
    }
    crate::cli::tail::harmless(&line)
}

fn text(ran: &[Ran], failed: usize, screen: &Screen) -> String {
    let mut text = String::new();
    for test in ran {
        let word = match test.passed() {
            true => screen.paint(GREEN, "ok    "),
            false => screen.paint(RED, "FAILED"),
        };
        let _ = writeln!(text, "{word}  {}  {}", crate::cli::tail::harmless(&test.name), screen.paint(DIM, &test.file));
        if let Some(error) = &test.error {
            let _ = writeln!(text, "  the rules stop: {error}");
        }
        for difference in &test.differences {
            let _ = match difference {
                Difference::Missing(event) => writeln!(text, "  missing     {}", line(event)),
                Difference::Unexpected(event) => writeln!(text, "  unexpected  {}", line(event)),
                Difference::Changed { expected, told } => {
                    writeln!(text, "  expected    {}\n  but it is   {}", line(expected), line(told))
                }
            };
        }
    }
    let _ = write!(text, "{}: {} ok, {failed} failed", count(ran.len()), ran.len() - failed);
    text
}

fn json(ran: &[Ran], failed: usize) -> Value {
    let tests: Vec<Value> = ran
        .iter()
        .map(|test| {
            let differences: Vec<Value> = test
                .differences
                .iter()
                .map(|difference| match difference {
                    Difference::Missing(event) => json!({ "kind": "missing", "expected": event }),
                    Difference::Unexpected(event) => json!({ "kind": "unexpected", "told": event }),
                    Difference::Changed { expected, told } => {
                        json!({ "kind": "changed", "expected": expected, "told": told })
                    }
                })
                .collect();
            json!({
                "file": test.file,
                "name": test.name,
                "passed": test.passed(),
                "error": test.error,
                "differences": differences,
            })
        })
        .collect();
    json!({ "schema_version": 1, "passed": ran.len() - failed, "failed": failed, "tests": tests })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: &str, key: &str) -> EventFixture {
        EventFixture { event_type: event_type.into(), key: Some(key.into()), data: Some(json!({ "id": key })) }
    }

    #[test]
    fn events_in_order_are_no_difference_and_what_is_left_out_may_be_anything() {
        let told = || vec![event("a", "1"), event("b", "[1,\"x\"]")];
        assert_eq!(differences(&told(), told()), []);
        let loose = [
            EventFixture { key: None, data: None, ..event("a", "9") },
            EventFixture { key: Some(json!([1, "x"])), data: None, ..event("b", "") },
        ];
        assert_eq!(differences(&loose, told()), []);
        let number = [EventFixture { key: Some(json!(1)), ..event("a", "1") }];
        assert_eq!(differences(&number, vec![event("a", "1")]), []);
    }

    #[test]
    fn each_difference_is_told_for_what_it_is() {
        let (one, two, three) = (event("a", "1"), event("a", "2"), event("b", "3"));
        let missing = differences(&[one.clone(), two.clone()], vec![two.clone()]);
        assert_eq!(missing, [Difference::Missing(one.clone())]);
        let unexpected = differences(std::slice::from_ref(&two), vec![one.clone(), two.clone(), three.clone()]);
        assert_eq!(unexpected, [Difference::Unexpected(one.clone()), Difference::Unexpected(three.clone())]);
        let changed = differences(&[one.clone(), three.clone()], vec![two.clone(), three.clone()]);
        assert_eq!(changed, [Difference::Changed { expected: one.clone(), told: two.clone() }]);
        let order = differences(&[one.clone(), two.clone()], vec![two.clone(), one.clone()]);
        assert_eq!(order, [Difference::Unexpected(two.clone()), Difference::Missing(two)]);
        assert_eq!(differences(&[], vec![three.clone()]), [Difference::Unexpected(three.clone())]);
        assert_eq!(
            differences(std::slice::from_ref(&three), vec![one.clone()]).len(),
            2,
            "another type is another event"
        );
    }
}
