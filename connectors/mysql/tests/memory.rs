//! What a large transaction takes in memory. A program of its own: it measures itself.

#[path = "live/harness.rs"]
#[expect(dead_code, reason = "the other live tests need the rest of it")]
mod harness;

use figvine_change::{Position, Source as _};

use harness::{World, next};

/// Rows of a transaction that is large.
const MANY: u64 = 300_000;
/// What such a transaction may take in memory, in KiB; its rows are some 40 MB, and 20 MB compressed.
const MEMORY_KIB: u64 = 16 * 1024;

/// Fills `big` with so many rows in one transaction.
async fn fill(world: &World, rows: u64) {
    world
        .run(
            "create table other_digits(d int primary key);
             insert into other_digits values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
             create table big(id int primary key, note varchar(200))",
        )
        .await;
    let from = (0..6).map(|at| format!("other_digits d{at}")).collect::<Vec<_>>().join(", ");
    let number = (0..6).map(|at| format!("d{at}.d * {}", 10_u32.pow(at))).collect::<Vec<_>>().join(" + ");
    world
        .run(&format!(
            "insert into big select n, concat('row ', n, sha2(n, 512)) from (select {number} as n from {from}) all_of_them
             where n < {rows} order by n"
        ))
        .await;
}

/// Reads the large transaction, in part or whole: its changes' ordinals from `first` on, up to `count` of them.
async fn read_big(world: &World, from: &Position, first: u64, count: u64) -> Position {
    let mut source = world.open(from).await.expect("opens");
    let mut expected = first;
    let mut position = from.clone();
    while expected < first + count {
        let batch = next(&mut source).await.expect("reads").expect("goes on");
        assert!(batch.data.len() < 4 * 1024 * 1024, "{} bytes", batch.data.len());
        for change in &batch.changes {
            let told = harness::of(&batch, change);
            if told.is_shape || expected == first + count {
                continue;
            }
            assert!(told.text.starts_with(&format!("insert shop.big id={expected} ")), "{}", told.text);
            assert_eq!((told.ordinal, told.last), (expected, expected + 1 == MANY));
            expected += 1;
            position = told.position;
        }
    }
    source.close().await;
    position
}

/// Resident memory, in KiB: now, or at its highest since the last reset.
fn memory_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

async fn large_transaction(world: &World) {
    let from = world.here().await;
    fill(world, MANY).await;
    read_big(world, &from, 0, 1).await;
    let before = memory_kib("VmRSS:");
    // "5" sets the peak back to what is held now.
    std::fs::write("/proc/self/clear_refs", "5").expect("resets the peak");
    let inside = read_big(world, &from, 0, MANY / 2 + 1234).await;
    assert!(inside.within.is_some());
    let behind = read_big(world, &inside, MANY / 2 + 1234, MANY - MANY / 2 - 1234).await;
    let taken = memory_kib("VmHWM:") - before;
    assert!(taken < MEMORY_KIB, "{taken} KiB");
    assert_eq!(world.changes(&behind).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_large_transaction_passes_in_little_memory_and_is_gone_on_with_in_its_middle() {
    large_transaction(&World::mysql(&[]).await).await;
    large_transaction(&World::mysql(&[("binlog_transaction_compression", "ON")]).await).await;
    large_transaction(&World::mariadb(&[]).await).await;
    large_transaction(&World::mariadb(&[("log_bin_compress", "ON"), ("log_bin_compress_min_len", "10")]).await).await;
}
