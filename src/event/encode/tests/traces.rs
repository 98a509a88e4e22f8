//! The trace that a change came from.

use super::*;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// One transaction: a row without a trace, then one of a trace; and another, without.
fn traced() -> Batch {
    let orders = orders();
    let mut maker = Maker::default();
    let row = |id| [Some(id), Some("new"), None];
    maker.transaction(8).row_change(0, &orders, Op::Insert, None, Some(&row("1")));
    maker.transaction(8).row_change(1, &orders, Op::Insert, None, Some(&row("2"))).last();
    maker.transaction(9).row_change(0, &orders, Op::Insert, None, Some(&row("3"))).last();
    let mut batch = maker.done();
    batch.transactions[1].traceparent = Some(TRACE.into());
    batch
}

#[test]
fn a_trace_is_an_attribute_in_both_modes_of_cloudevents() {
    let events = encode(&mut encoder(Format::CloudEvents), &traced());
    let told: Vec<_> = events.list.iter().map(|at| parts(&events, at).1).collect();
    let told: Vec<_> = told.iter().map(|headers| header(headers, "ce-traceparent")).collect();
    assert_eq!(told, [None, Some(TRACE), None]);

    let events = encode(&mut encoder(Format::CloudEventsStructured), &traced());
    let told: Vec<_> = (0..3).map(|at| body(&events, at).get("traceparent").cloned()).collect();
    assert_eq!(told, [None, Some(TRACE.into()), None]);
}

#[test]
fn formats_without_attributes_have_no_trace() {
    for format in [Format::Plain, Format::Debezium] {
        let events = encode(&mut encoder(format), &traced());
        let text = String::from_utf8_lossy(&events.bytes);
        assert!(!text.contains(TRACE) && !text.contains("traceparent"), "{text}");
    }
}

#[test]
fn a_transaction_of_several_traces_is_counted_as_one() {
    let mut events = Events::default();
    let figures = encoder(Format::CloudEvents).encode(&traced(), &Derived::default(), &mut events).expect("encodable");
    assert_eq!(figures.completed_rows, [2, 1]);
}
