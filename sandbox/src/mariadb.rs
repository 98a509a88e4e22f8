//! A private MariaDB.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::SandboxError;
use crate::mysqld::{Kind, MySqlOptions, Mysqld, TOOLS_LOG, find};

const KIND: Kind = Kind {
    program: "mariadbd",
    log_reader: "mariadb-binlog",
    home_prefix: "figvine-mariadb-",
    needed: "innodb_log_file_size = 16M\n",
    logging: "gtid_strict_mode = ON\nlog_slave_updates = ON\nbinlog_format = ROW\nbinlog_row_image = FULL\n\
              binlog_row_metadata = FULL\n",
    initialise: |home, program| {
        let mut command = home.command(&installer(program)?, TOOLS_LOG)?;
        command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        command.arg("--innodb-log-file-size=16M");
        if let Some(root) = root_of(program).filter(|root| *root != Path::new("/usr")) {
            command.arg(format!("--basedir={}", root.display()));
        }
        Ok(command)
    },
    // Accounts for both names of this machine are there from the beginning, and either may be the one that is asked.
    set_password: |password| {
        let accounts = ["localhost", "127.0.0.1", "::1"].map(|host| format!("root@'{host}' identified by {password}"));
        format!("alter user if exists {}", accounts.join(", "))
    },
};

/// A private MariaDB, with its binary log as Figvine reads it: strict GTIDs, whole rows, full metadata.
#[derive(Debug)]
pub struct MariaDb(Mysqld);

/// What a private MariaDB is started with.
pub type MariaDbOptions = MySqlOptions;

impl MariaDb {
    /// Creates a server and starts it; returns when it takes connections.
    ///
    /// The program is the one that `FIGVINE_MARIADBD` names, or else the installed one.
    ///
    /// # Errors
    /// [`SandboxError::Missing`] without a MariaDB or setpriv; [`SandboxError::Ended`] with the log's end when a setting is
    /// refused.
    pub async fn start(options: MariaDbOptions) -> Result<Self, SandboxError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/libexec")];
        let folders = folders.into_iter().chain(std::env::split_paths(&path));
        let program = find("FIGVINE_MARIADBD", folders.map(|dir| dir.join("mariadbd")), "MariaDB")?;
        Mysqld::start(&KIND, program, options).await.map(Self)
    }

    /// Starts a server that follows `primary` by GTIDs, from the beginning of its binary log, which must be whole. It has
    /// the primary's options, and `settings` beside them, and logs what it applies.
    ///
    /// # Errors
    /// As [`MariaDb::start`]; [`SandboxError::MySql`] or [`SandboxError::Timeout`] when the replication does not begin.
    pub async fn replica_of(primary: &Self, settings: &[(String, String)]) -> Result<Self, SandboxError> {
        let replica = primary.follower(settings).await?;
        let sql = format!("change master to {}, master_use_gtid = slave_pos; start slave", primary.source("master"));
        replica.follow(sql, "show slave status", ["Slave_IO_Running", "Slave_SQL_Running"]).await?;
        Ok(Self(replica))
    }
}

impl Deref for MariaDb {
    type Target = Mysqld;

    fn deref(&self) -> &Mysqld {
        &self.0
    }
}

/// The directory above that of the program.
fn root_of(program: &Path) -> Option<&Path> {
    program.parent()?.parent()
}

/// The script that creates data directories; unpacked archives of MariaDB have it in `scripts`.
fn installer(program: &Path) -> Result<PathBuf, SandboxError> {
    let beside = program.parent().map(Path::to_owned);
    let above = root_of(program).into_iter().flat_map(|root| [root.join("bin"), root.join("scripts")]);
    let mut found = beside.into_iter().chain(above).map(|dir| dir.join("mariadb-install-db"));
    let missing = || SandboxError::Missing { program: "mariadb-install-db of MariaDB".to_owned() };
    found.find(|script| script.is_file()).ok_or_else(missing)
}
