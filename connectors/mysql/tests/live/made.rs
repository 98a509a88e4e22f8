//! Tables that are made, replaced and swapped while the log is read.

use figvine_change::{Source as _, SourceErrorKind, Untold};
use figvine_mysql::config::OnStatement;

use super::harness::{World, failure, take, told};

/// Shapes apart, in the order told.
async fn told_of(world: &World, sql: &str) -> Vec<String> {
    let from = world.here().await;
    world.run(sql).await;
    world.changes(&from).await
}

#[tokio::test]
async fn a_table_that_is_made_meanwhile_and_written_by_statements_alone_is_seen() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key)").await;
        let mut ways = vec![
            "create table new_one(id int primary key)",
            "create table if not exists new_one(id int primary key)",
            "create table new_one like t",
            "create table new_one(primary key (id)) select id from t",
            "create table other_one(id int primary key);\nrename table other_one to new_one",
            "create table other_one(id int primary key);\nalter table other_one rename to new_one",
        ];
        if !world.is_mysql() {
            ways.push("create or replace table new_one(id int primary key)");
        }
        for way in ways {
            let from = world.here().await;
            let mut source = world.open(&from).await.expect("opens");
            world.run(&format!("{way};\nset binlog_format = statement;\ninsert into new_one values (1)")).await;
            let error = failure(&mut source).await;
            assert_eq!((error.kind, error.code), (SourceErrorKind::Undecodable, "FV-1402"), "{way}: {error}");

            let lenient = world.configured(|config| config.on_statement = OnStatement::Warn);
            world.run("insert into t values (1);\ndelete from t").await;
            let mut source = super::harness::open(&lenient, &from).await.expect("opens");
            take(&mut source, 1).await;
            assert_eq!(source.untold(), Untold { statements: 1, ..Untold::default() }, "{way}");
            source.close().await;
            world.run("drop table new_one").await;
        }
    }
}

#[tokio::test]
async fn tables_made_of_others_and_tables_replaced_are_told() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key, a int);\ninsert into t values (1, 10), (2, 20)").await;
        let told = told_of(
            &world,
            "create table copy(primary key (id)) select id, a + 1 as b from t;
             create table alike like copy;
             insert into alike values (7, 8);
             insert into copy values (3, 4)",
        )
        .await;
        let expected = [
            "insert shop.copy id=1 b=11",
            "insert shop.copy id=2 b=21",
            "insert shop.alike id=7 b=8",
            "insert shop.copy id=3 b=4",
        ];
        assert_eq!(told, expected);
        if world.is_mysql() {
            continue;
        }
        let told = told_of(
            &world,
            "create or replace table copy(id int primary key, c int);
             insert into copy values (5, 6);
             create or replace table copy(primary key (id)) select id, a as d from t where id = 1;
             create or replace table alike like t;
             insert into alike values (9, 9)",
        )
        .await;
        let expected = [
            "truncate shop.copy",
            "insert shop.copy id=5 c=6",
            "truncate shop.copy",
            "insert shop.copy id=1 d=10",
            "truncate shop.alike",
            "insert shop.alike id=9 a=9",
        ];
        assert_eq!(told, expected, "what was in it is gone");
    }
}

/// As pt-online-schema-change does it: a copy that triggers keep, swapped in by one RENAME.
#[tokio::test]
async fn a_table_swapped_for_a_copy_that_triggers_keep_goes_on_under_its_name() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key, a int);\ninsert into t values (1, 1), (2, 2)").await;
        let told = told_of(
            &world,
            "create table _t_new like t;
             alter table _t_new add column b int default 7;
             create trigger pt_osc_del after delete on t for each row delete ignore from _t_new where _t_new.id <=> old.id;
             create trigger pt_osc_ins after insert on t for each row replace into _t_new (id, a) values (new.id, new.a);
             insert into t values (3, 3);
             insert ignore into _t_new (id, a) select id, a from t where id <= 2 lock in share mode;
             delete from t where id = 2;
             rename table t to _t_old, _t_new to t;
             drop table if exists _t_old;
             insert into t values (4, 4, 4)",
        )
        .await;
        let expected = [
            "insert shop.t id=3 a=3",
            "insert shop._t_new id=3 a=3 b=7",
            "insert shop._t_new id=1 a=1 b=7",
            "insert shop._t_new id=2 a=2 b=7",
            "delete shop.t id=2 a=2",
            "delete shop._t_new id=2 a=2 b=7",
            "truncate shop._t_old",
            "insert shop.t id=4 a=4 b=4",
        ];
        assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn rows_of_partitions_come_under_their_table_and_lost_ones_are_counted() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world
            .run(
                "create table t(id int primary key, a int) partition by range (id)
                     (partition p0 values less than (10), partition p1 values less than (20), partition p2 values less than maxvalue);
                 create table swapped(id int primary key, a int)",
            )
            .await;
        let from = world.here().await;
        world
            .run(
                "insert into t values (1, 1), (11, 11), (21, 21);
                 update t set id = 12 where id = 1;
                 alter table t truncate partition p0;
                 alter table t drop partition p1;
                 insert into swapped values (30, 30);
                 alter table t exchange partition p2 with table swapped;
                 alter table t reorganize partition p2 into (partition p3 values less than (40), partition p4 values less than maxvalue);
                 insert into t values (50, 50)",
            )
            .await;
        let expected = [
            "insert shop.t id=1 a=1",
            "insert shop.t id=11 a=11",
            "insert shop.t id=21 a=21",
            "delete shop.t id=1 a=1 (rekeyed)",
            "insert shop.t id=12 a=1 (rekeyed)",
            "insert shop.swapped id=30 a=30",
            "insert shop.t id=50 a=50",
        ];
        let mut source = world.open(&from).await.expect("opens");
        let told = take(&mut source, expected.len()).await;
        let told: Vec<_> = told.into_iter().filter(|told| !told.is_shape).map(|told| told.text).collect();
        assert_eq!(told, expected);
        assert_eq!(source.untold(), Untold { partitions: 3, ..Untold::default() });
        source.close().await;
    }
}

#[tokio::test]
async fn names_in_capitals_mean_the_same_table_where_the_server_folds_them() {
    let world = World::mariadb(&[("lower_case_table_names", "1")]).await;
    let from = world.here().await;
    world
        .run(
            "create table Orders(id int primary key);
             insert into ORDERS values (1);
             truncate table ORDERS;
             insert into orders values (2);
             rename table ORDERS to Bills;
             insert into bILLS values (3);
             drop table BILLS",
        )
        .await;
    let told = told(&world.connector, &from).await.expect("reads");
    let told: Vec<_> = told.into_iter().filter(|told| !told.is_shape).map(|told| told.text).collect();
    let expected = [
        "insert shop.orders id=1",
        "truncate shop.orders",
        "insert shop.orders id=2",
        "insert shop.bills id=3",
        "truncate shop.bills",
    ];
    assert_eq!(told, expected);
}
