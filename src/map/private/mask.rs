//! Texts of which little or nothing is left.

/// What stands in the place of what is hidden, however long that is.
const HIDDEN: &str = "***";

/// What a mask leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// The same text for every value.
    Fixed(Box<str>),
    /// So many characters at the beginning and at the end, with [`HIDDEN`] between. Of a text that has less than twice as
    /// many nothing is left: what is kept must not be the whole.
    Keep {
        /// Characters at the beginning.
        first: usize,
        /// Characters at the end.
        last: usize,
    },
}

impl Default for Mask {
    fn default() -> Self {
        Self::Fixed(HIDDEN.into())
    }
}

impl Mask {
    /// Appends what is left of a text.
    pub(super) fn write(&self, text: &str, out: &mut Vec<u8>) {
        match self {
            Self::Fixed(fixed) => out.extend_from_slice(fixed.as_bytes()),
            Self::Keep { first, last } => {
                let count = text.chars().count();
                let is_long = first.saturating_add(*last).saturating_mul(2) <= count;
                let (first, last) = if is_long { (*first, *last) } else { (0, 0) };
                let behind = |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at);
                out.extend_from_slice(text.get(..behind(first)).unwrap_or_default().as_bytes());
                out.extend_from_slice(HIDDEN.as_bytes());
                out.extend_from_slice(text.get(behind(count - last)..).unwrap_or_default().as_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(mask: &Mask, text: &str) -> String {
        let mut out = Vec::new();
        mask.write(text, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn what_is_kept_is_never_more_than_half() {
        let last = Mask::Keep { first: 0, last: 2 };
        for (text, wanted) in [("+49301234567", "***67"), ("1234", "***34"), ("123", "***"), ("12", "***"), ("", "***")]
        {
            assert_eq!(masked(&last, text), wanted, "{text}");
        }
        assert_eq!(masked(&Mask::Keep { first: 1, last: 1 }, "Zoë Müller"), "Z***r");
        assert_eq!(masked(&Mask::Keep { first: 2, last: 0 }, "Ünïcode"), "Ün***");
        assert_eq!(masked(&Mask::default(), "anything"), "***");
    }

    proptest! {
        #[test]
        fn no_more_than_half_of_any_text_is_left(
            text in any::<String>(), first in 0..9_usize, last in 0..9_usize
        ) {
            let out = masked(&Mask::Keep { first, last }, &text);
            let kept = out.chars().count() - 3;
            prop_assert!(kept * 2 <= text.chars().count());
            prop_assert!(kept == 0 || kept == first + last);
        }
    }
}
