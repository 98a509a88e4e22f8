//! CloudEvents 1.0, binary mode: attributes are headers, the body is the change.
//!
//! `Content-Type` is not set: in the NATS binding it marks structured mode.

use super::envelope::{Attributes, Dress, Envelope, Shape};

pub(super) const ENVELOPE: Envelope = Envelope {
    headers: b"",
    attributes: Attributes::Headers(Dress {
        id: b"ce-specversion: 1.0\r\nce-id: ",
        source: b"\r\nce-source: ",
        event_type: b"\r\nce-type: ",
        dataschema: b"\r\nce-dataschema: ",
        subject: b"\r\nce-subject: ",
        time: b"\r\nce-time: ",
        partitionkey: b"\r\nce-partitionkey: ",
        sequence: b"\r\nce-sequence: ",
        traceparent: b"\r\nce-traceparent: ",
        end: b"\r\nce-datacontenttype: application/json\r\n",
        escape: write_header_value,
    }),
    shape: Shape::Change,
    close: b"",
};

/// What a header value holds as it is: printable ASCII but `"` and `%`
/// (CloudEvents, HTTP protocol binding 3.1.3.2, which the NATS binding follows).
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x21;
    while byte <= 0x7e {
        plain[byte] = byte != b'"' as usize && byte != b'%' as usize;
        byte += 1;
    }
    plain
};

/// Appends any text as a header's value, percent-encoded.
pub(super) fn write_header_value(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: &u8| PLAIN.get(usize::from(*byte)).copied().unwrap_or_default();
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| !is_plain(byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, tail)) = tail.split_first() else { break };
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
        out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 0xf)]);
        rest = tail;
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use percent_encoding::percent_decode;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_one_line_and_reads_back(text in any::<Vec<u8>>()) {
            let mut out = Vec::new();
            write_header_value(&text, &mut out);
            prop_assert!(out.iter().all(u8::is_ascii_graphic));
            prop_assert_eq!(percent_decode(&out).collect::<Vec<_>>(), text);
        }
    }

    #[test]
    fn values_are_encoded_as_the_binding_says() {
        let mut out = Vec::new();
        write_header_value("Euro € 😀 \"50%\"\r\n~!".as_bytes(), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "Euro%20%E2%82%AC%20%F0%9F%98%80%20%2250%25%22%0D%0A~!");
    }
}
