//! Tokens: texts that look like the ones they stand for, and are one to one with them.
//!
//! Each ASCII digit becomes a digit, each small letter a small one, each capital a capital; every character beyond ASCII
//! becomes one of its group of 64 (the last byte of its UTF-8). All others stay. Length and punctuation stay visible.
//!
//! A Feistel network of ten rounds over the characters that change, as NIST's FF1 (SP 800-38G) is one over digits: one
//! half is added to, position by position and modulo the number of characters of its kind, by what HMAC-SHA256 gives of
//! the other half. So no two texts of one look become the same token, and keys stay keys.

use super::master::Master;

/// Rounds, as many as FF1 has.
const ROUNDS: u8 = 10;
/// Numbers that one digest gives: four bytes each, so that the remainder by at most 64 is even to a part in 2^26.
const NUMBERS: usize = 32 / 4;

/// A character that changes: where its kind begins, how many there are, and which of them it is.
#[derive(Clone, Copy)]
struct Place {
    base: u32,
    count: u8,
    index: u8,
}

impl Place {
    fn of(character: char) -> Option<Self> {
        let code = u32::from(character);
        let (base, count) = match character {
            '0'..='9' => (u32::from('0'), 10),
            'a'..='z' => (u32::from('a'), 26),
            'A'..='Z' => (u32::from('A'), 26),
            '\u{80}'.. => (code & !0x3f, 64),
            _ => return None,
        };
        // Below 64, by the ranges.
        Some(Self { base, count, index: (code - base) as u8 })
    }

    /// Groups of 64 hold no surrogate, or nothing else.
    fn character(self) -> char {
        char::from_u32(self.base + u32::from(self.index)).unwrap_or(char::REPLACEMENT_CHARACTER)
    }
}

/// Appends the token of a text.
pub(super) fn write(master: &Master, text: &str, out: &mut Vec<u8>) {
    let mut places: Vec<Place> = text.chars().filter_map(Place::of).collect();
    // What the text looks like: texts of different looks have nothing to do with each other.
    let mut look = Vec::with_capacity(text.len() * 4);
    for character in text.chars() {
        let shown = Place::of(character).map_or(u32::from(character), |place| place.base);
        look.extend_from_slice(&shown.to_be_bytes());
    }
    // Digests of digests: the time is linear in the text, however long.
    let look = master.round([&b"look"[..], &look]);
    let middle = places.len() / 2;
    for round in 0..ROUNDS {
        let (left, right) = places.split_at_mut(middle);
        let (changed, other) = if round % 2 == 0 { (right, left) } else { (left, right) };
        let other: Vec<u8> = other.iter().map(|place| place.index).collect();
        let of_round = master.round([&b"half"[..], &[round], &look, &other]);
        for (block, some) in changed.chunks_mut(NUMBERS).enumerate() {
            let digest = master.round([&b"part"[..], &of_round, &(block as u64).to_be_bytes()]);
            let (numbers, _) = digest.as_chunks::<4>();
            for (place, number) in some.iter_mut().zip(numbers) {
                let sum = u64::from(u32::from_be_bytes(*number)) + u64::from(place.index);
                // Below `count`, a byte.
                place.index = (sum % u64::from(place.count)) as u8;
            }
        }
    }
    let mut places = places.into_iter();
    for character in text.chars() {
        let shown = match Place::of(character) {
            Some(_) => places.next().map_or(character, Place::character),
            None => character,
        };
        out.extend_from_slice(shown.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn token(text: &str) -> String {
        let mut out = Vec::new();
        write(&Master::new("a secret of sixteen"), text, &mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn tokens_of_texts_of_one_look_are_one_to_one() {
        for width in 1..=4 {
            let count = 10_usize.pow(width);
            let tokens: HashSet<String> = (0..count).map(|n| token(&format!("{n:0w$}", w = width as usize))).collect();
            assert_eq!(tokens.len(), count);
            assert!(tokens.iter().all(|token| token.len() == width as usize));
        }
    }

    #[test]
    fn a_token_is_not_its_text_and_hangs_on_the_key() {
        let text = "4111 1111 1111 1111";
        assert_ne!(token(text), text);
        let mut other = Vec::new();
        write(&Master::new("another secret of sixteen"), text, &mut other);
        assert_ne!(token(text).into_bytes(), other);
        assert_ne!(token("Anna-Maria.K1@Example.org")[..5], token("Anna-Maria.K2@Example.org")[..5]);
    }

    #[test]
    fn a_long_text_takes_no_more_than_its_length_does() {
        // A digest of all of it for each of its parts would take minutes.
        let text = "x".repeat(200_000);
        assert_eq!(token(&text).len(), text.len());
    }

    proptest! {
        #[test]
        fn a_token_looks_like_its_text(text in any::<String>()) {
            let token = token(&text);
            prop_assert_eq!(token.len(), text.len());
            for (a, b) in text.chars().zip(token.chars()) {
                let (before, after) = (Place::of(a), Place::of(b));
                prop_assert_eq!(before.map(|place| place.base), after.map(|place| place.base));
                prop_assert!(before.is_some() || a == b);
            }
        }
    }
}
