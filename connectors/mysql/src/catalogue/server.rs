//! What the server says of itself and of its log.

use std::collections::BTreeMap;
use std::time::Duration;

use figvine_change::{Load, SourceError, SourceErrorKind};

use super::{Catalogue, field};
use crate::backfill::MARK;
use crate::config::Flavour;
use crate::error::failure;
use crate::gtid::{MariaDbSet, MySqlSet};
use crate::position::Place;
use crate::session::TextRow;
use crate::xa::Recovered;

/// Settings that matter; a server knows those that it has. GTID sets are not among them: SHOW cuts long values.
const SETTINGS: [&str; 28] = [
    "binlog_annotate_row_events",
    "binlog_checksum",
    "binlog_expire_logs_auto_purge",
    "binlog_expire_logs_seconds",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_rows_query_log_events",
    "binlog_transaction_compression",
    "enforce_gtid_consistency",
    "expire_logs_days",
    "gtid_mode",
    "gtid_strict_mode",
    "innodb_flush_log_at_trx_commit",
    "innodb_native_foreign_keys",
    "log_bin",
    "log_bin_compress",
    "log_replica_updates",
    "log_slave_updates",
    "lower_case_table_names",
    "max_allowed_packet",
    "max_binlog_total_size",
    "server_id",
    "server_uuid",
    "sync_binlog",
    "version",
    "version_comment",
];

/// A server.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) flavour: Flavour,
    /// `(9, 7, 4)`.
    pub(crate) version: (u32, u32, u32),
    /// `9.7.4-2`, `10.11.19-MariaDB-0+deb12u1-log`.
    pub(crate) version_text: String,
    settings: BTreeMap<String, String>,
}

/// A file of the binary log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) name: String,
    /// Bytes.
    pub(crate) size: u64,
}

impl Server {
    pub(super) fn new(version_text: String, settings: BTreeMap<String, String>) -> Self {
        let flavour = if version_text.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
        // Old clients were told that MariaDB is a 5.5.5.
        let plain = version_text.strip_prefix("5.5.5-").filter(|_| flavour == Flavour::MariaDb);
        let mut numbers = plain.unwrap_or(&version_text).split(|c: char| !c.is_ascii_digit()).map(str::parse);
        let mut number = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Self { flavour, version: (number(), number(), number()), version_text, settings }
    }

    #[cfg(test)]
    pub(crate) fn for_tests(version: &str, settings: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::new(version.into(), settings.into_iter().collect())
    }

    /// A global setting; `None` where the server does not have it.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// Whether a setting is on.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        self.setting(name).is_some_and(|value| value.eq_ignore_ascii_case("ON") || value == "1")
    }

    /// A setting that is a number.
    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.setting(name)?.parse().ok()
    }

    /// What names the server in places of files.
    pub(crate) fn name(&self) -> &str {
        self.setting("server_uuid").or_else(|| self.setting("server_id")).unwrap_or_default()
    }

    /// Whether places are GTIDs. MySQL's other modes log transactions without.
    pub(crate) fn has_gtids(&self) -> bool {
        match self.flavour {
            Flavour::MySql => self.is_on("gtid_mode"),
            Flavour::MariaDb => true,
        }
    }

    /// Whether rows that foreign keys change by themselves are in the log: MySQL from 9.6 on, unless InnoDB still does it.
    pub(crate) fn logs_cascades(&self) -> bool {
        self.flavour == Flavour::MySql && self.version >= (9, 6, 0) && !self.is_on("innodb_native_foreign_keys")
    }
}

impl Catalogue {
    /// Asks who the server is and how it is set.
    pub(crate) async fn server(&mut self) -> Result<Server, SourceError> {
        let version = self.ask_one("SELECT VERSION()", "asking for the version").await?;
        let names = SETTINGS.map(|name| format!("'{name}'")).join(", ");
        let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})");
        let rows = self.ask(&sql, "reading the settings").await?;
        let settings = rows.iter().map(|row| (field(row, 0).to_ascii_lowercase(), field(row, 1).to_owned())).collect();
        Ok(Server::new(version, settings))
    }

    /// MySQL: the transactions that the server has, and those of them that its log no longer has.
    pub(crate) async fn gtid_sets(&mut self) -> Result<(MySqlSet, MySqlSet), SourceError> {
        let sql = "SELECT @@global.gtid_executed, @@global.gtid_purged";
        let rows = self.ask(sql, "asking for the server's transactions").await?;
        let set = |at| rows.first().map_or("", |row| field(row, at)).parse().map_err(unreadable);
        Ok((set(0)?, set(1)?))
    }

    /// MariaDB: the last transactions in the log.
    pub(crate) async fn gtid_position(&mut self) -> Result<MariaDbSet, SourceError> {
        let position = self.ask_one("SELECT @@global.gtid_binlog_pos", "asking for the server's transactions").await?;
        position.parse().map_err(unreadable)
    }

    /// MariaDB: the last transactions before the oldest file that the server still has. Needs BINLOG MONITOR.
    pub(crate) async fn gtid_position_of_oldest(&mut self) -> Result<MariaDbSet, SourceError> {
        let files = self.log_files().await?;
        let oldest = files.first().map_or("", |file| &file.name);
        let sql = format!("SELECT BINLOG_GTID_POS({}, 4)", super::literal(oldest));
        let position = self.ask_one(&sql, "asking where the log begins").await?;
        position.parse().map_err(unreadable)
    }

    /// The files of the log, the oldest first. Needs REPLICATION CLIENT, or BINLOG MONITOR on MariaDB.
    pub(crate) async fn log_files(&mut self) -> Result<Vec<LogFile>, SourceError> {
        let rows = self.ask("SHOW BINARY LOGS", "asking for the files of the log").await?;
        let file = |row| Some(LogFile { name: field(row, 0).to_owned(), size: field(row, 1).parse().ok()? });
        Ok(rows.iter().filter_map(file).collect())
    }

    /// The log's newest file and its end, then the databases that alone are in the log and those that are not.
    /// `None` where there is no log. Needs what [`Catalogue::log_files`] needs.
    pub(crate) async fn log_status(&mut self, server: &Server) -> Result<Option<LogStatus>, SourceError> {
        // MySQL has the new name since 8.2 and the old one no more since 8.4; MariaDB has BINLOG STATUS since 10.5.2.
        let sql = match server.flavour {
            Flavour::MySql if server.version >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        };
        let rows = self.ask(sql, "asking for the newest place of the log").await?;
        let names = |text: &str| text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
        Ok(rows.first().map(|row| LogStatus {
            file: LogFile { name: field(row, 0).to_owned(), size: field(row, 1).parse().unwrap_or(0) },
            only: names(field(row, 2)),
            ignored: names(field(row, 3)),
        }))
    }

    /// Whether somebody reads the log under this id now; `false` where we may not know.
    pub(crate) async fn is_replica_there(&mut self, server: &Server, id: u32) -> Result<bool, SourceError> {
        let sql = match server.flavour {
            Flavour::MySql if server.version >= (8, 0, 22) => "SHOW REPLICAS",
            _ => "SHOW SLAVE HOSTS",
        };
        match self.ask(sql, "looking for other readers of the log").await {
            Ok(rows) => Ok(rows.iter().any(|row| field(row, 0).parse() == Ok(id))),
            Err(error) if error.kind == SourceErrorKind::Refused => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How busy the server is: threads that run, less our dumps, our readers, the server's own and this one. Of other users' threads
    /// the number alone is shown to everybody.
    pub(crate) async fn load(&mut self, server: &Server) -> Result<Load, SourceError> {
        let what = "asking how busy the server is";
        let rows = self.ask("SHOW GLOBAL STATUS LIKE 'Threads\\_running'", what).await?;
        let running: u32 = rows.first().and_then(|row| field(row, 1).parse().ok()).unwrap_or(0);
        let list = self.ask("SHOW FULL PROCESSLIST", what).await?;
        // MySQL counts the event scheduler as running while it waits.
        let is_none = |row: &&TextRow| {
            field(row, 4).starts_with("Binlog Dump")
                || field(row, 7).contains(MARK)
                || field(row, 1) == "event_scheduler"
        };
        let ours = list.iter().filter(is_none).count();
        let ours = u32::try_from(ours).unwrap_or(u32::MAX).saturating_add(1);
        Ok(Load { active_sessions: running.saturating_sub(ours), replica_lag: self.own_lag(server).await? })
    }

    /// How far the server itself is behind, where it is a replica; `None` where we may not know. A primary knows nothing of its
    /// replicas' lag.
    async fn own_lag(&mut self, server: &Server) -> Result<Option<Duration>, SourceError> {
        // The same column in both, and in MariaDB's.
        const SECONDS_BEHIND: usize = 32;
        let sql = match server.flavour {
            Flavour::MySql if server.version >= (8, 0, 22) => "SHOW REPLICA STATUS",
            _ => "SHOW SLAVE STATUS",
        };
        match self.ask(sql, "asking how far the server is behind").await {
            Ok(rows) => {
                let seconds = rows.iter().filter_map(|row| field(row, SECONDS_BEHIND).parse().ok()).max();
                Ok(seconds.map(Duration::from_secs))
            }
            Err(error) if error.kind == SourceErrorKind::Refused => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How many XA transactions are prepared; 0 where we may not know.
    pub(crate) async fn prepared(&mut self) -> Result<usize, SourceError> {
        match self.ask("XA RECOVER", "looking for prepared transactions").await {
            Ok(rows) => Ok(rows.len()),
            Err(error) if error.kind == SourceErrorKind::Refused => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// MariaDB: what its engine has prepared. Needs no privilege.
    pub(crate) async fn recovered(&mut self) -> Result<Recovered, SourceError> {
        let rows = self.ask("XA RECOVER FORMAT='SQL'", "looking for prepared transactions").await?;
        let prepared = rows.iter().map(|row| xid(field(row, 0), field(row, 3))).collect();
        // In this order: what is not prepared any more was logged as ended before.
        Ok(Recovered { prepared, until: self.gtid_position().await? })
    }

    /// The newest place of the log: all that was committed before the call lies before it.
    pub(crate) async fn newest(&mut self, server: &Server) -> Result<Place, SourceError> {
        match server.flavour {
            Flavour::MariaDb => Ok(Place::MariaDb(self.gtid_position().await?)),
            Flavour::MySql if server.has_gtids() => Ok(Place::MySql(self.gtid_sets().await?.0)),
            Flavour::MySql => match self.log_status(server).await? {
                Some(LogStatus { file: LogFile { name, size }, .. }) => {
                    Ok(Place::File { server: server.name().to_owned(), file: name, position: size })
                }
                None => Err(failure(SourceErrorKind::Refused, "FV-1202", "the server keeps no binary log")),
            },
        }
    }
}

/// What SHOW BINARY LOG STATUS says.
#[derive(Debug, Clone)]
pub(crate) struct LogStatus {
    pub(crate) file: LogFile,
    /// `binlog_do_db`.
    pub(crate) only: Vec<String>,
    /// `binlog_ignore_db`.
    pub(crate) ignored: Vec<String>,
}

fn unreadable(error: crate::gtid::GtidError) -> SourceError {
    use crate::error::Told;
    failure(SourceErrorKind::Refused, "FV-1116", "the server's set of transactions cannot be read").because(error)
}

/// The name of an XA transaction as the log writes it. XA RECOVER shows a part as plain text where all of both is plain, and
/// leaves out what is by default.
fn xid(format: &str, shown: &str) -> String {
    let hexadecimal = |part: &str| match part.strip_prefix('X') {
        Some(digits) => digits.trim_matches('\'').to_owned(),
        None => part.trim_matches('\'').bytes().map(|byte| format!("{byte:02x}")).collect(),
    };
    let mut parts = shown.split(',').map(hexadecimal);
    let (global, branch) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("X'{global}',X'{branch}',{format}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_xa_transactions_read_as_in_the_log() {
        assert_eq!(xid("1", "'a-1'"), "X'612d31',X'',1");
        assert_eq!(xid("7", "'a','b',7"), "X'61',X'62',7");
        assert_eq!(xid("1", "X'00ff',X'2c'"), "X'00ff',X'2c',1");
    }

    #[test]
    fn versions_tell_which_server_it_is() {
        for (text, flavour, version) in [
            ("9.7.4-2", Flavour::MySql, (9, 7, 4)),
            ("8.0.36-28.1", Flavour::MySql, (8, 0, 36)),
            ("10.11.19-MariaDB-0+deb12u1-log", Flavour::MariaDb, (10, 11, 19)),
            ("5.5.5-10.6.1-MariaDB", Flavour::MariaDb, (10, 6, 1)),
            ("odd", Flavour::MySql, (0, 0, 0)),
        ] {
            let server = Server::new(text.into(), BTreeMap::new());
            assert_eq!((server.flavour, server.version), (flavour, version), "{text}");
        }
    }

    #[test]
    fn only_new_mysql_logs_cascades() {
        let server = |text: &str, native: &str| {
            Server::new(text.into(), [("innodb_native_foreign_keys".to_owned(), native.to_owned())].into())
        };
        assert!(server("9.7.4", "OFF").logs_cascades());
        assert!(!server("9.7.4", "ON").logs_cascades());
        assert!(!server("8.4.0", "OFF").logs_cascades());
        assert!(!server("11.8.6-MariaDB", "OFF").logs_cascades());
    }
}
