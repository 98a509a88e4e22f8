//! `figvine tail`

use std::io::Write;
use std::str::FromStr;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use futures_util::stream::select_all;
use globset::{GlobBuilder, GlobMatcher};
use serde::de::IgnoredAny;

use super::render::{Change, Domain, Screen};
use super::run::stop_on_signals;
use super::{CliError, Output};
use crate::config::{Config, Source};
use crate::wiring;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only tables that match: `schema.table`; a glob without a dot means the schema `public`.
    #[arg(long, value_name = "GLOB")]
    table: Option<TableGlob>,
    /// Only events of types that match (`ce-type`), such as `*.updated` or `order_*`.
    #[arg(long = "type", value_name = "GLOB")]
    event_type: Option<Glob>,
    /// Only events of this key, as `ce-subject` tells it: `42`, or `[42,1]` where it has several columns.
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Where to begin: so long ago (`30s 5m 1h 7d`), at a sequence of the stream, with `all`, or `now`.
    #[arg(long, value_name = "WHEN", default_value = "now")]
    since: Since,
    /// One JSON object per line; the same as `--output json`.
    #[arg(long)]
    json: bool,
    /// End after so many events.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// A glob over names.
#[derive(Debug, Clone)]
struct Glob(GlobMatcher);

impl FromStr for Glob {
    type Err = globset::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let glob = GlobBuilder::new(text).literal_separator(false).backslash_escape(true).build()?;
        Ok(Self(glob.compile_matcher()))
    }
}

/// A glob over tables, with what it says where it means one table only.
#[derive(Debug, Clone)]
struct TableGlob {
    glob: Glob,
    one: Option<(String, String)>,
}

impl FromStr for TableGlob {
    type Err = globset::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = if text.contains('.') { text.to_owned() } else { format!("public.{text}") };
        // Such a name is its own token in a subject.
        let is_plain =
            |name: &str| name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        let one = text.split_once('.').filter(|(schema, table)| is_plain(schema) && is_plain(table));
        let one = one.filter(|(schema, table)| !schema.is_empty() && !table.is_empty());
        Ok(Self { glob: text.parse()?, one: one.map(|(schema, table)| (schema.to_owned(), table.to_owned())) })
    }
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// With what comes.
    Now,
    /// With all that the stream holds.
    All,
    /// With a message.
    Sequence(u64),
    /// With what was stored so long ago.
    Ago(Duration),
}

impl FromStr for Since {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a duration such as 5m, a sequence, `all` or `now`";
        match text {
            "now" => return Ok(Self::Now),
            "all" => return Ok(Self::All),
            _ => {}
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(EXPECTED)?;
        let number: u64 = number.parse().map_err(|_| EXPECTED)?;
        let seconds = match unit {
            "" => return Ok(Self::Sequence(number.max(1))),
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(EXPECTED),
        };
        let ago = number.checked_mul(seconds).filter(|seconds| *seconds <= 36_500 * 86_400);
        ago.map(|seconds| Self::Ago(Duration::from_secs(seconds))).ok_or("the duration is too long")
    }
}

pub(super) async fn tail(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let name = args.source.as_deref();
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let stop = stop_on_signals()?;
    let work = follow(config, &chosen, args, output);
    // Whoever stops us has seen enough: there is nothing to finish.
    stop.run_until_cancelled(Box::pin(work)).await.unwrap_or(Ok(()))
}

async fn follow(config: &Config, chosen: &[&Source], args: &Args, output: Output) -> Result<(), CliError> {
    let client = config.nats().client("figvine tail").await?;
    let context = jetstream::new(client);
    let mut streams = Vec::new();
    for source in chosen {
        let table = args.table.as_ref().and_then(|table| table.one.as_ref());
        let subjects = table.map(|table| subjects(source, table)).unwrap_or_default();
        streams.push(open(&context, &source.stream.name, args.since, subjects).await?);
    }
    let mut messages = select_all(streams);
    let mut screen = Screen::of_stdout(chosen.len() > 1);
    let is_json = args.json || output == Output::Json;
    let mut left = args.limit;
    while left != Some(0) {
        let Some(message) = messages.next().await else { break };
        let message = message.map_err(|error| unread("a stream").because(error))?;
        if !args.wants(&message) {
            continue;
        }
        if is_json {
            print_json(&message)?;
        } else {
            super::print(screen.event(&message.subject, message.headers.as_ref(), &message.payload))?;
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
}

impl Args {
    fn wants(&self, message: &Message) -> bool {
        if self.table.is_none() && self.event_type.is_none() && self.key.is_none() {
            return true;
        }
        let Some(change) = Change::of(message.headers.as_ref(), &message.payload) else {
            let Some(event) = Domain::of(&message.subject, message.headers.as_ref(), &message.payload) else {
                return false;
            };
            return self.table.is_none()
                && self.event_type.as_ref().is_none_or(|glob| glob.0.is_match(&event.event_type))
                && self.key.as_ref().is_none_or(|key| *key == event.key);
        };
        self.table.as_ref().is_none_or(|table| table.glob.0.is_match(&change.table))
            && self.event_type.as_ref().is_none_or(|glob| glob.0.is_match(&change.event_type))
            && self.key.as_ref().is_none_or(|key| *key == change.key)
    }
}

/// The subjects on which events of one table stand, where the source's template tells; else none, for all.
fn subjects(source: &Source, (schema, table): &(String, String)) -> Vec<String> {
    let Some(rest) = source.events.subject.strip_prefix("cdc.{source}.{schema}.{table}") else { return Vec::new() };
    let prefix = format!("cdc.{}", source.events.source);
    let of_table = match rest {
        "" => format!("{prefix}.{schema}.{table}"),
        _ if rest.starts_with('.') => format!("{prefix}.{schema}.{table}.>"),
        _ => return Vec::new(),
    };
    vec![of_table, format!("{prefix}.schema_changes")]
}

/// Opens a stream at a place: its messages in order, each once, for as long as they are asked for. Leaves nothing
/// behind on the server: the consumer is gone soon after we are.
pub(super) async fn open(
    context: &jetstream::Context,
    name: &str,
    since: Since,
    filter_subjects: Vec<String>,
) -> Result<Ordered, CliError> {
    open_counted(context, name, since, filter_subjects).await.map(|(messages, _)| messages)
}

/// As [`open`], with how many messages there are by now.
pub(super) async fn open_counted(
    context: &jetstream::Context,
    name: &str,
    since: Since,
    filter_subjects: Vec<String>,
) -> Result<(Ordered, u64), CliError> {
    let stream = context.get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(told) if told.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            CliError::new(7, "FV-2402", format!("stream {name} does not exist"))
                .hint("Run the bridge first (`figvine run`): its first start creates the stream.")
        }
        _ => unread(&format!("stream {name}")).because(error),
    })?;
    let deliver_policy = match since {
        Since::Now => DeliverPolicy::New,
        Since::All => DeliverPolicy::All,
        Since::Sequence(start_sequence) => DeliverPolicy::ByStartSequence { start_sequence },
        Since::Ago(ago) => {
            // Reckoned from the stream's creation, whose type is that of the library.
            let created = stream.cached_info().created;
            let age = jiff::Timestamp::now().as_nanosecond() - created.unix_timestamp_nanos();
            let behind = u64::try_from(age).map(Duration::from_nanos).unwrap_or_default().checked_sub(ago);
            match behind {
                Some(behind) => DeliverPolicy::ByStartTime { start_time: created + behind },
                None => DeliverPolicy::All,
            }
        }
    };
    let config = OrderedConfig { deliver_policy, filter_subjects, ..Default::default() };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| unread(&format!("stream {name}")).because(error))?;
    let pending = consumer.cached_info().num_pending;
    let messages = consumer.messages().await.map_err(|error| unread(&format!("stream {name}")).because(error))?;
    Ok((messages, pending))
}

/// A stream that does not give its messages.
pub(super) fn unread(what: &str) -> CliError {
    CliError::new(7, "FV-2401", format!("{what} cannot be read"))
        .hint("Check that the server runs, and that the account may create consumers.")
}

/// Microseconds since 1970 at which the server stored a message.
pub(super) fn stored_at_us(message: &Message) -> Option<i64> {
    i64::try_from(message.info().ok()?.published.unix_timestamp_nanos() / 1_000).ok()
}

/// Writes a message as one line of JSON; the body as it stands, all digits included.
pub(super) fn print_json(message: &Message) -> Result<(), CliError> {
    let told = message.info().ok();
    let mut headers = serde_json::Map::new();
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        let values: Vec<_> = values.iter().map(|value| serde_json::Value::from(value.as_str())).collect();
        let value = match <[serde_json::Value; 1]>::try_from(values) {
            Ok([value]) => value,
            Err(values) => values.into(),
        };
        headers.insert(name.to_string(), value);
    }
    let stored_at = stored_at_us(message).and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    let head = serde_json::json!({
        "schema_version": 1,
        "stream": told.as_ref().map(|told| told.stream),
        "sequence": told.as_ref().map(|told| told.stream_sequence),
        "subject": message.subject.as_str(),
        "stored_at": stored_at.map(|at| format!("{at:.6}")),
        "headers": headers,
    });
    let mut line = harmless(head.to_string().strip_suffix('}').unwrap_or_default());
    match std::str::from_utf8(&message.payload) {
        Ok(body) if serde_json::from_str::<IgnoredAny>(body).is_ok() => {
            line.push_str(",\"data\":");
            line.push_str(&harmless(body));
        }
        Ok(text) => {
            line.push_str(",\"data\":");
            line.push_str(&harmless(&serde_json::Value::from(text).to_string()));
        }
        Err(_) => {
            line.push_str(",\"data_base64\":\"");
            line.push_str(&STANDARD.encode(&message.payload));
            line.push('"');
        }
    }
    line.push_str("}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).map_err(CliError::output)
}

/// JSON on one line and without what a terminal would obey: JSON itself escapes only the control characters below U+0020
/// in strings; line feeds can only stand between its tokens.
pub(super) fn harmless(json: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_said_in_four_ways() {
        assert_eq!("now".parse(), Ok(Since::Now));
        assert_eq!("all".parse(), Ok(Since::All));
        assert_eq!("17".parse(), Ok(Since::Sequence(17)));
        assert_eq!("90s".parse(), Ok(Since::Ago(Duration::from_secs(90))));
        assert_eq!("2d".parse(), Ok(Since::Ago(Duration::from_secs(172_800))));
        for text in ["", "m", "5 m", "-5m", "5w", "99999999999999999999", "99999999999999d", "é"] {
            assert!(text.parse::<Since>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_table_without_a_dot_is_of_the_schema_public() {
        let glob: TableGlob = "orders".parse().expect("a glob");
        assert!(glob.glob.0.is_match("public.orders") && !glob.glob.0.is_match("app.orders"));
        assert_eq!(glob.one, Some(("public".into(), "orders".into())));
        let glob: TableGlob = "*.order*".parse().expect("a glob");
        assert!(glob.glob.0.is_match("app.order_lines") && glob.one.is_none());
        assert!("[".parse::<TableGlob>().is_err());
    }

    #[test]
    fn json_stays_the_same_and_harms_no_terminal() {
        let body = "{\"a\":\"\u{9b}2J\u{7f}\",\n\t\"b\":1.10}";
        let safe = harmless(body);
        assert_eq!(safe, "{\"a\":\"\\u009b2J\\u007f\",  \"b\":1.10}");
        let same = |json: &str| serde_json::from_str::<serde_json::Value>(json).expect("JSON");
        assert_eq!(same(&safe), same(body));
    }
}
