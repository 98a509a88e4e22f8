//! Records what a walsender sends: the captures that the decoder's tests read.
//!
//! ```text
//! cargo run -p figvine-postgres --example capture -- 127.0.0.1:5432 connectors/postgres/tests/captures
//! ```
//!
//! The server must be a fresh private one that trusts its superuser `postgres`
//! and has `wal_level=logical`; each workload makes a database of its own and
//! leaves it behind. Every file holds the CopyData frames of one session, with tag and
//! length, as they came. Of keepalives in a row only the last is kept.
//!
//! New captures differ in LSNs, times and ids, and so do the snapshots then.

mod workloads;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use workloads::{Step, WORKLOADS};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long the server may take for a step.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(server), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: capture HOST:PORT FOLDER [WORKLOAD]...".into());
    };
    let only: Vec<String> = arguments.collect();
    for workload in WORKLOADS.iter().filter(|w| only.is_empty() || only.iter().any(|name| name == w.name)) {
        let database = format!("capture_{}", workload.name);
        let mut tasks = JoinSet::new();
        let admin = connect(&server, "postgres", &mut tasks).await?;
        admin.batch_execute(&format!("drop database if exists {database}")).await?;
        admin.batch_execute(&format!("create database {database}")).await?;
        let clients = [connect(&server, &database, &mut tasks).await?, connect(&server, &database, &mut tasks).await?];
        clients[0].batch_execute(workload.schema).await?;

        let recorded =
            tokio::time::timeout(DEADLINE, record(&server, &database, workload.steps, &clients, &admin)).await;
        let frames = recorded.map_err(|_| format!("{}: the server took too long", workload.name))??;
        tokio::fs::write(Path::new(&folder).join(format!("{}.bin", workload.name)), &frames).await?;
    }
    Ok(())
}

async fn connect(server: &str, database: &str, tasks: &mut JoinSet<()>) -> Result<Client> {
    let (host, port) = server.rsplit_once(':').ok_or("the server is HOST:PORT")?;
    let mut config = tokio_postgres::Config::new();
    config.host(host).port(port.parse()?).user("postgres").dbname(database);
    let (client, connection) = Box::pin(config.connect(NoTls)).await?;
    tasks.spawn(async move {
        // Its error reaches whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(client)
}

/// Runs the steps; behind each waits until the server has read its log so far.
async fn record(
    server: &str,
    database: &str,
    steps: &[Step],
    clients: &[Client; 2],
    watcher: &Client,
) -> Result<Vec<u8>> {
    let mut session = Session::open(server, database).await?;
    session.command("CREATE_REPLICATION_SLOT capture TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT").await?;
    session.replicate().await?;
    let mut recording = Recording::default();
    for step in steps {
        let (client, sql) = match step {
            Step::First(sql) => (&clients[0], sql),
            Step::Second(sql) => (&clients[1], sql),
        };
        client.batch_execute(sql).await?;
        let flushed: String = watcher.query_one("select pg_current_wal_flush_lsn()::text", &[]).await?.get(0);
        let flushed = lsn(&flushed).ok_or("not an LSN")?;
        loop {
            session.ask().await?;
            if session.record_to_keepalive(&mut recording).await? >= flushed {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(recording.frames)
}

fn lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// The frames so far.
#[derive(Default)]
struct Recording {
    frames: Vec<u8>,
    /// Where the keepalive begins that stands last, if one does.
    keepalive: Option<usize>,
}

impl Recording {
    fn push(&mut self, body: &[u8]) -> Result<()> {
        if let Some(at) = self.keepalive.take().filter(|_| body.first() == Some(&b'k')) {
            self.frames.truncate(at);
        }
        self.keepalive = (body.first() == Some(&b'k')).then_some(self.frames.len());
        self.frames.put_u8(b'd');
        self.frames.put_u32(u32::try_from(body.len() + 4)?);
        self.frames.extend_from_slice(body);
        Ok(())
    }
}

/// A walsender's session, in its barest form.
struct Session {
    stream: TcpStream,
    input: BytesMut,
}

impl Session {
    async fn open(server: &str, database: &str) -> Result<Self> {
        let mut session = Self { stream: TcpStream::connect(server).await?, input: BytesMut::new() };
        let parameters = [
            ("user", "postgres"),
            ("database", database),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("datestyle", "ISO"),
            ("intervalstyle", "iso_8601"),
            ("extra_float_digits", "3"),
            ("timezone", "UTC"),
            ("lc_monetary", "C"),
            ("bytea_output", "hex"),
        ];
        let mut out = BytesMut::new();
        frontend::startup_message(parameters, &mut out)?;
        session.stream.write_all(&out).await?;
        session.wait_for(b'Z').await?;
        Ok(session)
    }

    async fn command(&mut self, command: &str) -> Result<()> {
        self.send(command).await?;
        self.wait_for(b'Z').await
    }

    async fn replicate(&mut self) -> Result<()> {
        self.send(
            "START_REPLICATION SLOT capture LOGICAL 0/0 (proto_version '1', publication_names 'p', messages 'true')",
        )
        .await?;
        self.wait_for(b'W').await
    }

    async fn send(&mut self, command: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(command, &mut out)?;
        Ok(self.stream.write_all(&out).await?)
    }

    /// A status that confirms nothing and wants a keepalive.
    async fn ask(&mut self) -> Result<()> {
        let mut out = BytesMut::new();
        out.put_u8(b'd');
        out.put_u32(4 + 1 + 8 + 8 + 8 + 8 + 1);
        out.put_u8(b'r');
        out.put_bytes(0, 32);
        out.put_u8(1);
        Ok(self.stream.write_all(&out).await?)
    }

    async fn wait_for(&mut self, wanted: u8) -> Result<()> {
        loop {
            let (tag, _) = self.frame().await?;
            if tag == wanted {
                return Ok(());
            }
        }
    }

    /// Records up to and including the next keepalive; returns its log end.
    async fn record_to_keepalive(&mut self, recording: &mut Recording) -> Result<u64> {
        loop {
            let (tag, body) = self.frame().await?;
            if tag != b'd' {
                continue;
            }
            recording.push(&body)?;
            if let [b'k', rest @ ..] = &body[..]
                && let Some(end) = rest.first_chunk::<8>()
            {
                return Ok(u64::from_be_bytes(*end));
            }
        }
    }

    async fn frame(&mut self) -> Result<(u8, BytesMut)> {
        loop {
            if let Some(&[tag, length @ ..]) = self.input.first_chunk::<5>() {
                let whole = u32::from_be_bytes(length) as usize + 1;
                if self.input.len() >= whole {
                    let body = self.input.split_to(whole).split_off(5);
                    if tag == b'E' {
                        return Err(String::from_utf8_lossy(&body).replace('\0', " ").into());
                    }
                    return Ok((tag, body));
                }
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }
}
