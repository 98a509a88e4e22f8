//! The section `schemas` of a source.

use super::raw::{Reader, Section};
use crate::event::Format;
use crate::schema::{Compatibility, OnDrift, Policy};

impl Reader<'_> {
    /// How one source's event types may change; `None` where events name no schemas.
    pub(super) fn schemas(&mut self, source: &Section<'_>, format: Format) -> Option<Policy> {
        let section = self.below(source, "schemas")?;
        let is_enabled = self.bool(&section, "enabled");
        let compatibility = match self.word(&section, "compatibility") {
            "full" => (true, true, false),
            "backward" => (true, false, false),
            "backward_transitive" => (true, false, true),
            "forward" => (false, true, false),
            "forward_transitive" => (false, true, true),
            "none" => (false, false, false),
            _ => (true, true, true),
        };
        let (backward, forward, is_transitive) = compatibility;
        let on_drift = match self.word(&section, "on_drift") {
            "stop" => OnDrift::Stop,
            "park" => OnDrift::Park,
            _ => OnDrift::Degrade,
        };
        if format == Format::Debezium {
            if !section.is_empty() && is_enabled {
                let what = "the format debezium has no schemas of ours: leave the section out, or take another format";
                self.complain(&section.at, &section.path, what);
            }
            return None;
        }
        let compatibility = Compatibility { backward, forward, is_transitive };
        is_enabled.then_some(Policy { compatibility, on_drift })
    }
}
