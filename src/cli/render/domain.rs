//! What a domain event says, whichever envelope it came in.

use async_nats::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::de::IgnoredAny;

use super::change::{member, members, string};

/// A domain event.
#[derive(Debug)]
pub(crate) struct Domain<'a> {
    /// `ce-type`; without one the type that the subject names.
    pub(crate) event_type: String,
    /// The configured name of the source.
    pub(crate) source: String,
    /// `ce-id`; empty where the envelope has none.
    pub(crate) id: String,
    /// `ce-subject`; empty where the envelope has none.
    pub(crate) key: String,
    /// The transaction's id.
    pub(crate) transaction: String,
    /// RFC 3339; empty where the envelope has none.
    pub(crate) committed_at: String,
    /// The body: JSON.
    pub(crate) data: &'a str,
}

impl<'a> Domain<'a> {
    /// Reads an event; `None` for one whose subject is not that of domain events.
    pub(crate) fn of(subject: &str, headers: Option<&HeaderMap>, payload: &'a [u8]) -> Option<Self> {
        let (source, rest) = subject.strip_prefix("events.")?.split_once('.')?;
        serde_json::from_slice::<IgnoredAny>(payload).ok()?;
        let body = std::str::from_utf8(payload).ok()?.trim();
        let header = |name: &str| {
            let value = headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
            value.map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
        };
        let whole = members(body).unwrap_or_default();
        // Structured mode, whose attributes a body of one's own may have, too.
        let is_structured = ["specversion", "id", "source", "type"].iter().all(|name| member(&whole, name).is_some())
            && header("ce-id").is_none();
        let attribute = |name: &str| match is_structured {
            true => member(&whole, name).and_then(string).map(|text| text.into_owned()),
            false => header(&format!("ce-{name}")),
        };
        Some(Self {
            event_type: attribute("type").unwrap_or_else(|| rest.split('.').next().unwrap_or_default().to_owned()),
            source: source.to_owned(),
            id: attribute("id").unwrap_or_default(),
            key: attribute("subject").unwrap_or_default(),
            transaction: header("Figvine-Tx").unwrap_or_default(),
            committed_at: attribute("time").unwrap_or_default(),
            data: if is_structured { member(&whole, "data").unwrap_or("null") } else { body },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_envelope_is_understood() {
        let body = br#"{"id":7,"total":1.50}"#;
        let mut headers = HeaderMap::new();
        headers.insert("Figvine-Tx", "758");
        let plain = Domain::of("events.shop.order_placed.05", Some(&headers), body).expect("plain");
        assert_eq!((&*plain.event_type, &*plain.source, &*plain.transaction), ("order_placed", "shop", "758"));
        for (name, value) in [
            ("ce-id", "0/1/3.1/r"),
            ("ce-type", "order_placed.v1"),
            ("ce-subject", "a%20b"),
            ("ce-time", "2026-11-23T09:00:00Z"),
        ] {
            headers.insert(name, value);
        }
        let binary = Domain::of("events.shop.order_placed.05", Some(&headers), body).expect("binary");
        assert_eq!((&*binary.event_type, &*binary.key, &*binary.id), ("order_placed.v1", "a b", "0/1/3.1/r"));
        assert_eq!((binary.data.as_bytes(), &*binary.committed_at), (&body[..], "2026-11-23T09:00:00Z"));
        let wrapped = br#"{"specversion":"1.0","id":"i","source":"/s","type":"t.v2","subject":"k","data":{"id":7}}"#;
        let structured = Domain::of("events.shop.t.05", None, wrapped).expect("structured");
        assert_eq!((&*structured.event_type, &*structured.key, structured.data), ("t.v2", "k", r#"{"id":7}"#));
    }

    #[test]
    fn what_is_no_domain_event_is_left() {
        assert!(Domain::of("cdc.shop.public.orders.05", None, b"{}").is_none());
        assert!(Domain::of("events.shop", None, b"{}").is_none());
        assert!(Domain::of("events.shop.t.05", None, b"{").is_none());
    }

    proptest! {
        #[test]
        fn any_payload_is_read_or_left(payload in any::<Vec<u8>>()) {
            let _ = Domain::of("events.shop.t.05", None, &payload);
        }
    }
}
