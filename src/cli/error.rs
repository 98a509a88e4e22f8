//! How a command ends when it does not end well.

use std::error::Error;
use std::fmt::Write as _;
use std::io;

use super::Output;
use crate::config::ConfigErrors;
use crate::http::HttpError;
use crate::nats::{NatsError, NatsErrorKind};
use crate::wiring::Failed;

/// A command's failure: what, why, what to do, and the exit code.
#[derive(Debug)]
pub struct CliError {
    exit_code: u8,
    code: &'static str,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CliError {
    /// A failure of the command itself.
    pub(super) fn new(exit_code: u8, code: &'static str, what: impl Into<String>) -> Self {
        Self { exit_code, code, what: what.into(), hint: None, source: None }
    }

    /// With what to do.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// With what we were told.
    pub(super) fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// A source that the configuration does not have.
    pub(super) fn no_such_source(name: &str) -> Self {
        Self::new(2, "FV-4001", format!("the configuration has no source `{name}`"))
    }

    /// Stdout cannot be written.
    pub(super) fn output(error: io::Error) -> Self {
        Self::new(1, "FV-4002", "the output cannot be written").because(error)
    }

    /// What `check` says at its end, by what it has found.
    pub(super) fn blocked(exit_code: u8, what: String) -> Self {
        Self::new(exit_code, "FV-4004", what)
    }

    /// Its stable code.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// What happened.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Whether whoever read our output left: no failure of ours.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        let io = self.source.as_deref().and_then(|source| source.downcast_ref::<io::Error>());
        io.is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// The failure as it is shown: its chain, and the hint.
    #[must_use]
    pub fn shown(&self, output: Output) -> String {
        let mut causes = Vec::new();
        let mut source = self.source.as_deref().map(|source| source as &dyn Error);
        while let Some(cause) = source {
            let words = cause.to_string();
            // Libraries often repeat their cause.
            if !causes.last().is_some_and(|last: &String| last.ends_with(&words)) {
                causes.push(words);
            }
            source = cause.source();
        }
        match output {
            Output::Json => {
                let error = serde_json::json!({
                    "code": self.code, "what": self.what, "why": causes, "hint": self.hint, "exit_code": self.exit_code,
                });
                serde_json::json!({ "schema_version": 1, "error": error }).to_string()
            }
            Output::Text => {
                let mut text = format!("error[{}]: {}", self.code, self.what);
                for cause in causes {
                    let _ = write!(text, "\n  because: {cause}");
                }
                if let Some(hint) = &self.hint {
                    let _ = write!(text, "\n  what to do: {hint}");
                }
                text
            }
        }
    }
}

impl From<ConfigErrors> for CliError {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(3, "FV-4003", format!("the configuration is invalid\n{errors}"))
    }
}

impl From<Failed> for CliError {
    fn from(Failed { name, error }: Failed) -> Self {
        let failed = Self::new(error.exit_code(), error.code(), format!("source {name}: {error}"));
        let failed = match error.hint() {
            Some(hint) => failed.hint(hint),
            None => failed,
        };
        match error.source() {
            // The chain is told by words alone: it need not outlive the error.
            Some(_) => failed.because(Told::of(&error)),
            None => failed,
        }
    }
}

impl From<NatsError> for CliError {
    fn from(error: NatsError) -> Self {
        let failed = Self::new(7, "FV-2101", error.to_string());
        let failed = match error.kind {
            NatsErrorKind::Unreachable | NatsErrorKind::Protocol => {
                failed.hint("Check `nats.url`, and that the server runs.")
            }
            NatsErrorKind::Refused => failed.hint("Check `nats.auth` and `nats.tls`."),
        };
        match error.source {
            Some(source) => failed.because(source),
            None => failed,
        }
    }
}

impl From<HttpError> for CliError {
    fn from(error: HttpError) -> Self {
        let failed =
            Self::new(1, "FV-4005", error.to_string()).hint("Set `http.listen` to a free address, or to `off`.");
        failed.because(Told::of(&error))
    }
}

/// An error and its causes, in words.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(words, ": {error}");
        cause = error.source();
    }
    words
}

/// The causes of an error, in words.
#[derive(Debug)]
struct Told {
    what: String,
    source: Option<Box<Told>>,
}

impl Told {
    /// Those below `error`.
    fn of(error: &dyn Error) -> Box<dyn Error + Send + Sync> {
        match error.source() {
            Some(source) => Self::chain(source),
            None => "of unknown cause".into(),
        }
    }

    fn chain(error: &dyn Error) -> Box<Self> {
        Box::new(Self { what: error.to_string(), source: error.source().map(Self::chain) })
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &dyn Error)
    }
}
