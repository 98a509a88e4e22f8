//! The change alone: no attributes, only what the bridge itself and readers of
//! transactions need.

use super::envelope::{Attributes, Envelope, Shape};

pub(super) const ENVELOPE: Envelope =
    Envelope { headers: b"", attributes: Attributes::None, shape: Shape::Change, close: b"" };
