//! What becomes of what cannot be told: the keys `on_poison` and `dead_letters` of a source.

use super::raw::{Reader, Section};
use crate::stream::{LetterSettings, Settings};

impl Reader<'_> {
    /// Whether it is parked, and where.
    pub(super) fn letters(&mut self, source: &Section<'_>, stream: &Settings) -> Option<(bool, LetterSettings)> {
        let parks = self.word(source, "on_poison") == "park";
        let section = self.below(source, "dead_letters")?;
        let name = self.text(&section, "stream").unwrap_or_else(|| format!("{}_DEAD", stream.name));
        if name == stream.name {
            self.complain(
                &section.at("stream"),
                &section.path("stream"),
                "the source's own stream takes no dead letters",
            );
        }
        self.is_stream_name(&section, "stream", &name);
        let settings = LetterSettings {
            stream: name,
            source: stream.source.clone(),
            replicas: stream.replicas,
            max_age: self.duration(&section, "max_age"),
            max_messages: self.whole(&section, "max_messages"),
        };
        Some((parks, settings))
    }
}
