//! Logs as text, for snapshots.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use figvine_change::{Cell, Row};
use figvine_mysql::decode::Event;
use figvine_mysql::decode::header::type_name;
use figvine_mysql::decode::partial_json::Diffs;
use figvine_mysql::decode::table_map::{ColumnMap, TableMap};

use crate::walk::{Seen, SeenRow, walk};

/// Longer values are cut.
const SHOWN_BYTES: usize = 24;

/// Every event of a log, and every row.
pub(crate) fn whole(file: &[u8]) -> String {
    let mut out = String::new();
    let mut rows = 0;
    let end = walk(file, &mut |seen| match seen {
        Seen::Event { depth, header, event, decoder } => {
            rows = 0;
            let name = type_name(header.type_code);
            write!(out, "{:indent$}{name} end={} flags={:#x}", "", header.end, header.flags, indent = depth * 2)
                .expect("memory");
            match event {
                Event::FormatDescription => {
                    let format = decoder.format().expect("just read");
                    write!(out, " {} {:?}", format.server_version, format.checksum).expect("memory");
                }
                Event::Query(query) => {
                    let kind = format!("{:?}", query.kind());
                    let kind = kind.split('(').next().unwrap_or_default();
                    write!(out, " {kind} [{}]", query.statement.escape_ascii()).expect("memory");
                    write!(
                        out,
                        " schema={} collation={:?} mode={:?} zone={:?} us={:?} xid={:?}",
                        query.schema.escape_ascii(),
                        query.client_collation,
                        query.sql_mode,
                        query.time_zone.map(|zone| zone.escape_ascii().to_string()),
                        query.microseconds,
                        query.ddl_xid
                    )
                    .expect("memory");
                }
                Event::XaPrepare { one_phase, xid } => write!(out, " {xid} one_phase={one_phase}").expect("memory"),
                Event::Gtid(gtid) => write!(
                    out,
                    " {gtid} statements={} clock={}/{} at={:?}/{:?} length={:?} version={:?}/{:?} ticket={:?}",
                    gtid.may_have_statements,
                    gtid.last_committed,
                    gtid.sequence_number,
                    gtid.committed_at,
                    gtid.original_committed_at,
                    gtid.transaction_length,
                    gtid.server_version,
                    gtid.original_server_version,
                    gtid.commit_group_ticket
                )
                .expect("memory"),
                Event::PreviousGtids(set) => write!(out, " {set}").expect("memory"),
                Event::MariadbGtid(gtid) => {
                    write!(
                        out,
                        " {} standalone={} transactional={} ddl={} commit={:?} alter={:?} engines={:?} thread={:?}",
                        gtid.gtid,
                        gtid.is_standalone,
                        gtid.is_transactional,
                        gtid.is_ddl,
                        gtid.commit_id,
                        gtid.alter,
                        gtid.extra_engines,
                        gtid.thread_id
                    )
                    .expect("memory");
                    for (phase, xid) in [("prepared", gtid.prepared), ("completed", gtid.completed)] {
                        if let Some(xid) = xid {
                            write!(out, " {phase}={xid}").expect("memory");
                        }
                    }
                }
                Event::MariadbGtidList(list) => {
                    list.iter().for_each(|gtid| write!(out, " {gtid}").expect("memory"));
                }
                Event::RowsQuery { statement } => write!(out, " [{}]", statement.escape_ascii()).expect("memory"),
                Event::Rotate { file, position } => write!(out, " {file} {position}").expect("memory"),
                Event::BinlogCheckpoint { file } => write!(out, " {file}").expect("memory"),
                Event::Payload(payload) => {
                    write!(out, " uncompressed={:?}", payload.uncompressed_bytes()).expect("memory")
                }
                Event::Rows(rows) => {
                    write!(out, " table={} flags={:#x} extra={:?}", rows.table_id, rows.flags, rows.extra)
                        .expect("memory");
                }
                Event::TableMap(map) => write!(out, " {}={}.{}", map.table_id, map.schema, map.name).expect("memory"),
                Event::Xid(_) | Event::Stop | Event::StatementContext | Event::Compressed(_) => {}
                other => write!(out, " {other:?}").expect("memory"),
            }
            out.push('\n');
        }
        Seen::Table(table) => show_table(table, &mut out),
        Seen::Row(row) => {
            /// Of one event.
            const SHOWN_ROWS: usize = 2;
            rows += 1;
            match rows {
                0..=SHOWN_ROWS => show_row(&row, &mut out),
                _ if rows == SHOWN_ROWS + 1 => out.push_str("    ... more rows\n"),
                _ => {}
            }
        }
    });
    if let Err(error) = end {
        writeln!(out, "error: {error}").expect("memory");
    }
    out
}

fn show_table(table: &TableMap, out: &mut String) {
    let TableMap { primary_key, has_signs, has_names, columns, .. } = table;
    writeln!(out, "    key={primary_key:?} signs={has_signs} names={has_names}").expect("memory");
    for column in columns {
        let ColumnMap { type_code, metadata, nullable, unsigned, collation, name, labels, .. } = column;
        let name = name.as_deref().unwrap_or("?");
        write!(out, "    {name}: type={type_code} metadata={metadata:#06x}").expect("memory");
        for (flag, text) in [(*nullable, " null"), (*unsigned, " unsigned"), (!column.visible, " invisible")] {
            out.push_str(if flag { text } else { "" });
        }
        if let Some(collation) = collation {
            write!(out, " collation={collation}").expect("memory");
        }
        if let Some(bytes) = column.most_bytes() {
            write!(out, " bytes={bytes}").expect("memory");
        }
        for (name, value) in [("geometry", column.geometry_type), ("dimension", column.vector_dimension)] {
            if let Some(value) = value {
                write!(out, " {name}={value}").expect("memory");
            }
        }
        for label in labels {
            write!(out, " '{}'", label.escape_ascii()).expect("memory");
        }
        out.push('\n');
    }
}

fn show_row(row: &SeenRow<'_>, out: &mut String) {
    write!(out, "    {:?}", row.kind).expect("memory");
    for (name, image) in [("before", row.before), ("after", row.after)] {
        let Some(image) = image else { continue };
        write!(out, " {name}(").expect("memory");
        let partial = if name == "after" { row.partial } else { &[] };
        show_image(row, image, partial, out);
        out.push(')');
    }
    out.push('\n');
}

fn show_image(row: &SeenRow<'_>, image: Row, partial: &[usize], out: &mut String) {
    for (index, cell) in row.cells(image).iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        match cell {
            Cell::Null => out.push_str("null"),
            Cell::Unchanged => out.push('-'),
            Cell::Value(range) => {
                let value = &row.buffer[range.start as usize..range.end as usize];
                if partial.contains(&index) {
                    for diff in Diffs::new(value) {
                        let diff = diff.expect("a difference");
                        write!(out, "<{:?} {} ", diff.kind, diff.path.escape_ascii()).expect("memory");
                        show_bytes(diff.value, out);
                        out.push('>');
                    }
                } else {
                    show_bytes(value, out);
                }
            }
        }
    }
}

fn show_bytes(bytes: &[u8], out: &mut String) {
    if !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        write!(out, "'{}'", String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)])).expect("memory");
    } else {
        bytes.iter().take(SHOWN_BYTES).for_each(|byte| write!(out, "{byte:02x}").expect("memory"));
    }
    if bytes.len() > SHOWN_BYTES {
        write!(out, "..{}", bytes.len()).expect("memory");
    }
}

/// How many of what a log holds.
pub(crate) fn counts(file: &[u8]) -> String {
    let mut out = String::new();
    let mut version = None;
    let mut events: BTreeMap<u8, usize> = BTreeMap::new();
    let mut tables: BTreeMap<String, (usize, [usize; 3])> = BTreeMap::new();
    let end = walk(file, &mut |seen| match seen {
        Seen::Event { header, decoder, .. } => {
            *events.entry(header.type_code).or_default() += 1;
            version = decoder.format().map(|format| format!("{} {:?}", format.server_version, format.checksum));
        }
        Seen::Table(table) => {
            tables.entry(format!("{}.{}", table.schema, table.name)).or_default().0 = table.columns.len();
        }
        Seen::Row(row) => {
            let name = format!("{}.{}", row.table.schema, row.table.name);
            tables.entry(name).or_default().1[row.kind as usize] += 1;
        }
    });
    writeln!(out, "  server: {}", version.as_deref().unwrap_or("unknown")).expect("memory");
    for (type_code, count) in events {
        writeln!(out, "  {} ({type_code}): {count}", type_name(type_code)).expect("memory");
    }
    for (name, (columns, [inserts, updates, deletes])) in tables {
        writeln!(out, "  {name} ({columns} columns): {inserts} inserts, {updates} updates, {deletes} deletes")
            .expect("memory");
    }
    if let Err(error) = end {
        writeln!(out, "  error: {error}").expect("memory");
    }
    out
}
