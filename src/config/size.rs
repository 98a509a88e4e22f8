//! Lengths of time and numbers of bytes as people write them.

use std::time::Duration;

/// Reads `500ms 10s 5m 12h 7d`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (number, unit) = split(text)?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(ms).map(Duration::from_millis)
}

/// Reads `512B 64KiB 32MiB 1GiB 1TiB 10KB 10MB 10GB 10TB`; `0` needs no unit.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in
            [("0", 0), ("500ms", 500), ("10s", 10_000), ("5 m", 300_000), ("12h", 43_200_000), ("7d", 604_800_000)]
        {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1.5s", "1w", "10sec", "1s2", "18446744073709551615d", "٣s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        for (text, size) in [("0", 0), ("512B", 512), ("64KiB", 65_536), ("1 GiB", 1 << 30), ("10MB", 10_000_000)] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "64", "KiB", "-1B", "1.5GiB", "64kib", "18446744073709551615TiB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = (duration(&text), bytes(&text));
        }
    }
}
