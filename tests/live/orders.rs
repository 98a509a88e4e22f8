//! A shop whose orders come with their lines: what it writes, the rules over it, and what they must have made.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::harness::Event;
use super::journal::Random;

/// The tables, for any database.
pub(crate) const TABLES: &str = "create table orders(id int primary key, status varchar(20) not null, note text);
create table order_lines(id int primary key, order_id int not null, sku varchar(20) not null, quantity int not null, price decimal(12,2) not null);
create index order_lines_of_order on order_lines(order_id)";

/// The rules, as lines of a source, two levels in.
pub(crate) fn rules(schema: &str) -> String {
    format!(
        "    rules:
      - type: line_seen
        from: {schema}.order_lines
        on: [insert]
        key: [order_id]
        data: [id, sku]
        also_change_event: false
      - type: order_placed
        version: 2
        from: {schema}.orders
        on: [insert]
        when: after.status != 'draft'
        data:
          id: after.id
          total: sum(lines.map(l, l.price * l.quantity))
          lines: lines
        aggregate:
          include:
            - {{ table: order_lines, on: order_id, as: lines, columns: [id, sku, quantity, price] }}
      - type: order_shipped
        from: {schema}.orders
        on: [update]
        changed: [status]
        when: after.status == 'shipped'
        key: \"'order-' + string(after.id)\"
        data: [id]
      - type: order_sent
        from: {schema}.orders
        on: [update]
        changed: [status]
        when: after.status == 'shipped'
        data: {{ id: after.id, lines: lines }}
        aggregate:
          include:
            - {{ table: order_lines, on: order_id, as: lines, columns: [id, sku, quantity, price], lookup: true }}
"
    )
}

/// A transaction of one writer: its `number`-th.
pub(crate) fn transaction(random: &mut Random, writer: u64, number: u64) -> String {
    let order = writer * 1_000_000 + number;
    let line = |place: u64, sku: &str| {
        format!(
            "insert into order_lines values ({}, {order}, '{sku}', {}, {}.{:02})",
            order * 10 + place,
            1 + place,
            place * 7,
            number % 100
        )
    };
    let place = |status: &str| {
        format!("insert into orders values ({order}, '{status}', '{}')", "n".repeat((number % 40) as usize))
    };
    let mut statements = match random.below(8) {
        // Shipped is what came a little before, once, or again without a change.
        0 | 1 if number > 3 => {
            vec![format!("update orders set status = 'shipped' where id = {}", order - 1 - random.below(3))]
        }
        2 => vec![format!("update orders set note = 'seen' where id = {}", order.saturating_sub(2))],
        // The lines first.
        3 => vec![line(1, "a"), place("new"), line(2, "b")],
        // One that is taken out again, one that is changed, and one that is moved here.
        4 => vec![
            place("new"),
            line(1, "a"),
            line(2, "gone"),
            line(3, "c"),
            format!("delete from order_lines where id = {}", order * 10 + 2),
            format!("update order_lines set quantity = 40 where id = {}", order * 10 + 3),
        ],
        5 => vec![place("draft"), line(1, "a")],
        // Drafts become orders within their transaction, too.
        6 => vec![place("draft"), line(1, "a"), format!("update orders set status = 'new' where id = {order}")],
        _ => (0..1 + random.below(12)).map(|place| line(place, "many")).chain([place("new")]).collect(),
    };
    statements.insert(0, "begin".into());
    statements.push(if random.below(9) == 0 { "rollback" } else { "commit" }.into());
    statements.join(";")
}

/// An order as the database has it in the end.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) status: String,
    /// Id, sku, quantity, price.
    pub(crate) lines: Vec<(i64, String, i64, String)>,
}

/// Every order gave one event with its lines, every one that was shipped one more, every line one; each in the order of the
/// log and with an identity of its own. How many orders there were.
pub(crate) fn check(events: &[Event], orders: &BTreeMap<i64, Order>) -> usize {
    let ids: BTreeSet<_> = events.iter().map(|event| event.header("ce-id")).collect();
    assert_eq!(ids.len(), events.len(), "each event once");
    let sequences: Vec<_> = events.iter().map(|event| event.header("ce-sequence")).collect();
    assert!(sequences.is_sorted(), "in the order of the log");
    let of = |name: &'static str| {
        events.iter().filter(move |event| event.subject.starts_with(&format!("events.shop.{name}.")))
    };

    let mut placed = BTreeMap::new();
    for event in of("order_placed") {
        assert_eq!(event.header("ce-type"), "order_placed.v2");
        let id = event.body["id"].as_i64().expect("a number");
        assert_eq!(event.header("ce-subject"), id.to_string());
        assert!(placed.insert(id, &event.body).is_none(), "order {id} is told twice");
    }
    for (id, order) in orders {
        // A draft that later became an order was placed as none.
        if order.status == "draft" {
            assert!(!placed.contains_key(id), "order {id} is a draft");
            continue;
        }
        let Some(body) = placed.get(id) else {
            assert!(order.lines.len() == 1, "order {id} is told by no event");
            continue;
        };
        let mut total = 0;
        assert_eq!(lines_of(body), order.lines, "order {id}");
        for (_, _, quantity, price) in &order.lines {
            total += quantity * price.replace('.', "").parse::<i64>().expect("cents");
        }
        let expected =
            if order.lines.is_empty() { "0".into() } else { format!("\"{}.{:02}\"", total / 100, total % 100) };
        assert_eq!(body["total"].to_string(), expected, "order {id}");
    }
    assert!(placed.keys().all(|id| orders.contains_key(id)), "nothing was placed that is not there");

    let shipped: Vec<_> = of("order_shipped").map(|event| event.body["id"].as_i64().expect("a number")).collect();
    let unique: BTreeSet<_> = shipped.iter().copied().collect();
    assert_eq!(unique.len(), shipped.len(), "shipped once");
    let expected: BTreeSet<_> =
        orders.iter().filter(|(_, order)| order.status == "shipped").map(|(id, _)| *id).collect();
    assert_eq!(unique, expected);
    // Lines that were there long before are looked up.
    for event in of("order_sent") {
        let id = event.body["id"].as_i64().expect("a number");
        assert_eq!(lines_of(&event.body), orders[&id].lines, "order {id} is sent");
        let looked_up_at = event.body["lines_looked_up_at"].as_str().expect("a time");
        assert!(looked_up_at.get(..19) >= event.header("ce-time").get(..19), "{looked_up_at}");
    }
    let sent: Vec<_> = of("order_sent").map(|event| event.body["id"].as_i64().expect("a number")).collect();
    assert_eq!(sent, shipped, "each that is shipped is sent");
    assert!(of("order_shipped").all(|event| event.header("ce-subject").starts_with("order-")));

    let lines: BTreeSet<_> = of("line_seen").map(|event| event.body["id"].as_i64().expect("a number")).collect();
    for (id, _, _, _) in orders.values().flat_map(|order| &order.lines) {
        assert!(lines.contains(id), "line {id} is not told");
    }
    assert!(
        events.iter().all(|event| event.op() != "insert" || !event.table().ends_with("order_lines")),
        "told by the rule alone"
    );
    placed.len()
}

/// The lines of a whole, by their ids.
fn lines_of(body: &Value) -> Vec<(i64, String, i64, String)> {
    let mut lines: Vec<_> = body["lines"].as_array().expect("lines").iter().map(line_of).collect();
    lines.sort_by_key(|(id, ..)| *id);
    lines
}

fn line_of(line: &Value) -> (i64, String, i64, String) {
    let text = |name: &str| line[name].as_str().expect(name).to_owned();
    (line["id"].as_i64().expect("id"), text("sku"), line["quantity"].as_i64().expect("quantity"), text("price"))
}
