//! The shop's session with its database: one wording of its statements for all databases.

use std::error::Error;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use crate::{SandboxError, mysqld, postgres};

/// A connection. The statements that it takes have `?` for each value.
#[derive(Debug)]
pub(super) enum Till {
    Postgres(Client),
    MySql(Conn),
}

impl Till {
    /// Connects to the database that the URL names: `postgres:`, `mysql:` or `mariadb:`.
    pub(super) async fn open(url: &str) -> Result<Self, SandboxError> {
        if url.starts_with("mysql:") || url.starts_with("mariadb:") {
            mysqld::connect(url).await.map(Self::MySql)
        } else {
            postgres::connect(url).await.map(Self::Postgres)
        }
    }

    pub(super) async fn begin(&mut self) -> Result<(), SandboxError> {
        self.simple("begin").await
    }

    pub(super) async fn commit(&mut self) -> Result<(), SandboxError> {
        self.simple("commit").await
    }

    async fn simple(&mut self, sql: &str) -> Result<(), SandboxError> {
        match self {
            Self::Postgres(client) => client.batch_execute(sql).await.map_err(refused),
            Self::MySql(conn) => conn.query_drop(sql).await.map_err(mysqld::refused(WORK)),
        }
    }

    pub(super) async fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<(), SandboxError> {
        match self {
            Self::Postgres(client) => {
                client.execute(&numbered(sql), &parameters(values)).await.map(drop).map_err(refused)
            }
            Self::MySql(conn) => {
                let values: Vec<mysql_async::Value> = values.iter().map(|value| value.to_mysql()).collect();
                conn.exec_drop(sql, values).await.map_err(mysqld::refused(WORK))
            }
        }
    }

    /// Inserts one row and returns the `id` that the database gave it.
    pub(super) async fn insert(&mut self, sql: &str, values: &[Value<'_>]) -> Result<i64, SandboxError> {
        match self {
            Self::Postgres(client) => {
                let sql = numbered(sql) + " returning id";
                let row = client.query_one(&sql, &parameters(values)).await.map_err(refused)?;
                row.try_get(0).map_err(refused)
            }
            Self::MySql(conn) => {
                let values: Vec<mysql_async::Value> = values.iter().map(|value| value.to_mysql()).collect();
                conn.exec_drop(sql, values).await.map_err(mysqld::refused(WORK))?;
                Ok(conn.last_insert_id().unwrap_or_default().cast_signed())
            }
        }
    }

    /// Whether what failed with `error` may succeed on a new connection.
    pub(super) fn is_lost(&self, error: &SandboxError) -> bool {
        matches!(self, Self::Postgres(client) if client.is_closed()) || is_lost(error)
    }
}

/// Whether the same statement may succeed on a new connection: the connection failed, or the server goes down or comes up,
/// or gave up a transaction for another one (40xxx), as it does with deadlocks.
fn is_lost(error: &SandboxError) -> bool {
    match error {
        SandboxError::Sql { source, .. } => {
            let io = || source.source().is_some_and(|source| source.is::<std::io::Error>());
            let state = |state: &SqlState| state.code().starts_with("57P0") || state.code().starts_with("40");
            source.is_closed() || source.code().map_or_else(io, state)
        }
        // 1053: shutdown in progress; 1205: another transaction held a lock for too long; 1927: connection killed.
        SandboxError::MySql { source: mysql_async::Error::Server(refusal), .. } => {
            refusal.state.starts_with("40")
                || refusal.state.starts_with("08")
                || [1053, 1205, 1927].contains(&refusal.code)
        }
        SandboxError::MySql { source, .. } => source.is_fatal(),
        _ => false,
    }
}

const WORK: &str = "let the shop do its work";

fn refused(source: tokio_postgres::Error) -> SandboxError {
    SandboxError::Sql { what: WORK, source }
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    /// Text, and what the database makes of text: a decimal number, a UUID, a member of an enumeration.
    Text(&'a str),
}

impl Value<'_> {
    fn to_mysql(self) -> mysql_async::Value {
        match self {
            Self::Null => mysql_async::Value::NULL,
            Self::Integer(number) => number.into(),
            Self::Text(text) => text.into(),
        }
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

/// As text for every type: PostgreSQL reads each parameter as the type that it deduces for it.
impl ToSql for Value<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

fn parameters<'a>(values: &'a [Value<'_>]) -> Vec<&'a (dyn ToSql + Sync)> {
    values.iter().map(|value| value as _).collect()
}

/// The statement as PostgreSQL wants it: `$1` for the first `?`, and so on.
fn numbered(sql: &str) -> String {
    let mut pieces = sql.split('?');
    let mut statement = pieces.next().unwrap_or_default().to_owned();
    for (number, piece) in (1..).zip(pieces) {
        statement.push_str(&format!("${number}{piece}"));
    }
    statement
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_values_are_numbered_for_postgres() {
        assert_eq!(numbered("a = ? and b in (?, ?)"), "a = $1 and b in ($2, $3)");
        assert_eq!(numbered("commit"), "commit");
    }

    #[test]
    fn a_deadlock_is_tried_again_and_a_missing_table_is_not() {
        let refusal = |code, state: &str| SandboxError::MySql {
            what: WORK,
            source: mysql_async::ServerError { code, message: String::new(), state: state.to_owned() }.into(),
        };
        assert!(is_lost(&refusal(1213, "40001")));
        assert!(is_lost(&refusal(1053, "08S01")));
        assert!(!is_lost(&refusal(1146, "42S02")));
    }
}
