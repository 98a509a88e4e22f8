//! Each capture as messages, and as the batches they become.

use crate::captured::{CAPTURES, beginning, capture, frames, read, session};
use crate::show;

/// Too long to be read as a snapshot; the properties hold for it too.
const UNSHOWN: &str = "long_transaction";

#[test]
fn messages_read_as_the_server_wrote_them() {
    for name in CAPTURES.into_iter().filter(|name| *name != UNSHOWN) {
        let capture = capture(name);
        insta::assert_snapshot!(format!("{name}_messages"), show::messages(&capture, &frames(&capture)));
    }
}

#[test]
fn messages_become_batches() {
    for name in CAPTURES.into_iter().filter(|name| *name != UNSHOWN) {
        let frames = frames(&capture(name));
        let batches = read(&mut session(&beginning()), &frames, std::iter::repeat_n(5, frames.len() / 5));
        insta::assert_snapshot!(format!("{name}_batches"), show::batches(&batches));
    }
}
