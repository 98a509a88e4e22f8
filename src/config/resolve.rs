//! The checked tree into the settings of each part.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use figvine_change::debezium::Binary;
use figvine_mysql::config as mysql;
use figvine_mysql::url::ConnectUrl;
use figvine_postgres::config::{Config as Postgres, Keyless, ValueOptions};
use percent_encoding::percent_decode_str;

use super::keys::ROOT;
use super::raw::{Reader, Section};
use super::yaml::{Node, Value};
use super::{At, Complaints, Config, EngineConfig, Http, Source, context, template};
use crate::backfill::{self, Initial};
use crate::event::{self, Format, Parks};
use crate::map::echo::Echoes;
use crate::nats::{self, Auth, Tls};
use crate::schema::OnDrift;
use crate::stream::{self, OnLoss, change_subjects, domain_subjects};

/// The keys of databases; a source has one of them.
const ENGINES: [&str; 3] = ["postgres", "mysql", "mariadb"];
/// PostgreSQL cuts longer identifiers (NAMEDATALEN - 1).
const MAX_IDENTIFIER_BYTES: usize = 63;
/// The server stores a stream under its name as a folder and refuses longer ones.
const MAX_STREAM_NAME_BYTES: usize = 255;

/// Builds the configuration; its value holds only where nothing was complained about.
pub(super) fn resolve(root: &Node, vars: &BTreeMap<String, String>, complaints: &mut Complaints) -> Option<Config> {
    if matches!(&root.value, Value::Map(entries) if entries.is_empty()) {
        let what = "the file is empty; it needs nats.url and one source with its url and tables";
        complaints.push(&At::Everywhere, "", what.to_owned());
        return None;
    }
    let mut reader = Reader { complaints };
    let root = reader.section("", &root.at, root, ROOT)?;
    let nats = reader.nats(&root, vars);
    let sections = reader.named(&root, "sources");
    let sources: Vec<_> = sections.iter().filter_map(|(name, section)| reader.source(name, section)).collect();
    reader.sources_are_distinct(&sections, &sources);
    let listen = reader.below(&root, "http").and_then(|http| reader.listen(&http, "listen"));
    let shutdown_timeout = reader.duration(&root, "shutdown_timeout").unwrap_or_default();
    Some(Config { nats: nats?, sources, http: Http { listen }, shutdown_timeout })
}

impl Reader<'_> {
    fn nats(&mut self, root: &Section<'_>, vars: &BTreeMap<String, String>) -> Option<nats::Settings> {
        if !root.has("nats") {
            self.missing(root, "nats");
            return None;
        }
        let section = self.below(root, "nats")?;
        let mut urls = self.text_or_list(&section, "url");
        let auth = self.auth(&section);
        let tls = self.tls(&section);
        let context = match self.text(&section, "context").map(|name| context::read(&name, vars)) {
            None => None,
            Some(Ok(context)) => Some(context),
            Some(Err(what)) => {
                self.complain(&section.at("context"), &section.path("context"), &what);
                return None;
            }
        };
        if !section.has("url") {
            match &context {
                Some(context) if context.urls.is_empty() => {
                    self.complain(&section.at("context"), &section.path("context"), "the context names no address");
                }
                Some(context) => urls = context.urls.iter().map(|u| (section.at("context"), u.clone())).collect(),
                None if section.has("context") => {}
                None => self.missing(&section, "url"),
            }
        }
        let (urls, carried) = self.addresses(&section, &urls);
        let (from_context, tls_of_context) = context.map_or((Auth::None, Tls::default()), |c| (c.auth, c.tls));
        if !matches!(carried, Auth::None) && !matches!(auth, Auth::None) {
            self.complain(&section.key_at("auth"), &section.path("auth"), "the address already carries credentials");
        }
        let auth = match (auth, carried) {
            (Auth::None, Auth::None) => from_context,
            (Auth::None, carried) => carried,
            (auth, _) => auth,
        };
        let tls = if section.has("tls") { tls } else { tls_of_context };
        Some(nats::Settings { urls, auth, tls })
    }

    /// Addresses without credentials, and the credentials that they carried.
    fn addresses(&mut self, section: &Section<'_>, urls: &[(At, String)]) -> (Vec<String>, Auth) {
        let path = section.path("url");
        let mut bare = Vec::new();
        let mut carried: Option<String> = None;
        for (at, url) in urls {
            match split_address(url) {
                None => self.complain(at, &path, "expected an address of the form nats://host:port or tls://host:port"),
                Some((address, credentials)) => {
                    bare.push(address);
                    let Some(credentials) = credentials else { continue };
                    if carried.as_ref().is_some_and(|c| c != credentials) {
                        self.complain(at, &path, "the addresses carry different credentials");
                    }
                    carried = Some(credentials.to_owned());
                }
            }
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let auth = match carried.as_deref().map(|c| c.split_once(':').ok_or(c)) {
            None => Auth::None,
            Some(Ok((user, password))) => Auth::User { user: decoded(user), password: decoded(password).into() },
            Some(Err(token)) => Auth::Token(decoded(token).into()),
        };
        (bare, auth)
    }

    fn auth(&mut self, nats: &Section<'_>) -> Auth {
        const WAYS: &str = "expected one of creds, nkey, jwt with seed, user with password, token";
        if !nats.has("auth") {
            return Auth::None;
        }
        let Some(section) = self.below(nats, "auth") else { return Auth::None };
        let ways: Vec<bool> = [&["creds"][..], &["nkey"], &["jwt", "seed"], &["user", "password"], &["token"]]
            .iter()
            .map(|keys| keys.iter().any(|key| section.has(key)))
            .collect();
        match ways.iter().filter(|w| **w).count() {
            0 if section.is_empty() => self.complain(&section.at, &section.path, WAYS),
            0 | 1 => {}
            _ => self.complain(&section.at, &section.path, &format!("more than one way to authenticate; {WAYS}")),
        }
        self.together(&section, "jwt", "seed");
        self.together(&section, "user", "password");
        let path = |text: Option<String>| text.map(PathBuf::from);
        let (creds, nkey) = (path(self.text(&section, "creds")), path(self.text(&section, "nkey")));
        let (jwt, seed) = (path(self.text(&section, "jwt")), path(self.text(&section, "seed")));
        let (user, password) = (self.text(&section, "user"), self.text(&section, "password"));
        let token = self.text(&section, "token");
        if let Some(creds) = creds {
            Auth::Creds(creds)
        } else if let Some(nkey) = nkey {
            Auth::Nkey(nkey)
        } else if let (Some(jwt), Some(seed)) = (jwt, seed) {
            Auth::Jwt { jwt, seed }
        } else if let (Some(user), Some(password)) = (user, password) {
            Auth::User { user, password: password.into() }
        } else {
            token.map_or(Auth::None, |token| Auth::Token(token.into()))
        }
    }

    fn tls(&mut self, nats: &Section<'_>) -> Tls {
        let Some(section) = self.below(nats, "tls") else { return Tls::default() };
        self.together(&section, "cert", "key");
        Tls {
            ca: self.text(&section, "ca").map(PathBuf::from),
            cert: self.text(&section, "cert").map(PathBuf::from),
            key: self.text(&section, "key").map(PathBuf::from),
            first: self.bool(&section, "first"),
        }
    }

    fn together(&mut self, section: &Section<'_>, one: &str, other: &str) {
        for (given, absent) in [(one, other), (other, one)] {
            if section.has(given) && !section.has(absent) {
                self.complain(
                    &section.key_at(given),
                    &section.path(given),
                    &format!("goes with '{absent}', which is missing"),
                );
            }
        }
    }

    fn source(&mut self, name: &str, section: &Section<'_>) -> Option<Source> {
        let tables = self.tables(section);
        let stream = self.stream(name, section);
        let mut events = self.events(name, section);
        let debezium = self.debezium(section);
        let mut encoding = None;
        if events.format == Format::Debezium
            && let Some((values, topic_prefix)) = debezium
        {
            if section.has("mariadb") {
                let what = "'debezium' is built for postgres and mysql; MariaDB's has not been compared";
                self.complain(&section.at("format"), &section.path("format"), what);
            }
            events.topic_prefix = topic_prefix.map_or(events.topic_prefix, Into::into);
            events.binary = values.binary;
            encoding = Some(Arc::new(values));
        }
        let backfill = self.backfill(section);
        let private = self.private(section);
        let ignore = self.below(section, "ignore");
        let mut ignored = |key| ignore.as_ref().map(|ignore| self.list(ignore, key)).unwrap_or_default();
        let (origins, annotations) = (ignored("origins"), ignored("annotations"));
        let schemas = self.schemas(section, events.format);
        let letters = stream.as_ref().and_then(|stream| self.letters(section, stream));
        let seed = stream.as_ref().map(|stream| stream.name.clone()).unwrap_or_default();
        let given: Vec<_> = ENGINES.into_iter().filter(|key| section.has(key)).collect();
        let mut engines = Vec::new();
        for key in &given {
            let engine = match *key {
                "mysql" => self.mysql(name, section, key, mysql::Flavour::MySql, tables.clone(), &seed),
                "mariadb" => self.mysql(name, section, key, mysql::Flavour::MariaDb, tables.clone(), &seed),
                _ => self.postgres(name, section, tables.clone()).map(EngineConfig::Postgres),
            };
            engines.extend(engine);
        }
        match given.as_slice() {
            [] => {
                let what = format!("missing database in {}; expected one of {}", section.path, ENGINES.join(", "));
                self.complaints.push(&section.at, &section.path, what);
            }
            [_] => {}
            [first, others @ ..] => {
                for other in others {
                    let what = format!("a source has one database, and this one has '{first}'");
                    self.complain(&section.key_at(other), &section.path(other), &what);
                }
            }
        }
        let rules = self.rules(section);
        let mut engine = engines.into_iter().next()?;
        match &mut engine {
            EngineConfig::Postgres(config) => {
                config.values.debezium = encoding;
                config.messages.extend(self.outbox_messages(section));
                config.ignore_messages = annotations;
            }
            EngineConfig::Mysql(config) => {
                config.values.debezium = encoding;
                config.ignore_comments = annotations;
            }
        }
        let (poison, letters) = letters?;
        let drift = schemas.is_some_and(|policy| policy.on_drift == OnDrift::Park);
        Some(Source {
            name: name.to_owned(),
            engine,
            events,
            private: Arc::new(private?),
            schemas,
            parks: Parks { poison, drift },
            letters,
            echoes: Echoes::new(origins.into_iter().map(Into::into)),
            stream: stream.map(|stream| match rules.is_empty() {
                true => stream,
                false => stream.with_subjects(domain_subjects(name)),
            })?,
            rules: Arc::new(rules),
            backfill: backfill?,
        })
    }

    fn tables(&mut self, section: &Section<'_>) -> Vec<String> {
        let tables = self.list(section, "tables");
        if section.has("tables")
            && tables.iter().all(|t| t.starts_with('!'))
            && !self.has_complaint_at(section, "tables")
        {
            // MySQL and MariaDB have databases where PostgreSQL has schemas.
            let example = if section.has("mysql") || section.has("mariadb") { "shop.*" } else { "public.*" };
            let what = format!("needs at least one glob that takes tables, such as '{example}'");
            self.complain(&section.at("tables"), &section.path("tables"), &what);
        }
        tables
    }

    pub(super) fn has_complaint_at(&self, section: &Section<'_>, name: &str) -> bool {
        let path = section.path(name);
        self.complaints.0.iter().any(|c| c.path == path)
    }

    fn postgres(&mut self, name: &str, source: &Section<'_>, tables: Vec<String>) -> Option<Postgres> {
        let section = self.below(source, "postgres")?;
        let default = format!("figvine_{}", name.to_ascii_lowercase().replace('-', "_"));
        let url = self.text(&section, "url");
        if url.as_ref().is_some_and(|u| !u.starts_with("postgres://") && !u.starts_with("postgresql://")) {
            let what = "expected an address that begins with postgres:// or postgresql://";
            self.complain(&section.at("url"), &section.path("url"), what);
        }
        let slot = self.text(&section, "slot").unwrap_or_else(|| default.clone());
        // What PostgreSQL itself allows (ReplicationSlotValidateName).
        let is_slot = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        // A source's bad name is complained about as such.
        if slot.len() > MAX_IDENTIFIER_BYTES || (section.has("slot") && !slot.chars().all(is_slot)) {
            let what = "a slot's name holds at most 63 of a-z, 0-9 and '_'";
            self.complain(&section.at("slot"), &section.path("slot"), what);
        }
        let publication = self.text(&section, "publication").unwrap_or(default);
        if publication.len() > MAX_IDENTIFIER_BYTES || publication.contains('\0') {
            let what = "a publication's name has at most 63 bytes";
            self.complain(&section.at("publication"), &section.path("publication"), what);
        }
        Some(Postgres {
            source: name.to_owned(),
            url: url.unwrap_or_default().into(),
            tables,
            slot,
            publication,
            publication_managed: self.bool(&section, "publication_managed"),
            via_partition_root: self.bool(&section, "publish_via_partition_root"),
            keyless: match self.word(&section, "keyless") {
                "whole_row" => Keyless::WholeRow,
                _ => Keyless::Refuse,
            },
            messages: self.list(&section, "messages"),
            trace_message: self.text(&section, "trace_message").filter(|prefix| prefix != "off"),
            ignore_messages: Vec::new(),
            heartbeat: self.duration(&section, "heartbeat"),
            lock_timeout: self.duration(&section, "lock_timeout").unwrap_or_default(),
            slot_is_passing: false,
            values: ValueOptions {
                bigint_as_string: self.word(&section, "bigint") == "string",
                decimal_as_number: self.word(&section, "decimal") == "number",
                debezium: None,
            },
        })
    }

    fn mysql(
        &mut self,
        name: &str,
        source: &Section<'_>,
        key: &str,
        flavour: mysql::Flavour,
        tables: Vec<String>,
        seed: &str,
    ) -> Option<EngineConfig> {
        let section = self.below(source, key)?;
        let url = self.text(&section, "url");
        if url.as_ref().is_some_and(|u| !u.starts_with("mysql://") && !u.starts_with("mariadb://")) {
            let what = "expected an address that begins with mysql:// or mariadb://";
            self.complain(&section.at("url"), &section.path("url"), what);
        }
        Some(EngineConfig::Mysql(mysql::Config {
            source: name.to_owned(),
            flavour,
            url: url.unwrap_or_default().into(),
            tables,
            server_id: section
                .has("server_id")
                .then(|| u32::try_from(self.whole(&section, "server_id")).unwrap_or_default()),
            server_id_seed: seed.to_owned(),
            keyless: match self.word(&section, "keyless") {
                "whole_row" => mysql::Keyless::WholeRow,
                _ => mysql::Keyless::Refuse,
            },
            on_statement: match self.word(&section, "on_statement") {
                "warn" => mysql::OnStatement::Warn,
                _ => mysql::OnStatement::Error,
            },
            trace_comments: self.bool(&section, "trace_comments"),
            ignore_comments: Vec::new(),
            heartbeat: self.duration(&section, "heartbeat").unwrap_or_default(),
            values: mysql::ValueOptions {
                bigint_as_string: self.word(&section, "bigint") == "string",
                decimal_as_number: self.word(&section, "decimal") == "number",
                tinyint1_as_boolean: self.word(&section, "tinyint1") == "boolean",
                zero_date: match self.word(&section, "zero_date") {
                    "null" => mysql::ZeroDate::Null,
                    "error" => mysql::ZeroDate::Error,
                    _ => mysql::ZeroDate::Text,
                },
                debezium: None,
            },
        }))
    }

    fn stream(&mut self, source: &str, section: &Section<'_>) -> Option<stream::Settings> {
        let release_delay = self.duration(section, "release_delay").unwrap_or_default();
        let section = self.below(section, "stream")?;
        let name = self.text(&section, "name").unwrap_or_else(|| format!("FIGVINE_{}", source.to_ascii_uppercase()));
        self.is_stream_name(&section, "name", &name);
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Some(stream::Settings {
            name,
            source: source.to_owned(),
            subjects: vec![change_subjects(source)],
            replicas: count(self.whole(&section, "replicas")),
            max_age: self.duration(&section, "max_age"),
            max_bytes: self.size(&section, "max_bytes"),
            compression: self.bool(&section, "compression"),
            adopt: self.bool(&section, "adopt"),
            on_loss: match self.word(&section, "on_stream_loss") {
                "reread" => OnLoss::Reread,
                _ => OnLoss::Stop,
            },
            ack_timeout: self.duration(&section, "ack_timeout").unwrap_or(Duration::ZERO),
            window_messages: count(self.whole(&section, "window_messages")),
            window_bytes: count(self.size(&section, "window_bytes").unwrap_or_default()),
            release_delay,
        })
    }

    /// Complains where a stream's name is none.
    pub(super) fn is_stream_name(&mut self, section: &Section<'_>, key: &str, name: &str) {
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
        if name.len() > MAX_STREAM_NAME_BYTES || (section.has(key) && name.contains(is_bad)) {
            let what = "a stream's name has at most 255 bytes and no blanks, control characters or any of . * > / \\";
            self.complain(&section.at(key), &section.path(key), what);
        }
    }

    fn backfill(&mut self, source: &Section<'_>) -> Option<backfill::Settings> {
        let initial = match self.word(source, "initial") {
            "backfill" => Initial::Backfill,
            _ => Initial::None,
        };
        let section = self.below(source, "backfill")?;
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let limit = |number: u32| (number > 0).then_some(number);
        Some(backfill::Settings {
            initial,
            rows_per_s: limit(number(self.whole(&section, "rate"))),
            bytes_per_s: self.size(&section, "bytes_rate").map(number),
            parallel: number(self.whole(&section, "parallel")),
            chunk_time: self.duration(&section, "chunk_time").unwrap_or_default(),
            max_replica_lag: self.duration(&section, "max_replica_lag"),
            max_active_sessions: limit(number(self.whole(&section, "max_active_sessions"))),
            min_log_free_percent: number(self.whole(&section, "min_log_free")),
        })
    }

    fn events(&mut self, source: &str, section: &Section<'_>) -> event::Settings {
        let subject = self.text(section, "subject").unwrap_or_default();
        if !subject.is_empty() {
            let shown = !self.is_inserted(section, "subject");
            if let Err(what) = template::check(&subject, shown) {
                self.complain(&section.at("subject"), &section.path("subject"), &what);
            }
        }
        let domain_subject = self.text(section, "domain_subject").unwrap_or_default();
        if let Err(error) = event::check_domain_template(&domain_subject)
            && !domain_subject.is_empty()
        {
            self.complain(&section.at("domain_subject"), &section.path("domain_subject"), &error.to_string());
        } else if !domain_subject.starts_with("events.{source}.") {
            let what = "must begin with 'events.{source}.': that is what the source's stream takes";
            self.complain(&section.at("domain_subject"), &section.path("domain_subject"), what);
        }
        let ce_source = self.text(section, "ce_source").unwrap_or_else(|| format!("/figvine/{source}"));
        // A URI reference (CloudEvents 1.0, `source`); it also stands in a header line.
        if !ce_source.chars().all(|c| c.is_ascii_graphic()) {
            let what = "expected a URI reference: printable ASCII without blanks";
            self.complain(&section.at("ce_source"), &section.path("ce_source"), what);
        }
        let partitions = u16::try_from(self.whole(section, "partitions")).ok().and_then(NonZeroU16::new);
        event::Settings {
            source: source.into(),
            format: match self.word(section, "format") {
                "cloudevents-structured" => Format::CloudEventsStructured,
                "plain" => Format::Plain,
                "debezium" => Format::Debezium,
                _ => Format::CloudEvents,
            },
            subject,
            domain_subject,
            partitions: partitions.unwrap_or(NonZeroU16::MIN),
            ce_source,
            topic_prefix: source.into(),
            binary: Binary::default(),
        }
    }

    /// Two writers of one stream, or two readers of one slot or under one id, would take turns in breaking each other.
    fn sources_are_distinct(&mut self, sections: &[(&str, Section<'_>)], sources: &[Source]) {
        use secrecy::ExposeSecret;
        for (index, later) in sources.iter().enumerate() {
            let Some((_, section)) = sections.iter().find(|(name, _)| *name == later.name) else { continue };
            for earlier in sources.iter().take(index) {
                if earlier.stream.name == later.stream.name {
                    let what = format!("the same stream as source {}; each source needs its own", earlier.name);
                    self.complain(&section.at("stream"), &format!("{}.name", section.path("stream")), &what);
                }
                match (&earlier.engine, &later.engine) {
                    (EngineConfig::Postgres(a), EngineConfig::Postgres(b))
                        if a.slot == b.slot && a.url.expose_secret() == b.url.expose_secret() =>
                    {
                        let what = format!("the same slot of the same database as source {}", earlier.name);
                        self.complain(&section.at("postgres"), &format!("{}.slot", section.path("postgres")), &what);
                    }
                    // Sources of one stream have one derived id: the stream is complained about.
                    (EngineConfig::Mysql(a), EngineConfig::Mysql(b))
                        if a.server_id() == b.server_id()
                            && (a.server_id.is_some() || b.server_id.is_some())
                            && is_same_server(a, b) =>
                    {
                        let key = match b.flavour {
                            mysql::Flavour::MySql => "mysql",
                            mysql::Flavour::MariaDb => "mariadb",
                        };
                        let what = format!("the same id at the same server as source {}", earlier.name);
                        self.complain(&section.at(key), &format!("{}.server_id", section.path(key)), &what);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether two sources read from the same addresses.
fn is_same_server(a: &mysql::Config, b: &mysql::Config) -> bool {
    use secrecy::ExposeSecret;
    let hosts = |config: &mysql::Config| ConnectUrl::parse(config.url.expose_secret()).ok().map(|url| url.hosts);
    hosts(a).is_some_and(|hosts_of_a| Some(hosts_of_a) == hosts(b))
}

/// `scheme://host[:port]` and what stands before an `@`; `None` where it is no such address.
fn split_address(url: &str) -> Option<(String, Option<&str>)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "nats" | "tls") {
        return None;
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, host) = match rest.rsplit_once('@') {
        Some((credentials, host)) => (Some(credentials), host),
        None => (None, rest),
    };
    let (name, port) = match host.strip_prefix('[').map(|h| h.split_once(']')) {
        Some(inside) => {
            let (name, port) = inside?;
            (name, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_host = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    let is_good = !name.is_empty() && name.chars().all(is_host) && port.is_none_or(|p| p.parse::<u16>().is_ok());
    is_good.then(|| (format!("{scheme}://{host}"), credentials))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_credentials() {
        for (url, bare, credentials) in [
            ("nats://h:4222", "nats://h:4222", None),
            ("tls://u:p@h", "tls://h", Some("u:p")),
            ("nats://token@[::1]:4222/", "nats://[::1]:4222", Some("token")),
        ] {
            assert_eq!(split_address(url), Some((bare.to_owned(), credentials)), "{url}");
        }
        for url in ["", "h:4222", "http://h", "nats://", "nats://h:x", "nats://h:99999", "nats://a b", "nats://[::1"] {
            assert_eq!(split_address(url), None, "{url}");
        }
    }
}
