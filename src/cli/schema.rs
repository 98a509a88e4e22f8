//! `figvine schema`

use std::path::PathBuf;

use async_nats::jetstream;
use serde_json::{Value, json};

use super::{CliError, Output};
use crate::config::{Config, EngineConfig, Source};
use crate::event::Format;
use crate::schema::sql::{Flavour, Forecast, forecast};
use crate::schema::{Book, Break, Kept, Policy, Verdict, Version, asyncapi, between, of_table, parse_key, uri};
use crate::stream::{RegistryError, read_schemas};
use crate::wiring;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List event types and their versions.
    List {
        /// Only this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
    /// Print the JSON Schema of an event type.
    Show {
        /// The type as `list` names it, `shop.public.orders`, with `@1.0` behind it for one version; or the URI out of an event.
        event_type: String,
    },
    /// Tell what breaks between two versions.
    Diff {
        /// The type and the older version, `shop.public.orders@1.0`.
        old: String,
        /// The newer: a version such as `1.1`; by default the one in force.
        new: Option<String>,
    },
    /// Hold the tables as they are now, or as a migration would make them, against what is kept; exit code 1 where something breaks.
    Check {
        /// Only this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// A migration that was not run yet; the database is not asked then.
        #[arg(long, value_name = "FILE")]
        sql: Option<PathBuf>,
    },
    /// Print an AsyncAPI 3.0 document of all event types.
    Asyncapi {
        /// Only this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
}

pub(super) async fn schema(config: &Config, command: &Command, output: Output) -> Result<(), CliError> {
    match command {
        Command::List { source } => list(&books(config, source.as_deref()).await?, output),
        Command::Show { event_type } => show(&books(config, None).await?, event_type),
        Command::Diff { old, new } => diff(&books(config, None).await?, old, new.as_deref(), output),
        Command::Check { source, sql } => {
            let books = books(config, source.as_deref()).await?;
            match sql {
                Some(path) => migration(&books, path, output),
                None => Box::pin(check(&books, output)).await,
            }
        }
        Command::Asyncapi { source } => {
            let books = books(config, source.as_deref()).await?;
            let described: Vec<_> = books
                .iter()
                .map(|of| asyncapi::Described {
                    source: &of.source.name,
                    stream: &of.source.stream.name,
                    subject: &of.source.events.subject,
                    domain_subject: &of.source.events.domain_subject,
                    has_headers: of.source.events.format == Format::CloudEvents,
                    book: &of.book,
                })
                .collect();
            super::print(format_args!("{:#}", asyncapi::document(&config.nats().urls, &described)))
        }
    }
}

/// A source with what is kept of it.
struct Of<'a> {
    source: &'a Source,
    policy: Policy,
    book: Book,
}

async fn books<'a>(config: &'a Config, name: Option<&str>) -> Result<Vec<Of<'a>>, CliError> {
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let client = config.nats().client("figvine schema").await?;
    let context = jetstream::new(client);
    let mut books = Vec::new();
    for source in chosen {
        let Some(policy) = source.schemas else { continue };
        let book = Box::pin(read_schemas(&context, &source.stream.name, &source.name)).await.map_err(unread)?;
        books.push(Of { source, policy, book: book.unwrap_or_default() });
    }
    if books.is_empty() {
        return Err(CliError::new(2, "FV-4052", "no source that is meant keeps schemas")
            .hint("They are off where `schemas.enabled` is false, and in the format debezium."));
    }
    Ok(books)
}

fn unread(error: RegistryError) -> CliError {
    let failed = CliError::new(7, "FV-2212", error.to_string());
    match error.source {
        Some(source) => failed.because(source),
        None => failed,
    }
}

fn list(books: &[Of<'_>], output: Output) -> Result<(), CliError> {
    let mut listed = Vec::new();
    for of in books {
        for (event_type, versions) in of.book.types() {
            let current = of.book.current(event_type).map(|kept| kept.version.to_string());
            let versions: Vec<_> = versions.iter().map(|kept| kept.version.to_string()).collect();
            if output == Output::Text {
                let current = current.as_deref().unwrap_or("-");
                super::print(format_args!("{event_type}  {current}  of {}", versions.join(" ")))?;
            }
            listed.push(
                json!({ "source": of.source.name, "type": event_type, "current": current, "versions": versions }),
            );
        }
    }
    match output {
        Output::Json => super::print(json!({ "schema_version": 1, "types": listed })),
        Output::Text if listed.is_empty() => super::print("no event type has a schema yet"),
        Output::Text => Ok(()),
    }
}

/// A type and a version, as one types them.
fn found<'a>(books: &'a [Of<'_>], text: &str) -> Result<(String, &'a Kept), CliError> {
    let (event_type, version) = match (parse_key(text), text.split_once('@')) {
        (Some((event_type, version)), _) => (event_type, Some(version)),
        (None, Some((event_type, version))) => {
            let parsed = Version::parse(version).ok_or_else(|| no_version(version))?;
            (event_type, Some(parsed))
        }
        (None, None) => (text, None),
    };
    let of = books.iter().find(|of| !of.book.versions(event_type).is_empty());
    let of = of.ok_or_else(|| {
        CliError::new(1, "FV-4050", format!("no schema is kept of event type `{event_type}`"))
            .hint("`figvine schema list` names those that are.")
    })?;
    let kept = match version {
        Some(version) => of.book.get(event_type, version),
        None => of.book.current(event_type),
    };
    let kept = kept.ok_or_else(|| no_version(&version.map(|version| version.to_string()).unwrap_or_default()))?;
    Ok((event_type.to_owned(), kept))
}

fn no_version(text: &str) -> CliError {
    CliError::new(1, "FV-4051", format!("there is no version `{text}`"))
        .hint("`figvine schema list` names those that are.")
}

fn show(books: &[Of<'_>], text: &str) -> Result<(), CliError> {
    let (_, kept) = found(books, text)?;
    super::print(format_args!("{:#}", kept.document))
}

fn told(breaks: &[Break]) -> Vec<Value> {
    breaks.iter().map(|found| json!({ "what": found.what, "breaks": found.reader.word() })).collect()
}

fn print_breaks(breaks: &[Break]) -> Result<(), CliError> {
    for found in breaks {
        super::print(format_args!("  {}: {}", found.what, found.reader.words()))?;
    }
    Ok(())
}

fn diff(books: &[Of<'_>], old: &str, new: Option<&str>, output: Output) -> Result<(), CliError> {
    let (event_type, old) = found(books, old)?;
    let (_, new) = match new {
        Some(version) => found(books, &format!("{event_type}@{version}"))?,
        None => found(books, &event_type)?,
    };
    let breaks = between(&old.document, &new.document);
    if output == Output::Json {
        return super::print(json!({
            "schema_version": 1, "type": event_type, "old": old.version.to_string(), "new": new.version.to_string(),
            "breaks": told(&breaks),
        }));
    }
    let words = if breaks.is_empty() { "nothing breaks" } else { "what breaks:" };
    super::print(format_args!("{event_type} from {} to {}: {words}", old.version, new.version))?;
    print_breaks(&breaks)
}

async fn check(books: &[Of<'_>], output: Output) -> Result<(), CliError> {
    let (mut checked, mut breaking) = (Vec::new(), 0);
    for of in books {
        let shapes = Box::pin(wiring::shapes(of.source)).await;
        let shapes = shapes.map_err(|error| {
            let failed = CliError::new(error.exit_code(), error.code(), error.to_string());
            match error.hint() {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })?;
        for table in shapes {
            let draft = of_table(&of.source.name, &table);
            let (word, version, breaks) = match of.book.judge(&draft, of.policy.compatibility) {
                Verdict::Known(version) => ("known", version, Vec::new()),
                Verdict::New { version, .. } if of.book.versions(&draft.event_type).is_empty() => {
                    ("new", version, Vec::new())
                }
                Verdict::New { version, .. } => ("compatible", version, Vec::new()),
                Verdict::Breaking { breaks, instead, .. } => ("breaking", instead.0, breaks),
            };
            breaking += usize::from(!breaks.is_empty());
            if output == Output::Text {
                super::print(format_args!("{}: {word}, version {version}", draft.event_type))?;
                print_breaks(&breaks)?;
            }
            let schema = uri(&draft.event_type, version);
            checked.push(json!({
                "source": of.source.name, "type": draft.event_type, "verdict": word, "version": version.to_string(),
                "schema": schema, "breaks": told(&breaks),
            }));
        }
    }
    if output == Output::Json {
        super::print(json!({ "schema_version": 1, "types": checked }))?;
    }
    ended(breaking, 0)
}

fn ended(breaking: usize, untold: usize) -> Result<(), CliError> {
    let what = match (breaking, untold) {
        (0, 0) => return Ok(()),
        (0, untold) => format!("{untold} that cannot be told"),
        (breaking, 0) => format!("{breaking} event types would break"),
        (breaking, untold) => format!("{breaking} event types would break, and {untold} that cannot be told"),
    };
    Err(CliError::new(1, "FV-4053", what).hint("docs/schemas.md says what each change breaks, and for whom."))
}

fn migration(books: &[Of<'_>], path: &std::path::Path, output: Output) -> Result<(), CliError> {
    let sql = std::fs::read_to_string(path)
        .map_err(|e| CliError::new(2, "FV-4054", format!("{} cannot be read", path.display())).because(e))?;
    let (mut told_of, mut breaking, mut untold) = (Vec::new(), 0, 0);
    for of in books {
        let Forecast { types, unread } =
            forecast(&sql, &of.source.name, &of.book, of.policy.compatibility, flavour(&of.source.engine));
        untold += unread.len();
        for (line, text) in &unread {
            if output == Output::Text {
                super::print(format_args!("line {line}: not understood: {text}"))?;
            }
        }
        let mut forecasts = Vec::new();
        for one in &types {
            breaking += usize::from(!one.breaks.is_empty());
            untold += one.unsure.len();
            if output == Output::Text {
                let then = one.then.map_or("?".to_owned(), |version| version.to_string());
                let word = if one.breaks.is_empty() { "compatible" } else { "breaking" };
                super::print(format_args!("{}: {word}, version {} to {then}", one.event_type, one.now))?;
                print_breaks(&one.breaks)?;
                for unsure in &one.unsure {
                    super::print(format_args!("  cannot be told: {unsure}"))?;
                }
            }
            forecasts.push(json!({
                "type": one.event_type, "now": one.now.to_string(), "then": one.then.map(|version| version.to_string()),
                "breaks": told(&one.breaks), "unsure": one.unsure,
            }));
        }
        let unread: Vec<_> = unread.iter().map(|(line, text)| json!({ "line": line, "statement": text })).collect();
        told_of.push(json!({ "source": of.source.name, "types": forecasts, "not_understood": unread }));
    }
    if output == Output::Json {
        super::print(json!({ "schema_version": 1, "sources": told_of }))?;
    } else if breaking == 0 && untold == 0 {
        super::print("nothing breaks")?;
    }
    ended(breaking, untold)
}

fn flavour(engine: &EngineConfig) -> Flavour {
    match engine {
        EngineConfig::Postgres(config) => Flavour {
            is_mysql: false,
            bigint_as_string: config.values.bigint_as_string,
            decimal_as_number: config.values.decimal_as_number,
            tinyint1_as_boolean: false,
        },
        EngineConfig::Mysql(config) => Flavour {
            is_mysql: true,
            bigint_as_string: config.values.bigint_as_string,
            decimal_as_number: config.values.decimal_as_number,
            tinyint1_as_boolean: config.values.tinyint1_as_boolean,
        },
    }
}
