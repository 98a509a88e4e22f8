//! The replication slot: what keeps the log for us on the server, and the five
//! ways in which it can be unusable. It is made once, at the very first start, and
//! never again by itself: a slot that is gone is a gap.

use figvine_change::{SourceError, SourceErrorKind};

use crate::catalogue::{Catalogue, Server, Slot};
use crate::config::Config;
use crate::connector::STANDBY;
use crate::error::{Told, failure};
use crate::lsn::{LogId, Lsn};
use crate::session::{Lasts, Session};
use figvine_change::Position;

/// Where the session begins.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) log: LogId,
    pub(crate) from: Lsn,
}

/// Finds the place to read from; `None` when nothing was ever read and there is no slot: time to [`create`] one.
pub(crate) async fn place(
    config: &Config,
    catalogue: &Catalogue,
    server: &Server,
    session: &mut Session,
    log: LogId,
    from: Option<&Position>,
) -> Result<Option<Place>, SourceError> {
    let slot = catalogue.slot(&config.slot, server.version).await?;
    let history = match from {
        Some(_) => session.history(log.timeline).await?,
        None => Vec::new(),
    };
    // An older server's slot may have lost, on its way here, what its log is decoded by.
    let outlives = slot.is_some() && server.version >= STANDBY;
    let from = from.map(|position| wanted_place(position, log, outlives, &history)).transpose()?;
    let (name, source) = (&config.slot, &config.source);
    let Some(slot) = slot else {
        return match from {
            Some(_) => Err(lost(format!(
                "slot {name} is gone: the log behind the last stored change may be gone with it"
            ))
            .hint(format!(
                "Figvine does not go on behind a gap by itself. To begin anew, remove the stream (or use another), \
                         say `figvine position set --source {source} none --force`, and start again."
            ))),
            None => Ok(None),
        };
    };
    let confirmed = usable(config, &slot)?;
    match from {
        // PostgreSQL begins at the confirmed place, without a word, when it is asked for an older one.
        Some(from) if from < confirmed => Err(lost(format!(
            "slot {name} was moved on to {confirmed}, behind {from} where we stopped: what lies between is gone"
        ))
        .hint(
            "Something else read through the slot, or it was advanced by hand. Read the tables again, or begin \
             anew with another stream.",
        )),
        Some(from) => Ok(Some(Place { log, from })),
        None => Ok(Some(Place { log, from: confirmed })),
    }
}

/// The LSN to go on from, if the position is one of this log. `outlives`: there is a slot, and it is good for all timelines
/// that led here.
fn wanted_place(position: &Position, log: LogId, outlives: bool, history: &[(u32, Lsn)]) -> Result<Lsn, SourceError> {
    let Some((written, lsn)) = LogId::parse(position) else {
        return Err(lost(format!("`{position}` is no position of a PostgreSQL log"))
            .hint("The stream was written from another kind of database. Give this source a stream of its own."));
    };
    if written.system != log.system {
        return Err(lost(format!(
            "this server is another cluster: system {}, while the stream was written from system {}",
            log.system, written.system
        ))
        .hint("Check the url. A restored or newly made cluster has another history: begin anew with another stream."));
    }
    // A promoted standby goes on with the slots that it had: its own, and those that it kept in step with its primary's. But
    // what was read of the old timeline behind the place where the new one left it is in no history any more.
    let is_kept = outlives && history.iter().any(|(timeline, left)| *timeline == written.timeline && lsn <= *left);
    if written.timeline != log.timeline && !is_kept {
        return Err(lost(format!(
            "the server is on timeline {}, while the stream was written from timeline {}: it was promoted or restored",
            log.timeline, written.timeline
        ))
        .hint(
            "What was stored may not be in this history. Read the tables again, or begin anew with another stream. \
               From PostgreSQL 17 on, slots with `failover` survive a promotion.",
        ));
    }
    Ok(lsn)
}

/// Whether a slot can be read through: the place it has confirmed.
fn usable(config: &Config, slot: &Slot) -> Result<Lsn, SourceError> {
    let name = &config.slot;
    if slot.plugin.as_deref() != Some("pgoutput") {
        let plugin = slot.plugin.as_deref().map_or("is a physical one".into(), |p| format!("is for the plugin {p}"));
        return Err(failure(SourceErrorKind::Invalid, "FV-1311", format!("slot {name} {plugin}, not pgoutput"))
            .hint("Configure another slot name."));
    }
    if let Some(database) = &slot.other_database {
        return Err(failure(
            SourceErrorKind::Invalid,
            "FV-1314",
            format!("slot {name} belongs to database {database}"),
        )
        .hint("A logical slot reads one database. Configure another slot name."));
    }
    if let Some(why) = &slot.invalidation {
        return Err(invalidated(name, why));
    }
    if slot.wal_status.as_deref() == Some("lost") {
        return Err(invalidated(name, "its log was removed"));
    }
    if slot.is_followed {
        let what = format!("slot {name} follows its primary's on this standby, and cannot be read before a promotion");
        return Err(failure(SourceErrorKind::Unreachable, "FV-1318", what)
            .hint("Point the url at the primary, or read the standby through another slot."));
    }
    if let Some(pid) = slot.active_pid {
        return Err(busy(name, Some(pid)));
    }
    slot.confirmed.ok_or_else(|| {
        failure(
            SourceErrorKind::Unreachable,
            "FV-1312",
            format!("slot {name} is still being created by another session"),
        )
    })
}

fn invalidated(name: &str, why: &str) -> SourceError {
    lost(format!("the server invalidated slot {name}: {why}")).hint(
        "The log behind the last stored change is gone. Raise max_slot_wal_keep_size, drop the slot, \
         and read the tables again, or begin anew with another stream.",
    )
}

pub(crate) fn lost(what: String) -> SourceError {
    failure(SourceErrorKind::PositionLost, "FV-1301", what)
}

pub(crate) fn busy(name: &str, pid: Option<i32>) -> SourceError {
    let by = pid.map_or_else(String::new, |pid| format!(" by pid {pid}"));
    failure(SourceErrorKind::Busy, "FV-1313", format!("slot {name} is in use{by}"))
        .hint("Another Figvine, or another program, reads through this slot. Two sources need two slots.")
}

/// Makes the slot: at the very first start.
pub(crate) async fn create(
    config: &Config,
    catalogue: &Catalogue,
    server: &Server,
    session: &mut Session,
    log: LogId,
) -> Result<Place, SourceError> {
    let name = &config.slot;
    let lasts = match (config.slot_is_passing, server.in_recovery) {
        (true, _) => Lasts::Session,
        (false, true) => Lasts::Forever,
        (false, false) => Lasts::Promotion,
    };
    match session.create_slot(name, server.version, lasts).await {
        Ok(lsn) => {
            tracing::info!(slot = %name, %lsn, "slot created");
            Ok(Place { log, from: lsn })
        }
        Err(error) if error.code == "FV-1121" => {
            let blocker = catalogue.oldest_transaction().await?;
            let blocker = blocker.map_or_else(
                || "a transaction that has ended meanwhile".into(),
                |(pid, who)| format!("the transaction of pid {pid} ({who})"),
            );
            let what = format!("slot {name} cannot be created while {blocker} runs");
            let kind = SourceErrorKind::Unreachable;
            Err(SourceError { kind, what, ..error }.hint("A slot begins where all older transactions have ended."))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId { system: 7, timeline: 2 };

    fn slot() -> Slot {
        Slot {
            plugin: Some("pgoutput".into()),
            other_database: None,
            active_pid: None,
            wal_status: Some("reserved".into()),
            confirmed: Some(Lsn(100)),
            invalidation: None,
            is_followed: false,
        }
    }

    #[test]
    fn a_position_of_another_log_is_lost() {
        let at = |text: &str| Position::parse(text).expect("a position");
        assert_eq!(wanted_place(&at("7/2/0/64;1.1"), LOG, false, &[]).expect("ours"), Lsn(100));
        let history = [(1, Lsn(100))];
        for position in ["8/2/0/64", "7/1/0/64", "mysql-bin.000001:4"] {
            let error = wanted_place(&at(position), LOG, false, &history).expect_err(position);
            assert_eq!(error.kind, SourceErrorKind::PositionLost, "{position}");
        }
        assert_eq!(wanted_place(&at("7/1/0/64"), LOG, true, &history).expect("survives"), Lsn(100));
        for gone in ["7/1/0/65", "7/3/0/64"] {
            assert!(wanted_place(&at(gone), LOG, true, &history).is_err(), "{gone}");
        }
    }

    #[test]
    fn each_unusable_slot_has_its_own_error() {
        let config = crate::config::tests::example();
        let code = |slot: &Slot| usable(&config, slot).expect_err("unusable").code;
        assert_eq!(usable(&config, &slot()).expect("usable"), Lsn(100));
        assert_eq!(code(&Slot { plugin: Some("wal2json".into()), ..slot() }), "FV-1311");
        assert_eq!(code(&Slot { other_database: Some("crm".into()), ..slot() }), "FV-1314");
        assert_eq!(code(&Slot { wal_status: Some("lost".into()), ..slot() }), "FV-1301");
        assert_eq!(code(&Slot { invalidation: Some("wal_removed".into()), ..slot() }), "FV-1301");
        assert_eq!(code(&Slot { active_pid: Some(7), ..slot() }), "FV-1313");
        assert_eq!(code(&Slot { is_followed: true, ..slot() }), "FV-1318");
        assert_eq!(code(&Slot { confirmed: None, ..slot() }), "FV-1312");
    }
}
