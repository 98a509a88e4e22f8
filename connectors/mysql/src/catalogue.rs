//! Questions to the server, over an ordinary connection.

mod grants;
mod server;
pub(crate) mod tables;

use figvine_change::{SourceError, SourceErrorKind};
use mysql_async::prelude::Queryable;
use mysql_async::{ClientIdentity, Conn, DriverError, IoError, Opts, OptsBuilder, Row, SslOpts, Value};
use secrecy::ExposeSecret;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::dial::unreachable;
use crate::error::{Told, failure, of_query};
use crate::session::{Session, TextRow};
use crate::url::{ConnectUrl, Host, SslMode};

pub(crate) use grants::Grants;
pub(crate) use server::{LogFile, LogStatus, Server};
pub(crate) use tables::{ColumnFacts, ForeignKey, Index, Key, Keys, TableFacts};

/// What makes answers the same on every server: no mode that changes how SQL is read, times in UTC.
const SETTINGS: &str = "SET SESSION sql_mode = '', time_zone = '+00:00'";

/// A connection for queries.
#[derive(Debug)]
pub(crate) struct Catalogue {
    client: Client,
    host: Host,
}

/// Who speaks to the server.
#[derive(Debug)]
enum Client {
    Library(Conn),
    /// For `ssl-mode=VERIFY_CA`: `mysql_async` 0.37 knows a certificate of another name by words that rustls no
    /// longer uses, and so refuses what `with_danger_skip_domain_validation` should let pass.
    Own(Session),
}

impl Catalogue {
    /// Connects to the first host that lets us in. `program` is what the server's lists call us.
    pub(crate) async fn connect(url: &ConnectUrl, program: &str) -> Result<Self, SourceError> {
        let mut last = None;
        for host in &url.hosts {
            match Box::pin(connect(url, host, program)).await {
                Ok(client) => return Ok(Self { client, host: host.clone() }),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| failure(SourceErrorKind::Invalid, "FV-1112", "the url names no host")))
    }

    /// Over a session of our own, which is there for other commands too.
    pub(crate) async fn own(url: &ConnectUrl, program: &str) -> Result<Self, SourceError> {
        let mut session = Session::open(url, program).await?;
        session.query_for(SETTINGS, "preparing to read rows").await?;
        let host = session.host().clone();
        Ok(Self { client: Client::Own(session), host })
    }

    /// The session of [`Catalogue::own`].
    pub(crate) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.client {
            Client::Own(session) => Some(session),
            Client::Library(_) => None,
        }
    }

    /// The host that let us in.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Asks in text; `what` says what for.
    pub(crate) async fn ask(&mut self, sql: &str, what: &str) -> Result<Vec<TextRow>, SourceError> {
        let conn = match &mut self.client {
            Client::Library(conn) => conn,
            Client::Own(session) => return session.query_for(sql, what).await,
        };
        let rows: Vec<Row> = conn.query(sql).await.map_err(|e| of_query(e, what))?;
        let field = |value: Value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            other => Some(other.as_sql(true)),
        };
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(field).collect()).collect())
    }

    /// The same for one field of one row; empty where there is none.
    pub(crate) async fn ask_one(&mut self, sql: &str, what: &str) -> Result<String, SourceError> {
        let mut rows = self.ask(sql, what).await?;
        Ok(rows.pop().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
    }
}

/// A text as SQL takes it under every `sql_mode`.
pub(crate) fn literal(text: &str) -> String {
    let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 X'{digits}'")
}

/// A field of a row, as text; empty where it is null or there is none.
pub(crate) fn field(row: &TextRow, at: usize) -> &str {
    row.get(at).and_then(|field| field.as_deref()).unwrap_or_default()
}

async fn connect(url: &ConnectUrl, host: &Host, program: &str) -> Result<Client, SourceError> {
    if url.ssl_mode == SslMode::VerifyCa {
        let mut session = Session::open(&url.only(host), program).await?;
        session.query(SETTINGS).await?;
        return Ok(Client::Own(session));
    }
    open_library(url, host, program).await.map(Client::Library)
}

async fn open_library(url: &ConnectUrl, host: &Host, program: &str) -> Result<Conn, SourceError> {
    let wants_tls = url.ssl_mode != SslMode::Disabled && matches!(host, Host::Tcp(..));
    let ssl = if wants_tls { Some(ssl_options(url)?) } else { None };
    match open(options(url, host, program, ssl), url, host).await? {
        Ok(conn) => Ok(conn),
        Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))
            if url.ssl_mode == SslMode::Preferred =>
        {
            open(options(url, host, program, None), url, host).await?.map_err(|e| of_connect(e, host))
        }
        Err(error) => Err(of_connect(error, host)),
    }
}

async fn open(opts: Opts, url: &ConnectUrl, host: &Host) -> Result<mysql_async::Result<Conn>, SourceError> {
    // A task of its own: the client library panics on a server's RSA key that is none.
    let mut task = JoinSet::new();
    task.spawn(Conn::new(opts));
    match timeout(url.connect_timeout, task.join_next()).await {
        Ok(Some(Ok(opened))) => Ok(opened),
        Ok(Some(Err(panicked))) => Err(unreachable(host, panicked)),
        Ok(None) => Err(unreachable(host, "no connection was begun")),
        Err(_) => Err(unreachable(host, format!("no answer within {} s", url.connect_timeout.as_secs()))),
    }
}

fn options(url: &ConnectUrl, host: &Host, program: &str, ssl: Option<SslOpts>) -> Opts {
    let builder = OptsBuilder::default()
        .user(Some(&url.user))
        .pass(url.password.as_ref().map(|password| password.expose_secret()))
        // Else it leaves a TCP connection to this machine for the socket that the server names.
        .prefer_socket(false)
        .tcp_nodelay(true)
        .connect_attribute("program_name", program)
        .ssl_opts(ssl)
        .init(vec![SETTINGS]);
    match host {
        Host::Tcp(name, port) => builder.ip_or_hostname(name).tcp_port(*port).into(),
        Host::Unix(path) => builder.socket(Some(path.to_string_lossy())).into(),
    }
}

fn ssl_options(url: &ConnectUrl) -> Result<SslOpts, SourceError> {
    let mut ssl = SslOpts::default();
    if let Some((cert, key)) = url.ssl_cert.clone().zip(url.ssl_key.clone()) {
        ssl = ssl.with_client_identity(Some(ClientIdentity::new(cert.into(), key.into())));
    }
    if matches!(url.ssl_mode, SslMode::Preferred | SslMode::Required) {
        return Ok(ssl.with_danger_accept_invalid_certs(true));
    }
    let roots = match &url.ssl_ca {
        Some(file) => vec![file.clone().into()],
        None => rustls_native_certs::load_native_certs().certs.into_iter().map(|cert| cert.to_vec().into()).collect(),
    };
    if roots.is_empty() {
        let error = failure(SourceErrorKind::Invalid, "FV-1115", "there is no authority to trust");
        return Err(error.hint("Name one by `ssl-ca` in the url."));
    }
    Ok(ssl.with_disable_built_in_roots(true).with_root_certs(roots))
}

fn of_connect(error: mysql_async::Error, host: &Host) -> SourceError {
    match error {
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            failure(SourceErrorKind::Refused, "FV-1113", format!("{host} does not speak TLS")).hint(
                "Give the server a certificate, or say `ssl-mode=PREFERRED` in the url if a clear connection is fine.",
            )
        }
        mysql_async::Error::Io(error) if is_tls(&error) => {
            failure(SourceErrorKind::Refused, "FV-1114", format!("no trusted TLS connection to {host}"))
                .hint("Check `ssl-ca`, `ssl-cert` and `ssl-key` in the url, and that the certificate names the host.")
                .because(error)
        }
        mysql_async::Error::Io(error) => unreachable(host, error),
        error => of_query(error, &format!("connecting to {host}")),
    }
}

fn is_tls(error: &IoError) -> bool {
    match error {
        IoError::Tls(_) => true,
        IoError::Io(error) => error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()),
    }
}
