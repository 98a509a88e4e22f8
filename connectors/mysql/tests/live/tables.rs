//! Tables that change while the log is read.

use figvine_change::{Source as _, SourceErrorKind, Untold};
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

/// What changes no captured table's columns.
const UNRELATED: &str = "
    create user fred identified by 'ALTER TABLE t DROP a';
    alter user fred identified by 'x';
    create procedure p() begin drop table if exists nothing; end;
    alter table t comment 'ADD COLUMN a';
    alter table t add constraint positive check (a > 0);
    alter table t drop constraint positive;
    create index i on t(a);
    drop index i on t;
    create table if not exists t(id int primary key);
    create table other_u(id int primary key, a int, b int);
    alter table other_u drop column a, add column c int;
    drop table other_u;
    create view v as select * from t";

#[tokio::test]
async fn a_log_without_names_is_never_read_by_the_columns_of_another_time() {
    for world in [
        World::mysql(&[("binlog_row_metadata", "MINIMAL")]).await,
        World::mysql(&[("binlog_row_metadata", "MINIMAL"), ("binlog_transaction_compression", "ON")]).await,
        World::mysql(&[("binlog_row_metadata", "MINIMAL"), ("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")])
            .await,
        World::mariadb(&[("binlog_row_metadata", "NO_LOG")]).await,
        World::mariadb(&[
            ("binlog_row_metadata", "NO_LOG"),
            ("log_bin_compress", "ON"),
            ("log_bin_compress_min_len", "10"),
        ])
        .await,
    ] {
        world.run("create table t(id int primary key, a int, b int)").await;
        let stopped = world.here().await;
        world.run("insert into t values (1, 10, 20)").await;
        world.run(UNRELATED).await;
        world.run("insert into t values (2, 11, 21)").await;
        let both = ["insert shop.t id=1 a=10 b=20", "insert shop.t id=2 a=11 b=21"];
        assert_eq!(world.changes(&stopped).await, both, "a bridge that lags");

        for (change, row) in [
            // Every table map fits the table before and behind.
            ("alter table t rename column a to b, rename column b to a", "id=3 b=1 a=2"),
            ("alter table t drop column b, add column c int first", "c=3 id=1 a=2"),
            (
                "create table n(x int, id int primary key, y int);\nrename table t to o, n to t;\ndrop table o",
                "x=3 id=1 y=2",
            ),
            ("drop table t;\ncreate table t(p int, q int, id int primary key)", "p=3 q=1 id=2"),
        ] {
            let before = world.here().await;
            let other = world.configured(|config| config.server_id = Some(4711));
            let mut reading = super::harness::open(&other, &before).await.expect("opens");
            world.run(&format!("insert into t values (100, 100, 100);\n{change}")).await;
            let error = world.told(&before).await.expect_err(change);
            assert_eq!((error.kind, error.code), (SourceErrorKind::Undecodable, "FV-1403"), "{change}: {error}");
            assert!(error.what.contains(", change 0: ") && error.what.contains(" before "), "{error}");
            let behind = world.here().await;
            world.run("insert into t values (3, 1, 2)").await;
            let expected = format!("insert shop.t {row}");
            let mut told = world.changes(&behind).await;
            assert_eq!(told.pop().as_ref(), Some(&expected), "behind {change}");
            // One that reads meanwhile takes the row by the columns that it was written with, or stops before it.
            let mut texts = Vec::new();
            while texts.last() != Some(&expected) {
                match super::harness::next(&mut reading).await {
                    Ok(batch) => {
                        let batch = batch.expect("goes on");
                        let told = batch.changes.iter().map(|change| super::harness::of(&batch, change));
                        texts.extend(told.filter(|told| !told.is_shape).map(|told| told.text));
                    }
                    Err(error) => {
                        assert_eq!(error.code, "FV-1403", "{change}: {error}");
                        break;
                    }
                }
            }
            world.run("delete from t").await;
        }

        // One that keeps up goes on through every change.
        world.run("drop table t;\ncreate table t(id int primary key, a int, b int)").await;
        let mut keeping_up = world.open(&world.here().await).await.expect("opens");
        for (change, row) in [
            ("do 0", "id=5 a=6 b=7"),
            ("alter table t rename column a to b, rename column b to a", "id=5 b=6 a=7"),
            ("alter table t drop column b, add column c int first", "c=5 id=6 a=7"),
        ] {
            world.run(change).await;
            world.run("insert into t values (5, 6, 7)").await;
            let told = super::harness::take(&mut keeping_up, 1).await;
            assert_eq!(told.last().map(|told| told.text.clone()), Some(format!("insert shop.t {row}")));
            world.run("delete from t").await;
            super::harness::take(&mut keeping_up, 1).await;
        }
    }
}

#[tokio::test]
async fn a_key_of_a_log_without_names_is_that_of_its_time_too() {
    for world in [
        World::mysql(&[("binlog_row_metadata", "MINIMAL")]).await,
        World::mariadb(&[("binlog_row_metadata", "NO_LOG")]).await,
    ] {
        world.run("create table t(id int not null, n int not null, unique key k (id))").await;
        let before = world.here().await;
        world.run("insert into t values (1, 2);\nupdate t set n = 3 where id = 1").await;
        assert_eq!(
            world.changes(&before).await,
            ["insert shop.t id=1 n=2", "update shop.t id=1 n=2 => id=1 n=3"],
            "a change of what is no key"
        );
        world.run("alter table t drop key k, add unique key l (n)").await;
        let error = world.told(&before).await.expect_err("another key");
        assert_eq!(error.code, "FV-1403", "{error}");
        let behind = world.here().await;
        world.run("update t set n = 4 where id = 1").await;
        assert_eq!(
            world.changes(&behind).await,
            ["delete shop.t id=1 n=3 (rekeyed)", "insert shop.t id=1 n=4 (rekeyed)"]
        );
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
async fn cascades_stop_nothing_and_are_counted_where_the_log_does_not_tell_them() {
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
        let mut source = world.open(&from).await.expect("opens");
        super::harness::take(&mut source, 4).await;
        let untold = if world.is_mysql() { 0 } else { 2 };
        assert_eq!(source.untold(), Untold { cascades: untold, ..Untold::default() }, "each statement is counted");
        assert_eq!(source.untold(), Untold::default(), "once");
        source.close().await;
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
