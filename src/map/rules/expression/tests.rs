use proptest::prelude::*;

use super::*;

const TX: Tx<'static> =
    Tx { id: "757", position: "0/1", committed_at: "2026-11-23T09:00:00.000000Z", origin: None, traceparent: None };

/// What an expression gives over `after` and `before`, columns as JSON.
fn run(text: &str, after: &[(&str, &str)], before: &[(&str, &str)]) -> Result<String, String> {
    let mut names = Names { parts: vec!["lines".into()], ..Names::default() };
    let expression = Expression::compile(text, &mut names).map_err(|error| error.to_string())?;
    let slots: Vec<Slot<'_>> = names
        .columns
        .iter()
        .map(|(side, name)| {
            let row = if *side == Side::After { after } else { before };
            let found = row.iter().find(|(known, _)| **known == **name);
            let reading = if name.starts_with("dec") { Reading::Decimal } else { Reading::Plain };
            match found {
                Some((_, json)) => Slot::Json(json, reading),
                None if row.is_empty() => Slot::NoRow(side.name()),
                None => Slot::NotCarried(name),
            }
        })
        .collect();
    let whole = |row: &[(&str, &str)]| (!row.is_empty()).then_some(&[][..]);
    let line = |sku: &'static str, price: &'static str| {
        Value::Map(std::rc::Rc::new(vec![
            ("sku".into(), Value::Text(sku.into())),
            ("price".into(), Value::of_column(price, Reading::Decimal).expect("a decimal")),
        ]))
    };
    let parts = [Value::List(std::rc::Rc::new(vec![line("a", "\"1.10\""), line("b", "\"2.20\"")]))];
    let scope = Scope { slots: &slots, rows: [whole(after), whole(before)], parts: &parts, tx: TX };
    let value = expression.run(&scope).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    value.write(&mut out);
    Ok(String::from_utf8(out).expect("UTF-8"))
}

const ROW: &[(&str, &str)] = &[
    ("id", "42"),
    ("status", "\"paid\""),
    ("dec", "\"19.90\""),
    ("qty", "3"),
    ("ratio", "0.5"),
    ("note", "null"),
    ("doc", r#"{"a":{"b":[1,2.50,"x"]},"t":true}"#),
    ("big", "18446744073709551615"),
    ("quoted", r#""say \"hi\"""#),
];

#[test]
fn operators_and_functions_are_cels() {
    for (text, expected) in [
        ("after.status == 'paid' && after.qty > 2", "true"),
        ("after.status in ['new', 'paid']", "true"),
        ("after.note == null", "true"),
        ("after.qty * 2 + 1", "7"),
        ("-after.qty", "-3"),
        ("7 / 2", "3"),
        ("7 % 2", "1"),
        ("after.big == 18446744073709551615u", "true"),
        ("after.ratio < 1", "true"),
        ("after.qty == 3.0", "true"),
        ("after.status.startsWith('pa') || false", "true"),
        ("after.status.size()", "4"),
        ("size(after.doc.a.b)", "3"),
        ("after.doc.a.b[2]", "\"x\""),
        ("after.doc['t'] ? 'yes' : 'no'", "\"yes\""),
        ("has(after.doc.a) && !has(after.doc.z)", "true"),
        ("{'n': after.qty, 'l': [1, after.status]}", r#"{"n":3,"l":[1,"paid"]}"#),
        ("after.status.matches('^p.*d$')", "true"),
        ("after.status.upperAscii()", "\"PAID\""),
        ("string(after.qty) + '!'", "\"3!\""),
        ("int('12') + int(after.dec)", "31"),
        ("[1, 2, 3].filter(x, x > 1).map(x, x * after.qty)", "[6,9]"),
        ("[1, 2].exists(x, x == 2) && [1, 2].all(x, x > 0) && [1, 2].exists_one(x, x == 1)", "true"),
        ("tx.id + tx.position", "\"7570/1\""),
        ("tx.origin == null", "true"),
        ("after['status']", "\"paid\""),
        ("after.quoted", r#""say \"hi\"""#),
        ("before == null", "true"),
        ("'a' < 'b'", "true"),
    ] {
        assert_eq!(run(text, ROW, &[]).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn decimals_stay_exact() {
    for (text, expected) in [
        ("after.dec", "\"19.90\""),
        ("after.dec * after.qty", "\"59.70\""),
        ("after.dec + 0.10", "\"20.00\""),
        ("after.dec == 19.9", "true"),
        ("after.dec > 19", "true"),
        ("after.dec >= decimal('19.90')", "true"),
        ("sum(lines.map(l, l.price))", "\"3.30\""),
        ("sum(lines.map(l, l.price * 3)) == decimal('9.90')", "true"),
        ("lines", r#"[{"sku":"a","price":"1.10"},{"sku":"b","price":"2.20"}]"#),
        ("double(after.dec)", "19.9"),
        ("after.doc.a.b[1] == 2.5", "true"),
    ] {
        assert_eq!(run(text, ROW, &[]).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn an_error_is_no_false() {
    for (text, told) in [
        ("after.note > 1", "an order is not there for null and int"),
        ("after.gone == 1", "the log does not carry column gone"),
        ("before.status == 'new'", "there is no row `before`"),
        ("after.status && true", "&& is not there for string"),
        ("after.doc.z == 1", "there is no member z"),
        ("after.doc.a.b[9]", "an index lies outside of its list"),
        ("1 / 0", "a division by zero"),
        ("9223372036854775807 * 9223372036854775807", "a number is larger than can be held exactly"),
        ("after.dec / 3", "/ is not there for decimal; write double(..) for a rounded result"),
        ("'a' + 1", "+ is not there for string and int"),
        ("int('x')", "a number is larger than can be held exactly"),
    ] {
        assert_eq!(run(text, ROW, &[]), Err(told.to_owned()), "{text}");
    }
    // What decides alone needs no other side.
    assert_eq!(run("after.note > 1 || true", ROW, &[]).as_deref(), Ok("true"));
    assert_eq!(run("after.note > 1 && false", ROW, &[]).as_deref(), Ok("false"));
    assert_eq!(run("has(after.gone)", ROW, &[]).as_deref(), Ok("false"));
}

#[test]
fn mistakes_are_told_where_they_stand() {
    for (text, at, told) in [
        ("after.status = 'x'", 13, "not an expression"),
        (
            "afer.status == 'x'",
            0,
            "'afer' is not there; columns stand as after.afer or before.afer; did you mean 'after'?",
        ),
        ("status == 'x'", 0, "'status' is not there; columns stand as after.status or before.status"),
        ("tx.idd", 2, "tx has no 'idd'; did you mean 'id'?"),
        ("after.status.startWith('x')", 22, "there is no function 'startWith'; did you mean 'startsWith'?"),
        ("after.status.matches('(')", 20, "not a pattern"),
        ("size(1, 2)", 4, "size takes 1 value, with its target"),
    ] {
        let error = Expression::compile(text, &mut Names::default()).expect_err(text);
        assert!(error.what.starts_with(told), "{text}: {}", error.what);
        assert_eq!(error.at.start, at, "{text}");
    }
}

#[test]
fn a_deep_expression_is_refused_and_not_a_stack_that_ends() {
    for deep in [
        format!("{}1{}", "(1 + ".repeat(3000), ")".repeat(3000)),
        format!("{}1{}", "(1 + ".repeat(24), ")".repeat(24)),
        format!("after{}", ".a".repeat(3000)),
        format!("after{}", ".a".repeat(400)),
        format!("{}true", "!".repeat(400)),
        format!("{}1", "true ? 1 : ".repeat(400)),
        format!("{}1", "[".repeat(3000)),
    ] {
        let told = Expression::compile(&deep, &mut Names::default());
        assert!(told.is_err() || deep.len() < 500, "{deep}");
    }
    let long = vec!["after.id == 1"; 90].join(" || ");
    assert!(Expression::compile(&long, &mut Names::default()).is_ok());
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z(){}\\[\\]'\".,<>=!&|?:+*/% 0-9-]{0,40}") {
        let _ = run(&text, ROW, ROW);
    }

    #[test]
    fn whole_numbers_add_up_or_overflow(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (a.to_string(), b.to_string());
        let row = [("a", x.as_str()), ("b", y.as_str())];
        let sum = i128::from(a) + i128::from(b);
        let is_held = (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&sum);
        let told = run("after.a + after.b", &row, &[]);
        prop_assert_eq!(told.is_ok(), is_held);
        if is_held {
            prop_assert_eq!(told, Ok(sum.to_string()));
        }
    }
}
