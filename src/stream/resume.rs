//! Where a new run goes on: decided from the stream's tail and the checkpoint kept beside it.

use figvine_change::Position;

use super::broker::{Mark, Tail};
use super::chain::ChainError;
use super::keeper::Kept;
use super::{OnLoss, Settings};
use crate::checkpoint::Told;

/// Where a new run goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// In the source's log; `None` begins anew.
    pub from: Option<Position>,
    /// In the stream.
    pub last_seq: u64,
    /// What is stored already of what is read again from there.
    pub told: Option<Told>,
}

/// Decides where to go on. `kept` is a lower bound of what the stream must hold, and its witness.
///
/// # Errors
/// The stream lost what it had acknowledged ([`ChainError::StreamLost`], [`ChainError::LostAcknowledged`]) and
/// `on_loss` says to stop; an alien wrote between our messages ([`ChainError::Displaced`]); its last message was removed ([`ChainError::TailGone`]) or is not ours
/// ([`ChainError::Alien`]).
pub fn resume(tail: &Tail, kept: Option<&Kept>, settings: &Settings) -> Result<Resume, ChainError> {
    let stream = || settings.name.clone();
    let last_seq = tail.last_seq;
    let go_on = |from: Option<Position>| Ok(Resume { from, last_seq, told: None });
    let lost = kept.and_then(|kept| {
        if tail.stream_id.as_deref() != Some(&*kept.stream_id) {
            Some(ChainError::StreamLost { stream: stream() })
        } else if kept.sequence > last_seq {
            Some(ChainError::LostAcknowledged { stream: stream(), acked: kept.sequence, last_seq })
        } else {
            None
        }
    });
    let kept = match lost {
        None => kept,
        Some(error) if settings.on_loss == OnLoss::Stop => return Err(error),
        // The witness speaks of what is no more: only the tail counts.
        Some(_) => None,
    };
    // Until a position is set by hand: nothing of ours behind an alien's message can be gone on with.
    if let Some(sequence) = kept.and_then(|kept| kept.displaced).filter(|displaced| *displaced < last_seq) {
        return Err(ChainError::Displaced { stream: stream(), sequence });
    }
    // The kept position may be further than the message's own checkpoint: an idle source moves on without messages.
    if let Some(kept) = kept.filter(|kept| kept.sequence == last_seq) {
        return go_on(Some(kept.position.clone()));
    }
    match &tail.last {
        Mark::Checkpoint(checkpoint) => {
            Ok(Resume { from: Some(checkpoint.position.clone()), last_seq, told: checkpoint.told.clone() })
        }
        Mark::Missing if last_seq == 0 => go_on(None),
        Mark::Missing => Err(ChainError::TailGone { stream: stream(), last_seq }),
        // Nothing of ours was ever stored: an adopted stream.
        Mark::Foreign if settings.adopt && kept.is_none() => go_on(None),
        Mark::Foreign => Err(ChainError::Alien { stream: stream(), last_seq }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checkpoint::Checkpoint;

    fn settings() -> Settings {
        Settings {
            name: "S".into(),
            source: "shop".into(),
            subjects: vec![],
            replicas: 1,
            max_age: None,
            max_bytes: None,
            compression: false,
            adopt: false,
            on_loss: OnLoss::Stop,
            ack_timeout: Duration::from_secs(2),
            window_messages: 1,
            window_bytes: 1,
            release_delay: Duration::ZERO,
        }
    }

    fn reread() -> Settings {
        Settings { on_loss: OnLoss::Reread, ..settings() }
    }

    fn tail(last_seq: u64, last: Mark) -> Tail {
        Tail { stream_id: Some("id".into()), last_seq, last }
    }

    fn ours(position: &str) -> Mark {
        Mark::Checkpoint(Checkpoint::parse(&format!("1 w {position}")).expect("valid"))
    }

    fn kept(stream_id: &str, sequence: u64, position: &str) -> Kept {
        Kept { stream_id: stream_id.into(), sequence, position: Position::between(position), displaced: None }
    }

    fn from(position: &str, last_seq: u64) -> Resume {
        Resume { from: Some(Position::between(position)), last_seq, told: None }
    }

    #[test]
    fn a_new_stream_begins_anew() {
        let resumed = resume(&tail(0, Mark::Missing), None, &settings()).expect("new");
        assert_eq!(resumed, Resume { from: None, last_seq: 0, told: None });
    }

    #[test]
    fn the_tail_tells_where_to_go_on() {
        assert_eq!(resume(&tail(7, ours("a")), None, &settings()).expect("a tail"), from("a", 7));
        let behind = kept("id", 5, "old");
        assert_eq!(resume(&tail(7, ours("a")), Some(&behind), &settings()).expect("a tail"), from("a", 7));
    }

    #[test]
    fn progress_of_an_idle_source_is_not_forgotten() {
        let idle = kept("id", 7, "b");
        assert_eq!(resume(&tail(7, ours("a")), Some(&idle), &settings()).expect("a tail"), from("b", 7));
        let never = kept("id", 0, "b");
        assert_eq!(resume(&tail(0, Mark::Missing), Some(&never), &settings()).expect("empty"), from("b", 0));
    }

    #[test]
    fn a_stream_that_lost_what_it_acknowledged_stops_us_or_is_fed_again() {
        let witness = kept("id", 9, "c");
        let error = resume(&tail(7, ours("a")), Some(&witness), &settings()).expect_err("lost");
        assert!(matches!(error, ChainError::LostAcknowledged { acked: 9, last_seq: 7, .. }));
        assert_eq!(resume(&tail(7, ours("a")), Some(&witness), &reread()).expect("again"), from("a", 7));
        let resumed = resume(&tail(0, Mark::Missing), Some(&witness), &reread()).expect("again");
        assert_eq!(resumed, Resume { from: None, last_seq: 0, told: None });
    }

    #[test]
    fn a_stream_made_anew_stops_us() {
        for sequence in [0, 7, 9] {
            let witness = kept("other", sequence, "c");
            let error = resume(&tail(7, ours("a")), Some(&witness), &settings()).expect_err("another stream");
            assert!(matches!(error, ChainError::StreamLost { .. }));
            assert_eq!(resume(&tail(7, ours("a")), Some(&witness), &reread()).expect("again"), from("a", 7));
        }
    }

    #[test]
    fn what_stands_behind_an_aliens_message_is_not_gone_on_with() {
        let displaced = Kept { displaced: Some(6), ..kept("id", 5, "old") };
        let error = resume(&tail(7, ours("a")), Some(&displaced), &settings()).expect_err("a gap");
        assert!(matches!(error, ChainError::Displaced { sequence: 6, .. }));
        let error = resume(&tail(6, Mark::Foreign), Some(&displaced), &settings()).expect_err("not ours");
        assert!(matches!(error, ChainError::Alien { .. }));
    }

    #[test]
    fn a_removed_tail_needs_a_checkpoint_that_knows_it() {
        let known = kept("id", 7, "c");
        assert_eq!(resume(&tail(7, Mark::Missing), Some(&known), &settings()).expect("known"), from("c", 7));
        for witness in [None, Some(kept("id", 6, "c"))] {
            let error = resume(&tail(7, Mark::Missing), witness.as_ref(), &settings()).expect_err("unknown");
            assert!(matches!(error, ChainError::TailGone { last_seq: 7, .. }));
        }
    }

    #[test]
    fn a_foreign_tail_stops_us_unless_the_stream_was_adopted_just_now() {
        let foreign = tail(7, Mark::Foreign);
        assert!(matches!(resume(&foreign, None, &settings()), Err(ChainError::Alien { last_seq: 7, .. })));
        let adopt = Settings { adopt: true, ..settings() };
        assert_eq!(resume(&foreign, None, &adopt).expect("adopted"), Resume { from: None, last_seq: 7, told: None });
        let witness = kept("id", 5, "c");
        assert!(matches!(resume(&foreign, Some(&witness), &adopt), Err(ChainError::Alien { .. })));
    }
}
