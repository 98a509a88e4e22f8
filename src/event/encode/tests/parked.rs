//! What cannot be told, where it is parked.

use serde_json::{Value, json};

use super::*;
use crate::event::{Parks, Touch};

const ALL: Parks = Parks { poison: true, drift: true };

/// A table that has a number beside its key.
fn lines() -> Arc<Table> {
    table("public", "lines", &[("id", "int8"), ("note", "text"), ("total", "int8")], &[0])
}

/// A good row, what is given, and another good row; what was encoded, and the letters.
fn parked(format: Format, max_payload: usize, bad: impl FnOnce(&mut Maker)) -> (Vec<Value>, Vec<Value>, Events) {
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Insert, None, Some(&[Some("1"), None, None]));
    bad(&mut maker);
    maker.row_change(9, &orders(), Op::Insert, None, Some(&[Some("9"), None, None])).last();
    let mut events = Events::default();
    let mut encoder = encoder_with(&settings(format), max_payload).parking(ALL);
    encoder.encode(&maker.done(), &Derived::default(), &mut events).expect("parks");
    let body = |at: &EventAt| &events.bytes[at.body as usize..at.end as usize];
    let told = events.list.iter().map(|at| serde_json::from_slice(body(at)).expect("JSON")).collect();
    let letters = encoder.take_letters().into_iter().map(|letter| {
        let body: Value = serde_json::from_slice(&letter.body).expect("JSON");
        assert_eq!(
            (body["id"].as_str(), body["reason"].as_str(), body["code"].as_str(), body["type"].as_str()),
            (Some(&*letter.id), Some(letter.reason), Some(letter.code), Some(&*letter.event_type))
        );
        body
    });
    (told, letters.collect(), events)
}

fn headers(events: &Events, place: usize) -> String {
    let at = &events.list[place];
    String::from_utf8(events.bytes[at.subject as usize..at.body as usize].to_vec()).expect("UTF-8")
}

#[test]
fn a_value_that_cannot_be_read_is_parked_with_the_rest_of_its_row_and_another_event_stands_in_its_place() {
    let (told, letters, events) = parked(Format::CloudEvents, 1 << 20, |maker| {
        let bad = [Some("2"), Some("a note"), Some("not a number")];
        maker.row_change(1, &lines(), Op::Insert, None, Some(&bad));
    });
    assert_eq!(told.len(), 3);
    let missing = json!({"op": "insert", "reason": "value", "code": "FV-3101", "dead_letter": "0/16B3748/1.1"});
    assert_eq!((&told[1]["op"], &told[1]["missing"]), (&json!("missing"), &missing));
    assert_eq!(told[1]["key"], json!({"id": 2}));
    assert_eq!(told[1]["source"]["table"], "lines");
    let headers = headers(&events, 1);
    for words in [
        "ce-id: 0/16B3748/1.1\r\n",
        "ce-type: shop.public.lines.missing\r\n",
        "ce-subject: 2\r\n",
        "Figvine-Checkpoint: 1 w7Tk2pQ9 7412/1/0/16B3708;1.1\r\n",
    ] {
        assert!(headers.contains(words), "{words}: {headers}");
    }
    // The same subject as its neighbours of that key would have.
    assert!(headers.starts_with("cdc.shop.public.lines."), "{headers}");
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter["table"], "public.lines");
    assert_eq!(letter["type"], "shop.public.lines.inserted");
    assert_eq!(letter["transaction"]["position"], "0/16B3748");
    assert_eq!(letter["after"]["note"], "a note");
    let bytes = "bm90IGEgbnVtYmVy";
    assert_eq!(letter["after"]["total"], json!({"unreadable": "base64", "bytes": bytes}));
    assert!(letter["error"].as_str().is_some_and(|error| error.contains("column total")), "{letter}");
}

#[test]
fn what_is_too_large_is_parked_whole() {
    let large = "x".repeat(3000);
    let (told, letters, _) = parked(Format::CloudEvents, 2000, |maker| {
        maker.row_change(1, &lines(), Op::Update, None, Some(&[Some("2"), Some(&large), None]));
    });
    assert_eq!((told.len(), &told[1]["missing"]["reason"]), (3, &json!("too_large")));
    assert_eq!(letters[0]["after"]["note"], large);
}

#[test]
fn a_key_that_is_not_known_is_none_and_touches_any_row() {
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Update, None, Some(&[Some("?"), None, None])).last();
    let mut encoder = encoder(Format::CloudEvents).parking(ALL);
    encoder.watch([Arc::from("public.orders")].into());
    let events = encode(&mut encoder, &maker.done());
    assert!(headers(&events, 0).starts_with("cdc.shop.public.orders.all"), "{}", headers(&events, 0));
    let touched = encoder.take_touched();
    assert!(matches!(touched.as_slice(), [Touched { touch: Touch::Emptied, .. }]), "{touched:?}");
}

#[test]
fn an_event_of_a_rule_that_is_too_large_is_parked_by_itself() {
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Insert, None, Some(&[Some("1"), None, None])).last();
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(3000));
    let mut derived = Derived { bytes: b"42".to_vec(), ..Derived::default() };
    derived.bytes.extend_from_slice(large.as_bytes());
    derived.events.push(DomainEvent {
        behind: 0,
        rule: "order_placed".into(),
        number: 0,
        name: "order_placed".into(),
        event_type: "order_placed.v2".into(),
        about: Within { ordinal: 0, part: 1 },
        key: 0..2,
        body: 2..2 + large.len(),
    });
    let mut encoder = encoder_with(&settings(Format::CloudEvents), 2000).parking(ALL);
    let mut events = Events::default();
    encoder.encode(&maker.done(), &derived, &mut events).expect("parks");
    assert_eq!(events.list.len(), 2);
    let headers = headers(&events, 1);
    for words in ["ce-type: order_placed_missing.v1\r\n", "ce-id: 0/16B3748/0.1/order_placed\r\n", "ce-subject: 42\r\n"]
    {
        assert!(headers.contains(words), "{words}: {headers}");
    }
    let [letter] = encoder.take_letters().try_into().expect("a letter");
    let body: Value = serde_json::from_slice(&letter.body).expect("JSON");
    assert_eq!((&*letter.id, &*letter.event_type), ("0/16B3748/0.1/order_placed", "order_placed.v2"));
    assert_eq!(body["data"]["x"].as_str().map(str::len), Some(3000));
}

#[test]
fn debeziums_envelope_tells_it_as_a_message() {
    let (told, _, events) = parked(Format::Debezium, 1 << 20, |maker| {
        maker.row_change(1, &lines(), Op::Insert, None, Some(&[Some("2"), None, Some("x")]));
    });
    assert_eq!((&told[1]["op"], &told[1]["message"]["prefix"]), (&json!("m"), &json!("figvine.missing")));
    assert!(headers(&events, 1).contains("Figvine-Key: {\"id\":2}\r\n"), "{}", headers(&events, 1));
}

#[test]
fn nothing_is_parked_unasked() {
    let (error, _) = fails(1 << 20, |maker| {
        maker.row_change(1, &lines(), Op::Insert, None, Some(&[Some("2"), None, Some("x")]));
    });
    assert!(matches!(error, EncodeError::Value { .. }), "{error}");
}

/// Of a hidden column, whose values nothing may tell.
#[derive(Debug)]
struct Sealed;

impl ValueCodec for Sealed {
    fn write_json(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), ValueError> {
        Err(ValueError { type_name: "a private column".into(), reason: "it was not hidden" })
    }

    fn is_hidden(&self) -> bool {
        true
    }
}

#[test]
fn bytes_of_a_hidden_column_are_in_no_letter() {
    let column = |name: &str, codec: Arc<dyn ValueCodec>| Column { name: name.into(), type_name: "text".into(), codec };
    let columns = vec![column("id", Arc::new(Text)), column("email", Arc::new(Sealed))];
    let people = Arc::new(Table { schema: "public".into(), name: "people".into(), columns, key: vec![0] });
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &people, Op::Insert, None, Some(&[Some("1"), Some("CANARY")])).last();
    let mut encoder = encoder(Format::CloudEvents).parking(ALL);
    encode(&mut encoder, &maker.done());
    let [letter] = encoder.take_letters().try_into().expect("a letter");
    let body: Value = serde_json::from_slice(&letter.body).expect("JSON");
    assert_eq!(body["after"], json!({"id": "1", "email": {"unreadable": "hidden"}}));
}

#[test]
fn of_a_row_before_that_is_a_key_nothing_else_is_told() {
    let (_, letters, _) = parked(Format::CloudEvents, 1500, |maker| {
        let large = "y".repeat(2000);
        let (before, after) = ([Some("2"), None, None], [Some("2"), Some(large.as_str()), Some("7")]);
        maker.row_change(1, &lines(), Op::Update, Some(&before), Some(&after)).with(|_, row| row.before_is_key = true);
    });
    assert_eq!(letters[0]["before"], json!({"id": 2}));
    assert_eq!(letters[0]["after"]["total"], 7);
}

#[test]
fn what_is_not_told_is_not_missing() {
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Update, None, Some(&[Some("?"), None, None])).last();
    let derived = Derived { untold: vec![0], ..Derived::default() };
    let mut encoder = encoder(Format::CloudEvents).parking(ALL);
    let mut events = Events::default();
    encoder.encode(&maker.done(), &derived, &mut events).expect("parks");
    assert_eq!((events.list.len(), encoder.take_letters()), (0, Vec::new()));
}
