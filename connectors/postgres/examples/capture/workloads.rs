//! What is done to the database while it is recorded.
//!
//! Tables with a primary key call its column `id` (and have none of that name
//! otherwise): the tests answer for the catalogue by that rule.

/// A workload: one capture.
pub(crate) struct Workload {
    /// The capture's name.
    pub(crate) name: &'static str,
    /// Run before the slot is made.
    pub(crate) schema: &'static str,
    /// Run one after the other while the log is read.
    pub(crate) steps: &'static [Step],
}

/// One batch of SQL, on one of two connections.
pub(crate) enum Step {
    First(&'static str),
    Second(&'static str),
}

use Step::{First, Second};

/// All of them.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload {
        name: "crud",
        schema: "
            create table by_default (id int primary key, name text, amount numeric(12,2));
            create table by_index (code text not null, name text);
            create unique index by_index_code on by_index (code);
            alter table by_index replica identity using index by_index_code;
            create table by_full (id int primary key, name text);
            alter table by_full replica identity full;
            create table by_nothing (id int primary key, name text);
            alter table by_nothing replica identity nothing;
            create table without_columns ();
            create publication p for all tables with (publish = 'insert, update, delete, truncate');
        ",
        steps: &[
            First("insert into by_default values (1, 'one', 1.10), (2, null, null)"),
            First("update by_default set name = 'uno' where id = 1; delete from by_default where id = 2"),
            First("begin; insert into by_index values ('a', 'x'), ('b', null); update by_index set name = 'y';
                   delete from by_index where code = 'b'; commit"),
            First("begin; insert into by_full values (1, 'x'), (2, null); update by_full set name = 'y' where id = 2;
                   delete from by_full where id = 1; commit"),
            First("insert into by_nothing values (1, 'x'), (2, 'y')"),
            First("insert into without_columns default values"),
            First("begin; insert into by_default values (9, 'never', 0); rollback"),
        ],
    },
    Workload {
        name: "toast",
        schema: "
            create table docs (id int primary key, title text, body text);
            alter table docs alter body set storage external;
            create table full_docs (id int primary key, title text, body text);
            alter table full_docs alter body set storage external;
            alter table full_docs replica identity full;
            create publication p for all tables;
        ",
        steps: &[
            First("insert into docs values (1, 'a', repeat('0123456789', 250)), (2, 'b', null)"),
            First("update docs set title = 'c' where id = 1; update docs set title = 'd' where id = 2"),
            First("begin; update docs set id = 3 where id = 1; update docs set body = repeat('9876543210', 250); commit"),
            First("insert into full_docs values (1, 'a', repeat('0123456789', 250))"),
            First("begin; update full_docs set title = 'c'; update full_docs set id = 2; delete from full_docs; commit"),
        ],
    },
    Workload {
        name: "key_change",
        schema: "
            create table by_default (id int primary key, name text);
            create table two_columns (id int, region text, name text, primary key (region, id));
            alter table two_columns replica identity full;
            create table by_full (id int primary key, name text);
            alter table by_full replica identity full;
            create publication p for all tables;
        ",
        steps: &[
            First("insert into by_default values (1, 'a'), (2, 'b'); insert into by_full values (1, 'a'), (2, null);
                   insert into two_columns values (1, 'eu', 'a'), (1, 'us', 'b')"),
            First("update by_default set id = 10, name = 'z' where id = 1"),
            First("begin; update by_default set id = id + 100; update by_full set id = id + 100;
                   update two_columns set id = 2 where region = 'us'; update by_default set name = 'same key'; commit"),
            First("update by_full set id = id, name = 'same key'"),
        ],
    },
    Workload {
        name: "truncate",
        schema: "
            create table parent (id int primary key);
            create table child (id int primary key, parent int references parent);
            create table other (id int primary key);
            create table unwanted (id int primary key);
            create publication p for all tables;
        ",
        steps: &[
            First("insert into parent values (1); insert into child values (1, 1); insert into other values (1)"),
            First("truncate other"),
            First("begin; insert into other values (2); truncate parent cascade; insert into parent values (3); commit"),
            First("truncate unwanted, other, child restart identity"),
            First("begin; truncate other; rollback"),
            First("truncate unwanted"),
        ],
    },
    Workload {
        name: "truncate_first",
        schema: "
            create table a (id int primary key);
            create table b (id int primary key);
            create publication p for all tables;
        ",
        steps: &[First("begin; truncate a, b; insert into b values (1); commit"), First("insert into a values (1)")],
    },
    Workload {
        name: "ddl",
        schema: "
            create table t (id int primary key, a text, b int);
            create publication p for all tables;
        ",
        steps: &[
            First("insert into t values (1, 'x', 1)"),
            First("begin; insert into t values (2, 'y', 2); alter table t add column c text default 'new';
                   insert into t values (3, 'z', 3, 'c'); alter table t drop column a; insert into t values (4, 4, 'c');
                   alter table t rename column b to d; insert into t values (5, 5, 'c');
                   alter table t alter column d type bigint; insert into t values (6, 6, 'c'); commit"),
            First("begin; drop table t; create table t (id text primary key); insert into t values ('seven'); commit"),
            First("alter table t rename to u; insert into u values ('eight')"),
            First("alter table u replica identity full; update u set id = 'nine' where id = 'eight'"),
            First("begin; create table v (id int primary key); insert into v values (1); drop table v; commit"),
        ],
    },
    Workload {
        name: "messages",
        schema: "
            create table t (id int primary key);
            create publication p for all tables;
        ",
        steps: &[
            First("select pg_logical_emit_message(false, 'wanted', 'of its own')"),
            First("begin; insert into t values (1); select pg_logical_emit_message(true, 'wanted', 'inside');
                   select pg_logical_emit_message(true, 'other', 'not wanted');
                   select pg_logical_emit_message(false, 'wanted', 'before its transaction');
                   insert into t values (2); commit"),
            First("begin; insert into t values (3); select pg_logical_emit_message(false, 'wanted', 'right before a commit');
                   commit"),
            First("begin; insert into t values (4); select pg_logical_emit_message(false, 'figvine.heartbeat', '');
                   commit"),
            First("select pg_logical_emit_message(true, 'wanted', 'alone')"),
            First("select pg_logical_emit_message(true, 'figvine.heartbeat', 'x')"),
            First("select pg_logical_emit_message(false, 'figvine.heartbeat', '')"),
            First("select pg_logical_emit_message(false, 'wanted', '')"),
            First("begin; select pg_logical_emit_message(true, 'wanted', 'rolled back');
                   select pg_logical_emit_message(false, 'wanted', 'stays'); rollback"),
            // Messages of their own are not flushed by themselves.
            First("checkpoint"),
        ],
    },
    Workload {
        name: "origin",
        schema: "
            create table t (id int primary key);
            create publication p for all tables;
            select pg_replication_origin_drop(roname) from pg_replication_origin where roname = 'node a';
            select pg_replication_origin_create('node a');
        ",
        steps: &[
            First("insert into t values (1)"),
            First("select pg_replication_origin_session_setup('node a')"),
            First("begin; select pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-02 03:04:05+00');
                   insert into t values (2), (3); commit"),
            First("select pg_replication_origin_session_reset(); insert into t values (4)"),
        ],
    },
    Workload {
        name: "types",
        schema: "
            create type mood as enum ('sad', 'it''s, ok');
            create domain positive as int check (value > 0);
            create type point3 as (x int, y int, label text);
            create table t (id int primary key, mood mood, moods mood[], positive positive, place point3,
                            grid int[][], at timestamptz, raw bytea, doc jsonb, price numeric(12,2), name varchar(20),
                            pause interval, flags bit(3));
            create publication p for all tables;
        ",
        steps: &[
            First("insert into t values (1, 'sad', '{sad,\"it''s, ok\"}', 5, '(1,2,\"a, \"\"b\"\"\")', '{{1,2},{3,4}}',
                   '2024-02-29 12:00:00.5+02', '\\x00ff', '{\"a\": [1, null]}', 1.10, 'x', '1 year 2 mons 3.5 s', '101')"),
            First("begin; alter type mood add value 'glad'; commit"),
            First("insert into t (id, mood) values (2, 'glad')"),
            First("begin; alter type point3 add attribute z int; insert into t (id, place) values (3, '(1,2,c,3)'); commit"),
        ],
    },
    Workload {
        name: "partitions",
        schema: "
            create table orders (id int primary key, name text) partition by range (id);
            create table orders_low partition of orders for values from (0) to (100);
            create table orders_high (name text, id int primary key);
            alter table orders attach partition orders_high for values from (100) to (200);
            create publication p for table orders with (publish_via_partition_root = true);
        ",
        steps: &[
            First("insert into orders values (1, 'low'), (150, 'high')"),
            First("update orders set id = 151 where id = 1"),
            First("begin; delete from orders where id = 150; truncate orders; commit"),
            First("truncate orders_low"),
            First("insert into orders_high values ('direct', 160)"),
        ],
    },
    Workload {
        name: "leaves",
        schema: "
            create table orders (id int primary key, name text) partition by range (id);
            create table orders_low partition of orders for values from (0) to (100);
            create table orders_high (name text, id int primary key);
            alter table orders attach partition orders_high for values from (100) to (200);
            create publication p for table orders;
        ",
        steps: &[
            First("insert into orders values (1, 'low'), (150, 'high')"),
            First("update orders set id = 151 where id = 1"),
            First("truncate orders"),
        ],
    },
    Workload {
        name: "keyless",
        schema: "
            create table t (a int, b text);
            alter table t replica identity full;
            create publication p for all tables;
        ",
        steps: &[
            First("insert into t values (1, 'x'), (1, 'x'), (null, null)"),
            First("update t set b = 'y' where a = 1"),
            First("begin; update t set b = 'z' where a is null; delete from t where a = 1; commit"),
        ],
    },
    Workload {
        name: "idle",
        schema: "
            create table t (id int primary key);
            create table unpublished (id int primary key);
            create table unwanted (id int primary key);
            create publication p for table t, unwanted;
        ",
        steps: &[
            First("insert into unpublished values (1)"),
            First("begin; select 1; commit"),
            First("insert into unwanted values (1), (2)"),
            First("create table made_later (id int primary key)"),
            First("begin; insert into unwanted values (3); insert into t values (1); insert into unwanted values (4);
                   insert into t values (2); insert into unwanted values (5); commit"),
            First("begin; insert into unwanted values (6); commit"),
            First("select pg_switch_wal()"),
            First("checkpoint"),
        ],
    },
    Workload {
        name: "subtransactions",
        schema: "
            create table t (id int primary key, name text);
            create publication p for all tables;
        ",
        steps: &[First(
            "begin; insert into t values (1, 'kept'); savepoint a; insert into t values (2, 'rolled back');
             rollback to a; insert into t values (3, 'kept'); savepoint b; update t set name = 'changed' where id = 1;
             savepoint c; delete from t where id = 3; rollback to c; release b; insert into t values (4, 'kept');
             commit",
        )],
    },
    Workload {
        name: "interleaved",
        schema: "
            create table t (id int primary key, name text);
            create publication p for all tables;
        ",
        steps: &[
            First("begin; insert into t values (1, 'first')"),
            Second("begin; insert into t values (2, 'second')"),
            First("insert into t values (3, 'first')"),
            Second("insert into t values (4, 'second'); commit"),
            Second("insert into t values (5, 'alone')"),
            First("update t set name = 'later' where id = 1; commit"),
            Second("begin; insert into t values (6, 'left open')"),
            First("insert into t values (7, 'alone')"),
            Second("rollback"),
        ],
    },
    Workload {
        name: "names",
        schema: "
            create schema \"Sch.ema\"\"; drop\";
            create table \"Sch.ema\"\"; drop\".\"ta ble.*>\nline\" (id int primary key, \"before\" text, \"a.b\" text, \"ключ\" text,
                                                              \"\r\n\t\" text);
            create table \"quote'\"\"`$\" (id text primary key);
            create publication p for all tables;
        ",
        steps: &[
            First("insert into \"Sch.ema\"\"; drop\".\"ta ble.*>\nline\" values (1, 'x', 'y', 'ы', E'\\r\\n\\u2028')"),
            First("insert into \"quote'\"\"`$\" values (''), ('a.b.*.>'), (E'line\\nHeader: x')"),
            First("update \"quote'\"\"`$\" set id = 'новый' where id = ''"),
        ],
    },
    Workload {
        name: "long_transaction",
        schema: "
            create table t (id int primary key, name text);
            create table unwanted (id int primary key);
            create publication p for all tables;
        ",
        steps: &[
            First("begin; insert into t select i, 'row ' || i from generate_series(1, 300) i;
                   insert into unwanted select i from generate_series(1, 20) i; commit"),
            First("update t set id = id + 1000 where id <= 20; delete from t where id <= 40"),
        ],
    },
];
