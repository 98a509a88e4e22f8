//! Tables that change while the log is read.

use figvine_change::SourceErrorKind;
use figvine_mysql::config::{Keyless, OnStatement};

use super::harness::{World, failure, told};

async fn shapes_and_rows(world: &World, sql: &str) -> Vec<String> {
    let from = world.here().await;
    world.run(sql).await;
    world.told(&from).await.expect("reads").into_iter().map(|told| told.text).collect()
}

async fn shapes_follow(world: &World) {
    let told = shapes_and_rows(
        world,
        "create table t(id int primary key, a varchar(10));
         insert into t values (1, 'x');
         alter table t add column b int unsigned not null default 5 first;
         insert into t values (7, 2, 'y');
         alter table t rename column a to c, drop column b;
         update t set c = 'z' where id = 1;
         alter table t modify c enum('z', 'y', 'w');
         insert into t values (3, 'w');
         alter table t modify c enum('z', 'y', 'w', 'v');
         insert into t values (4, 'v');
         alter table t drop primary key, add primary key (id, c);
         update t set c = 'y' where id = 4;
         drop table t;
         create table t(id bigint primary key);
         insert into t values (9)",
    )
    .await;
    let rows: Vec<_> = told.iter().filter(|text| !text.starts_with("shape")).map(String::as_str).collect();
    assert_eq!(
        rows,
        [
            r#"insert shop.t id=1 a="x""#,
            r#"insert shop.t b=7 id=2 a="y""#,
            r#"update shop.t id=1 c="x" => id=1 c="z""#,
            r#"insert shop.t id=3 c="w""#,
            r#"insert shop.t id=4 c="v""#,
            r#"delete shop.t id=4 c="v" (rekeyed)"#,
            r#"insert shop.t id=4 c="y" (rekeyed)"#,
            "truncate shop.t",
            "insert shop.t id=9",
        ]
    );
    let columns: Vec<Vec<&str>> = told
        .iter()
        .filter_map(|text| text.strip_prefix("shape shop.t(")?.strip_suffix(')'))
        .map(|columns| columns.split(", ").map(|column| column.split(' ').next().unwrap_or_default()).collect())
        .collect();
    assert!(columns.starts_with(&[vec!["id", "a"], vec!["b", "id", "a"], vec!["id", "c"]]), "{told:#?}");
    assert_eq!(columns.last(), Some(&vec!["id"]), "{told:#?}");
}

#[tokio::test]
async fn the_shape_of_a_table_follows_its_changes() {
    shapes_follow(&World::mysql(&[]).await).await;
    shapes_follow(&World::mariadb(&[]).await).await;
}

#[tokio::test]
async fn tables_are_emptied_dropped_and_swapped() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key, a int);\ninsert into t values (1, 1), (2, 2)").await;
        let from = world.here().await;
        // As gh-ost and pt-online-schema-change do it.
        world
            .run(
                "truncate table t;
                 insert into t values (3, 3);
                 create table _t_gho like t;
                 alter table _t_gho add column b int;
                 insert into _t_gho select id, a, 7 from t;
                 rename table t to _t_del, _t_gho to t;
                 insert into t values (4, 4, 4);
                 drop table _t_del;
                 drop table if exists never, t;
                 create table t(id int primary key);
                 insert into t values (5)",
            )
            .await;
        let mut expected = vec![
            "truncate shop.t",
            "insert shop.t id=3 a=3",
            "insert shop._t_gho id=3 a=3 b=7",
            "insert shop.t id=4 a=4 b=4",
            "truncate shop._t_del",
        ];
        // In the order of the server, which need not be that of the statement.
        expected.extend(["truncate shop.never", "truncate shop.t", "insert shop.t id=5"]);
        let mut changes = world.changes(&from).await;
        if let Some(dropped) = changes.get_mut(5..7) {
            dropped.sort();
        }
        assert_eq!(changes, expected);
    }
}

#[tokio::test]
async fn a_log_without_names_is_read_through_the_catalogue_as_long_as_that_fits() {
    for world in [
        World::mysql(&[("binlog_row_metadata", "MINIMAL")]).await,
        World::mysql(&[("binlog_row_metadata", "MINIMAL"), ("binlog_transaction_compression", "ON")]).await,
        World::mariadb(&[("binlog_row_metadata", "NO_LOG")]).await,
    ] {
        world
            .run("create table t(id int unsigned primary key, a tinyint unsigned, e enum('x', 'y'), c varchar(10))")
            .await;
        let from = world.here().await;
        world.run("insert into t values (4000000000, 250, 'y', 'ä')").await;
        let told = world.told(&from).await.expect("reads");
        assert_eq!(
            told.last().map(|told| told.text.as_str()),
            Some(r#"insert shop.t id=4000000000 a=250 e="y" c="ä""#)
        );

        // A column more; later the same number of columns, of which one is another.
        world.run("alter table t add column d int").await;
        let error = world.told(&from).await.expect_err("the table is another");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Undecodable, "FV-1403"), "{error}");
        world.run("alter table t drop column d, modify a int").await;
        let error = world.told(&from).await.expect_err("the table is another");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Undecodable, "FV-1403"), "{error}");
        let from = world.here().await;
        world.run("insert into t values (1, -7, 'x', 'z')").await;
        assert_eq!(world.changes(&from).await, [r#"insert shop.t id=1 a=-7 e="x" c="z""#]);
        world.run("drop table t").await;
        let error = world.told(&from).await.expect_err("the table is gone");
        assert_eq!(error.code, "FV-1403", "{error}");
    }
}

#[tokio::test]
async fn a_table_without_a_key_is_refused_or_its_whole_row_is_the_key() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        let from = world.here().await;
        world.run("create table t(a int, b varchar(10));\ninsert into t values (1, 'x'), (1, 'x');\nupdate t set b = null").await;
        let error = world.told(&from).await.expect_err("no key");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1224"), "{error}");
        let connector = world.configured(|config| {
            config.keyless = Keyless::WholeRow;
            config.on_statement = OnStatement::Warn;
        });
        let rows: Vec<_> = told(&connector, &from).await.expect("reads");
        let rows: Vec<_> = rows.iter().filter(|told| !told.is_shape).map(|told| told.text.as_str()).collect();
        assert_eq!(
            rows,
            [
                r#"insert shop.t a=1 b="x""#,
                r#"insert shop.t a=1 b="x""#,
                r#"delete shop.t a=1 b="x" (rekeyed)"#,
                "insert shop.t a=1 b=null (rekeyed)",
                r#"delete shop.t a=1 b="x" (rekeyed)"#,
                "insert shop.t a=1 b=null (rekeyed)",
            ]
        );
    }
}

/// MySQL writes what a cascade does into the log; MariaDB writes the table's name, and no rows.
#[tokio::test]
async fn cascades_stop_nothing() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world
            .run(
                "create table parent(id int primary key);
                 create table child(id int primary key, p int, foreign key (p) references parent(id) on delete cascade
                                    on update cascade);
                 insert into parent values (1), (2);
                 insert into child values (1, 1), (2, 2)",
            )
            .await;
        let from = world.here().await;
        world.run("delete from parent where id = 1;\nupdate parent set id = 3 where id = 2;\ninsert into child values (3, 3)").await;
        let mut told = world.changes(&from).await;
        if world.is_mysql() {
            assert!(told.contains(&"delete shop.child id=1 p=1".to_owned()), "{told:?}");
            assert!(told.contains(&"update shop.child id=2 p=2 => id=2 p=3".to_owned()), "{told:?}");
        }
        told.retain(|text| !text.contains("shop.child id=1") && !text.contains("shop.child id=2"));
        assert_eq!(
            told,
            [
                "delete shop.parent id=1",
                "delete shop.parent id=2 (rekeyed)",
                "insert shop.parent id=3 (rekeyed)",
                "insert shop.child id=3 p=3",
            ]
        );
    }
}

#[tokio::test]
async fn tables_that_are_not_captured_are_counted_and_not_told() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key);\ncreate table other(id int)").await;
        let from = world.here().await;
        world.run("begin;\ninsert into other values (1), (2);\ninsert into t values (1);\ninsert into other values (3);\ninsert into t values (2);\ninsert into other values (4);\ncommit").await;
        let told = world.told(&from).await.expect("reads");
        let places: Vec<_> = told.iter().filter(|told| !told.is_shape).map(|told| (told.ordinal, told.last)).collect();
        assert_eq!(places, [(2, false), (4, true)]);
        let all = world.configured(|config| {
            config.tables = vec!["shop.*".into()];
            config.keyless = Keyless::WholeRow;
        });
        let all = super::harness::told(&all, &from).await.expect("reads");
        let places: Vec<_> = all.iter().filter(|told| !told.is_shape).map(|told| told.ordinal).collect();
        assert_eq!(places, [0, 1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn a_session_that_is_open_sees_a_table_that_is_new() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        let mut source = world.open(&world.here().await).await.expect("opens");
        world.run("create table new(id int primary key, j json);\ninsert into new values (1, '[1]')").await;
        let told = super::harness::take(&mut source, 1).await;
        assert_eq!(told.last().map(|told| told.text.as_str()), Some("insert shop.new id=1 j=[1]"));
        // No table of that name was there when the session began.
        world.run("set binlog_format = statement;\ninsert into new values (2, '[2]')").await;
        let error = failure(&mut source).await;
        assert_eq!(error.code, "FV-1402", "{error}");
    }
}
