//! A standby's timeline changes while it is read: when it is promoted, and when it follows a primary that was. The walsender
//! goes on without a word, and from there on an LSN means a place of the new timeline.

use figvine_change::{SourceError, SourceErrorKind};

use crate::error::failure;
use crate::lsn::LogId;
use crate::session::Session;
use crate::url::ConnectUrl;

/// How long a lock may be waited for; nothing that is asked here takes one.
const LOCK_TIMEOUT_MS: u128 = 10_000;

/// Asks which timeline the server is on, over a session beside the one that streams.
#[derive(Debug)]
pub(crate) struct Timeline {
    url: ConnectUrl,
    application: String,
    log: LogId,
    /// None until it is needed, and while an answer is waited for: a question that was dropped half-way leaves nothing
    /// that could be taken for the answer to the next.
    session: Option<Session>,
}

impl Timeline {
    pub(crate) fn new(url: ConnectUrl, application: String, log: LogId) -> Self {
        Self { url, application, log, session: None }
    }

    /// Whether all that has arrived was written on the timeline that the session began on: no other can be read before
    /// the server is on it. Cancel-safe.
    ///
    /// # Errors
    /// When the server is on another, or does not answer.
    pub(crate) async fn holds(&mut self) -> Result<(), SourceError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.url, &self.application, LOCK_TIMEOUT_MS).await?,
        };
        let now = session.identify().await?.timeline;
        if now != self.log.timeline {
            let what = format!("the server went on from timeline {} to timeline {now}", self.log.timeline);
            return Err(failure(SourceErrorKind::Unreachable, "FV-1319", what));
        }
        self.session = Some(session);
        Ok(())
    }
}
