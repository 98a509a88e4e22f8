//! Private PostgreSQL, MySQL, MariaDB and NATS servers for the demo, the tests and the benches.
//!
//! Each server listens on a free port of 127.0.0.1 and keeps its files in a temporary directory. It can be killed, frozen,
//! thawed and restarted on the same port. Dropping the handle kills the server and removes the directory; when the process
//! that started it dies, even by SIGKILL, the kernel kills the server (the directory then stays). To start quickly, MySQL and
//! MariaDB begin with a copy of an empty data directory, which is kept in `target/servers` if that is there.
//!
//! ```no_run
//! # async fn example() -> Result<(), figvine_sandbox::SandboxError> {
//! use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions};
//! let postgres = Postgres::start(PostgresOptions::default()).await?;
//! let nats = Nats::start(NatsOptions::default()).await?;
//! let client = postgres.connect("postgres").await?;
//! postgres.kill9();
//! postgres.restart().await?;
//! # Ok(()) }
//! ```
//!
//! Linux only: servers are started through `setpriv`, and `/proc` tells which processes belong to one.

use std::time::Duration;

mod mariadb;
mod mysql;
mod mysqld;
mod nats;
mod postgres;
mod process;
mod shop;

pub use mariadb::{MariaDb, MariaDbOptions};
pub use mysql::MySql;
pub use mysql_async;
pub use mysqld::{MySqlOptions, Mysqld};
pub use nats::{Nats, NatsCluster, NatsOptions};
pub use postgres::{Auth, Postgres, PostgresOptions};
pub use shop::{Sales, Shop};

/// Certificates for a server, as PEM text.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate, with its chain.
    pub cert: String,
    /// The private key of `cert`.
    pub key: String,
    /// The authority that client certificates must come from. NATS then refuses clients without one; PostgreSQL, MySQL
    /// and MariaDB verify those that are shown, and demand them where [`PostgresOptions::hba`] or the user's `require x509`
    /// says so.
    pub ca: Option<String>,
}

/// Why a private server is not there, or does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// A program is not on this machine.
    #[error("{program} not found: run `make servers`")]
    Missing {
        /// The program and what was demanded of it.
        program: String,
    },
    /// The machine refused a file, a process or a socket.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the machine said.
        source: std::io::Error,
    },
    /// A server or a tool ended where it should not have.
    #[error("{program} ended ({status}), the end of its log:\n{log}")]
    Ended {
        /// Which program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {deadline:?}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        deadline: Duration,
    },
    /// The server was asked for something while it does not run.
    #[error("{program} does not run: restart it first")]
    NotRunning {
        /// Which program.
        program: &'static str,
    },
    /// PostgreSQL refused a connection or a statement.
    #[error("postgres refused to {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// What PostgreSQL said.
        source: tokio_postgres::Error,
    },
    /// MySQL or MariaDB refused a connection or a statement.
    #[error("mysql refused to {what}")]
    MySql {
        /// What was tried.
        what: &'static str,
        /// What the server said.
        source: mysql_async::Error,
    },
    /// The shop was given a rate that is no positive number.
    #[error("the shop's rate must be above 0 and at most 100000 a second, got {rate}")]
    Rate {
        /// The rate, in actions per second.
        rate: f64,
    },
}

/// Asks `probe` every 20 ms until it answers `Some`.
///
/// # Errors
/// [`SandboxError::Timeout`], which names `what`, once `deadline` is over; a probe that hangs does not outlive it.
pub async fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> Result<T, SandboxError> {
    let answered = tokio::time::timeout(deadline, async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    });
    answered.await.map_err(|_| SandboxError::Timeout { what: what.to_owned(), deadline })
}

/// [`wait_for`] for our own use: the compiler cannot tell that a future with an async closure inside may change threads.
async fn poll<T, F>(what: &str, deadline: Duration, mut probe: impl FnMut() -> F) -> Result<T, SandboxError>
where
    F: Future<Output = Option<T>>,
{
    let answered = tokio::time::timeout(deadline, async {
        loop {
            if let Some(answer) = probe().await {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    });
    answered.await.map_err(|_| SandboxError::Timeout { what: what.to_owned(), deadline })
}

const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_never_comes_is_named_when_the_deadline_is_over() {
        let never = wait_for("the second coming", Duration::from_millis(30), async || None::<()>).await;
        assert_eq!(never.unwrap_err().to_string(), "the second coming did not happen within 30ms");
        let hangs =
            wait_for("an answer", Duration::from_millis(30), async || std::future::pending::<Option<()>>().await);
        assert!(matches!(hangs.await, Err(SandboxError::Timeout { .. })));
    }

    #[tokio::test]
    async fn what_comes_late_is_waited_for() {
        let mut asked = 0;
        let third = wait_for("the third time", Duration::from_secs(5), async || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(third.await.unwrap(), 3);
    }
}
