//! The section `private` of a source.

use super::raw::{Reader, Section};
use crate::map::private::{Action, Encrypt, Mask, Rule, RuleError, Settings, Shredded};

/// Ways to treat a column; a rule has one of them.
const WAYS: [&str; 6] = ["publish", "drop", "mask", "hash", "tokenise", "encrypt"];
/// What can be guessed at is no key.
const SECRET_CHARACTERS: usize = 16;

impl Reader<'_> {
    /// What one source hides; `None` after a complaint.
    pub(super) fn private(&mut self, source: &Section<'_>) -> Option<Settings> {
        let section = self.below(source, "private")?;
        let denies = self.word(&section, "default") == "deny";
        let secret = self.text(&section, "key");
        if secret.as_ref().is_some_and(|secret| secret.chars().count() < SECRET_CHARACTERS) {
            let what = format!("a key has {SECRET_CHARACTERS} characters or more");
            self.complain(&section.at("key"), &section.path("key"), &what);
        }
        let mut rules = Vec::new();
        for rule in self.each(&section, "columns") {
            let Some(rule) = self.private_rule(&rule) else { continue };
            if rule.action().needs_key() && !section.has("key") {
                let what = format!("columns that are {} need a key, which is missing", rule.action().participle());
                self.complain(&section.at, &section.path("key"), &what);
            }
            rules.push(rule);
        }
        Some(Settings::new(denies, rules, secret.map(Into::into).as_ref()))
    }

    fn private_rule(&mut self, section: &Section<'_>) -> Option<Rule> {
        let given: Vec<_> = WAYS.into_iter().filter(|way| section.has(way)).collect();
        let glob = self.text(section, "match");
        let action = match given.as_slice() {
            [] => {
                let what = format!("expected one of {}", WAYS.join(", "));
                self.complain(&section.at, &section.path, &what);
                None
            }
            [way] => self.action(section, way),
            [first, others @ ..] => {
                for other in others {
                    let what = format!("a rule does one thing, and this one has '{first}'");
                    self.complain(&section.key_at(other), &section.path(other), &what);
                }
                None
            }
        };
        match Rule::new(&glob?, action.clone().unwrap_or(Action::Drop)) {
            Ok(rule) => action.map(|_| rule),
            Err(error) => {
                let reason = match &error {
                    RuleError::Glob(source) => format!("{error}: {}", source.kind()),
                    RuleError::Parts => error.to_string(),
                };
                self.complain(&section.at("match"), &section.path("match"), &reason);
                None
            }
        }
    }

    fn action(&mut self, section: &Section<'_>, way: &str) -> Option<Action> {
        match way {
            "publish" | "drop" => {
                let is_said = self.bool(section, way);
                if !is_said && !self.has_complaint_at(section, way) {
                    let what = "says nothing as false; leave the rule out, or say what becomes of the column";
                    self.complain(&section.at(way), &section.path(way), what);
                }
                is_said.then_some(if way == "drop" { Action::Drop } else { Action::Publish })
            }
            "mask" => self.mask(section).map(Action::Mask),
            "hash" => self.below(section, way).map(|_| Action::Hash),
            "tokenise" => self.below(section, way).map(|_| Action::Tokenise),
            _ => {
                let section = self.below(section, way)?;
                let shredded = match self.word(&section, "shredded") {
                    "mask" => Shredded::Mask,
                    _ => Shredded::Null,
                };
                let kind = self.text(&section, "kind").unwrap_or_default().into();
                Some(Action::Encrypt(Encrypt { subject: self.text(&section, "subject")?.into(), kind, shredded }))
            }
        }
    }

    fn mask(&mut self, section: &Section<'_>) -> Option<Mask> {
        let section = self.below(section, "mask")?;
        let mut kept = |name| match section.has(name) {
            true => Some(usize::try_from(self.whole(&section, name)).unwrap_or(usize::MAX)),
            false => None,
        };
        let (first, last) = (kept("keep_first"), kept("keep_last"));
        if first.is_none() && last.is_none() {
            let text = self.text(&section, "text");
            return Some(text.map_or_else(Mask::default, |text| Mask::Fixed(text.into())));
        }
        if section.has("text") {
            let what = "goes with neither 'keep_first' nor 'keep_last'";
            self.complain(&section.key_at("text"), &section.path("text"), what);
        }
        Some(Mask::Keep { first: first.unwrap_or_default(), last: last.unwrap_or_default() })
    }
}
