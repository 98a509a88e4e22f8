//! The promises of the chain, against a broker that fails on purpose; those of the backfill, against a database that
//! commits in one order and shows in another.
//!
//! `FIGVINE_MODEL_SEED` repeats one run, `FIGVINE_MODEL_RUNS` sets how many there are.

#![expect(clippy::unwrap_used, reason = "all of this is a test, and only functions marked as such are known to be")]

/// The parts.
mod model {
    mod backfill;
    pub(crate) mod broker;
    pub(crate) mod run;
}

use model::run::{Scenario, runs};

#[tokio::test(start_paused = true)]
async fn every_event_is_stored_once_and_in_order_whatever_the_broker_does() {
    runs(Scenario::Faults, 2000).await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_loses_what_it_acknowledged_is_found_out() {
    runs(Scenario::Loss, 400).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_bridge_neither_repeats_nor_displaces_an_event() {
    runs(Scenario::SecondBridge, 400).await;
}

#[tokio::test(start_paused = true)]
async fn who_writes_in_a_pause_fences_us_before_anything_is_interleaved() {
    runs(Scenario::AlienInAPause, 200).await;
}

#[tokio::test(start_paused = true)]
async fn who_writes_between_our_messages_fences_us_where_each_is_asked_for() {
    runs(Scenario::AlienBetween, 400).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_made_anew_is_not_taken_for_the_old_one() {
    runs(Scenario::StreamReplaced, 200).await;
}
