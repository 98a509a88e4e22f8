//! Runs a command beside a private PostgreSQL and a private MySQL, whose ports it finds in `POSTGRES_PORT` and `MYSQL_PORT`.
//!
//! ```console
//! $ cargo run -p figvine-sandbox --example beside -- tests/golden/make
//! ```

use std::process::ExitCode;

use figvine_sandbox::{MySql, MySqlOptions, Postgres, PostgresOptions};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("no command was given")?;
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let mysql = MySql::start(MySqlOptions::default()).await?;
    let status = tokio::process::Command::new(program)
        .args(words)
        .env("POSTGRES_PORT", postgres.port().to_string())
        .env("MYSQL_PORT", mysql.port().to_string())
        .status()
        .await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
