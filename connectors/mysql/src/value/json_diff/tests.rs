use super::super::json::write_json;
use super::*;

/// See the head of the file.
const CAPTURED: &str = include_str!("../../../tests/captures/partial_json.tsv");

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hex digit") as u8;
    text.as_bytes().as_chunks::<2>().0.iter().map(|&[high, low]| digit(high) << 4 | digit(low)).collect()
}

/// The document after, or why there is none.
fn applied(old: &[u8], diffs: &[u8]) -> String {
    let (mut document, mut json) = (Vec::new(), Vec::new());
    if let Err(reason) = apply_all(old, diffs, &mut document) {
        return reason.to_owned();
    }
    write_json(&document, &mut json).expect("a document");
    String::from_utf8(json).expect("UTF-8")
}

#[test]
fn captured_updates_give_what_the_server_has() {
    let mut seen = 0;
    for line in CAPTURED.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(applied(&unhex(fields[1]), &unhex(fields[2])), fields[3], "{}", fields[0]);
        seen += 1;
    }
    assert!(seen > 15);
}

/// `{"a":1}` and `[1,2]`.
const OBJECT: &[u8] = b"\x00\x01\x00\x0c\x00\x0b\x00\x01\x00\x05\x01\x00a";
const ARRAY: &[u8] = b"\x02\x02\x00\x0a\x00\x05\x01\x00\x05\x02\x00";

#[test]
fn no_differences_leave_the_value_as_it_was() {
    assert_eq!(applied(OBJECT, b""), r#"{"a":1}"#);
    assert_eq!(applied(ARRAY, b""), "[1,2]");
    assert_eq!(applied(b"", b"\x00\x01$\x02\x04\x01"), "true");
}

#[test]
fn members_stand_in_the_servers_order() {
    assert_eq!(applied(OBJECT, b"\x01\x04$.bb\x02\x04\x00\x01\x03$.b\x02\x04\x01\x01\x04$.\"\"\x02\x04\x02"), {
        r#"{"":false,"a":1,"b":true,"bb":null}"#
    });
    assert_eq!(applied(ARRAY, b"\x01\x04$[0]\x02\x04\x00"), "[null,1,2]");
    assert_eq!(applied(ARRAY, b"\x02\x09$[last-1]"), "[2]");
}

#[test]
fn differences_that_do_not_fit_are_refused() {
    for (old, diffs, reason) in [
        (OBJECT, b"\x00\x03$.b\x02\x04\x00".as_slice(), MISSING),
        (OBJECT, b"\x01\x03$.a\x02\x04\x00", "has a difference that inserts a member again"),
        (OBJECT, b"\x02\x03$.b", MISSING),
        (OBJECT, b"\x02\x01$", PATH),
        (OBJECT, b"\x01\x04$[0]\x02\x04\x00", MISSING),
        (ARRAY, b"\x00\x04$[2]\x02\x04\x00", MISSING),
        (ARRAY, b"\x02\x08$[last-2]", PATH),
        (ARRAY, b"\x02\x09$[last-2]", MISSING),
        (ARRAY, b"\x02\x03$.a", MISSING),
        (ARRAY, b"\x03\x01$", "has a difference of an unknown kind"),
        (ARRAY, b"\x00\x04$[0]", TRUNCATED),
        (ARRAY, b"\x00\xff", TRUNCATED),
        (ARRAY, b"\x00", TRUNCATED),
        (ARRAY, b"\x02\x02$.", PATH),
        (ARRAY, b"\x02\x03$**", PATH),
        (ARRAY, b"\x02\x04$.\"a", PATH),
    ] {
        assert_eq!(applied(old, diffs), reason, "{diffs:02x?}");
    }
}
