//! QUERY: a statement, with the session's settings that matter for it.

use super::format::Format;
use super::header::kind;
use super::reader::{DecodeError, Reader};

/// A statement in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The connection that ran it.
    pub thread_id: u32,
    /// The error with which it ended on the server, 0 for none.
    pub error: u16,
    /// The default database, in UTF-8; empty for none.
    pub schema: &'a [u8],
    /// The statement, in [`Query::client_collation`]'s charset.
    pub statement: &'a [u8],
    /// `character_set_client` as the id of a collation.
    pub client_collation: Option<u16>,
    /// `sql_mode`: how the statement is to be parsed.
    pub sql_mode: Option<u64>,
    /// The session's time zone.
    pub time_zone: Option<&'a [u8]>,
    /// Fraction of the header's time, in microseconds.
    pub microseconds: Option<u32>,
    /// MySQL 8: the number of the transaction in the storage engines that a DDL committed.
    pub ddl_xid: Option<u64>,
    /// It reads a file whose blocks stand in the events before it (`LOAD DATA` in statement format).
    pub is_load: bool,
}

/// What a statement does to the transaction around it, or that it does nothing to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statement<'a> {
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK` of the whole transaction.
    Rollback,
    /// `SAVEPOINT`, `RELEASE SAVEPOINT`.
    Savepoint,
    /// `ROLLBACK TO`: the rows since the savepoint that stand in the log are of
    /// tables that cannot roll back, and stay.
    RollbackToSavepoint,
    /// `XA START`, with what follows: the xid.
    XaStart(&'a [u8]),
    /// `XA END`, with what follows.
    XaEnd(&'a [u8]),
    /// `XA PREPARE`, with what follows.
    XaPrepare(&'a [u8]),
    /// `XA COMMIT`, with what follows.
    XaCommit(&'a [u8]),
    /// `XA ROLLBACK`, with what follows.
    XaRollback(&'a [u8]),
    /// Another.
    Other,
}

impl<'a> Query<'a> {
    /// Events 2 and 18, behind the header.
    pub(super) fn read(reader: &mut Reader<'a>, format: &Format, type_code: u8) -> Result<Self, DecodeError> {
        const FIXED_BYTES: usize = 13;
        const LOAD_FIXED_BYTES: usize = 26;
        let is_load = type_code == kind::EXECUTE_LOAD_QUERY;
        let least = if is_load { LOAD_FIXED_BYTES } else { FIXED_BYTES };
        let mut fixed = format.fixed(reader, type_code, least)?;
        let thread_id = fixed.u32("thread id")?;
        fixed.u32("execution time")?;
        let schema_length = fixed.u8("schema length")?;
        let error = fixed.u16("error code")?;
        let variables_length = fixed.u16("length of the status variables")?;
        let at = reader.at();
        let mut variables = Reader::new(reader.take("status variables", usize::from(variables_length))?, at);
        let schema = reader.take("schema", usize::from(schema_length))?;
        reader.u8("end of the schema")?;
        let mut query = Self {
            thread_id,
            error,
            schema,
            statement: reader.rest(),
            client_collation: None,
            sql_mode: None,
            time_zone: None,
            microseconds: None,
            ddl_xid: None,
            is_load,
        };
        query.read_variables(&mut variables)?;
        Ok(query)
    }

    /// The length of a variable is told by its number alone: behind an unknown one nothing can be read.
    fn read_variables(&mut self, variables: &mut Reader<'a>) -> Result<(), DecodeError> {
        while variables.remaining() > 0 {
            match variables.u8("status variable")? {
                // Behind the numbers that nothing here depends on: flags2, auto_increment_*, lc_time_names and their like.
                0 | 3 | 10 => skip(variables, 4)?,
                1 => self.sql_mode = Some(variables.u64("sql mode")?),
                2 => {
                    let length = variables.u8("catalog length")?;
                    variables.take("catalog", usize::from(length))?;
                    variables.u8("end of the catalog")?;
                }
                4 => {
                    self.client_collation = Some(variables.u16("client collation")?);
                    variables.u32("connection and server collation")?;
                }
                5 => {
                    let length = variables.u8("time zone length")?;
                    self.time_zone = Some(variables.take("time zone", usize::from(length))?);
                }
                6 => {
                    let length = variables.u8("catalog length")?;
                    variables.take("catalog", usize::from(length))?;
                }
                7 | 8 | 18 => skip(variables, 2)?,
                9 | 129 => skip(variables, 8)?,
                11 => {
                    for field in ["invoker's user", "invoker's host"] {
                        let length = variables.u8(field)?;
                        variables.take(field, usize::from(length))?;
                    }
                }
                12 => {
                    /// More databases than are listed.
                    const TOO_MANY: u8 = 254;
                    let count = variables.u8("number of updated databases")?;
                    for _ in 0..if count == TOO_MANY { 0 } else { count } {
                        variables.until_nul("updated database")?;
                    }
                }
                // 128 is MariaDB's.
                13 | 128 => self.microseconds = Some(variables.u24("microseconds")?),
                16 | 19 | 20 => skip(variables, 1)?,
                17 => self.ddl_xid = Some(variables.u64("ddl xid")?),
                130 => {
                    /// The second half of an ALTER in two phases, which names the first.
                    const NAMES_START: u8 = 0x4 | 0x8;
                    if variables.u8("alter phase")? & NAMES_START != 0 {
                        skip(variables, 8)?;
                    }
                }
                131 => {
                    let count = variables.u8("number of collations")?;
                    variables.take("collations", usize::from(count) * 4)?;
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// What the statement does to the transaction around it.
    #[must_use]
    pub fn kind(&self) -> Statement<'a> {
        let (first, rest) = word(self.statement);
        let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
        let second = |name: &str| is(word(rest).0, name);
        if is(first, "BEGIN") {
            // Of a stored program's body nothing is logged as such, so that nothing follows.
            if trimmed(rest).is_empty() || second("WORK") { Statement::Begin } else { Statement::Other }
        } else if is(first, "START") && second("TRANSACTION") {
            Statement::Begin
        } else if is(first, "COMMIT") {
            Statement::Commit
        } else if is(first, "ROLLBACK") {
            let (next, behind) = word(rest);
            let is_partial = is(next, "TO") || is(next, "WORK") && is(word(behind).0, "TO");
            if is_partial { Statement::RollbackToSavepoint } else { Statement::Rollback }
        } else if is(first, "SAVEPOINT") || is(first, "RELEASE") && second("SAVEPOINT") {
            Statement::Savepoint
        } else if is(first, "XA") {
            let (verb, xid) = word(rest);
            let xid = trimmed(xid);
            match () {
                () if is(verb, "START") || is(verb, "BEGIN") => Statement::XaStart(xid),
                () if is(verb, "END") => Statement::XaEnd(xid),
                () if is(verb, "PREPARE") => Statement::XaPrepare(xid),
                () if is(verb, "COMMIT") => Statement::XaCommit(xid),
                () if is(verb, "ROLLBACK") => Statement::XaRollback(xid),
                () => Statement::Other,
            }
        } else {
            Statement::Other
        }
    }
}

fn skip(variables: &mut Reader<'_>, length: usize) -> Result<(), DecodeError> {
    variables.take("status variable", length).map(|_| ())
}

/// The first word behind blanks and comments, and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = trimmed(text);
    let length = text.iter().position(|b| !b.is_ascii_alphanumeric() && *b != b'_').unwrap_or(text.len());
    text.split_at_checked(length).unwrap_or((text, &[]))
}

/// Without blanks and comments at the beginning and blanks and `;` at the end.
fn trimmed(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        let Some(comment) = text.strip_prefix(b"/*") else { break };
        // What stands in `/*!` and `/*M!` is no comment to the server.
        if comment.starts_with(b"!") || comment.starts_with(b"M!") {
            break;
        }
        let Some(end) = memchr::memmem::find(comment, b"*/") else { break };
        text = comment.get(end + 2..).unwrap_or_default();
    }
    while let [rest @ .., last] = text {
        if !last.is_ascii_whitespace() && *last != b';' && *last != 0 {
            break;
        }
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(statement: &str) -> Statement<'_> {
        let query = Query {
            thread_id: 0,
            error: 0,
            schema: b"",
            statement: statement.as_bytes(),
            client_collation: None,
            sql_mode: None,
            time_zone: None,
            microseconds: None,
            ddl_xid: None,
            is_load: false,
        };
        query.kind()
    }

    #[test]
    fn statements_that_bound_a_transaction_are_told_from_others() {
        for (text, kind) in [
            ("BEGIN", Statement::Begin),
            ("begin work;", Statement::Begin),
            ("/* tag */ START  TRANSACTION", Statement::Begin),
            ("BEGIN NOT ATOMIC", Statement::Other),
            ("COMMIT", Statement::Commit),
            ("COMMIT /* 7 */", Statement::Commit),
            ("ROLLBACK", Statement::Rollback),
            ("ROLLBACK TO `s1`", Statement::RollbackToSavepoint),
            ("ROLLBACK WORK TO SAVEPOINT s1", Statement::RollbackToSavepoint),
            ("SAVEPOINT `commit`", Statement::Savepoint),
            ("XA START X'61',X'',1", Statement::XaStart(b"X'61',X'',1")),
            ("XA ROLLBACK X'61',X'',1 ", Statement::XaRollback(b"X'61',X'',1")),
            ("BEGINNING", Statement::Other),
            ("COMMITTED", Statement::Other),
            ("CREATE TABLE t (a INT)", Statement::Other),
            ("/* unclosed BEGIN", Statement::Other),
            ("", Statement::Other),
        ] {
            assert_eq!(kind_of(text), kind, "{text}");
        }
    }
}
