//! Statements in the log.

use figvine_change::SourceErrorKind;
use figvine_mysql::config::OnStatement;

use super::harness::{World, told};

/// What has nothing to do with captured rows.
const UNRELATED: &str = "
    create user fred identified by 'TRUNCATE t; DROP TABLE t';
    alter user fred identified by 'x';
    grant select on shop.* to fred;
    drop user fred;
    create table checked(id int primary key, a int, check (a > 0), constraint named check (a < 10)) comment 'insert into t values (9)';
    create table odd (`id` int primary key, `a``b\"[ ]$` int, `order` int);
    create index i on odd(`order`);
    create view v as select * from t;
    create procedure p() begin insert into other values (77); truncate table other; end;
    create function f() returns int deterministic no sql return 1;
    create trigger tr after insert on other for each row set @x = 1;
    create event e on schedule every 1 year do delete from other;
    call p();
    select f();
    drop procedure p;
    drop function f;
    drop event e;
    drop view v;
    alter table odd rename index i to j;
    analyze table t;
    optimize table t;
    flush tables;
    create temporary table tmp(id int);
    insert into tmp values (1);
    drop temporary table tmp;
    create database elsewhere;
    create table elsewhere.t(id int);
    insert into elsewhere.t values (1);
    truncate elsewhere.t;
    set binlog_format = statement;
    insert into other values (5);
    update other set id = id + 1;
    insert into elsewhere.t values (2);
    set binlog_format = row;
    drop database elsewhere;
    begin;
    savepoint a;
    insert into other values (8);
    rollback to a;
    release savepoint a;
    commit;
    alter table t comment 'delete from t'";

#[tokio::test]
async fn unrelated_statements_stop_nothing() {
    for world in [
        World::mysql(&[("log_bin_trust_function_creators", "ON")]).await,
        World::mariadb(&[("log_bin_trust_function_creators", "ON")]).await,
        World::mariadb(&[("log_bin_compress", "ON"), ("log_bin_compress_min_len", "10")]).await,
    ] {
        world.run("create table t(id int primary key);\ncreate table other(id int)").await;
        let from = world.here().await;
        let mut client = world.client().await;
        super::harness::run(&mut client, UNRELATED).await;
        world
            .run("insert into t values (1);\ninsert into odd values (1, 2, 3);\ninsert into checked values (1, 1)")
            .await;
        assert_eq!(
            world.changes(&from).await,
            ["insert shop.t id=1", "insert shop.odd id=1 a`b\"[ ]$=2 order=3", "insert shop.checked id=1 a=1",]
        );
    }
}

#[tokio::test]
async fn a_statement_that_changes_captured_rows_stops_or_is_warned_of() {
    for world in [
        World::mysql(&[("log_bin_trust_function_creators", "ON")]).await,
        World::mariadb(&[("log_bin_trust_function_creators", "ON")]).await,
    ] {
        world
            .run(
                "create table t(id int primary key);
                 create table other(id int);
                 create function f(n int) returns int deterministic begin insert into t values (n); return n; end",
            )
            .await;
        let mut number = 0;
        for statement in [
            "insert into t values (NUMBER)",
            "select f(NUMBER)",
            "do f(NUMBER)",
            "begin;\ninsert into other values (1);\ndelete from t where id > NUMBER;\ncommit",
        ] {
            number += 10;
            let from = world.here().await;
            let statement = statement.replace("NUMBER", &number.to_string());
            world.run(&format!("set binlog_format = statement;\n{statement}")).await;
            world.run(&format!("insert into t values ({number} + 1)")).await;
            let error = world.told(&from).await.expect_err(&statement);
            assert_eq!((error.kind, error.code), (SourceErrorKind::Undecodable, "FV-1402"), "{statement}: {error}");
            let lenient = world.configured(|config| config.on_statement = OnStatement::Warn);
            let told = told(&lenient, &from).await.expect("goes on");
            assert_eq!(told.last().map(|told| told.text.clone()), Some(format!("insert shop.t id={}", number + 1)));
        }
    }
}
