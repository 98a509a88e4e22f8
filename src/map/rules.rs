//! Rules: domain events made of changes.
//!
//! ```text
//!   Batch ──> by table and operation ──> changed columns ──> `when` ──> key, data ──> Derived
//!             (an index; most changes end here)                  │
//!                                                                └──> aggregates: kept until the transaction's end
//! ```
//! A rule's names are resolved once per shape of a table (see `plan`). Of a change only the columns that a rule speaks of are
//! written as JSON, each once however many rules read it; expressions run over that.
//!
//! An error while a rule runs is never "does not match": the source stops there ([`RuleError`]), what came before is told; or
//! another event stands in the place of the one that cannot be made (see `park`).

mod aggregate;
mod check;
mod derive;
mod error;
mod expression;
mod fixture;
mod look;
mod outbox;
mod park;
mod plan;
mod read;
mod rows;
mod settings;
mod shapes;
mod spill;
mod tell;
mod whole;

pub use aggregate::OnLarge;
pub use derive::{Explained, Rules};
pub use error::RuleError;
pub use expression::EvalError;
pub use fixture::{ChangeFixture, EventFixture, Fixture, FixtureError, Fixtures, TableFixture};
pub use look::{Wanted, WantedParts};
pub use outbox::{Outbox, OutboxColumns};
pub use plan::PlanError;
pub use settings::{Aggregate, Data, Include, Key, Mistake, On, Rule, RuleDraft, Settings};
pub use whole::Portion;

/// `; did you mean 'x'?`, or nothing.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let found = known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&word.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= (known.chars().count().max(word.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    found.map(|(_, known)| format!("; did you mean '{known}'?")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
