//! Events as lines on a terminal.
//!
//! ```text
//! ╶ tx 758
//! 09:00:00.123  + insert  order_lines    [42,1]  sku=FIG-JAM-340  quantity=2  price=6.45
//! 09:00:00.123  ~ update  orders         42      status: placed → paid  note=(unchanged)
//! ```
//! Nothing that came out of a database reaches the terminal as a control character.

mod change;
mod domain;

use std::fmt::Write as _;
use std::io::IsTerminal;

use async_nats::HeaderMap;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

pub(super) use change::{Change, Member, string};
use change::{elements, member, members};
pub(super) use domain::Domain;

/// Columns of a terminal that does not tell how many it has.
const WIDTH: usize = 120;
/// Fewer show nothing.
const LEAST_WIDTH: usize = 40;
/// The longest that a value is shown.
const VALUE_MAX: usize = 40;
/// What column headings grow to, with the longest name seen.
const TABLE_MAX: usize = 30;
const KEY_MAX: usize = 24;
/// A UUID is shown as a whole.
const KEY_CUT: usize = 36;

/// How text is shown, as a parameter of SGR (ECMA-48, 8.3.117).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style(&'static str);

pub(super) const PLAIN: Style = Style("");
pub(super) const BOLD: Style = Style("1");
pub(super) const DIM: Style = Style("2");
pub(super) const RED: Style = Style("31");
pub(super) const GREEN: Style = Style("32");
pub(super) const YELLOW: Style = Style("33");
pub(super) const BLUE: Style = Style("34");
const MAGENTA: Style = Style("35");
pub(super) const CYAN: Style = Style("36");

/// Makes lines of events, for one output.
#[derive(Debug)]
pub(super) struct Screen {
    width: usize,
    is_colourful: bool,
    /// Whether the source's name stands before the table's.
    shows_source: bool,
    zone: TimeZone,
    day: jiff::civil::Date,
    transaction: Option<(String, String)>,
    table_width: usize,
    key_width: usize,
}

impl Screen {
    /// For stdout as it is.
    pub(super) fn of_stdout(shows_source: bool) -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let width = asked.or_else(|| is_terminal.then(terminal_width).flatten()).unwrap_or(WIDTH);
        let is_colourful = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self::new(width, is_colourful, shows_source, local_zone())
    }

    fn new(width: usize, is_colourful: bool, shows_source: bool, zone: TimeZone) -> Self {
        let day = Timestamp::now().to_zoned(zone.clone()).date();
        let width = width.max(LEAST_WIDTH);
        Self { width, is_colourful, shows_source, zone, day, transaction: None, table_width: 11, key_width: 18 }
    }

    /// Columns of the output.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Text in a style, where the output takes styles.
    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        if self.is_colourful && style != PLAIN { format!("\x1b[{}m{text}\x1b[0m", style.0) } else { text.to_owned() }
    }

    /// An event as lines, without the last line feed: a mark first where another transaction or day begins.
    pub(super) fn event(&mut self, subject: &str, headers: Option<&HeaderMap>, payload: &[u8]) -> String {
        let Some(change) = Change::of(headers, payload) else {
            if let Some(event) = Domain::of(subject, headers, payload) {
                let line = self.domain(&event);
                return self.finish(line);
            }
            let mut line = Line::default();
            line.push(DIM, subject).push(PLAIN, "  ").push(PLAIN, &String::from_utf8_lossy(payload));
            return self.finish(line);
        };
        let mut lines = String::new();
        let time: Option<Zoned> =
            change.committed_at.parse::<Timestamp>().ok().map(|time| time.to_zoned(self.zone.clone()));
        if let Some(time) = time.as_ref().filter(|time| time.date() != self.day) {
            self.day = time.date();
            let _ = writeln!(lines, "{}", self.paint(DIM, &format!("── {} ──", self.day)));
        }
        let transaction = (change.source.clone(), change.transaction.clone());
        if self.transaction.as_ref() != Some(&transaction) {
            let mut mark = Line::default();
            mark.push(DIM, "╶ tx ").push(DIM, &transaction.1);
            lines.push_str(&self.finish(mark));
            lines.push('\n');
            self.transaction = Some(transaction);
        }
        let time = time.map_or_else(|| " ".repeat(12), |time| time.strftime("%H:%M:%S.%3f").to_string());
        let line = self.line(&change, &time);
        lines.push_str(&self.finish(line));
        lines
    }

    /// What a rule made: behind the changes of its transaction, so that the mark of that stands already.
    fn domain(&mut self, event: &Domain<'_>) -> Line {
        let time = event.committed_at.parse::<Timestamp>().ok().map(|time| time.to_zoned(self.zone.clone()));
        let time = time.map_or_else(|| " ".repeat(12), |time| time.strftime("%H:%M:%S.%3f").to_string());
        let mut line = Line::default();
        line.push(DIM, &time).push(PLAIN, "  ").push(BLUE, "» ");
        // As wide as operation and table together.
        let name = match self.shows_source {
            true => format!("{}:{}", event.source, event.event_type),
            false => event.event_type.clone(),
        };
        let name = shortened(&name, TABLE_MAX);
        line.push(BLUE, &padded(&name, self.table_width + 8)).push(PLAIN, "  ");
        line.push(BOLD, &padded(&shortened(&event.key, KEY_CUT), self.key_width)).push(PLAIN, "  ");
        match members(event.data) {
            Some(members) => {
                for (name, value) in members {
                    line.push(DIM, &name).push(DIM, "=").push(PLAIN, &shown_whole(value)).push(PLAIN, "  ");
                }
            }
            None => line.push(PLAIN, event.data).end(),
        }
        line
    }

    fn line(&mut self, change: &Change<'_>, time: &str) -> Line {
        let (sign, style) = match &*change.op {
            "insert" => ("+", GREEN),
            "update" => ("~", YELLOW),
            "delete" => ("-", RED),
            "truncate" => ("×", RED),
            "read" => ("=", CYAN),
            "schema_change" => ("#", MAGENTA),
            _ => ("»", BLUE),
        };
        // As in the configuration, a name without a dot means the schema `public`.
        let table = change.table.strip_prefix("public.").filter(|name| !name.contains('.')).unwrap_or(&change.table);
        let name = if self.shows_source { format!("{}:{table}", change.source) } else { table.to_owned() };
        let (name, key) = (shortened(&name, TABLE_MAX), shortened(&change.key, KEY_CUT));
        self.table_width = self.table_width.max(width_of(&name)).min(TABLE_MAX);
        // One long key is no reason to move all others.
        self.key_width = self.key_width.max(Some(width_of(&key)).filter(|width| *width <= KEY_MAX).unwrap_or_default());
        let mut line = Line::default();
        line.push(DIM, time).push(PLAIN, "  ").push(style, sign).push(PLAIN, " ");
        line.push(style, &padded(&change.op, 6)).push(PLAIN, "  ");
        line.push(PLAIN, &padded(&name, self.table_width)).push(PLAIN, "  ");
        match &*change.op {
            "schema_change" => write_shapes(change, &mut line),
            "message" => write_message(change, &mut line),
            "truncate" => line.push(DIM, "every row is gone").end(),
            _ => {
                line.push(BOLD, &padded(&key, self.key_width)).push(PLAIN, "  ");
                write_row(change, &mut line);
            }
        }
        line
    }

    /// The line, cut to the width.
    fn finish(&self, line: Line) -> String {
        let fits = line.spans.iter().map(|(_, text)| width_of(text)).sum::<usize>() <= self.width;
        let mut left = if fits { self.width } else { self.width - 1 };
        let mut out = String::new();
        for (style, text) in &line.spans {
            let kept: String = text
                .chars()
                .take_while(|c| {
                    let fits = width_of_char(*c) <= left;
                    left = if fits { left - width_of_char(*c) } else { 0 };
                    fits
                })
                .collect();
            if !kept.is_empty() {
                out.push_str(&self.paint(*style, &kept));
            }
        }
        if fits {
            out.truncate(out.trim_end_matches(' ').len());
        } else {
            out.push_str(&self.paint(DIM, "…"));
        }
        out
    }
}

/// What a row's event is about: the columns that changed where that is known, else the row.
fn write_row(change: &Change<'_>, line: &mut Line) {
    if let Some(other) = &change.rekeyed {
        let word = if change.op == "delete" { "the key is now " } else { "the key was " };
        line.push(DIM, word).push(PLAIN, &shortened(other, VALUE_MAX)).push(PLAIN, "  ");
    }
    let is_compared = change.op == "update" && change.has_row_before();
    let row = if change.op == "delete" { &change.before } else { &change.after };
    let mut is_alike = true;
    for (name, value) in row.iter().filter(|(name, _)| is_compared || !change.is_key(name)) {
        match member(&change.before, name) {
            Some(before) if is_compared && before == *value => continue,
            Some(before) if is_compared => {
                line.push(DIM, name).push(DIM, ": ").push(DIM, &shown(before));
                line.push(DIM, " → ").push(PLAIN, &shown(value)).push(PLAIN, "  ");
            }
            _ => {
                let style = if change.op == "delete" { DIM } else { PLAIN };
                line.push(DIM, name).push(DIM, "=").push(style, &shown(value)).push(PLAIN, "  ");
            }
        }
        is_alike = false;
    }
    if is_compared && is_alike {
        line.push(DIM, "(no value changed)").push(PLAIN, "  ");
    }
    for name in &change.unchanged {
        line.push(DIM, name).push(DIM, "=(unchanged)  ");
    }
}

/// What became of a table's columns.
fn write_shapes(change: &Change<'_>, line: &mut Line) {
    let columns = |shape: &str| -> Vec<(String, String)> {
        let listed = change.member(shape).and_then(members).and_then(|shape| member(&shape, "columns"));
        let listed = listed.and_then(elements).unwrap_or_default();
        let told = listed.into_iter().filter_map(|column| {
            let column = members(column)?;
            let text = |name| Some(string(member(&column, name)?)?.into_owned());
            Some((text("name")?, text("type")?))
        });
        told.collect()
    };
    let (old, new) = (columns("old"), columns("new"));
    let in_shape = |shape: &[(String, String)], name: &str| shape.iter().any(|(other, _)| other == name);
    for (name, _) in old.iter().filter(|(name, _)| !in_shape(&new, name)) {
        line.push(RED, "- ").push(RED, name).push(PLAIN, "  ");
    }
    for (name, of_type) in &new {
        match old.iter().find(|(other, _)| other == name) {
            None => line.push(GREEN, "+ ").push(GREEN, name).push(DIM, " ").push(DIM, of_type).push(PLAIN, "  "),
            Some((_, before)) if before != of_type => line
                .push(YELLOW, name)
                .push(DIM, ": ")
                .push(DIM, before)
                .push(DIM, " → ")
                .push(PLAIN, of_type)
                .push(PLAIN, "  "),
            Some(_) => line,
        };
    }
}

fn write_message(change: &Change<'_>, line: &mut Line) {
    let value = |name| change.member(name).map(shown);
    line.push(BOLD, &value("prefix").unwrap_or_default()).push(PLAIN, "  ");
    line.push(PLAIN, &value("content").or_else(|| value("content_base64")).unwrap_or_default());
}

/// A value for people: strings without quotes, and not all of what is long.
fn shown(json: &str) -> String {
    match string(json) {
        Some(text) if text.is_empty() => "\"\"".to_owned(),
        Some(text) => shortened(&text, VALUE_MAX),
        None => shortened(json, VALUE_MAX),
    }
}

/// A value of a domain event: what it holds of lists is what it is about.
fn shown_whole(json: &str) -> String {
    match elements(json) {
        None => shown(json),
        Some(items) => {
            let items = items.into_iter().map(|item| match members(item) {
                None => shown(item),
                Some(members) => members.iter().map(|(_, value)| shown(value)).collect::<Vec<_>>().join(" "),
            });
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text cut to some columns, with what a terminal would obey made visible.
fn shortened(text: &str, most: usize) -> String {
    // No character takes less than a column but those that are escaped, which takes more.
    let safe = escaped(&text.chars().take(most + 1).collect::<String>());
    if width_of(&safe) <= most {
        return safe;
    }
    let mut left = most.saturating_sub(1);
    let fitting = safe.chars().take_while(|c| {
        let fits = width_of_char(*c) <= left;
        left = if fits { left - width_of_char(*c) } else { 0 };
        fits
    });
    fitting.chain(['…']).collect()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Marks that turn the direction of what follows, and separators of lines.
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(width_of(text))))
}

fn width_of(text: &str) -> usize {
    text.chars().map(width_of_char).sum()
}

/// Columns of a character: two for those that Unicode calls wide (UAX #11), as far as they are common. Combining
/// marks count as one, which only cuts a little early.
fn width_of_char(c: char) -> usize {
    match u32::from(c) {
        0x1100..=0x115f
        | 0x2e80..=0x303e
        | 0x3041..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// Text in styles that is not yet cut.
#[derive(Debug, Default)]
struct Line {
    spans: Vec<(Style, String)>,
}

impl Line {
    fn push(&mut self, style: Style, text: &str) -> &mut Self {
        self.spans.push((style, escaped(text)));
        self
    }

    /// Ends a chain as a statement.
    fn end(&self) {}
}

/// What `stty` says: the standard library does not ask terminals.
fn terminal_width() -> Option<usize> {
    let terminal = std::fs::File::open("/dev/tty").ok()?;
    let told = std::process::Command::new("stty").arg("size").stdin(terminal).output().ok()?;
    let told = String::from_utf8(told.stdout).ok()?;
    told.split_whitespace().nth(1)?.parse().ok().filter(|columns| *columns > 0)
}

/// The zone of this machine, as tzset(3) finds it; UTC where there is none.
fn local_zone() -> TimeZone {
    let file = |name: &str, path: &std::path::Path| TimeZone::tzif(name, &std::fs::read(path).ok()?).ok();
    let zone = match std::env::var("TZ") {
        Ok(name) => {
            let name = name.trim_start_matches(':');
            let path = std::path::Path::new("/usr/share/zoneinfo").join(name);
            file(name, &path).or_else(|| TimeZone::posix(name).ok())
        }
        Err(_) => file("local", std::path::Path::new("/etc/localtime")),
    };
    zone.unwrap_or(TimeZone::UTC)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn screen() -> Screen {
        let mut screen = Screen::new(100, false, false, TimeZone::UTC);
        screen.day = jiff::civil::date(2026, 11, 23);
        (screen.table_width, screen.key_width) = (9, 6);
        screen
    }

    fn body(op: &str, rest: &str) -> String {
        format!(
            r#"{{"op":"{op}",{rest},"source":{{"name":"shop","schema":"public","table":"orders","transaction":"758","committed_at":"2026-11-23T09:00:00.123456Z"}}}}"#
        )
    }

    fn line(op: &str, rest: &str) -> String {
        let lines = screen().event("s", None, body(op, rest).as_bytes());
        lines.lines().last().expect("a line").to_owned()
    }

    #[test]
    fn an_update_shows_what_changed_where_the_row_before_is_known() {
        let full = line(
            "update",
            r#""key":{"id":42},"before":{"id":42,"status":"new","total":"1.00"},"after":{"id":42,"status":"paid","total":"1.00"},"unchanged":["note"]"#,
        );
        assert_eq!(full, "09:00:00.123  ~ update  orders     42      status: new → paid  note=(unchanged)");
        let key = line("update", r#""key":{"id":42},"before":null,"after":{"id":42,"status":"paid","n":1.50}"#);
        assert_eq!(key, "09:00:00.123  ~ update  orders     42      status=paid  n=1.50");
        let same = line("update", r#""key":{"id":1},"before":{"id":1,"a":null},"after":{"id":1,"a":null}"#);
        assert!(same.ends_with("1       (no value changed)"), "{same}");
    }

    #[test]
    fn inserts_deletes_and_the_others_tell_what_they_are_about() {
        let insert = line("insert", r#""key":{"id":7},"before":null,"after":{"id":7,"name":"","note":null}"#);
        assert_eq!(insert, "09:00:00.123  + insert  orders     7       name=\"\"  note=null");
        let delete = line("delete", r#""key":{"id":7},"before":{"id":7},"after":null,"rekeyed":{"id":8}"#);
        assert_eq!(delete, "09:00:00.123  - delete  orders     7       the key is now 8");
        let truncate = line("truncate", r#""key":null,"before":null,"after":null"#);
        assert_eq!(truncate, "09:00:00.123  × truncate  orders     every row is gone");
        let shape = line(
            "schema_change",
            r#""old":{"columns":[{"name":"a","type":"int4"},{"name":"b","type":"text"}]},"new":{"columns":[{"name":"a","type":"int8"},{"name":"c","type":"text"}]}"#,
        );
        assert!(shape.ends_with("- b  a: int4 → int8  + c text"), "{shape}");
        let message = line("message", r#""prefix":"audit","content":"hello\nyou""#);
        assert!(message.ends_with("audit  hello\\nyou"), "{message}");
    }

    #[test]
    fn a_mark_stands_between_transactions_and_days() {
        let mut screen = screen();
        let first = body("delete", r#""key":{"id":7},"before":{"id":7}"#);
        assert!(screen.event("s", None, first.as_bytes()).starts_with("╶ tx 758\n09:"));
        assert!(screen.event("s", None, first.as_bytes()).starts_with("09:"));
        let next = first.replace("11-23", "11-24").replace("758", "759");
        assert!(screen.event("s", None, next.as_bytes()).starts_with("── 2026-11-24 ──\n╶ tx 759\n09:"));
    }

    #[test]
    fn every_envelope_is_understood() {
        let body = body("insert", r#""key":{"id":7},"before":null,"after":{"id":7}"#);
        let wrapped = format!(r#"{{"specversion":"1.0","id":"0/1/0.0","type":"t","data":{body}}}"#);
        let change = Change::of(None, wrapped.as_bytes()).expect("structured");
        assert_eq!((&*change.event_type, &*change.id, &*change.key), ("t", "0/1/0.0", "7"));
        let plain = Change::of(None, body.as_bytes()).expect("plain");
        assert_eq!(plain.event_type, "shop.public.orders.inserted");
        let mut headers = HeaderMap::new();
        headers.insert("ce-type", "a%20b");
        assert_eq!(Change::of(Some(&headers), body.as_bytes()).expect("binary").event_type, "a b");
    }

    #[test]
    fn what_is_no_change_is_shown_as_it_is() {
        assert_eq!(screen().event("some.subject", None, b"\x1b[2Jx"), "some.subject  \\u{1b}[2Jx");
    }

    #[test]
    fn a_long_line_is_cut_to_the_width() {
        let after: Vec<_> = (0..40).map(|n| format!(r#""c{n}":"日本語""#)).collect();
        let line = line("insert", &format!(r#""key":{{"id":7}},"after":{{{}}}"#, after.join(",")));
        assert!(width_of(&line) <= 100 && line.ends_with('…'), "{line}");
        let long = shown(&format!("\"{}\"", "x".repeat(1000)));
        assert_eq!(width_of(&long), VALUE_MAX);
    }

    proptest! {
        #[test]
        fn no_value_writes_control_characters(column in ".{0,9}", value in any::<String>(), op in any::<String>()) {
            let row = serde_json::json!({ &column: value });
            let payload = serde_json::json!({
                "op": op, "key": row, "before": null, "after": row, "unchanged": [value],
                "source": { "name": value, "schema": value, "table": column, "transaction": value },
            });
            let shown = screen().event(&value, None, payload.to_string().as_bytes());
            prop_assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
            prop_assert_eq!(shown.lines().count(), 2);
        }

        #[test]
        fn no_payload_writes_control_characters(payload in any::<Vec<u8>>()) {
            let shown = screen().event("s", None, &payload);
            prop_assert!(shown.chars().all(|c| !c.is_control()), "{shown:?}");
        }
    }
}
