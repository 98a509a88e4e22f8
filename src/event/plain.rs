//! The change alone: no attributes, only what the bridge itself and readers of
//! transactions need.

use super::envelope::{Attributes, Envelope};

pub(super) const ENVELOPE: Envelope = Envelope { headers: b"", attributes: Attributes::None, close: b"" };
