//! Connection URLs, in libpq's words.

use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct ConnectUrl {
    /// Hosts to try, in order.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// The database.
    pub database: String,
    /// How TLS is used.
    pub sslmode: SslMode,
    /// PEM file of the authorities to trust; `None` for the system's.
    pub sslrootcert: Option<PathBuf>,
    /// PEM file of our certificate chain.
    pub sslcert: Option<PathBuf>,
    /// PEM file of its key.
    pub sslkey: Option<PathBuf>,
    /// How long one host may take to answer.
    pub connect_timeout: Duration,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Over TCP.
    Tcp(String, u16),
    /// Over a Unix socket: the folder it lies in, and the port in its name.
    Unix(PathBuf, u16),
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server can; nothing is verified. libpq's `allow` is taken as this.
    Prefer,
    /// Always; verified only where `sslrootcert` is given.
    Require,
    /// Always; the certificate must come from a trusted authority.
    VerifyCa,
    /// Always; and it must name the host.
    VerifyFull,
}

/// A URL that cannot be read. Never shows the URL: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The scheme is another.
    #[error("the url of a PostgreSQL source begins with `postgres://`")]
    Scheme,
    /// A percent-escape gives no UTF-8.
    #[error("{part} of the url is not UTF-8 once its percent-escapes are read")]
    NotText {
        /// The part.
        part: &'static str,
    },
    /// A port is no number.
    #[error("the port of the url is no number from 1 to 65535")]
    Port,
    /// No user.
    #[error("the url names no user")]
    NoUser,
    /// No database.
    #[error("the url names no database")]
    NoDatabase,
    /// A parameter that is not known.
    #[error("the url's parameter `{0}` is not known")]
    UnknownParameter(String),
    /// A parameter's value that is not known.
    #[error("the url's parameter `{parameter}` cannot be `{value}`")]
    BadValue {
        /// The parameter.
        parameter: &'static str,
        /// Its value.
        value: String,
    },
}

impl ConnectUrl {
    /// Reads `postgres://user:password@host:port,host:port/database?sslmode=verify-full`.
    ///
    /// Parameters: `host port user password dbname sslmode sslrootcert sslcert sslkey connect_timeout`, and
    /// `application_name`, which is ignored: the bridge names itself.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let rest =
            url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(user, word)| (user, Some(word)));

        let mut user = text(user, "the user")?;
        let mut password = password.map(|p| text(p, "the password")).transpose()?;
        let mut database = text(database, "the database")?;
        let mut hosts_text: Vec<(String, Option<String>)> = Vec::new();
        for host in hosts.split(',').filter(|h| !h.is_empty()) {
            hosts_text.push(split_port(host)?);
        }
        let mut parsed = Self {
            hosts: Vec::new(),
            user: String::new(),
            password: None,
            database: String::new(),
            sslmode: SslMode::Prefer,
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            connect_timeout: Duration::from_secs(10),
        };
        let mut default_port = None;
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = text(value, "a parameter")?;
            match name {
                "host" => hosts_text = value.split(',').map(|host| (host.to_owned(), None)).collect(),
                "port" => default_port = Some(value),
                "user" => user = value,
                "password" => password = Some(value),
                "dbname" => database = value,
                "sslmode" => parsed.sslmode = sslmode(value)?,
                "sslrootcert" => parsed.sslrootcert = (value != "system").then(|| value.into()),
                "sslcert" => parsed.sslcert = Some(value.into()),
                "sslkey" => parsed.sslkey = Some(value.into()),
                "connect_timeout" => {
                    let seconds = value.parse().ok().filter(|s| *s > 0);
                    let seconds = seconds.ok_or(UrlError::BadValue { parameter: "connect_timeout", value })?;
                    parsed.connect_timeout = Duration::from_secs(seconds);
                }
                "application_name" => {}
                other => return Err(UrlError::UnknownParameter(other.into())),
            }
        }
        if hosts_text.is_empty() {
            hosts_text.push(("localhost".into(), None));
        }
        for (host, port) in hosts_text {
            let port = match port.as_ref().or(default_port.as_ref()) {
                None => 5432,
                Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or(UrlError::Port)?,
            };
            parsed.hosts.push(if host.starts_with('/') {
                Host::Unix(host.into(), port)
            } else {
                Host::Tcp(host, port)
            });
        }
        if user.is_empty() {
            return Err(UrlError::NoUser);
        }
        if database.is_empty() {
            return Err(UrlError::NoDatabase);
        }
        parsed.user = user;
        parsed.password = password.map(SecretString::from);
        parsed.database = database;
        Ok(parsed)
    }
}

fn text(escaped: &str, part: &'static str) -> Result<String, UrlError> {
    percent_decode_str(escaped).decode_utf8().map(Into::into).map_err(|_| UrlError::NotText { part })
}

/// `host`, `host:port`, `[::1]:port`, `%2Fsocket%2Ffolder:port`.
fn split_port(host: &str) -> Result<(String, Option<String>), UrlError> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    Ok((text(name, "the host")?, port.filter(|p| !p.is_empty()).map(Into::into)))
}

fn sslmode(value: String) -> Result<SslMode, UrlError> {
    Ok(match value.as_str() {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => return Err(UrlError::BadValue { parameter: "sslmode", value }),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_url_is_read_as_libpq_reads_it() {
        let url = ConnectUrl::parse(
            "postgres://fig%40vine:p%3Aw%2F@db1:5433,[::1],%2Frun%2Fpg/shop?sslmode=verify-full&sslrootcert=/ca.pem",
        )
        .expect("a url");
        assert_eq!(url.user, "fig@vine");
        assert_eq!(url.password.as_ref().map(|p| p.expose_secret()), Some("p:w/"));
        assert_eq!(
            url.hosts,
            [Host::Tcp("db1".into(), 5433), Host::Tcp("::1".into(), 5432), Host::Unix("/run/pg".into(), 5432)]
        );
        assert_eq!((url.database.as_str(), url.sslmode), ("shop", SslMode::VerifyFull));
        let url = ConnectUrl::parse("postgresql:///shop?host=/tmp&port=6000&user=u").expect("a url");
        assert_eq!(url.hosts, [Host::Unix("/tmp".into(), 6000)]);
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for (url, error) in [
            ("mysql://u@h/d", "the url of a PostgreSQL source begins with `postgres://`"),
            ("postgres://h/d", "the url names no user"),
            ("postgres://u:secret@h", "the url names no database"),
            ("postgres://u:secret@h:x/d", "the port of the url is no number from 1 to 65535"),
            ("postgres://u:secret@h:0/d", "the port of the url is no number from 1 to 65535"),
            ("postgres://u:secret@h/d?sslmod=x", "the url's parameter `sslmod` is not known"),
            ("postgres://u:secret@h/d?sslmode=full", "the url's parameter `sslmode` cannot be `full`"),
            ("postgres://u:%FFsecret@h/d", "the password of the url is not UTF-8 once its percent-escapes are read"),
        ] {
            assert_eq!(ConnectUrl::parse(url).expect_err("no url").to_string(), error, "{url}");
        }
    }
}
