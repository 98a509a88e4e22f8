//! Connection URLs, in the words of MySQL's client.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

/// Where and how to connect.
#[derive(Debug, Clone)]
pub struct ConnectUrl {
    /// Hosts to try, in order; one Unix socket where the URL names such.
    pub hosts: Vec<Host>,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Option<SecretString>,
    /// The database whose tables need no prefix.
    pub database: Option<String>,
    /// How TLS is used.
    pub ssl_mode: SslMode,
    /// PEM file of the authorities to trust; `None` for the system's.
    pub ssl_ca: Option<PathBuf>,
    /// PEM file of our certificate chain.
    pub ssl_cert: Option<PathBuf>,
    /// PEM file of its key.
    pub ssl_key: Option<PathBuf>,
    /// How long one host may take to let us in.
    pub connect_timeout: Duration,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// Over TCP.
    Tcp(String, u16),
    /// Over a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Self::Tcp(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// `--ssl-mode` of MySQL's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disabled,
    /// If the server can; nothing is verified.
    Preferred,
    /// Always; nothing is verified.
    Required,
    /// Always; the certificate must come from a trusted authority.
    VerifyCa,
    /// Always; and it must name the host.
    VerifyIdentity,
}

/// A URL that cannot be read. Never shows the URL: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The scheme is another.
    #[error("the url of a MySQL source begins with `mysql://` or `mariadb://`")]
    Scheme,
    /// A percent-escape gives no UTF-8.
    #[error("{part} of the url is not UTF-8 once its percent-escapes are read")]
    NotText {
        /// The part.
        part: &'static str,
    },
    /// A NUL byte: it would end the text on the wire.
    #[error("{part} of the url holds a NUL byte")]
    Nul {
        /// The part.
        part: &'static str,
    },
    /// A port is no number.
    #[error("the port of the url is no number from 1 to 65535")]
    Port,
    /// No user.
    #[error("the url names no user")]
    NoUser,
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
    /// A setting that TLS would be needed for.
    #[error("a Unix socket has no TLS: `ssl-mode` cannot verify anything there")]
    SocketTls,
}

impl ConnectUrl {
    /// Reads `mysql://user:password@host:port,host:port/database?ssl-mode=VERIFY_IDENTITY`.
    ///
    /// Parameters: `socket ssl-mode ssl-ca ssl-cert ssl-key connect-timeout` (seconds); `_` will do for `-`.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let rest = url.strip_prefix("mysql://").or_else(|| url.strip_prefix("mariadb://")).ok_or(UrlError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = userinfo.split_once(':').map_or((userinfo, None), |(user, word)| (user, Some(word)));

        let user = text(user, "the user")?;
        if user.is_empty() {
            return Err(UrlError::NoUser);
        }
        let database = text(database, "the database")?;
        let mut parsed = Self {
            hosts: Vec::new(),
            user,
            password: password.map(|p| text(p, "the password")).transpose()?.map(SecretString::from),
            database: Some(database).filter(|name| !name.is_empty()),
            ssl_mode: SslMode::Preferred,
            ssl_ca: None,
            ssl_cert: None,
            ssl_key: None,
            connect_timeout: Duration::from_secs(10),
        };
        for host in hosts.split(',').filter(|host| !host.is_empty()) {
            parsed.hosts.push(tcp(host)?);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = text(value, "a parameter")?;
            match name.replace('_', "-").as_str() {
                "socket" => parsed.hosts = vec![Host::Unix(value.into())],
                "ssl-mode" => parsed.ssl_mode = ssl_mode(value)?,
                "ssl-ca" => parsed.ssl_ca = Some(value.into()),
                "ssl-cert" => parsed.ssl_cert = Some(value.into()),
                "ssl-key" => parsed.ssl_key = Some(value.into()),
                "connect-timeout" => {
                    let seconds = value.parse().ok().filter(|seconds| *seconds > 0);
                    let seconds = seconds.ok_or(UrlError::BadValue { parameter: "connect-timeout", value })?;
                    parsed.connect_timeout = Duration::from_secs(seconds);
                }
                _ => return Err(UrlError::UnknownParameter(name.into())),
            }
        }
        if parsed.hosts.is_empty() {
            parsed.hosts.push(Host::Tcp("localhost".into(), 3306));
        }
        let is_socket = parsed.hosts.iter().any(|host| matches!(host, Host::Unix(_)));
        if is_socket && matches!(parsed.ssl_mode, SslMode::Required | SslMode::VerifyCa | SslMode::VerifyIdentity) {
            return Err(UrlError::SocketTls);
        }
        Ok(parsed)
    }

    /// The same, to one host alone: what is asked and what is read then come from one server.
    #[must_use]
    pub fn only(&self, host: &Host) -> Self {
        Self { hosts: vec![host.clone()], ..self.clone() }
    }
}

fn text(escaped: &str, part: &'static str) -> Result<String, UrlError> {
    let text = percent_decode_str(escaped).decode_utf8().map_err(|_| UrlError::NotText { part })?;
    if text.contains('\0') { Err(UrlError::Nul { part }) } else { Ok(text.into()) }
}

/// `host`, `host:port`, `[::1]:port`.
fn tcp(host: &str) -> Result<Host, UrlError> {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let port = match port.filter(|port| !port.is_empty()) {
        None => 3306,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(UrlError::Port)?,
    };
    Ok(Host::Tcp(text(name, "the host")?, port))
}

fn ssl_mode(value: String) -> Result<SslMode, UrlError> {
    Ok(match value.to_ascii_uppercase().replace('-', "_").as_str() {
        "DISABLED" => SslMode::Disabled,
        "PREFERRED" => SslMode::Preferred,
        "REQUIRED" => SslMode::Required,
        "VERIFY_CA" => SslMode::VerifyCa,
        "VERIFY_IDENTITY" => SslMode::VerifyIdentity,
        _ => return Err(UrlError::BadValue { parameter: "ssl-mode", value }),
    })
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_url_is_read_part_by_part() {
        let url = ConnectUrl::parse(
            "mysql://fig%40vine:p%3Aw%2F@db1:3307,[::1]/shop?ssl-mode=verify_identity&ssl_ca=/ca.pem&connect-timeout=3",
        )
        .expect("a url");
        assert_eq!(url.user, "fig@vine");
        assert_eq!(url.password.as_ref().map(|p| p.expose_secret()), Some("p:w/"));
        assert_eq!(url.hosts, [Host::Tcp("db1".into(), 3307), Host::Tcp("::1".into(), 3306)]);
        assert_eq!((url.database.as_deref(), url.ssl_mode), (Some("shop"), SslMode::VerifyIdentity));
        assert_eq!(url.ssl_ca, Some("/ca.pem".into()));
        assert_eq!(url.connect_timeout, Duration::from_secs(3));
        let url = ConnectUrl::parse("mariadb://u@?socket=/run/mysqld/mysqld.sock").expect("a url");
        assert_eq!(url.hosts, [Host::Unix("/run/mysqld/mysqld.sock".into())]);
        assert_eq!(url.database, None);
    }

    #[test]
    fn a_bad_url_is_refused_without_showing_it() {
        for (url, error) in [
            ("postgres://u@h/d", "the url of a MySQL source begins with `mysql://` or `mariadb://`"),
            ("mysql://h/d", "the url names no user"),
            ("mysql://u:secret@h:x/d", "the port of the url is no number from 1 to 65535"),
            ("mysql://u:secret@h:0/d", "the port of the url is no number from 1 to 65535"),
            ("mysql://u:secret@h/d?sslmode=x", "the url's parameter `sslmode` is not known"),
            ("mysql://u:secret@h/d?ssl-mode=full", "the url's parameter `ssl-mode` cannot be `full`"),
            ("mysql://u:secret@h/d?connect-timeout=0", "the url's parameter `connect-timeout` cannot be `0`"),
            ("mysql://u:%FFsecret@h/d", "the password of the url is not UTF-8 once its percent-escapes are read"),
            ("mysql://u%00:secret@h/d", "the user of the url holds a NUL byte"),
            (
                "mysql://u:secret@h/d?socket=/s&ssl-mode=REQUIRED",
                "a Unix socket has no TLS: `ssl-mode` cannot verify anything there",
            ),
        ] {
            assert_eq!(ConnectUrl::parse(url).expect_err("no url").to_string(), error, "{url}");
        }
    }

    #[test]
    fn the_debug_form_hides_the_password() {
        let url = ConnectUrl::parse("mysql://u:secret@h/d").expect("a url");
        assert!(!format!("{url:?}").contains("secret"));
    }
}
