//! Private data: what is hidden looks the same from the binary log and from a backfill, though the bytes are others there.

use super::world::{Kind, World};

const RULES: &str = "    initial: backfill
    private:
      key: a secret of this test
      columns:
        - { match: \"shop.people.EMAIL\", hash: {} }
        - { match: \"*.people.card\", tokenise: {} }
        - { match: \"*.people.born\", mask: { keep_first: 4 } }
        - { match: \"*.people.price\", encrypt: { subject: email } }
        - { match: \"*.people.doc\", encrypt: { subject: email } }
        - { match: \"*.people.secret\", drop: true }
";

async fn looks_the_same(kind: Kind) {
    let world = World::start(kind).await;
    world.configure_more(RULES);
    world
        .run(
            "create table people(email varchar(100) character set latin1 primary key, card bigint unsigned, born date,
                                 price decimal(12,2), doc json, secret text, n int);
insert into people values ('CANARY-é', 4111111111111111, '1990-05-17', 12.50, '{\"a\": \"CANARY\"}', 'CANARY', 0),
                          ('CANARY-2', null, null, null, null, null, 0)",
        )
        .await;
    let checked = world.finish(&["check"]).await;
    assert!(
        checked.stdout.contains("of all columns 1 dropped, 2 encrypted, 1 hashed, 1 masked, 1 published, 1 tokenised"),
        "{}",
        checked.stdout
    );
    world.drain().await;
    world.run("update people set n = 1").await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), 4, "{events:?}");
    for (read, update) in events.iter().zip(&events[2..]) {
        assert_eq!((read.op(), update.op()), ("read", "update"));
        assert_eq!(read.body["key"], update.body["key"]);
        for column in ["email", "card", "born", "price", "doc"] {
            assert_eq!(read.body["after"][column], update.body["after"][column], "{column}");
            assert_eq!(update.body["before"][column], update.body["after"][column], "{column}");
        }
    }
    let first = events.iter().find(|event| event.body["after"]["born"].is_string()).expect("a row without nulls");
    assert_eq!(first.body["after"]["born"], "1990***");
    assert_eq!(first.body["key"]["email"].as_str().map(str::len), Some(64));
    assert!(first.body["after"]["card"].as_str().is_some_and(|card| card.len() == 16 && card != "4111111111111111"));
    for (column, value) in [("price", "\"12.50\""), ("doc", "{\"a\":\"CANARY\"}")] {
        let sealed = first.body["after"][column].as_str().expect("sealed");
        let opened = world.finish(&["unseal", sealed]).await;
        assert_eq!(opened.stdout.trim().replace(": ", ":"), value, "{column}: {}", opened.stderr);
    }
    for event in &events {
        let text = format!("{} {:?} {}", event.subject, event.headers, event.text());
        assert!(!text.contains("CANARY") && !text.contains("secret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mysql_tells_twice_is_hidden_twice_alike() {
    looks_the_same(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mariadb_tells_twice_is_hidden_twice_alike() {
    looks_the_same(Kind::MariaDb).await;
}
