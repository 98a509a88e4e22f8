//! MariaDB's UUID, INET4 and INET6: fixed-length bytes in the log, text everywhere else.

use std::io::Write as _;

use super::Outcome;
use super::text::padded;

/// UUID: sixteen bytes in the order they are written.
pub(super) fn write_uuid(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    padded::<16>(raw, 16, |bytes| {
        out.push(b'"');
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                out.push(b'-');
            }
            for nibble in [byte >> 4, byte & 0xf] {
                out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
            }
        }
        out.push(b'"');
        Ok(())
    })
}

/// INET4.
pub(super) fn write_inet4(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    padded::<4>(raw, 4, |bytes| {
        out.push(b'"');
        push_dotted(bytes, out);
        out.push(b'"');
        Ok(())
    })
}

fn push_dotted(bytes: &[u8], out: &mut Vec<u8>) {
    for (index, &byte) in bytes.iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        figvine_change::json::write_uint(u64::from(byte), out);
    }
}

/// INET6, as MariaDB prints it: the first longest run of zero groups is `::`, even
/// one group alone; an IPv4 address behind `::ffff:` or behind nothing but zeros is dotted.
pub(super) fn write_inet6(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    padded::<16>(raw, 16, |bytes| {
        let (pairs, _) = bytes.as_chunks::<2>();
        let mut groups = [0_u16; 8];
        for (group, &pair) in groups.iter_mut().zip(pairs) {
            *group = u16::from_be_bytes(pair);
        }
        let (mut gap, mut gap_len, mut run) = (8, 0, 0);
        for (index, &group) in groups.iter().enumerate() {
            run = if group == 0 { run + 1 } else { 0 };
            if run > gap_len {
                (gap, gap_len) = (index + 1 - run, run);
            }
        }
        let dotted = gap == 0 && (gap_len == 6 || gap_len == 5 && groups.get(5) == Some(&0xffff));
        out.push(b'"');
        let mut index = 0;
        while let Some(&group) = groups.get(index) {
            if index == gap {
                out.extend_from_slice(if index == 0 { b"::" } else { b":" });
                index += gap_len;
                continue;
            }
            if dotted && index == 6 {
                push_dotted(bytes.get(12..).unwrap_or_default(), out);
                break;
            }
            // Writing to memory does not fail.
            let _ = write!(out, "{group:x}");
            index += 1;
            if index < 8 {
                out.push(b':');
            }
        }
        out.push(b'"');
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn uuids_are_padded_to_their_length() {
        let raw = b"\x55\x0e\x84\x00\xe2\x9b\x41\xd4\xa7\x16\x44\x66\x55\x44";
        assert_eq!(written(write_uuid, raw), "\"550e8400-e29b-41d4-a716-446655440000\"");
        assert_eq!(written(write_uuid, b""), "\"00000000-0000-0000-0000-000000000000\"");
        refused(write_uuid, &[0; 17]);
    }

    #[test]
    fn addresses_are_as_mariadb_prints_them() {
        assert_eq!(written(write_inet4, &[127, 0, 0, 1]), "\"127.0.0.1\"");
        assert_eq!(written(write_inet4, &[10]), "\"10.0.0.0\"");
        for text in [
            "::",
            "::1",
            "::2",
            "1::",
            "2001:db8::ff00:42:8329",
            "2001:db8:1:1:1:1::1",
            "fe80::1:0:0:1",
            "1:2:3:4:5:6:7:8",
            "::ffff:192.0.2.128",
            "::192.0.2.128",
            "::ffff:0:0:0",
        ] {
            let address: std::net::Ipv6Addr = text.parse().expect("an address");
            assert_eq!(written(write_inet6, &address.octets()), format!("\"{text}\""), "{text}");
        }
        for (text, expected) in [
            ("1:0:2:3:4:5:6:7", "1::2:3:4:5:6:7"),
            ("1:2:3:4:5:6:7:0", "1:2:3:4:5:6:7::"),
            ("0:2:3:4:5:6:7:8", "::2:3:4:5:6:7:8"),
            ("0:0:1:0:0:1:0:0", "::1:0:0:1:0:0"),
            ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
            ("::ffff:0:0", "::ffff:0.0.0.0"),
            ("::1:0", "::0.1.0.0"),
            ("::1:0:0", "::1:0:0"),
        ] {
            let address: std::net::Ipv6Addr = text.parse().expect("an address");
            assert_eq!(written(write_inet6, &address.octets()), format!("\"{expected}\""), "{text}");
        }
    }
}
