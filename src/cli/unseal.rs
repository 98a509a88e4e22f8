//! `figvine unseal`

use std::collections::HashMap;
use std::io::{BufRead, Write};

use async_nats::jetstream;

use super::CliError;
use super::shred::kept;
use crate::config::Config;
use crate::map::private::{KeyStore, Master, Sealed, SubjectId};
use crate::stream::SubjectKeys;
use crate::wiring;

/// What an encrypted value begins with, as a JSON string.
const MARK: &str = "\"fv1:";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Encrypted values, `fv1:...`; without any, stdin is copied with all encrypted values in it opened.
    values: Vec<String>,
    /// Only with the keys of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) async fn unseal(config: &Config, args: &Args) -> Result<(), CliError> {
    let name = args.source.as_deref();
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let client = config.nats().client("figvine unseal").await?;
    let context = jetstream::new(client);
    let mut opener = Opener { sources: Vec::new(), known: HashMap::new(), closed: 0 };
    for source in chosen.into_iter().filter(|source| !source.private.kinds().is_empty()) {
        let Some(master) = source.private.master() else { continue };
        opener.sources.push((master, SubjectKeys::open(&context, &source.stream, master).await.map_err(kept)?));
    }
    if args.values.is_empty() {
        for line in std::io::stdin().lock().lines() {
            let line = line.map_err(|error| CliError::new(1, "FV-4031", "stdin cannot be read").because(error))?;
            super::print(opener.line(&line).await?)?;
        }
    }
    for value in &args.values {
        let sealed = Sealed::parse(value).ok_or_else(|| {
            CliError::new(2, "FV-4032", "an argument is no encrypted value, which begins with `fv1:`")
        })?;
        match opener.open(&sealed).await? {
            Some(json) => super::print(json)?,
            None => opener.closed += 1,
        }
    }
    match opener.closed {
        0 => Ok(()),
        // What is in the pipe stays useful.
        count if args.values.is_empty() => {
            let _ = writeln!(
                std::io::stderr(),
                "{count} values stay closed: their subjects were shredded, or have no key here"
            );
            Ok(())
        }
        count => Err(CliError::new(1, "FV-4033", format!("{count} of the values cannot be opened"))
            .hint("Their subjects were shredded, or their keys are another source's.")),
    }
}

struct Opener<'a> {
    sources: Vec<(&'a Master, SubjectKeys)>,
    known: HashMap<SubjectId, Option<zeroize::Zeroizing<[u8; 32]>>>,
    closed: u64,
}

impl Opener<'_> {
    /// A line with its encrypted values opened.
    async fn line(&mut self, line: &str) -> Result<String, CliError> {
        let mut out = String::with_capacity(line.len());
        let mut rest = line;
        while let Some((before, from)) = rest.find(MARK).map(|at| rest.split_at(at)) {
            out.push_str(before);
            let inside = from.get(1..).and_then(|from| from.split_once('"')).map(|(inside, _)| inside);
            let sealed = inside.and_then(|inside| Some((inside.len() + 2, Sealed::parse(inside)?)));
            let (len, opened) = match sealed {
                None => (1, None),
                Some((len, sealed)) => (len, self.open(&sealed).await?),
            };
            let (value, after) = from.split_at(len);
            self.closed += u64::from(len > 1 && opened.is_none());
            out.push_str(opened.as_deref().unwrap_or(value));
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    async fn open(&mut self, sealed: &Sealed) -> Result<Option<String>, CliError> {
        if !self.known.contains_key(&sealed.subject) {
            let mut found = None;
            for (master, keys) in &self.sources {
                if let Some(entry) = keys.read(&sealed.subject).await.map_err(kept)?
                    && let Some(key) = entry.open(master, &sealed.subject).map_err(kept)?
                {
                    found = Some(key);
                    break;
                }
            }
            self.known.insert(sealed.subject.clone(), found);
        }
        let key = self.known.get(&sealed.subject).and_then(Option::as_ref);
        Ok(key.and_then(|key| sealed.open(key)))
    }
}
