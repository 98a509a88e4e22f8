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
            let blocker = Finding::new(Severity::Blocker, "FV-2101", "nats", error.to_string());
            return (vec![blocker.why(told(&error)).hint("Check `nats.url`, and that the server runs.")], true);
        }
    };
    let info = client.server_info();
    let mut found = vec![version(&info.version)];
    let payload = format!("messages up to {} KiB", info.max_payload / 1024);
    let payload = Finding::new(Severity::Ok, "FV-2103", "setting max_payload", payload);
    found.push(payload.why("A row whose event is larger stops its source."));
    let context = jetstream::new(client);
    if let Err(error) = context.query_account().await {
        let silent = Finding::new(Severity::Blocker, "FV-2104", "jetstream", "does not answer");
        found.push(
            silent.why(format!("Events are kept in JetStream streams. The server says: {error}.")).hint(
                "Start nats-server with JetStream (`-js`, or a `jetstream` block), and enable it for the account.",
            ),
        );
        return (found, true);
    }
    let stream = |severity, code, what: &str| Finding::new(severity, code, "the stream", what);
    found.push(match inspect(&context, settings).await {
        Ok(Found::Nothing) => stream(Severity::Note, "FV-2210", "does not exist; the first start creates it"),
        Ok(Found::Fit) => stream(Severity::Ok, "FV-2210", "is ours and as configured"),
        Ok(Found::Changes) => {
            stream(Severity::Note, "FV-2211", "is ours; the next start brings it to the configured limits")
        }
        Err(error) => {
            let blocker = stream(Severity::Blocker, error.code(), &error.to_string());
            blocker.why(told(&error)).hint(error.hint())
        }
    });
    (found, false)
}

/// What others told us of it.
fn told(error: &dyn Error) -> String {
    error.source().map(|told| format!("We are told: {told}.")).unwrap_or_default()
}

fn version(text: &str) -> Finding {
    let mut numbers = text.split('.').map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = |severity, what: String| Finding::new(severity, "FV-2105", "nats-server version", what);
    if version >= OLDEST {
        found(Severity::Ok, text.into())
    } else {
        found(Severity::Blocker, format!("{text} is too old"))
            .why("Its streams carry no metadata, by which we know our own.")
            .hint("2.10 or later is needed.")
    }
}
