//! Logs, to stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::Output;

/// Begins to write logs; only warnings and errors where `is_quiet` and nobody asked for more. `RUST_LOG` overrides the level, in its usual form.
pub(super) fn begin(form: Output, verbose: u8, is_quiet: bool) {
    // A target stands for all that begin with it: `figvine` for the connectors, too.
    let level = match verbose {
        0 if is_quiet => "warn",
        0 => "warn,figvine=info",
        1 => "info,figvine=debug",
        _ => "debug,figvine=trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second logger in one process (a test's) changes nothing.
    let _ = match form {
        Output::Json => logs.json().flatten_event(true).with_current_span(false).try_init(),
        Output::Text => {
            let is_colourful = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            logs.compact().with_target(false).with_ansi(is_colourful).try_init()
        }
    };
}
