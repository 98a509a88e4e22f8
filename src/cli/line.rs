//! The way to a running bridge: requests over NATS.

use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CliError;
use crate::config::{Config, Source};

/// How long a bridge may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// The way to one source's bridge.
pub(super) struct Line<'a> {
    pub(super) client: async_nats::Client,
    pub(super) source: &'a Source,
}

impl<'a> Line<'a> {
    pub(super) async fn open(config: &Config, source: &'a Source) -> Result<Self, CliError> {
        let client = config.nats().client("figvine command").await?;
        Ok(Self { client, source })
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        subject: String,
        request: &impl Serialize,
    ) -> Result<T, CliError> {
        let name = &self.source.name;
        let payload = serde_json::to_vec(request)
            .map_err(|error| CliError::new(1, "FV-4021", "the request cannot be written").because(error))?;
        let request = async_nats::Request::new().payload(payload.into()).timeout(Some(ANSWER_TIMEOUT));
        let answered = self.client.send_request(subject, request).await;
        let message = answered.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => {
                CliError::new(1, "FV-4022", format!("no running bridge answers for source {name}"))
                    .hint("Start it: `figvine run`. It answers once it reads its source.")
            }
            _ => CliError::new(7, "FV-4023", format!("the bridge of source {name} does not answer")).because(error),
        })?;
        let header = |name: &str| {
            message.headers.as_ref().and_then(|headers| headers.get(name)).map(|value| value.as_str().to_owned())
        };
        if let Some(told) = header(NATS_SERVICE_ERROR) {
            // The usage was wrong, or something in the bridge.
            let exit_code = if header(NATS_SERVICE_ERROR_CODE).as_deref() == Some("400") { 2 } else { 1 };
            return Err(CliError::new(exit_code, "FV-4024", told));
        }
        serde_json::from_slice(&message.payload)
            .map_err(|error| CliError::new(1, "FV-4025", "the bridge's answer cannot be read").because(error))
    }
}
