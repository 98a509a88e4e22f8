//! Domain events: what rules made of changes, behind the change that completed them.
//!
//! ```text
//!   change 1 | change 2  order_placed  payment_received | change 3 | ...
//!            '-- one change, three events: only the last of them says "go on behind change 2"
//! ```
//! A message that is not the last of its change says to go on *before* the change, and which of its events are stored
//! already ([`Told`]); a session that begins there passes over these. The same holds from the first change on that a rule
//! has to see again to be able to go on ([`Derived::holds`]), up to the end of its transaction.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use figvine_change::{Transaction, Within, json};

use super::body::Fault;
use super::error::EncodeError;
use super::frame::{Event, Frame};
use super::identity::{Identity, Key, partition};
use super::letter::{About, Content, Letter};
use super::subject::{Subject, Template};
use super::texts::{EventType, SourceText};
use super::{Events, debezium::Extras};
use crate::checkpoint::Told;

/// What rules made of the changes of one batch.
#[derive(Debug, Clone, Default)]
pub struct Derived {
    /// Keys and bodies.
    pub bytes: Vec<u8>,
    /// In the order in which they are told: by [`DomainEvent::behind`].
    pub events: Vec<DomainEvent>,
    /// Changes, by their place in the batch, that are not told themselves; ascending.
    pub untold: Vec<usize>,
    /// Changes, by their place in the batch, from which on their transaction must be read again, up to its end; ascending.
    pub holds: Vec<usize>,
    /// The first change that this is of; what was before it is told, and of itself what lay in portions before.
    pub from: usize,
    /// The change that this ends with, where there is more of it. Its last event is there so that it is known that there is
    /// one, and told with the next portion.
    pub goes_on: Option<usize>,
    /// Names of rules in the order in which their events stand behind one change.
    pub order: Arc<[Arc<str>]>,
}

/// One event.
#[derive(Debug, Clone)]
pub struct DomainEvent {
    /// The change behind which it is told: its place in the batch.
    pub behind: usize,
    /// The rule's name, `[A-Za-z0-9_-]+`.
    pub rule: Arc<str>,
    /// How many events of the same rule are told behind the same change before it.
    pub number: u32,
    /// Its type, `order_placed`, as subjects name it.
    pub name: Arc<str>,
    /// The same with the major version, `order_placed.v1`.
    pub event_type: Arc<str>,
    /// The change that it is about: with the rule its identity.
    pub about: Within,
    /// Its key as one string: in [`Derived::bytes`].
    pub key: Range<usize>,
    /// Its body, JSON: in [`Derived::bytes`].
    pub body: Range<usize>,
}

/// Where an event would have stood that cannot be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MissingEvent<'a> {
    /// As those of [`DomainEvent`].
    pub(crate) behind: usize,
    pub(crate) rule: &'a Arc<str>,
    pub(crate) number: u32,
    /// Its type, without the version.
    pub(crate) event_type: &'a str,
    pub(crate) about: Within,
    /// As one string.
    pub(crate) key: &'a [u8],
    pub(crate) letter: &'a Letter,
    /// Whether that is kept.
    pub(crate) is_kept: bool,
}

impl Derived {
    /// Forgets all, and keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.events.clear();
        self.untold.clear();
        self.holds.clear();
        self.from = 0;
        self.goes_on = None;
    }

    /// Makes room for the next portion of the same batch; whether there is one.
    pub fn go_on(&mut self) -> bool {
        let Some(place) = self.goes_on.take() else { return false };
        let last = self.events.pop().filter(|event| event.behind == place);
        let kept = last.map(|event| (self.text(&event.key).to_vec(), self.text(&event.body).to_vec(), event));
        self.bytes.clear();
        self.events.clear();
        if let Some((key, body, event)) = kept {
            self.bytes = [key.as_slice(), body.as_slice()].concat();
            self.events.push(DomainEvent { key: 0..key.len(), body: key.len()..self.bytes.len(), ..event });
        }
        self.untold.retain(|at| *at >= place);
        self.holds.retain(|at| *at >= place);
        self.from = place;
        true
    }

    /// Adds what stands in the place of an event that cannot be made: `<type>_missing.v1`.
    pub(crate) fn push_missing(&mut self, missing: &MissingEvent<'_>) {
        let MissingEvent { behind, rule, number, event_type, about, key, letter, is_kept } = *missing;
        let key_at = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let body_at = self.bytes.len();
        for (name, value) in
            [(&b"{\"rule\":"[..], &**rule), (b",\"reason\":", letter.reason), (b",\"code\":", letter.code)]
        {
            self.bytes.extend_from_slice(name);
            json::write_str(value, &mut self.bytes);
        }
        self.bytes.extend_from_slice(b",\"dead_letter\":");
        if is_kept {
            json::write_str(&letter.id, &mut self.bytes);
        } else {
            self.bytes.extend_from_slice(b"null");
        }
        self.bytes.push(b'}');
        let name: Arc<str> = format!("{event_type}_missing").into();
        self.events.push(DomainEvent {
            behind,
            rule: Arc::clone(rule),
            number,
            event_type: format!("{name}.v1").into(),
            name,
            about,
            key: key_at..body_at,
            body: body_at..self.bytes.len(),
        });
    }

    /// What stands in the place of one of its events that is too large to be told, with what that was.
    pub(super) fn parked(&self, event: &DomainEvent, transaction: &Transaction, error: &EncodeError) -> (Self, Letter) {
        let Within { ordinal, part } = event.about;
        let identity = Identity { position: transaction.position.clone(), ordinal, part };
        let about = About {
            id: format!("{identity}/{}", event.rule),
            event_type: event.event_type.to_string(),
            rule: Some(&event.rule),
            transaction: Some(transaction),
        };
        let content = Content::Data(self.text(&event.body));
        let letter = Letter::new(about, (error.reason(), error.code()), error, &content);
        let mut instead = Self::default();
        instead.push_missing(&MissingEvent {
            behind: event.behind,
            rule: &event.rule,
            number: event.number,
            event_type: &event.name,
            about: event.about,
            key: self.text(&event.key),
            letter: &letter,
            is_kept: true,
        });
        (instead, letter)
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }
}

/// What is the same for all events of a type.
struct TypeText {
    event_type: EventType,
    subject: Subject,
    count: u64,
}

/// Writes domain events.
pub(super) struct Domain {
    template: Template,
    types: HashMap<Arc<str>, TypeText>,
    key: Key,
    /// The text that names the rule in an event's identity.
    rule: Vec<u8>,
}

/// Where a domain event stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct DomainPlace<'a> {
    /// The change that it is about.
    pub(super) about: Within,
    /// `/order_placed`
    pub(super) rule: &'a [u8],
    /// Its place among the events behind the change, from 1.
    pub(super) rank: u64,
}

impl Domain {
    pub(super) fn new(template: Template) -> Self {
        Self { template, types: HashMap::new(), key: Key::default(), rule: Vec::new() }
    }

    /// Appends one event; `frame` is that of the change behind which it stands.
    pub(super) fn append<'a>(
        &'a mut self,
        source: &SourceText,
        frame: Frame<'a>,
        (derived, event, rank): (&Derived, &DomainEvent, u64),
        out: &mut Events,
    ) -> Result<(), Fault> {
        let Self { template, types, key, rule } = self;
        let text = match types.get_mut(&event.event_type) {
            Some(text) => text,
            None => types.entry(Arc::clone(&event.event_type)).or_insert_with(|| TypeText {
                event_type: source.event_type(&event.event_type),
                subject: template.of_type(&source.name, &event.name),
                count: 0,
            }),
        };
        key.set(derived.text(&event.key));
        rule.clear();
        rule.push(b'/');
        rule.extend_from_slice(event.rule.as_bytes());
        let frame = Frame { domain: Some(DomainPlace { about: event.about, rule, rank }), ..frame };
        let partition = partition(key.text(), source.partitions);
        let told = Event {
            kind: None,
            key: b"",
            extras: &Extras::default(),
            event_type: &text.event_type,
            subject: key.attribute(),
            partitionkey: key.attribute(),
            origin: b"",
            snapshot: false,
        };
        let body = |out: &mut Vec<u8>| {
            out.extend_from_slice(derived.text(&event.body));
            Ok(0)
        };
        frame.append(out, &told, |out| text.subject.write("", Some((key.text(), partition)), out), body)?;
        text.count += 1;
        Ok(())
    }

    /// How many of each type there were since the last call.
    pub(super) fn take_counts(&mut self) -> impl Iterator<Item = (Arc<str>, u64)> {
        self.types
            .iter_mut()
            .filter(|(_, text)| text.count > 0)
            .map(|(name, text)| (Arc::clone(name), std::mem::take(&mut text.count)))
    }
}

/// Which events of a change are stored already.
pub(super) enum Passed {
    /// None.
    Nothing,
    /// The change's own and so many behind it.
    Events(usize),
    /// All, and so are those of changes before.
    All,
}

/// How far the events of a change, those that `derived` has behind it in `events`, were told before.
pub(super) fn passed(
    told: Option<&Told>,
    transaction: &str,
    at: Within,
    (events, order): (&[DomainEvent], &[Arc<str>]),
) -> Passed {
    let Some(told) = told.filter(|told| *told.transaction == *transaction) else { return Passed::Nothing };
    match at.cmp(&told.at) {
        std::cmp::Ordering::Less => Passed::All,
        std::cmp::Ordering::Greater => Passed::Nothing,
        std::cmp::Ordering::Equal => match &told.rule {
            None => Passed::Events(0),
            Some((rule, number)) => {
                if let Some(last) = events.iter().position(|event| *event.rule == **rule && event.number == *number) {
                    return Passed::Events(last + 1);
                }
                // It may stand in another portion. Of a rule that is no more what others made comes twice rather than not at all.
                let place = |name: &str| order.iter().position(|known| **known == *name);
                let is_before = |last: usize, event: &&DomainEvent| {
                    place(&event.rule).is_some_and(|place| (place, event.number) <= (last, *number))
                };
                let last = place(rule);
                Passed::Events(last.map_or(0, |last| events.iter().take_while(|event| is_before(last, event)).count()))
            }
        },
    }
}
