//! Why a transaction gave the events that it gave: `figvine rules explain`, of what the stream holds.

use std::fs;

use serde_json::{Value, json};

use super::harness::{Finished, World};

const RULES: &str = "    rules:
      - type: order_placed
        from: public.orders
        on: [insert]
        data: { total: after.total, lines: lines }
        aggregate: { include: [{ table: order_lines, on: order_id, as: lines, columns: [sku, price] }] }
      - { type: order_large, from: public.orders, when: after != null && after.total > 100.5 }
      - { type: order_shipped, from: public.orders, on: [update], changed: [status], when: after.status == 'shipped' }
      - { type: note_taken, from: public.notes, also_change_event: false }
";

async fn explain(world: &World, position: &str, more: &[&str]) -> Finished {
    world.finish(&[&["rules", "explain", position], more].concat()).await
}

async fn explained(world: &World, position: &str) -> Value {
    let told = explain(world, position, &["--output", "json"]).await;
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    serde_json::from_str(&told.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_the_stream_is_explained_and_becomes_a_test() {
    let world = World::start().await;
    world.configure(RULES);
    world
        .run_sql(
            "create table orders(id int primary key, total numeric(12,2), status text, note text);
             create table order_lines(order_id int, line_no int, sku text, price numeric(10,2), primary key (order_id, line_no));
             create table notes(id int primary key, note text);
             create table others(id int primary key);
             alter table orders replica identity full",
        )
        .await;
    world.drain().await;
    world.run_sql("insert into others values (1)").await;
    world
        .run_sql(
            "begin; insert into orders values (1, 120.50, 'new', 'a: \"b\" #'); insert into order_lines values (1, 1, 'fig', 1.10), (1, 2, 'jam', 2);
             insert into notes values (1, 'x'); insert into others values (2); delete from order_lines where line_no = 2; commit",
        )
        .await;
    world.run_sql("update orders set status = 'shipped', id = 2").await;
    world.run_sql("insert into orders values (3, null, 'new', null)").await;
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_ne!(finished.code, Some(0), "the last transaction stops the source: a condition over null");
    let events = world.events().await;
    let of_type = |name: &str| {
        let found = events.iter().find(|event| event.header("ce-type") == name).unwrap_or_else(|| panic!("no {name}"));
        found.header("ce-id").to_owned()
    };

    // By a whole identity, for programs and for people.
    let id = of_type("order_placed.v1");
    let told = explained(&world, &id).await;
    let placed = json!({
        "type": "order_placed.v1", "key": "1",
        "data": { "total": "120.50", "lines": [{ "sku": "fig", "price": "1.10" }] },
    });
    assert_eq!(told["events"][1], placed, "{told}");
    assert_eq!(told["events"][0]["type"], "order_large.v1");
    let said = |change: usize, rule: &str| {
        let said =
            told["changes"][change]["rules"].as_array().expect("a list").iter().find(|said| said["rule"] == rule);
        said.map(|said| said["why"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(said(0, "order_placed").as_deref(), Some("held until the transaction ends"));
    assert_eq!(said(0, "order_shipped").as_deref(), Some("it is not about an insert"));
    assert_eq!(said(0, "order_large").as_deref(), Some("matched"));
    assert_eq!(said(1, "order_placed").as_deref(), Some("held as a part until the transaction ends"));
    assert_eq!(said(3, "order_placed"), None, "a table without rules");
    assert_eq!(told["notes"], json!(["not seen, since domain events alone tell them: 1 change"]));
    // What the stream itself holds of it is the same.
    let stored = events.iter().find(|event| event.header("ce-id") == id).expect("it");
    assert_eq!(stored.body, placed["data"]);

    let position = id.split("/").take(2).collect::<Vec<_>>().join("/");
    let shown = explain(&world, &position, &[]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    for part in ["insert  public.orders  1\n", "  order_placed   held as a part", "2 events\n", "order_large.v1  1  {"]
    {
        assert!(shown.stdout.contains(part), "no `{part}` in:\n{}", shown.stdout);
    }
    // From where on it is looked for.
    assert_eq!(explain(&world, &position, &["--since", "1"]).await.code, Some(0));

    // A change of a key is one change, and its conditions see both rows.
    let told = explained(&world, &of_type("order_shipped.v1")).await;
    assert_eq!(told["changes"].as_array().map(Vec::len), Some(1), "{told}");
    assert_eq!(told["changes"][0]["op"], "update");
    assert_eq!(
        told["events"][1],
        json!({ "type": "order_shipped.v1", "key": "2",
        "data": { "id": 2, "total": "120.50", "status": "shipped", "note": "a: \"b\" #" } })
    );

    // Each becomes a test that holds, and fails once its events are others.
    for id in [of_type("order_placed.v1"), of_type("order_shipped.v1")] {
        let recorded = explain(&world, &id, &["--fixture"]).await;
        assert_eq!(recorded.code, Some(0), "{}", recorded.stderr);
        let file = world.home.path().join("recorded.yaml");
        let test = async |text: &str| {
            fs::write(&file, text).expect("written");
            world.finish(&["rules", "test", &file.display().to_string()]).await
        };
        let passed = test(&recorded.stdout).await;
        assert_eq!(passed.code, Some(0), "{}\n{}\n{}", passed.stdout, passed.stderr, recorded.stdout);
        let failed = test(&recorded.stdout.replace("order_large.v1", "order_huge.v1")).await;
        assert_eq!(failed.code, Some(1), "{}", failed.stdout);
    }

    // What is not there.
    let missing = explain(&world, "0/1", &[]).await;
    assert_eq!((missing.code, &*missing.stdout), (Some(1), ""));
    assert!(
        missing.stderr.starts_with("error[FV-4044]: stream FIGVINE_SHOP holds no event of transaction 0/1\n"),
        "{}",
        missing.stderr
    );
    let late = explain(&world, &position, &["--since", "1000000"]).await;
    assert_eq!(late.code, Some(1), "nothing to wait for");
}
