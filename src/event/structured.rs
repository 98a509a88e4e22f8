//! CloudEvents 1.0, structured mode: one JSON object of attributes and `data`.

use figvine_change::json;

use super::envelope::{Attributes, Dress, Envelope, Shape};

pub(super) const ENVELOPE: Envelope = Envelope {
    headers: b"Content-Type: application/cloudevents+json\r\n",
    attributes: Attributes::Body(Dress {
        id: br#"{"specversion":"1.0","id":""#,
        source: br#"","source":""#,
        event_type: br#"","type":""#,
        dataschema: br#"","dataschema":""#,
        subject: br#"","subject":""#,
        time: br#"","time":""#,
        partitionkey: br#"","partitionkey":""#,
        sequence: br#"","sequence":""#,
        traceparent: br#"","traceparent":""#,
        end: br#"","datacontenttype":"application/json","data":"#,
        escape: write_member_value,
    }),
    shape: Shape::Change,
    close: b"}",
};

/// Appends any text as the inside of a JSON string.
fn write_member_value(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(text) => json::write_escaped(text, out),
        Err(_) => json::write_escaped(&String::from_utf8_lossy(text), out),
    }
}
