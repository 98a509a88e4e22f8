//! The program: parse, run, print what ended it, exit with its code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use figvine::cli::{self, Args};

fn main() -> ExitCode {
    let args = Args::parse();
    let output = args.output();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(Box::pin(cli::run(args)));
    // Tasks that are still there hold nothing that anyone waits for.
    runtime.shutdown_background();
    match outcome {
        Err(error) if !error.is_broken_pipe() => {
            let _ = writeln!(std::io::stderr(), "{}", error.shown(output));
            ExitCode::from(error.exit_code())
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
