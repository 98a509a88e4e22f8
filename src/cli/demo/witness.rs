//! Who reads the demo's log beside the bridge, and counts: PostgreSQL itself, through a second slot, or the program
//! with which MySQL or MariaDB shows its binary log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use figvine_sandbox::Mysqld;
use figvine_sandbox::mysql_async::prelude::Queryable;
use tokio_postgres::Client;

use super::database::Database;
use super::{CliError, failed, io_failed, refused};

/// Changes by table and operation, and transactions.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) changes: BTreeMap<String, [u64; 3]>,
    pub(super) transactions: u64,
}

impl Counted {
    pub(super) fn rows(&self) -> u64 {
        self.changes.values().flatten().sum()
    }

    /// Rows inserted into a table, in whatever schema it is.
    pub(super) fn inserts(&self, table: &str) -> u64 {
        let is_it = |name: &str| name.rsplit_once('.').is_some_and(|(_, own)| own == table);
        self.changes.iter().filter(|(name, _)| is_it(name)).map(|(_, [inserts, ..])| inserts).sum()
    }
}

/// The database's own account of its log.
pub(super) enum Witness<'a> {
    /// PostgreSQL: a slot.
    Slot(&'a Client),
    /// MySQL, MariaDB: files of the log, from the one with this number on.
    Files { server: &'a Mysqld, first: u64, name: &'static str },
}

impl<'a> Witness<'a> {
    /// Begins to listen. What is committed from now on is counted.
    pub(super) async fn call(database: &'a Database) -> Result<Self, CliError> {
        match database {
            Database::Postgres { client, .. } => {
                let sql = "select pg_create_logical_replication_slot('figvine_witness', 'pgoutput')";
                client.execute(sql, &[]).await.map_err(refused)?;
                Ok(Self::Slot(client))
            }
            Database::MySql(server) => Self::of_files(server, "MySQL's own mysqlbinlog").await,
            Database::MariaDb(server) => Self::of_files(server, "MariaDB's own mariadb-binlog").await,
        }
    }

    async fn of_files(server: &'a Mysqld, name: &'static str) -> Result<Self, CliError> {
        // That it is missing is better told at the beginning.
        server.log_reader().map_err(failed)?;
        let mut conn = Box::pin(server.connect("")).await.map_err(failed)?;
        conn.query_drop("flush binary logs").await.map_err(refused)?;
        let first = files(server)?.into_iter().map(|(number, _)| number).max().unwrap_or_default();
        Ok(Self::Files { server, first, name })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Slot(_) => "PostgreSQL itself",
            Self::Files { name, .. } => name,
        }
    }

    /// Counts from its beginning, anew with each call; `None` when it read the log while the server wrote to it.
    pub(super) async fn count(&self) -> Result<Option<Counted>, CliError> {
        match self {
            Self::Slot(client) => of_slot(client).await.map(Some),
            Self::Files { server, first, .. } => of_files(server, *first).await,
        }
    }
}

/// A message of the plugin begins with its kind; in that of a row the table's OID follows (PostgreSQL
/// documentation, "Logical Replication Message Formats").
async fn of_slot(client: &Client) -> Result<Counted, CliError> {
    let sql = "
        with message as (
            select chr(get_byte(data, 0)) as kind, data from pg_logical_slot_peek_binary_changes(
                'figvine_witness', null, null, 'proto_version', '1', 'publication_names', 'figvine_shop')
        ), change as (
            select kind, case when kind in ('I', 'U', 'D') then (get_byte(data, 1)::bigint << 24)
                + (get_byte(data, 2) << 16) + (get_byte(data, 3) << 8) + get_byte(data, 4) end as table_oid
            from message where kind in ('B', 'I', 'U', 'D')
        )
        select kind, coalesce(nspname || '.' || relname, ''), count(*)
        from change left join pg_class on pg_class.oid = table_oid::oid
            left join pg_namespace on pg_namespace.oid = relnamespace
        group by 1, 2";
    let mut counted = Counted::default();
    for row in client.query(sql, &[]).await.map_err(refused)? {
        let kind: String = row.try_get(0).map_err(refused)?;
        let table: String = row.try_get(1).map_err(refused)?;
        let number: i64 = row.try_get(2).map_err(refused)?;
        let number = u64::try_from(number).unwrap_or_default();
        match kind.as_str() {
            "I" => counted.changes.entry(table).or_default()[0] += number,
            "U" => counted.changes.entry(table).or_default()[1] += number,
            "D" => counted.changes.entry(table).or_default()[2] += number,
            _ => counted.transactions += number,
        }
    }
    Ok(counted)
}

/// The files of a binary log, with their numbers, in order.
fn files(server: &Mysqld) -> Result<Vec<(u64, PathBuf)>, CliError> {
    let unread = |error| io_failed("read the binary log's folder", error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(server.data_dir()).map_err(unread)? {
        let path = entry.map_err(unread)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("binlog.").and_then(|number| number.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

async fn of_files(server: &Mysqld, first: u64) -> Result<Option<Counted>, CliError> {
    let mut command = server.log_reader().map_err(failed)?;
    command.args(["--base64-output=DECODE-ROWS", "--verbose"]);
    command.args(files(server)?.into_iter().filter(|(number, _)| *number >= first).map(|(_, path)| path));
    let output = command.output().await.map_err(|error| io_failed("run the reader of the binary log", error))?;
    Ok(output.status.success().then(|| of_text(&String::from_utf8_lossy(&output.stdout))))
}

/// Rows are told as pseudo-SQL behind `### `, their values on lines of their own behind two more blanks; line feeds in values
/// are escaped.
fn of_text(text: &str) -> Counted {
    let mut counted = Counted::default();
    let mut open: Vec<(String, usize)> = Vec::new();
    for line in text.lines() {
        let row = [("### INSERT INTO ", 0), ("### UPDATE ", 1), ("### DELETE FROM ", 2)]
            .into_iter()
            .find_map(|(mark, place)| line.strip_prefix(mark).map(|table| (table.replace('`', ""), place)));
        open.extend(row.filter(|(table, _)| table.starts_with("shop.")));
        if line.starts_with("COMMIT") && !open.is_empty() {
            counted.transactions += 1;
            for (table, place) in open.drain(..) {
                if let Some(number) = counted.changes.entry(table).or_default().get_mut(place) {
                    *number += 1;
                }
            }
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_at_their_commit_and_those_of_other_databases_are_not() {
        let text = "BEGIN\n/*!*/;\n### INSERT INTO `shop`.`orders`\n### SET\n###   @1=1\n###   @2='### DELETE FROM `shop`.`x`'\n\
            ### UPDATE `shop`.`orders`\n### INSERT INTO `other`.`t`\nCOMMIT/*!*/;\n\
            ### INSERT INTO `other`.`t`\nCOMMIT/*!*/;\n### DELETE FROM `shop`.`orders`\n";
        let counted = of_text(text);
        assert_eq!(counted.changes, [("shop.orders".to_owned(), [1, 1, 0])].into());
        assert_eq!((counted.rows(), counted.transactions), (2, 1));
    }
}
