//! The preflight of a stream: the server, JetStream, the stream itself. Changes nothing.

use std::error::Error;

use async_nats::jetstream;
use figvine_change::{Finding, Severity};

use super::Settings;
use super::setup::{Found, inspect};
use crate::nats;

/// The oldest server whose streams carry metadata.
const OLDEST: (u32, u32) = (2, 10);

/// Looks at the way to a stream. Returns what was found, and whether NATS could not be reached or refuses us.
pub async fn check(nats: &nats::Settings, settings: &Settings) -> (Vec<Finding>, bool) {
    let client = match nats.client("figvine check").await {
        Ok(client) => client,
        Err(error) => {
            let told = error.source().map(|told| format!("The client says: {told}.")).unwrap_or_default();
            let blocker = finding(Severity::Blocker, "FV-2101", "nats", error.to_string());
            return (
                vec![Finding {
                    why: told,
                    hint: Some("Check `nats.url`, and that the server runs.".into()),
                    ..blocker
                }],
                true,
            );
        }
    };
    let info = client.server_info();
    let mut found = vec![version(&info.version)];
    let payload = format!("messages up to {} KiB", info.max_payload / 1024);
    found.push(Finding {
        why: "A row whose event is larger stops its source.".into(),
        ..finding(Severity::Ok, "FV-2103", "setting max_payload", payload)
    });
    let context = jetstream::new(client);
    if let Err(error) = context.query_account().await {
        let told = error.to_string();
        found.push(Finding {
            why: format!("Events are kept in JetStream streams. The server says: {told}."),
            hint: Some(
                "Start nats-server with JetStream (`-js`, or a `jetstream` block), and enable it for the account."
                    .into(),
            ),
            ..finding(Severity::Blocker, "FV-2104", "jetstream", "does not answer")
        });
        return (found, true);
    }
    found.push(match inspect(&context, settings).await {
        Ok(Found::Nothing) => {
            finding(Severity::Note, "FV-2210", "the stream", "does not exist; the first start creates it")
        }
        Ok(Found::Fit) => finding(Severity::Ok, "FV-2210", "the stream", "is ours and as configured"),
        Ok(Found::Changes) => finding(
            Severity::Note,
            "FV-2211",
            "the stream",
            "is ours; the next start brings it to the configured limits",
        ),
        Err(error) => {
            let told = error.source().map(|told| format!("The server says: {told}.")).unwrap_or_default();
            Finding {
                why: told,
                hint: Some(error.hint().into()),
                ..finding(Severity::Blocker, error.code(), "the stream", error.to_string())
            }
        }
    });
    (found, false)
}

fn version(text: &str) -> Finding {
    let mut numbers = text.split('.').map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        finding(Severity::Ok, "FV-2105", "nats-server version", text)
    } else {
        Finding {
            why: "Its streams carry no metadata, by which we know our own.".into(),
            hint: Some("2.10 or later is needed.".into()),
            ..finding(Severity::Blocker, "FV-2105", "nats-server version", format!("{text} is too old"))
        }
    }
}

fn finding(severity: Severity, code: &'static str, object: &str, what: impl Into<String>) -> Finding {
    Finding {
        code,
        severity,
        object: object.into(),
        what: what.into(),
        why: String::new(),
        fix_sql: Vec::new(),
        hint: None,
    }
}
