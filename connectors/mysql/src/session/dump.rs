//! Asking for the log, as a replica does: "COM_BINLOG_DUMP" and "COM_BINLOG_DUMP_GTID" in MySQL's documentation,
//! "Replication Protocol" in MariaDB's.

use std::time::Duration;

use figvine_change::{SourceError, SourceErrorKind};

use super::Session;
use crate::config::Flavour;
use crate::error::{Told, failure};
use crate::gtid::MySqlSet;
use crate::position::Place;

/// The server gives up on a dump whose reader takes nothing for so long (`net_write_timeout`, 60 s by default):
/// whoever is slow behind us must not end it.
const WRITE_TIMEOUT_S: u32 = 24 * 60 * 60;
/// COM_BINLOG_DUMP_GTID: a GTID set follows.
const THROUGH_GTID: u16 = 4;
/// The dump ends where the log does.
const NON_BLOCK: u16 = 1;
/// MariaDB: ANNOTATE_ROWS events are sent too (BINLOG_SEND_ANNOTATE_ROWS_EVENT in its "COM_BINLOG_DUMP").
const ANNOTATED: u16 = 2;

/// Who asks for what.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) from: Place,
    /// Ours; no other replica of the server may have it.
    pub(crate) server_id: u32,
    /// What `SHOW REPLICAS` calls us.
    pub(crate) name: String,
    /// How often the server says that it is there when it has nothing else to say.
    pub(crate) heartbeat: Duration,
    /// Whether MariaDB is to send the statements whose rows follow. MySQL sends what its log has.
    pub(crate) wants_statements: bool,
}

impl Request {
    /// The id of `mysqlbinlog`, which is no replica: a dump under it ends where the log does, and disturbs no other.
    pub(crate) const TO_THE_END: u32 = 0;

    fn flags(&self) -> u16 {
        let non_block = if self.server_id == Self::TO_THE_END { NON_BLOCK } else { 0 };
        if self.wants_statements { non_block | ANNOTATED } else { non_block }
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) server_id: u32,
    /// MySQL only.
    pub(crate) server_uuid: Option<String>,
}

impl Identity {
    /// What names the server in places of files, as [`crate::catalogue::Server::name`].
    pub(crate) fn name(&self) -> String {
        self.server_uuid.clone().unwrap_or_else(|| self.server_id.to_string())
    }
}

impl Session {
    /// Asks who the server is.
    pub(crate) async fn identify(&mut self, flavour: Flavour) -> Result<Identity, SourceError> {
        let rows = self
            .query(match flavour {
                Flavour::MySql => "SELECT @@global.server_id, @@global.server_uuid",
                Flavour::MariaDb => "SELECT @@global.server_id, NULL",
            })
            .await?;
        let field = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(|field| field.as_deref());
        let server_id = field(0).and_then(|id| id.parse().ok()).ok_or_else(|| {
            failure(SourceErrorKind::Refused, "FV-1116", "the server does not say which server it is")
        })?;
        Ok(Identity { server_id, server_uuid: field(1).map(str::to_owned) })
    }

    /// Begins the dump. From here on the session takes no commands.
    pub(super) async fn request(&mut self, flavour: Flavour, request: &Request) -> Result<(), SourceError> {
        // Either server's and either generation's name; those that a server does not know are plain user variables.
        // CRC32 says what we understand, whatever `binlog_checksum` is now: it can change while we read. Events come
        // as they stand in their file; the artificial ROTATE that all begins with has one, whether the file has or not.
        let period = request.heartbeat.as_nanos();
        self.query(&format!(
            "SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}, \
             @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32'"
        ))
        .await?;
        self.query(&format!("SET SESSION net_write_timeout = {WRITE_TIMEOUT_S}")).await?;
        if flavour == Flavour::MariaDb {
            // 4: we know GTID events; for less the server sends others in their place.
            self.query("SET @mariadb_slave_capability = 4").await?;
        }
        if let Place::MariaDb(set) = &request.from {
            self.query(&format!(
                "SET @slave_connect_state = '{set}', @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
            ))
            .await?;
        }
        if request.server_id != Request::TO_THE_END {
            self.execute(0x15, &register(request), "registering as a replica").await.map_err(not_a_replica)?;
        }
        match &request.from {
            Place::MySql(set) => self.command(0x1e, &dump_gtid(request, set)).await,
            Place::MariaDb(_) => self.command(0x12, &dump(request, "", 4)).await,
            Place::File { file, position, .. } => {
                let position = u32::try_from(*position).map_err(|_| {
                    let what =
                        format!("{file}:{position} lies behind the first 4 GiB of its file, where no dump can begin");
                    failure(SourceErrorKind::PositionLost, "FV-1306", what).hint(
                        "Read by GTID, or lower `max_binlog_size` and split the transactions that make such files.",
                    )
                })?;
                self.command(0x12, &dump(request, file, position)).await
            }
        }
    }
}

/// To whoever lacks REPLICATION SLAVE the server says that access is denied, as if the password were wrong.
fn not_a_replica(error: SourceError) -> SourceError {
    if error.code != "FV-1110" {
        return error;
    }
    let what = "registering as a replica: the user lacks the privilege REPLICATION SLAVE";
    let hint = "Run `figvine check`: it prints the grants that are missing.";
    SourceError { source: error.source, ..failure(SourceErrorKind::Refused, "FV-1201", what).hint(hint) }
}

/// COM_REGISTER_SLAVE: id, name, user, password, port, rank, and the source's id.
fn register(request: &Request) -> Vec<u8> {
    let mut out = Vec::from(request.server_id.to_le_bytes());
    // MySQL before 8.0.17 takes names of up to 60 bytes.
    let mut name = String::new();
    for c in request.name.chars() {
        if name.len() + c.len_utf8() > 60 {
            break;
        }
        name.push(c);
    }
    out.push(u8::try_from(name.len()).unwrap_or(0));
    out.extend_from_slice(name.as_bytes());
    // No user, no password: they would be shown by SHOW REPLICAS. Port 0, rank 0, source 0.
    out.extend_from_slice(&[0; 2 + 2 + 4 + 4]);
    out
}

/// COM_BINLOG_DUMP: position, flags, id, file.
fn dump(request: &Request, file: &str, position: u32) -> Vec<u8> {
    let mut out = Vec::from(position.to_le_bytes());
    out.extend_from_slice(&request.flags().to_le_bytes());
    out.extend_from_slice(&request.server_id.to_le_bytes());
    out.extend_from_slice(file.as_bytes());
    out
}

/// COM_BINLOG_DUMP_GTID: flags, id, no file, its beginning, set.
fn dump_gtid(request: &Request, set: &MySqlSet) -> Vec<u8> {
    let set = set.encode();
    let mut out = Vec::from((THROUGH_GTID | request.flags()).to_le_bytes());
    out.extend_from_slice(&request.server_id.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&4u64.to_le_bytes());
    out.extend_from_slice(&u32::try_from(set.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&set);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_laid_out_as_the_protocol_says() {
        let request = Request {
            from: Place::MySql(MySqlSet::default()),
            server_id: 0x0102_0304,
            name: "ü".repeat(40),
            heartbeat: Duration::from_secs(5),
            wants_statements: false,
        };
        let register = register(&request);
        assert_eq!(register.len(), 4 + 1 + 60 + 12);
        assert_eq!(register[..5], [4, 3, 2, 1, 60]);
        let request = Request { server_id: 7, ..request };
        assert_eq!(dump(&request, "b.1", 4), *b"\x04\0\0\0\0\0\x07\0\0\0b.1");
        let annotated = Request { wants_statements: true, ..request.clone() };
        assert_eq!(dump(&annotated, "b.1", 4), *b"\x04\0\0\0\x02\0\x07\0\0\0b.1");
        let set = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:1".parse().expect("a set");
        let to_the_end = Request { server_id: Request::TO_THE_END, ..request.clone() };
        assert_eq!(self::dump(&to_the_end, "b.1", 4), *b"\x04\0\0\0\x01\0\0\0\0\0b.1");
        assert_eq!(dump_gtid(&to_the_end, &set)[..6], *b"\x05\0\0\0\0\0");
        let dump = dump_gtid(&request, &set);
        assert_eq!(dump[..22], *b"\x04\0\x07\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x30\0\0\0");
        assert_eq!(dump.len(), 22 + 0x30);
    }
}
