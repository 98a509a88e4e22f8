//! Dead letters of MySQL and MariaDB.

use serde_json::{Value, json};

use super::world::{Kind, World};

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_may_not_be_written_is_parked_with_its_bytes_and_its_neighbours_are_told() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let world = World::start(kind).await;
        world.configure_engine("zero_date: error");
        world.configure_more("    on_poison: park\n");
        world.run("create table days(id int primary key, day date)").await;
        world.drain().await;
        world.run("set sql_mode = ''; insert into days values (1, '2026-11-29'), (2, '0000-00-00'), (3, null)").await;
        world.drain().await;
        let events = world.events().await;
        let told: Vec<_> = events.iter().map(|event| (event.op(), event.body["key"]["id"].as_i64())).collect();
        assert_eq!(told, [("insert", Some(1)), ("missing", Some(2)), ("insert", Some(3))], "{kind:?}");
        let id = events[1].header("ce-id");
        assert_eq!(events[1].body["missing"]["dead_letter"], id);
        let shown = world.finish(&["dlq", "show", id]).await;
        let letter: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{kind:?} {}", shown.stderr));
        let day = json!({"unreadable": "base64", "bytes": "AAAA"});
        assert_eq!(letter["after"], json!({"id": 2, "day": day}), "{kind:?}");
        assert_eq!((&letter["reason"], &letter["table"]), (&json!("value"), &json!("shop.days")));
    }
}
