//! What Debezium's engine made of a workload, beside what Figvine makes of it. The lines were written by `tests/golden/make`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::harness::Event;

/// A line of a golden file, or an event of ours in its form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// `schema.table`, or `database.table`; `message`.
    pub(crate) table: String,
    pub(crate) key: Value,
    pub(crate) headers: BTreeMap<String, Value>,
    /// `None` of a tombstone.
    pub(crate) value: Option<Map<String, Value>>,
}

/// A member of the block `source` that is not, or cannot be, the same.
pub(crate) struct Differs {
    pub(crate) field: &'static str,
    pub(crate) reason: &'static str,
    /// What ours must be.
    pub(crate) ours: fn(&Value) -> bool,
}

/// A column in which we do not follow.
pub(crate) struct Excepted {
    pub(crate) table: &'static str,
    /// `before`, `after`, or both where it is empty.
    pub(crate) side: &'static str,
    pub(crate) column: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) how: How,
}

/// How an excepted column is compared.
pub(crate) enum How {
    /// Ours must be one of these, whatever Debezium's is; it may have none.
    Ours(&'static [&'static str]),
    /// Both are strings that hold JSON: as that.
    Json,
    /// Both are single precision numbers, of which there are several decimal forms.
    Single,
}

fn folder(engine: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(engine)
}

/// A file beside the golden ones.
pub(crate) fn text(engine: &str, name: &str) -> String {
    let path = folder(engine).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The section `debezium` of a variant, as lines of a source of ours.
pub(crate) fn section(engine: &str, variant: &str) -> String {
    let mut options: Vec<(String, String)> = text(engine, &format!("{variant}.properties"))
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // The one default that is another.
    if !options.iter().any(|(name, _)| name == "tombstones.on.delete") {
        options.push(("tombstones.on.delete".to_owned(), "true".to_owned()));
    }
    let lines: String = options.iter().map(|(name, value)| format!("      {name}: {value}\n")).collect();
    format!("    format: debezium\n    debezium:\n{lines}")
}

/// The lines of a variant.
pub(crate) fn lines(engine: &str, variant: &str) -> Vec<Line> {
    let text = text(engine, &format!("{variant}.jsonl"));
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let topic = line["topic"].as_str().expect("a topic");
            Line {
                table: topic.split_once('.').expect("a prefix").1.to_owned(),
                key: line["key"].clone(),
                headers: line["headers"].as_object().expect("headers").clone().into_iter().collect(),
                value: line["value"].as_object().cloned(),
            }
        })
        .collect()
}

/// Our events in the form of lines.
pub(crate) fn ours(events: &[Event]) -> Vec<Line> {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    events
        .iter()
        .map(|event| {
            let headers = event.headers.iter();
            let mut subject = event.subject.split('.').skip(2);
            let table = match (subject.next(), subject.next()) {
                _ if event.subject.starts_with("cdc.shop.messages.") => "message".to_owned(),
                (Some(schema), Some(table)) => format!("{schema}.{table}"),
                _ => panic!("{}", event.subject),
            };
            Line {
                table,
                key: event.headers.get("Figvine-Key").map_or(Value::Null, |key| json(key)),
                headers: headers
                    .filter(|(name, _)| name.starts_with("__debezium."))
                    .map(|(name, value)| (name.clone(), json(value)))
                    .collect(),
                value: event.body.as_object().cloned(),
            }
        })
        .collect()
}

fn is_read(line: &Line) -> bool {
    line.value.as_ref().is_some_and(|value| value["op"] == "r")
}

/// Compares all lines, of which those of existing rows may come in any order.
pub(crate) fn compare(golden: Vec<Line>, ours: Vec<Line>, differs: &[Differs], excepted: &[Excepted]) {
    assert!(differs.iter().all(|differs| !differs.reason.is_empty()) && excepted.iter().all(|e| !e.reason.is_empty()));
    let split = |lines: Vec<Line>| -> (Vec<Line>, Vec<Line>) { lines.into_iter().partition(is_read) };
    let ((mut golden_reads, golden), (mut our_reads, ours)) = (split(golden), split(ours));
    for reads in [&mut golden_reads, &mut our_reads] {
        reads.sort_by_key(|line| (line.table.clone(), line.key.to_string()));
    }
    let mut wrong = Vec::new();
    let mut used = vec![false; excepted.len()];
    for (golden, ours) in [(golden_reads, our_reads), (golden, ours)] {
        let places = |lines: &[Line]| -> Vec<String> {
            let op = |line: &Line| line.value.as_ref().map_or("tombstone".into(), |value| value["op"].to_string());
            lines.iter().map(|line| format!("{} {} {}", line.table, op(line), line.key)).collect()
        };
        assert_eq!(places(&golden), places(&ours));
        for (golden, ours) in golden.into_iter().zip(ours) {
            let place = format!("{} {}", golden.table, golden.key);
            if golden.headers != ours.headers {
                wrong.push(format!("{place}: headers {:?}, ours {:?}", golden.headers, ours.headers));
            }
            if let (Some(golden_value), Some(our_value)) = (golden.value, ours.value) {
                let table = golden.table.rsplit('.').next().unwrap_or_default();
                compare_values(&place, table, golden_value, our_value, (differs, excepted, &mut used), &mut wrong);
            }
        }
    }
    for (excepted, used) in excepted.iter().zip(used) {
        if !used && matches!(excepted.how, How::Ours(_)) {
            wrong.push(format!("{}.{} is excepted, and is the same", excepted.table, excepted.column));
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

type Exceptions<'a> = (&'a [Differs], &'a [Excepted], &'a mut [bool]);

fn compare_values(
    place: &str,
    table: &str,
    mut golden: Map<String, Value>,
    mut ours: Map<String, Value>,
    (differs, excepted, used): Exceptions<'_>,
    wrong: &mut Vec<String>,
) {
    let mut found = |what: String| wrong.push(format!("{place}: {what}"));
    // When the engine handled the event; ours has the time of the commit, which is the same on every replay.
    let micros = ours["source"]["ts_us"].as_i64().expect("a time");
    for (unit, time) in [("ts_ms", micros.div_euclid(1000)), ("ts_us", micros), ("ts_ns", micros * 1000)] {
        golden.remove(unit);
        golden["source"].as_object_mut().expect("an object").remove(unit);
        if ours.remove(unit) != Some(time.into())
            || ours["source"].as_object_mut().expect("an object").remove(unit) != Some(time.into())
        {
            found(format!("{unit} is not the same time"));
        }
    }
    let block = |value: &mut Map<String, Value>| {
        value.remove("source").expect("source").as_object().cloned().expect("an object")
    };
    let (mut golden_source, mut our_source) = (block(&mut golden), block(&mut ours));
    for Differs { field, reason, ours } in differs {
        let theirs = golden_source.remove(*field);
        let our = our_source.remove(*field).unwrap_or(Value::Null);
        if !ours(&our) || theirs.is_none() {
            found(format!("source.{field} is {our} ({reason})"));
        }
    }
    if golden_source != our_source {
        found(format!("source {}, ours {}", Value::Object(golden_source), Value::Object(our_source)));
    }
    for side in ["before", "after"] {
        let row = |value: &mut Map<String, Value>| match value.remove(side) {
            Some(Value::Object(row)) => Some(row),
            _ => None,
        };
        let (mut golden, mut ours) = (row(&mut golden), row(&mut ours));
        for (exception, used) in excepted.iter().zip(used.iter_mut()) {
            let is_meant = exception.table == table && (exception.side.is_empty() || exception.side == side);
            let (true, Some(golden), Some(ours)) = (is_meant, &mut golden, &mut ours) else { continue };
            let (theirs, our) = (golden.shift_remove(exception.column), ours.shift_remove(exception.column));
            *used |= theirs != our;
            let is_right = theirs == our
                || match exception.how {
                    How::Ours(all) => all.iter().any(|json| our == serde_json::from_str(json).ok()),
                    How::Json => {
                        let parsed =
                            |value: &Option<Value>| serde_json::from_str::<Value>(value.as_ref()?.as_str()?).ok();
                        parsed(&theirs).is_some() && parsed(&theirs) == parsed(&our)
                    }
                    How::Single => {
                        let single = |value: &Option<Value>| Some(value.as_ref()?.as_f64()? as f32);
                        single(&theirs).is_some() && single(&theirs) == single(&our)
                    }
                };
            if !is_right {
                found(format!("{side}.{} {theirs:?}, ours {our:?}", exception.column));
            }
        }
        if golden == ours {
            continue;
        }
        let (Some(golden), Some(ours)) = (&golden, &ours) else {
            found(format!("{side} {golden:?}, ours {ours:?}"));
            continue;
        };
        if golden.keys().collect::<Vec<_>>() != ours.keys().collect::<Vec<_>>() {
            found(format!("{side} has {:?}, ours {:?}", golden.keys(), ours.keys()));
        }
        for (column, value) in golden.iter().filter(|(column, value)| ours.get(*column) != Some(value)) {
            let cut = |text: String| text.chars().take(300).collect::<String>();
            found(format!(
                "{side}.{column} {}, ours {}",
                cut(value.to_string()),
                cut(ours.get(column).unwrap_or(&Value::Null).to_string())
            ));
        }
    }
    if golden != ours {
        found(format!("{}, ours {}", Value::Object(golden), Value::Object(ours)));
    }
}
