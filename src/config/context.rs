//! The nats CLI's contexts: one JSON file each, `nats context save` writes them.
//! Keys as in <https://github.com/nats-io/jsm.go/tree/main/natscontext>; those we have no use for are passed over.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::nats::{Auth, Tls};

/// What a context says.
pub(super) struct Context {
    /// Addresses, still with what they carry of credentials.
    pub(super) urls: Vec<String>,
    pub(super) auth: Auth,
    pub(super) tls: Tls,
}

/// Reads the context called `name`; an error says what is wrong, without values.
pub(super) fn read(name: &str, vars: &BTreeMap<String, String>) -> Result<Context, String> {
    if name.starts_with('.') || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
        return Err("a context's name holds letters, digits, '_', '-' and '.' only".to_owned());
    }
    let set = |name: &str| vars.get(name).filter(|v| !v.is_empty());
    let home = set("HOME").map(PathBuf::from);
    let folder = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".config")));
    let Some(folder) = folder else {
        return Err("neither XDG_CONFIG_HOME nor HOME is set, so that the nats contexts cannot be found".to_owned());
    };
    let path = folder.join("nats").join("context").join(format!("{name}.json"));
    let shown = path.display();
    let text = fs::read_to_string(&path).map_err(|e| format!("context file {shown} cannot be read: {}", e.kind()))?;
    let file: Value = serde_json::from_str(&text)
        .map_err(|e| format!("context file {shown} is not valid JSON: line {}, column {}", e.line(), e.column()))?;
    if !file.is_object() {
        return Err(format!("context file {shown} is not a JSON object"));
    }
    let text = |key: &str| file.get(key).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_owned);
    let path = |key: &str| {
        text(key).map(|t| match (t.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(t),
        })
    };
    let with_scheme = |url: &str| {
        let url = url.trim();
        if url.contains("://") { url.to_owned() } else { format!("nats://{url}") }
    };
    let urls = text("url").unwrap_or_default();
    let auth = match (path("creds"), path("nkey"), text("user"), text("token")) {
        (Some(creds), ..) => Auth::Creds(creds),
        (None, Some(nkey), ..) => Auth::Nkey(nkey),
        (None, None, Some(user), _) => Auth::User { user, password: text("password").unwrap_or_default().into() },
        (None, None, None, Some(token)) => Auth::Token(token.into()),
        (None, None, None, None) => Auth::None,
    };
    let first = file.get("tls_first").and_then(Value::as_bool).unwrap_or_default();
    Ok(Context {
        urls: urls.split(',').filter(|u| !u.trim().is_empty()).map(with_scheme).collect(),
        auth,
        tls: Tls { ca: path("ca"), cert: path("cert"), key: path("key"), first },
    })
}
