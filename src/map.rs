//! Between the log and the events: changes are rewritten here before anything else sees them.

pub mod echo;
pub mod private;
pub mod rules;
