//! `figvine check`

use std::fmt::Write as _;
use std::io::IsTerminal;

use figvine_change::{Finding, Severity, SourceErrorKind};

use super::{CliError, Output};
use crate::config::Config;
use crate::{stream, wiring};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Print only the SQL that mends what was found, as a script for an administrator.
    #[arg(long)]
    fix_sql: bool,
}

/// What was found about one object of the configuration.
struct Section {
    /// `source shop`, `stream FIGVINE_SHOP`.
    name: String,
    findings: Vec<Finding>,
    /// The exit code when it could not be looked at, or refuses us.
    exit_code: Option<u8>,
}

pub(super) async fn check(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let name = args.source.as_deref();
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let mut sections = Vec::new();
    for source in chosen {
        sections.push(database(source).await);
        let (findings, unreachable) = Box::pin(stream::check(config.nats(), &source.stream)).await;
        let exit_code = unreachable.then_some(7);
        sections.push(Section { name: format!("stream {}", source.stream.name), findings, exit_code });
    }
    let shown = match (args.fix_sql, output) {
        (true, _) => script(&sections),
        (false, Output::Json) => json(&sections),
        (false, Output::Text) => text(&sections),
    };
    super::print(shown)?;
    let blockers = sections.iter().flat_map(|s| &s.findings).filter(|f| f.severity == Severity::Blocker).count();
    let exit_code = sections.iter().find_map(|section| section.exit_code).unwrap_or(4);
    match blockers {
        0 => Ok(()),
        1 => Err(CliError::blocked(exit_code, "1 finding keeps the bridge from running".into())),
        n => Err(CliError::blocked(exit_code, format!("{n} findings keep the bridge from running"))),
    }
}

async fn database(source: &crate::config::Source) -> Section {
    let name = format!("source {}", source.name);
    match wiring::check(source).await {
        Ok(findings) => Section { name, findings, exit_code: None },
        Err(error) => {
            let told = std::error::Error::source(&error).map(ToString::to_string);
            let finding = Finding {
                code: error.code,
                severity: Severity::Blocker,
                object: "the database".into(),
                what: error.what.clone(),
                why: told.map(|told| format!("The system says: {told}.")).unwrap_or_default(),
                fix_sql: Vec::new(),
                hint: error.hint,
            };
            let exit_code = if error.kind == SourceErrorKind::Invalid { 3 } else { 6 };
            Section { name, findings: vec![finding], exit_code: Some(exit_code) }
        }
    }
}

fn text(sections: &[Section]) -> String {
    let is_colourful = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let paint = |severity: Severity, text: &str| {
        let colour = match severity {
            Severity::Ok => 32,
            Severity::Note => 36,
            Severity::Warning => 33,
            Severity::Blocker => 31,
        };
        if is_colourful { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let mut out = String::new();
    for section in sections {
        let _ = writeln!(out, "{}", section.name);
        let mut findings: Vec<_> = section.findings.iter().collect();
        // What matters most first; in the order of finding else.
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        for finding in findings {
            let severity = paint(finding.severity, &format!("{:8}", finding.severity.to_string()));
            let _ = writeln!(out, "  {severity} {} {}: {}", finding.code, finding.object, finding.what);
            let indent = " ".repeat(11);
            if !finding.why.is_empty() {
                let _ = writeln!(out, "{indent}{}", finding.why);
            }
            for sql in &finding.fix_sql {
                let _ = writeln!(out, "{indent}SQL: {sql}");
            }
            if let Some(hint) = &finding.hint {
                let _ = writeln!(out, "{indent}{hint}");
            }
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn json(sections: &[Section]) -> String {
    let sections: Vec<_> = sections
        .iter()
        .map(|section| {
            let findings: Vec<_> = section
                .findings
                .iter()
                .map(|f| {
                    serde_json::json!({
                        "code": f.code, "severity": f.severity.to_string(), "object": f.object, "what": f.what,
                        "why": f.why, "fix_sql": f.fix_sql, "hint": f.hint,
                    })
                })
                .collect();
            serde_json::json!({ "object": section.name, "findings": findings })
        })
        .collect();
    serde_json::json!({ "schema_version": 1, "checked": sections }).to_string()
}

/// SQL alone, with what it mends as comments. What no SQL mends stands there as a comment too.
fn script(sections: &[Section]) -> String {
    let mut out =
        String::from("-- What `figvine check` has found, and what mends it. Run as an administrator of the database.");
    for section in sections {
        let open = section.findings.iter().filter(|f| f.severity >= Severity::Warning || !f.fix_sql.is_empty());
        for finding in open {
            let _ = write!(out, "\n\n-- {} {} {}: {}", section.name, finding.severity, finding.object, finding.what);
            // Comments end with their line.
            for told in [Some(&finding.why), finding.hint.as_ref()].into_iter().flatten().filter(|t| !t.is_empty()) {
                let _ = write!(out, "\n-- {}", told.replace('\n', " "));
            }
            for sql in &finding.fix_sql {
                let _ = write!(out, "\n{sql}");
            }
        }
    }
    out
}
