//! What a row image leaves out.

use super::harness::World;

const TABLE: &str = "create table t(id int primary key, a varchar(20), b text, c int default 7)";

#[tokio::test]
async fn partial_row_images_are_told_as_such_on_mysql() {
    images(&World::mysql(&[]).await).await;
}

#[tokio::test]
async fn partial_row_images_are_told_as_such_on_mariadb() {
    images(&World::mariadb(&[]).await).await;
}

async fn images(world: &World) {
    world.run(TABLE).await;
    let work = "insert into t values (1, 'a', 'long', 1);\n update t set a = 'b' where id = 1;\n \
                update t set id = 2 where id = 1;\n update t set b = null where id = 2;\n delete from t where id = 2";
    for (image, expected) in [
        (
            "full",
            [
                r#"insert shop.t id=1 a="a" b="long" c=1"#,
                r#"update shop.t id=1 a="a" b="long" c=1 => id=1 a="b" b="long" c=1"#,
                r#"delete shop.t id=1 a="b" b="long" c=1 (rekeyed)"#,
                r#"insert shop.t id=2 a="b" b="long" c=1 (rekeyed)"#,
                r#"update shop.t id=2 a="b" b="long" c=1 => id=2 a="b" b=null c=1"#,
                r#"delete shop.t id=2 a="b" b=null c=1"#,
            ],
        ),
        (
            "noblob",
            [
                r#"insert shop.t id=1 a="a" b="long" c=1"#,
                r#"update shop.t id=1 a="a" b=- c=1 => id=1 a="b" b=- c=1"#,
                r#"delete shop.t id=1 a="b" b=- c=1 (rekeyed)"#,
                r#"insert shop.t id=2 a="b" b=- c=1 (rekeyed)"#,
                r#"update shop.t id=2 a="b" b=- c=1 => id=2 a="b" b=null c=1"#,
                r#"delete shop.t id=2 a="b" b=- c=1"#,
            ],
        ),
        (
            "minimal",
            [
                r#"insert shop.t id=1 a="a" b="long" c=1"#,
                r#"update shop.t id=1 a=- b=- c=- => id=1 a="b" b=- c=-"#,
                r#"delete shop.t id=1 a=- b=- c=- (rekeyed)"#,
                r#"insert shop.t id=2 a=- b=- c=- (rekeyed)"#,
                r#"update shop.t id=2 a=- b=- c=- => id=2 a=- b=null c=-"#,
                r#"delete shop.t id=2 a=- b=- c=-"#,
            ],
        ),
    ] {
        let from = world.here().await;
        world.run(&format!("set binlog_row_image = {image};\n{work}")).await;
        assert_eq!(world.changes(&from).await, expected, "{image}");
    }
}

#[tokio::test]
async fn an_image_without_what_is_in_the_other_is_filled_from_it_on_mariadb() {
    let world = World::mariadb(&[]).await;
    world.run(TABLE).await;
    let from = world.here().await;
    // FULL_NODUP came with MariaDB 11.4; an older server knows it not.
    let mut client = world.client().await;
    use figvine_sandbox::mysql_async::prelude::Queryable as _;
    let image = match client.query_drop("set binlog_row_image = full_nodup").await {
        Ok(()) => "full_nodup",
        Err(_) => "full",
    };
    world
        .run(&format!(
            "set binlog_row_image = {image};\ninsert into t values (1, 'a', 'long', 1);\nupdate t set a = 'b' where id = 1"
        ))
        .await;
    assert_eq!(
        world.changes(&from).await,
        [
            r#"insert shop.t id=1 a="a" b="long" c=1"#,
            r#"update shop.t id=1 a="a" b="long" c=1 => id=1 a="b" b="long" c=1"#,
        ]
    );
}

#[tokio::test]
async fn partial_updates_of_json_are_applied_to_the_row_before() {
    let world = World::mysql(&[("binlog_row_value_options", "PARTIAL_JSON")]).await;
    world.run("create table t(id int primary key, j json, k json)").await;
    let from = world.here().await;
    world
        .run(
            r#"insert into t values (1, '{"a": 1, "b": [1, 2, 3], "c": "cccccccccccccccccccccccccccccc"}', '[1]');
               update t set j = json_set(j, '$.a', 2, '$.d', 'new'), k = '[2]' where id = 1;
               update t set j = json_remove(j, '$.b[1]') where id = 1;
               update t set j = json_replace(j, '$.c', 'x') where id = 1;
               set binlog_row_image = minimal;
               update t set j = json_set(j, '$.a', 3) where id = 1;
               update t set k = null where id = 1"#,
        )
        .await;
    let c = "cccccccccccccccccccccccccccccc";
    let first = format!(r#"{{"a":1,"b":[1,2,3],"c":"{c}"}}"#);
    let second = format!(r#"{{"a":2,"b":[1,2,3],"c":"{c}","d":"new"}}"#);
    let third = format!(r#"{{"a":2,"b":[1,3],"c":"{c}","d":"new"}}"#);
    let fourth = r#"{"a":2,"b":[1,3],"c":"x","d":"new"}"#;
    assert_eq!(
        world.changes(&from).await,
        [
            format!("insert shop.t id=1 j={first} k=[1]"),
            format!("update shop.t id=1 j={first} k=[1] => id=1 j={second} k=[2]"),
            format!("update shop.t id=1 j={second} k=[2] => id=1 j={third} k=[2]"),
            format!("update shop.t id=1 j={third} k=[2] => id=1 j={fourth} k=[2]"),
            // The row before is not told: neither is the one behind.
            "update shop.t id=1 j=- k=- => id=1 j=- k=-".to_owned(),
            "update shop.t id=1 j=- k=- => id=1 j=- k=null".to_owned(),
        ]
    );
}
