//! The trace that a change came from, as an application leaves it in the log: W3C's Trace Context, header `traceparent`
//! (<https://www.w3.org/TR/trace-context/>, version 00).

/// Length of each part: version, trace id, parent id, flags.
const PARTS: [usize; 4] = [2, 32, 16, 2];
/// Length of the whole, with the hyphens between.
pub const TRACEPARENT_BYTES: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// The `traceparent` that a text is, blanks around it apart; `None` where it is none, of another version than 00, or
/// names nothing: an id of zeros alone is invalid, and so are capitals.
#[must_use]
pub fn traceparent(text: &[u8]) -> Option<Box<str>> {
    let text = text.trim_ascii();
    if text.len() != TRACEPARENT_BYTES {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut parts = text.split('-');
    for (at, length) in PARTS.into_iter().enumerate() {
        let part = parts.next()?;
        let is_id = at == 1 || at == 2;
        let is_good = part.len() == length
            && part.bytes().all(is_digit)
            && (at > 0 || part == "00")
            && !(is_id && part.bytes().all(|byte| byte == b'0'));
        if !is_good {
            return None;
        }
    }
    parts.next().is_none().then(|| text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_taken_as_it_stands() {
        assert_eq!(traceparent(GOOD.as_bytes()).as_deref(), Some(GOOD));
        assert_eq!(traceparent(format!(" {GOOD}\r\n").as_bytes()).as_deref(), Some(GOOD));
    }

    #[test]
    fn what_is_no_traceparent_of_version_00_is_none() {
        for bad in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "00 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 01",
        ] {
            assert_eq!(traceparent(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left(text in any::<Vec<u8>>(), at in 0..TRACEPARENT_BYTES, byte in any::<u8>()) {
            let _ = traceparent(&text);
            let mut nearly = GOOD.as_bytes().to_vec();
            nearly[at] = byte;
            if let Some(found) = traceparent(&nearly) {
                prop_assert_eq!(found.as_bytes(), &nearly[..]);
            }
        }
    }
}
