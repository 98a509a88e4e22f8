//! Rules as they are written, compiled.

use std::sync::Arc;

use super::aggregate::OnLarge;
use super::expression::{Expression, Names, Side};
use super::outbox::Outbox;

/// Operations that a rule may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A new row.
    Insert,
    /// A changed one.
    Update,
    /// A removed one.
    Delete,
    /// An existing one, that a backfill reads.
    Read,
}

/// A rule as it is written.
#[derive(Debug, Clone, Default)]
pub struct RuleDraft {
    /// Its name in identities; by default its type.
    pub name: Option<String>,
    /// The type of its events.
    pub event_type: String,
    /// The major version of that.
    pub version: u64,
    /// `schema.table`.
    pub from: String,
    /// The operations; all where empty.
    pub on: Vec<On>,
    /// Columns of which one at least must have changed, of an update.
    pub changed: Vec<String>,
    /// A condition.
    pub when: Option<String>,
    /// What the events are keyed by.
    pub key: Key,
    /// What they carry.
    pub data: Data,
    /// Whether the change is told by an event of its own, too.
    pub also_change_event: bool,
    /// The parts of a whole.
    pub aggregate: Option<Aggregate>,
}

/// What events are keyed by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Key {
    /// The table's key.
    #[default]
    OfTable,
    /// Columns.
    Columns(Vec<String>),
    /// An expression.
    Expression(String),
}

/// What events carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Data {
    /// The whole row, and the parts of an aggregate.
    #[default]
    Row,
    /// Columns.
    Columns(Vec<String>),
    /// Expressions by the names of members.
    Members(Vec<(String, String)>),
}

/// Parts that belong to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aggregate {
    /// Tables with them.
    pub include: Vec<Include>,
    /// Bytes of rows that may be held of one transaction.
    pub max_bytes: u64,
    /// What happens beyond.
    pub on_large: OnLarge,
}

/// A table with parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Include {
    /// `schema.table`, or the table alone where it lies beside the root.
    pub table: String,
    /// The column that holds the root's key.
    pub on: String,
    /// The name of the list.
    pub name: String,
    /// The columns of each part; all where empty.
    pub columns: Vec<String>,
    /// Whether parts that the transaction did not touch are looked up.
    pub lookup: bool,
}

/// What of a rule is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key it stands under: `when`, `key`, `data`, `data.total`, `name`, `from`, `aggregate`.
    pub key: String,
    /// Where in that text, in characters.
    pub offset: Option<usize>,
    /// What is wrong.
    pub what: String,
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) name: Arc<str>,
    pub(super) event_type: Arc<str>,
    pub(super) versioned: Arc<str>,
    pub(super) major: u32,
    pub(super) schema: Box<str>,
    pub(super) table: Box<str>,
    pub(super) on: Vec<On>,
    pub(super) changed: Vec<Box<str>>,
    pub(super) when: Option<Expression>,
    pub(super) key: CompiledKey,
    pub(super) data: CompiledData,
    pub(super) also_change_event: bool,
    pub(super) aggregate: Option<Aggregate>,
    pub(super) names: Arc<Names>,
}

#[derive(Debug, Clone)]
pub(super) enum CompiledKey {
    OfTable,
    Expressions(Vec<Expression>),
}

#[derive(Debug, Clone)]
pub(super) enum CompiledData {
    Row,
    Members(Vec<Member>),
}

/// A member of a body.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: Box<str>,
    /// `"name":`
    pub(super) quoted: Vec<u8>,
    pub(super) expression: Expression,
}

impl Member {
    fn new(name: &str, expression: Expression) -> Self {
        let mut quoted = Vec::new();
        figvine_change::json::write_str(name, &mut quoted);
        quoted.push(b':');
        Self { name: name.into(), quoted, expression }
    }
}

/// A name of a type, a rule or a list: one token of a subject.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl Rule {
    /// Compiles what is written.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn new(draft: &RuleDraft) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let mut wrong =
            |key: &str, offset: Option<usize>, what: String| mistakes.push(Mistake { key: key.into(), offset, what });
        let name = draft.name.as_deref().unwrap_or(&draft.event_type);
        for (key, text) in [("type", draft.event_type.as_str()), ("name", name)] {
            if !is_name(text) {
                wrong(key, None, "holds letters, digits, '_' and '-' only, 64 at most".into());
            }
        }
        let (schema, table) = match draft.from.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => (schema, table),
            _ => {
                wrong("from", None, "expected one table as schema.table (MySQL, MariaDB: database.table)".into());
                ("", "")
            }
        };
        let includes = draft.aggregate.iter().flat_map(|aggregate| &aggregate.include);
        let mut names =
            Names { parts: includes.map(|include| include.name.as_str().into()).collect(), ..Names::default() };
        for part in &names.parts {
            let is_word = part
                .bytes()
                .enumerate()
                .all(|(at, byte)| byte == b'_' || byte.is_ascii_alphabetic() || at > 0 && byte.is_ascii_digit());
            if !is_word || part.is_empty() || matches!(&**part, "after" | "before" | "tx") {
                wrong("aggregate", None, format!("'{part}' is no name for a list of parts"));
            }
        }
        let looked_up: Vec<&str> = draft.aggregate.iter().flat_map(Aggregate::looked_up).collect();
        let mut compile = |key: &str, text: &str, names: &mut Names| match Expression::compile(text, names) {
            Ok(expression) => Some(expression),
            Err(error) => {
                wrong(key, Some(error.at.start), error.what);
                None
            }
        };
        let when = draft.when.as_deref().and_then(|text| compile("when", text, &mut names));
        let read_by_when = names.read_parts.len();
        let side = if draft.on == [On::Delete] { Side::Before } else { Side::After };
        let key = match &draft.key {
            Key::OfTable => CompiledKey::OfTable,
            Key::Columns(columns) => CompiledKey::Expressions(
                columns.iter().map(|column| Expression::column(side, column, &mut names)).collect(),
            ),
            Key::Expression(text) => CompiledKey::Expressions(compile("key", text, &mut names).into_iter().collect()),
        };
        let read_by_key = names.read_parts.len();
        let data = match &draft.data {
            Data::Row => CompiledData::Row,
            Data::Columns(columns) => CompiledData::Members(
                columns
                    .iter()
                    .map(|column| Member::new(column, Expression::column(side, column, &mut names)))
                    .collect(),
            ),
            Data::Members(members) => {
                let mut compiled = Vec::new();
                for (name, text) in members {
                    compiled.extend(
                        compile(&format!("data.{name}"), text, &mut names)
                            .map(|expression| Member::new(name, expression)),
                    );
                }
                CompiledData::Members(compiled)
            }
        };
        let reads_before =
            names.rows[Side::Before as usize] || names.columns.iter().any(|(side, _)| *side == Side::Before);
        if draft.on == [On::Insert] && reads_before {
            wrong("on", None, "of an insert there is no row 'before'".into());
        }
        if !draft.changed.is_empty() && !draft.on.is_empty() && !draft.on.contains(&On::Update) {
            wrong("changed", None, "only an update changes columns, and 'on' leaves updates out".into());
        }
        // Whether there is an event, and where it belongs, must not depend on when it is told.
        for (place, list) in names.read_parts.iter().take(read_by_key).enumerate() {
            if let Some(list) = names.parts.get(*list).filter(|list| looked_up.contains(&&***list)) {
                let key = if place < read_by_when { "when" } else { "key" };
                wrong(key, None, format!("'{list}' is looked up, and may be another when it is looked up again"));
            }
        }
        let marks: Vec<String> = looked_up.iter().map(|list| looked_up_at(list)).collect();
        let members = match &draft.data {
            Data::Row => Vec::new(),
            Data::Columns(columns) => columns.iter().collect(),
            Data::Members(members) => members.iter().map(|(name, _)| name).collect(),
        };
        for name in members.into_iter().filter(|name| marks.contains(name)) {
            wrong("data", None, format!("'{name}' says when parts were looked up"));
        }
        for name in names.parts.iter().filter(|name| marks.iter().any(|mark| **mark == ***name)) {
            wrong("aggregate", None, format!("'{name}' says when parts were looked up"));
        }
        if draft.on.contains(&On::Read) {
            let is_alone = draft.on == [On::Read];
            if !is_alone {
                wrong("on", None, "an existing row is no change: give 'read' a rule of its own".into());
            }
            if draft.also_change_event {
                // The place in the table is told with each message: between two of one row there is none.
                wrong("also_change_event", None, "an existing row is told by one event: set it to false".into());
            }
            if draft.aggregate.is_some() {
                wrong("aggregate", None, "an existing row is read without its parts".into());
            }
            if reads_before {
                wrong("on", None, "of an existing row there is no row 'before'".into());
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            name: name.into(),
            event_type: draft.event_type.as_str().into(),
            versioned: format!("{}.v{}", draft.event_type, draft.version).into(),
            major: u32::try_from(draft.version).unwrap_or(u32::MAX),
            schema: schema.into(),
            table: table.into(),
            on: draft.on.clone(),
            changed: draft.changed.iter().map(|column| column.as_str().into()).collect(),
            when,
            key,
            data,
            also_change_event: draft.also_change_event,
            aggregate: draft.aggregate.clone(),
            names: Arc::new(names),
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its events with the major version.
    #[must_use]
    pub fn versioned_type(&self) -> &str {
        &self.versioned
    }

    /// Whether it looks parts up.
    #[must_use]
    pub fn looks_up(&self) -> bool {
        self.aggregate.as_ref().is_some_and(Aggregate::looks_up)
    }

    pub(super) fn is_about(&self, on: On) -> bool {
        self.on.is_empty() && on != On::Read || self.on.contains(&on)
    }
}

impl Aggregate {
    /// Whether any list is looked up.
    pub(super) fn looks_up(&self) -> bool {
        self.looked_up().next().is_some()
    }

    /// The lists that are looked up.
    pub(super) fn looked_up(&self) -> impl Iterator<Item = &str> {
        self.include.iter().filter(|include| include.lookup).map(|include| include.name.as_str())
    }
}

/// The member that says when a list was looked up.
pub(super) fn looked_up_at(list: &str) -> String {
    format!("{list}_looked_up_at")
}

impl Include {
    /// Its schema and table.
    pub(super) fn place<'a>(&'a self, root_schema: &'a str) -> (&'a str, &'a str) {
        self.table.split_once('.').unwrap_or((root_schema, &self.table))
    }
}

/// What one source's rules are.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// In the order of the file.
    pub rules: Vec<Rule>,
    /// The table, and the messages, that carry events themselves.
    pub outbox: Option<Outbox>,
}

impl Settings {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.outbox.is_none()
    }

    /// Names of rules in the order in which their events stand behind one change: wholes are told last.
    pub(super) fn names_as_told(&self) -> impl Iterator<Item = Arc<str>> {
        let of = |is_whole: bool| self.rules.iter().filter(move |rule| rule.aggregate.is_some() == is_whole);
        [Arc::from("outbox")].into_iter().chain(of(false).chain(of(true)).map(|rule| Arc::clone(&rule.name)))
    }

    /// The columns of a table, `schema.table`, that rules speak of; each once.
    #[must_use]
    pub fn columns_of(&self, table: &str) -> Vec<&str> {
        let is_meant = |(schema, name): (&str, &str)| table.split_once('.') == Some((schema, name));
        let mut columns = Vec::new();
        for rule in &self.rules {
            if is_meant((&rule.schema, &rule.table)) {
                columns.extend(rule.names.columns.iter().map(|(_, column)| &**column));
                columns.extend(rule.changed.iter().map(|column| &**column));
            }
            for include in rule.aggregate.iter().flat_map(|aggregate| &aggregate.include) {
                if is_meant(include.place(&rule.schema)) {
                    columns.extend(include.columns.iter().chain([&include.on]).map(String::as_str));
                }
            }
        }
        columns.sort_unstable();
        columns.dedup();
        columns
    }
}
