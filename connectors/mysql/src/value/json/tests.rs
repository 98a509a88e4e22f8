use super::super::properties::{refused, written};
use super::*;

/// A small array whose entries are given.
fn array(entries: &[[u8; 3]], values: &[u8]) -> Vec<u8> {
    let size = (4 + entries.len() * 3 + values.len()) as u16;
    let mut raw = vec![2];
    raw.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    raw.extend_from_slice(&size.to_le_bytes());
    raw.extend(entries.iter().flatten());
    raw.extend_from_slice(values);
    raw
}

#[test]
fn scalars_and_inlined_values_are_read() {
    for (raw, json) in [
        (b"".as_slice(), "null"),
        (b"\x04\x00", "null"),
        (b"\x04\x01", "true"),
        (b"\x04\x02", "false"),
        (b"\x05\x00\x80", "-32768"),
        (b"\x06\xff\xff", "65535"),
        (b"\x07\x00\x00\x00\x80", "-2147483648"),
        (b"\x08\xff\xff\xff\xff", "4294967295"),
        (b"\x09\x00\x00\x00\x00\x00\x00\x00\x80", "-9223372036854775808"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
        (b"\x0b\x00\x00\x00\x00\x00\x00\xf0\x3f", "1.0"),
        (b"\x0b\x00\x00\x00\x00\x00\x00\x00\x80", "-0.0"),
        (b"\x0c\x03a\"\n", "\"a\\\"\\n\""),
        (b"\x0f\xf6\x05\x05\x03\x8c\x01\x59", "12.345"),
        (b"\x0f\xfd\x02\xff\x00", "\"base64:type253:/wA=\""),
    ] {
        assert_eq!(written(write_json, raw), json);
    }
    assert_eq!(written(write_json, &array(&[[5, 0xff, 0xff], [4, 0, 0], [6, 1, 0]], b"")), "[-1,null,1]");
    assert_eq!(written(write_json, &array(&[[0x0c, 7, 0]], b"\x02hi")), "[\"hi\"]");
}

#[test]
fn a_large_container_has_wide_offsets() {
    // One member, "k", whose value is a 32-bit number in its entry; one whose text is far away.
    let text = "x".repeat(70_000);
    let mut raw = vec![1];
    raw.extend_from_slice(&2_u32.to_le_bytes());
    let header = 8 + 2 * 6 + 2 * 5;
    raw.extend_from_slice(&(header + 2 + 3 + 70_000_u32).to_le_bytes());
    for key in [header, header + 1] {
        raw.extend_from_slice(&key.to_le_bytes());
        raw.extend_from_slice(&1_u16.to_le_bytes());
    }
    raw.push(0x08);
    raw.extend_from_slice(&u32::MAX.to_le_bytes());
    raw.push(0x0c);
    raw.extend_from_slice(&(header + 2).to_le_bytes());
    raw.extend_from_slice(b"kl");
    raw.extend_from_slice(&[0xf0, 0xa2, 0x04]);
    raw.extend_from_slice(text.as_bytes());
    assert_eq!(written(write_json, &raw), format!("{{\"k\":4294967295,\"l\":\"{text}\"}}"));
}

#[test]
fn text_behind_the_mark_is_checked_and_shown() {
    assert_eq!(written(write_json, b"\xff{\"a\": [1, 2.50]}"), "{\"a\":[1,2.50]}");
    refused(write_json, b"\xff{");
    refused(write_json, b"\xff");
}

#[test]
fn entries_that_share_a_value_do_not_unfold() {
    // Each of 20 levels points twice to the next: a million values from a few hundred bytes.
    let mut inner = array(&[[4, 1, 0]], b"");
    for _ in 0..20 {
        let kind = inner.remove(0);
        inner = array(&[[kind, 10, 0], [kind, 10, 0]], &inner);
    }
    assert_eq!(refused(write_json, &inner), OVERLAP);

    let shared = array(&[[0x0c, 13, 0], [0x0c, 13, 0], [0x0c, 13, 0]], b"\x14aaaaaaaaaaaaaaaaaaaa");
    assert_eq!(refused(write_json, &shared), OVERLAP);
}

#[test]
fn offsets_backwards_and_out_of_the_container_are_refused() {
    assert_eq!(refused(write_json, &array(&[[2, 0, 0]], b"")), OFFSET);
    assert_eq!(refused(write_json, &array(&[[0x0c, 6, 0]], b"\x01a")), OFFSET);
    assert_eq!(refused(write_json, &array(&[[0x0c, 200, 0]], b"\x01a")), OFFSET);
    assert_eq!(refused(write_json, &array(&[[0x0c, 7, 0]], b"\x05a")), TRUNCATED);
    assert_eq!(refused(write_json, b"\x02\xff\xff\x04\x00"), OFFSET);
    assert_eq!(refused(write_json, b"\x03\xff\xff\xff\xff\x08\x00\x00\x00"), OFFSET);
    assert_eq!(refused(write_json, b"\x0d"), KIND);
    assert_eq!(refused(write_json, b"\x04\x03"), LITERAL);
    assert_eq!(refused(write_json, b"\x0c\x01\xff"), UTF8);
    assert_eq!(refused(write_json, b"\x0c\xff\xff\xff\xff\xff\x01"), TRUNCATED);
    assert_eq!(refused(write_json, b"\x0f\xf6\x01\x05"), TRUNCATED);
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let mut raw = array(&[], b"");
        for _ in 1..depth {
            let kind = raw.remove(0);
            raw = array(&[[kind, 7, 0]], &raw);
        }
        raw
    };
    assert_eq!(written(write_json, &nested(100)), format!("{}{}", "[".repeat(100), "]".repeat(100)));
    assert_eq!(refused(write_json, &nested(101)), DEPTH);
    assert_eq!(refused(write_json, &nested(5000)), DEPTH);
}
