//! The sections `rules` and `outbox` of a source, and files of rules.

use std::fs;

use globset::{Glob, GlobSetBuilder};

use super::keys::RULE_FILE;
use super::raw::{Reader, Section};
use super::yaml;
use super::{At, Complaints};
use crate::map::rules::{
    Aggregate, Data, Include, Key, Mistake, On, OnLarge, Outbox, OutboxColumns, Rule, RuleDraft, Settings,
};

/// Characters of an expression that a complaint shows.
const SHOWN: usize = 32;

impl Reader<'_> {
    /// What is made of one source's changes.
    pub(super) fn rules(&mut self, source: &Section<'_>) -> Settings {
        let mut rules = Vec::new();
        for section in self.each(source, "rules") {
            self.add_rule(&section, &mut rules);
        }
        for file in self.list(source, "rule_files") {
            let mut complaints = Complaints::default();
            match fs::read_to_string(&file) {
                Err(error) => {
                    let what = format!("{file} cannot be read: {}", error.kind());
                    self.complain(&source.at("rule_files"), &source.path("rule_files"), &what);
                }
                Ok(text) => {
                    let root = yaml::read(&text, &mut complaints);
                    let mut reader = Reader { complaints: &mut complaints };
                    if let Some(section) = reader.section("", &root.at, &root, RULE_FILE) {
                        for section in reader.each(&section, "rules") {
                            reader.add_rule(&section, &mut rules);
                        }
                    }
                }
            }
            for complaint in complaints.0 {
                let place = match complaint.at {
                    At::File { line, column } => format!("{file}:{line}:{column}"),
                    At::Everywhere | At::Variable(_) => file.clone(),
                };
                let what = format!("{place}: {}", complaint.what);
                self.complain(&source.at("rule_files"), &source.path("rule_files"), &what);
            }
        }
        Settings { rules, outbox: self.outbox(source) }
    }

    /// Adds a rule, unless one of its name is there.
    fn add_rule(&mut self, section: &Section<'_>, rules: &mut Vec<Rule>) {
        let Some(rule) = self.rule(section) else { return };
        if rules.iter().any(|known| known.name() == rule.name()) || rule.name() == "outbox" {
            let what = format!("there is a rule '{}' already; give this one a name of its own", rule.name());
            let key = if section.has("name") { "name" } else { "type" };
            return self.complain(&section.at(key), &section.path(key), &what);
        }
        rules.push(rule);
    }

    fn rule(&mut self, section: &Section<'_>) -> Option<Rule> {
        let event_type = self.text(section, "type");
        let from = self.text(section, "from");
        let mut on = Vec::new();
        for word in self.list(section, "on") {
            match word.as_str() {
                "insert" => on.push(On::Insert),
                "update" => on.push(On::Update),
                "delete" => on.push(On::Delete),
                "read" => on.push(On::Read),
                _ => {
                    let hint = super::did_you_mean(&word, ["insert", "update", "delete", "read"]);
                    let what = format!("expected insert, update, delete or read, found '{word}'{hint}");
                    self.complain(&section.at("on"), &section.path("on"), &what);
                }
            }
        }
        let key = match section.has("key") {
            false => Key::OfTable,
            true if self.is_list(section, "key") => Key::Columns(self.list(section, "key")),
            true => Key::Expression(self.text(section, "key").unwrap_or_default()),
        };
        let members = self.members(section, "data");
        let data = match &members {
            Some(members) => {
                Data::Members(members.iter().map(|(name, _, text)| ((*name).to_owned(), text.clone())).collect())
            }
            None if section.has("data") => Data::Columns(self.list(section, "data")),
            None => Data::Row,
        };
        let aggregate = section.has("aggregate").then(|| self.aggregate(section, from.as_deref())).flatten();
        let also_change_event = self.bool(section, "also_change_event");
        if aggregate.is_some() && !also_change_event && !self.has_complaint_at(section, "also_change_event") {
            let what = "a change is told before it is known what its transaction comes to: 'false' does not go with an aggregate";
            self.complain(&section.at("also_change_event"), &section.path("also_change_event"), what);
        }
        let draft = RuleDraft {
            name: self.text(section, "name"),
            event_type: event_type?,
            version: self.whole(section, "version"),
            from: from?,
            on,
            changed: self.list(section, "changed"),
            when: self.text(section, "when"),
            key,
            data,
            also_change_event,
            aggregate,
        };
        match Rule::new(&draft) {
            Ok(rule) => Some(rule),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.mistake(section, &draft, members.as_deref().unwrap_or_default(), &mistake);
                }
                None
            }
        }
    }

    fn mistake(&mut self, section: &Section<'_>, draft: &RuleDraft, members: &[(&str, At, String)], mistake: &Mistake) {
        let Mistake { key, offset, what } = mistake;
        let (at, text) = match key.split_once('.') {
            Some((_, name)) => {
                let member = members.iter().find(|(known, ..)| *known == name);
                member.map_or((section.at("data"), ""), |(_, at, text)| (at.clone(), text.as_str()))
            }
            None => {
                let text = match (key.as_str(), &draft.key) {
                    ("when", _) => draft.when.as_deref().unwrap_or_default(),
                    ("key", Key::Expression(text)) => text,
                    _ => "",
                };
                (section.at(key), text)
            }
        };
        let is_shown = !self.is_inserted(section, key.split('.').next().unwrap_or_default());
        let rest: String = text.chars().skip(offset.unwrap_or_default()).take(SHOWN).collect();
        let near = match offset {
            Some(_) if is_shown && !rest.is_empty() => format!(", at '{rest}'"),
            _ => String::new(),
        };
        self.complain(&at, &section.path(key), &format!("{what}{near}"));
    }

    fn aggregate(&mut self, rule: &Section<'_>, from: Option<&str>) -> Option<Aggregate> {
        let section = self.below(rule, "aggregate")?;
        if let (Some(root), Some(from)) = (self.text(&section, "root"), from)
            && root != from
            && from.split_once('.').is_none_or(|(_, table)| table != root)
        {
            self.complain(&section.at("root"), &section.path("root"), "the root is the table of 'from'");
        }
        let mut include = Vec::new();
        for section in self.each(&section, "include") {
            let (table, on) = (self.text(&section, "table"), self.text(&section, "on"));
            let name = self.text(&section, "as");
            let columns = self.list(&section, "columns");
            let lookup = self.bool(&section, "lookup");
            let (Some(table), Some(on)) = (table, on) else { continue };
            let name = name.unwrap_or_else(|| table.rsplit('.').next().unwrap_or_default().to_owned());
            include.push(Include { table, on, name, columns, lookup });
        }
        self.word(&section, "complete_when");
        let max_bytes = self.size(&section, "max_bytes").unwrap_or_default();
        let on_large = match self.word(&section, "on_large") {
            "stop" => OnLarge::Stop,
            "spill" => OnLarge::Spill,
            _ => OnLarge::Park,
        };
        Some(Aggregate { include, max_bytes, on_large })
    }

    fn outbox(&mut self, source: &Section<'_>) -> Option<Outbox> {
        if !source.has("outbox") {
            return None;
        }
        let section = self.below(source, "outbox")?;
        let table = self.text(&section, "table");
        let table = table.and_then(|name| match name.split_once('.') {
            Some((schema, table)) => Some((schema.into(), table.into())),
            None => {
                let what = "expected one table as schema.table (MySQL, MariaDB: database.table)";
                self.complain(&section.at("table"), &section.path("table"), what);
                None
            }
        });
        let columns = self.below(&section, "columns")?;
        let mut column = |name| self.text(&columns, name).unwrap_or_default().into();
        let columns = OutboxColumns { event_type: column("type"), key: column("key"), payload: column("payload") };
        let mut messages = GlobSetBuilder::new();
        for glob in self.list(&section, "messages") {
            match Glob::new(&glob) {
                Ok(glob) => drop(messages.add(glob)),
                Err(error) => {
                    let what = format!("'{glob}' is no glob: {}", error.kind());
                    self.complain(&section.at("messages"), &section.path("messages"), &what);
                }
            }
        }
        if !section.has("table") && !section.has("messages") {
            self.complain(&section.at, &section.path, "expected a table, or messages, or both");
        }
        if section.has("messages") && !source.has("postgres") {
            let what = "only PostgreSQL has messages in its log";
            self.complain(&section.key_at("messages"), &section.path("messages"), what);
        }
        Some(Outbox { table, columns, messages: messages.build().ok()? })
    }

    /// The prefixes of messages that are events of the outbox.
    pub(super) fn outbox_messages(&mut self, source: &Section<'_>) -> Vec<String> {
        if !source.has("outbox") {
            return Vec::new();
        }
        self.below(source, "outbox").map(|section| self.list(&section, "messages")).unwrap_or_default()
    }
}
