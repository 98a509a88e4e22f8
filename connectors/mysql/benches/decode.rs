//! How fast a log's bytes become cells, and values JSON, on one core.
//!
//! `cargo bench -p figvine-mysql --bench decode`. Without `--bench` (as `cargo test` runs it) it is over at once.
//!
//! First logs that are made up here, then a million rows that a MySQL wrote: read by `mysqlbinlog --raw` (what a
//! server and its own client do without looking at rows), by `mysql_common`, and by this decoder.

use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use figvine_change::{Cell, ValueCodec};
use figvine_mysql::decode::file::{FileEvents, MAGIC};
use figvine_mysql::decode::header::kind;
use figvine_mysql::decode::table_map::{TableMap, TableMapEvent};
use figvine_mysql::decode::{Decoder, Event};
use figvine_mysql::value::{Charsets, ValueOptions, codec};
use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::{MySql, MySqlOptions};
use mysql_common::binlog::BinlogFile;
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::EventData;
use nix::sys::resource::{Usage, UsageWho, getrusage};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rows of a bulk insert when it is measured; without that, a few are enough.
const ROWS: u32 = 1_000_000;
const FEW_ROWS: u32 = 1000;

/// What the servers fill an event up to (`binlog_row_event_max_size`).
const EVENT_BYTES: usize = 8192;

/// A log file, with what ends each event.
struct Log {
    bytes: Vec<u8>,
    has_checksums: bool,
}

impl Log {
    fn new(has_checksums: bool) -> Self {
        let mut log = Self { bytes: MAGIC.to_vec(), has_checksums };
        let mut version = [0; 50];
        version.iter_mut().zip(b"8.4.0").for_each(|(to, from)| *to = *from);
        let mut lengths = [0; 42];
        for (type_code, length) in
            [(kind::QUERY, 13), (kind::TABLE_MAP, 8), (kind::WRITE_ROWS, 10), (kind::UPDATE_ROWS, 10)]
        {
            if let Some(slot) = lengths.get_mut(usize::from(type_code) - 1) {
                *slot = length;
            }
        }
        let body = [&[4, 0], &version[..], &[0; 4], &[19], &lengths, &[u8::from(has_checksums)]].concat();
        // The format's own event has a checksum always.
        log.has_checksums = true;
        log.push(kind::FORMAT_DESCRIPTION, &body);
        log.has_checksums = has_checksums;
        log
    }

    #[expect(clippy::cast_possible_truncation, reason = "events of a few kilobytes")]
    fn push(&mut self, type_code: u8, body: &[u8]) {
        let start = self.bytes.len();
        let size = 19 + body.len() + if self.has_checksums { 4 } else { 0 };
        self.bytes.extend_from_slice(&[0, 0, 0, 0, type_code, 1, 0, 0, 0]);
        self.bytes.extend_from_slice(&(size as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 6]);
        self.bytes.extend_from_slice(body);
        if self.has_checksums {
            let checksum = crc32fast::hash(self.bytes.get(start..).unwrap_or_default());
            self.bytes.extend_from_slice(&checksum.to_le_bytes());
        }
    }

    /// `id INT, account BIGINT, name VARCHAR(40), total DECIMAL(12,2), at DATETIME(6)`.
    fn table_map(&mut self) {
        self.push(
            kind::TABLE_MAP,
            b"\x07\0\0\0\0\0\x01\0\x04shop\0\x06orders\0\x05\x03\x08\x0f\xf6\x12\x05\xa0\0\x0c\x02\x06\x1e",
        );
    }

    fn row(out: &mut Vec<u8>, id: u32) {
        out.push(if id.is_multiple_of(10) { 0b1_0000 } else { 0 });
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        out.extend_from_slice(b"\x0bcustomer 42");
        out.extend_from_slice(b"\x80\0\0\x01\x02\x03");
        if !id.is_multiple_of(10) {
            out.extend_from_slice(b"\x99\xb2\xbb\x7e\xfb\0\x01\x02");
        }
    }
}

/// One bulk insert.
fn bulk(rows: u32, has_checksums: bool) -> Log {
    let mut log = Log::new(has_checksums);
    log.table_map();
    let head = b"\x07\0\0\0\0\0\x01\0\x02\0\x05\xff";
    let mut body = head.to_vec();
    for id in 0..rows {
        Log::row(&mut body, id);
        if body.len() > EVENT_BYTES || id + 1 == rows {
            log.push(kind::WRITE_ROWS, &body);
            body.truncate(head.len());
        }
    }
    log
}

/// Updates, each of one row with its statement and table map.
fn single(rows: u32, has_checksums: bool) -> Log {
    let mut log = Log::new(has_checksums);
    for id in 0..rows / 4 {
        log.push(kind::QUERY, b"\x01\0\0\0\0\0\0\0\x04\0\0\x09\0\x01\0\0\0\0\0\0\0\0shop\0BEGIN");
        log.table_map();
        let mut body = b"\x07\0\0\0\0\0\x01\0\x02\0\x05\xff\xff".to_vec();
        Log::row(&mut body, id);
        Log::row(&mut body, id);
        log.push(kind::UPDATE_ROWS, &body);
        log.push(kind::XID, &u64::from(id).to_le_bytes());
    }
    log
}

/// A table map as it stood in the log, read; and its columns' codecs.
#[derive(Default)]
struct Known<'a> {
    bytes: &'a [u8],
    map: TableMap,
    codecs: Vec<Arc<dyn ValueCodec>>,
}

impl<'a> Known<'a> {
    fn learn(&mut self, event: &TableMapEvent<'a>) -> Outcome<()> {
        if event.bytes() != self.bytes {
            let map = event.parse()?;
            let (charsets, options) = (Charsets::new(), ValueOptions::default());
            let codecs = map.columns.iter().map(|column| codec(column, None, &charsets, &options));
            *self = Self { bytes: event.bytes(), codecs: codecs.collect(), map };
        }
        Ok(())
    }
}

/// Reads a log, and writes the values of its rows as JSON if there is a buffer for them. Returns the number of rows.
fn read(log: &[u8], cells: &mut Vec<Cell>, mut json: Option<&mut Vec<u8>>) -> Outcome<usize> {
    let mut decoder = Decoder::new();
    let mut known = Known::default();
    let mut count = 0;
    for event in FileEvents::new(log)? {
        let (at, bytes) = event?;
        match decoder.event(bytes, u32::try_from(at)?)?.1 {
            Event::TableMap(event) => known.learn(&event)?,
            Event::Rows(rows) => {
                let mut rows = rows.of(&known.map)?;
                while let Some(row) = rows.next(cells) {
                    row?;
                    count += 1;
                }
                if let Some(out) = &mut json {
                    for row in cells.chunks(known.codecs.len()) {
                        for (cell, codec) in row.iter().zip(&known.codecs) {
                            if let Cell::Value(range) = cell {
                                let raw = log.get(range.start as usize..range.end as usize);
                                codec.write_json(raw.unwrap_or_default(), out)?;
                            }
                        }
                    }
                    black_box(&out);
                    out.clear();
                }
                black_box(&cells);
                cells.clear();
            }
            _ => {}
        }
    }
    Ok(count)
}

/// The same by `mysql_common`: its own values, nothing written.
fn read_by_mysql_common(log: &[u8]) -> Outcome<usize> {
    let mut file = BinlogFile::new(BinlogVersion::Version4, log)?;
    let mut count = 0;
    while let Some(event) = file.next() {
        if let Some(EventData::RowsEvent(rows)) = event?.read_data()? {
            let table = file.reader().get_tme(rows.table_id()).ok_or("rows of no table")?;
            for row in rows.rows(table) {
                black_box(row?);
                count += 1;
            }
        }
    }
    Ok(count)
}

/// CPU time in seconds, user and system.
fn cpu_seconds(who: UsageWho) -> Outcome<f64> {
    let usage: Usage = getrusage(who)?;
    #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds are small")]
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The fewest seconds that one way to read took.
struct Way {
    name: &'static str,
    wall: f64,
    cpu: f64,
}

impl Way {
    fn new(name: &'static str) -> Self {
        Self { name, wall: f64::INFINITY, cpu: f64::INFINITY }
    }

    /// Times one pass, and demands that it saw all rows.
    fn time(&mut self, who: UsageWho, rows: usize, pass: impl FnOnce() -> Outcome<usize>) -> Outcome<()> {
        let (began, cpu) = (Instant::now(), cpu_seconds(who)?);
        let seen = pass()?;
        self.wall = self.wall.min(began.elapsed().as_secs_f64());
        self.cpu = self.cpu.min(cpu_seconds(who)? - cpu);
        if seen != rows {
            return Err(format!("{}: {seen} rows of {rows}", self.name).into());
        }
        Ok(())
    }
}

/// What a private server is filled with: `ROWS` rows in one statement.
const SCHEMA: &str = "create table load_test.small (id bigint primary key, name varchar(40) character set utf8mb4,
    total decimal(12,2), changed_at datetime(6), account int)";
const LOAD: &str = "insert into load_test.small
    with recursive numbers(n) as (select 1 union all select n + 1 from numbers where n < 1000000)
    select n, concat('customer ', n), n * 1.25, timestampadd(microsecond, n * 977, '2026-01-01'), n % 1000 from numbers";
/// Each way is taken so often, in turn, and the quickest pass counts: others use the machine too.
const ROUNDS: usize = 5;

/// Reads what a MySQL wrote, in all ways.
async fn real() -> Outcome<()> {
    let server = MySql::start(MySqlOptions::default()).await?;
    let mut client = server.connect("").await?;
    client.query_drop("create database load_test").await?;
    client.query_drop(SCHEMA).await?;
    client.query_drop("flush binary logs").await?;
    client.query_drop("set cte_max_recursion_depth = 1000000").await?;
    client.query_drop(LOAD).await?;
    let (file, _): (String, u64) = {
        let status = client.query_first::<figvine_sandbox::mysql_async::Row, _>("show binary log status").await?;
        let mut status = status.ok_or("the server has no binary log")?;
        (status.take(0).ok_or("no file")?, status.take(1).ok_or("no position")?)
    };
    client.query_drop("flush binary logs").await?;
    let log = std::fs::read(server.data_dir().join(&file))?;
    let rows = usize::try_from(ROWS)?;

    let target = tempfile::tempdir()?;
    let mut raw = Way::new("mysqlbinlog --raw");
    let mut peer = Way::new("mysql_common, values");
    let mut decoded = Way::new("figvine, cells");
    let mut written = Way::new("figvine, values as JSON");
    let (mut cells, mut json) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw.time(UsageWho::RUSAGE_CHILDREN, rows, || mysqlbinlog(&server, &file, target.path()).map(|()| rows))?;
        peer.time(UsageWho::RUSAGE_THREAD, rows, || read_by_mysql_common(&log))?;
        decoded.time(UsageWho::RUSAGE_THREAD, rows, || read(&log, &mut cells, None))?;
        written.time(UsageWho::RUSAGE_THREAD, rows, || read(&log, &mut cells, Some(&mut json)))?;
    }
    for Way { name, wall, cpu } in [raw, peer, decoded, written] {
        let per_row = f64::from(ROWS);
        writeln!(
            std::io::stdout(),
            "{name:<24} {:>12.0} rows/s {:>8.1} ns/row {:>8.1} ns CPU/row",
            per_row / wall,
            wall * 1e9 / per_row,
            cpu * 1e9 / per_row
        )?;
    }
    Ok(())
}

/// The server's own client, which copies the log over a connection into a file.
fn mysqlbinlog(server: &MySql, file: &str, target: &Path) -> Outcome<()> {
    let program = match std::env::var_os("FIGVINE_MYSQLD") {
        Some(mysqld) => PathBuf::from(mysqld).with_file_name("mysqlbinlog"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers/mysql-9.7/bin/mysqlbinlog"),
    };
    let mut command = Command::new(program);
    command.args(["--no-defaults", "--host=127.0.0.1", "--user=root", "--raw", "--read-from-remote-server"]);
    command.arg(format!("--port={}", server.port())).arg(format!("--result-file={}/", target.display())).arg(file);
    let status = command.stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("mysqlbinlog ended with {status}").into()) }
}

fn main() -> Outcome<()> {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let least = if is_bench { Duration::from_secs(2) } else { Duration::ZERO };
    let rows = if is_bench { ROWS } else { FEW_ROWS };
    for (name, log) in [
        ("bulk insert", bulk(rows, false)),
        ("bulk insert, CRC-32", bulk(rows, true)),
        ("single updates", single(rows, false)),
        ("single updates, CRC-32", single(rows, true)),
    ] {
        let mut cells = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        let began = Instant::now();
        loop {
            rows += read(black_box(&log.bytes), &mut cells, None)?;
            bytes += log.bytes.len();
            if began.elapsed() >= least {
                break;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rows, bytes, took) = (rows as f64, bytes as f64, began.elapsed().as_secs_f64());
        writeln!(
            std::io::stdout(),
            "{name:<24} {:>12.0} rows/s {:>8.1} ns/row {:>8.0} MB/s",
            rows / took,
            took * 1e9 / rows,
            bytes / took / 1e6
        )?;
    }
    if is_bench {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(Box::pin(real()))?;
    }
    Ok(())
}
