//! A private MySQL.

use std::ops::Deref;

use crate::SandboxError;
use crate::mysqld::{Kind, MySqlOptions, Mysqld, TOOLS_LOG, find};
use crate::process::fetched;

const KIND: Kind = Kind {
    program: "mysqld",
    log_reader: "mysqlbinlog",
    home_prefix: "figvine-mysql-",
    // Without the last, mysqld demands a directory that only an installed server has.
    needed: "innodb_redo_log_capacity = 32M\nmysqlx = 0\nsecure_file_priv = \"\"\n",
    logging: "gtid_mode = ON\nenforce_gtid_consistency = ON\nbinlog_format = ROW\nbinlog_row_image = FULL\n\
              binlog_row_metadata = FULL\n",
    initialise: |home, program| {
        let mut command = home.command(program, TOOLS_LOG)?;
        command.args([
            "--no-defaults",
            "--initialize-insecure",
            "--skip-log-bin",
            "--secure-file-priv=",
            "--innodb-redo-log-capacity=32M",
        ]);
        Ok(command)
    },
    set_password: |password| format!("alter user root@localhost identified by {password}"),
};

/// A private MySQL, with its binary log as Figvine reads it: GTIDs, whole rows, full metadata.
#[derive(Debug)]
pub struct MySql(Mysqld);

impl MySql {
    /// Creates a server and starts it; returns when it takes connections.
    ///
    /// The program is the one that `FIGVINE_MYSQLD` names, or that `make servers` got.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] without a MySQL or setpriv; [`SandboxError::Ended`] with the log's end when a setting is
    /// refused.
    pub async fn start(options: MySqlOptions) -> Result<Self, SandboxError> {
        let programs = fetched().into_iter().map(|dir| dir.join("mysql-9.7/bin/mysqld"));
        let program = find("FIGVINE_MYSQLD", programs, "MySQL")?;
        Mysqld::start(&KIND, program, options).await.map(Self)
    }

    /// Starts a server that follows `primary` by GTIDs, from the beginning of its binary log, which must be whole. It has
    /// the primary's options, and `settings` beside them, and logs what it applies.
    ///
    /// # Errors
    /// As [`MySql::start`]; [`SandboxError::MySql`] or [`SandboxError::Timeout`] when the replication does not begin.
    pub async fn replica_of(primary: &Self, settings: &[(String, String)]) -> Result<Self, SandboxError> {
        let replica = primary.follower(settings).await?;
        // The last is for passwords, which go over a connection without TLS only when encrypted.
        let sql = format!(
            "change replication source to {}, source_auto_position = 1, get_source_public_key = 1; start replica",
            primary.source("source")
        );
        replica.follow(sql, "show replica status", ["Replica_IO_Running", "Replica_SQL_Running"]).await?;
        Ok(Self(replica))
    }
}

impl Deref for MySql {
    type Target = Mysqld;

    fn deref(&self) -> &Mysqld {
        &self.0
    }
}
