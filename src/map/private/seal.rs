//! Encrypted values as they stand in events, and sealed cursors.
//!
//! ```text
//!   fv1:<subject>:<bytes>
//!        │         └ base64url without padding: nonce (12 bytes), ciphertext, tag (16 bytes)
//!        └ 22 characters of base64url: which subject's key, keyed itself
//! ```
//!
//! AES-256-GCM-SIV (RFC 8452) under the subject's key, over the value's JSON, with `fv1:<subject>` as associated data. The
//! nonce is the start of the SHA-256 of `schema.table.column`: a value of one subject in one column is always the
//! same bytes, so a replay and a backfill repeat them; that it is the same value is all that this tells.
//!
//! What stands for a key's value whose subject was shredded is `fv1:<subject>:gone:<digest>`, which nothing opens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use figvine_change::Cursor;
use sha2::{Digest, Sha256};

use super::master::{Master, NONCE, SubjectId, decrypt, encrypt};

/// What an encrypted value begins with.
pub(super) const MARK: &str = "fv1:";
/// What a sealed cursor begins with: no character of one that is not (see [`Cursor`]).
const CURSOR: &str = "~1";

/// Appends a value, given as JSON, as it stands in events.
pub(super) fn write(key: &[u8; 32], subject: &SubjectId, column: &str, json: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digest = Sha256::digest(column.as_bytes());
    let nonce = digest.first_chunk::<NONCE>()?;
    let head = format!("{MARK}{}", subject.as_str());
    let sealed = encrypt(key, *nonce, head.as_bytes(), json)?;
    out.extend_from_slice(head.as_bytes());
    out.push(b':');
    out.extend_from_slice(URL_SAFE_NO_PAD.encode(sealed).as_bytes());
    Some(())
}

/// Appends what stands for a key's value whose subject was shredded.
pub(super) fn write_gone(master: &Master, subject: &SubjectId, column: &str, json: &[u8], out: &mut Vec<u8>) {
    let digest = master.gone(&[subject.as_str().as_bytes(), column.as_bytes(), b"\0", json].concat());
    let (half, _) = digest.split_at(16);
    out.extend_from_slice(format!("{MARK}{}:gone:{}", subject.as_str(), URL_SAFE_NO_PAD.encode(half)).as_bytes());
}

/// An encrypted value out of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Whose key opens it.
    pub subject: SubjectId,
    bytes: Vec<u8>,
}

/// A value's JSON.
pub type Unsealed = String;

impl Sealed {
    /// Reads the text that stands in the event; `None` where it is no encrypted value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (subject, bytes) = text.strip_prefix(MARK)?.split_once(':')?;
        Some(Self { subject: SubjectId::parse(subject)?, bytes: URL_SAFE_NO_PAD.decode(bytes).ok()? })
    }

    /// The value's JSON; `None` where the key is another, or the text was changed.
    #[must_use]
    pub fn open(&self, key: &[u8; 32]) -> Option<Unsealed> {
        let head = format!("{MARK}{}", self.subject.as_str());
        String::from_utf8(decrypt(key, head.as_bytes(), &self.bytes)?).ok()
    }
}

/// Whether a cursor is one that [`seal_cursor`] made.
pub(super) fn is_sealed_cursor(cursor: &Cursor) -> bool {
    cursor.as_str().starts_with(CURSOR)
}

/// A cursor that tells no values. The same each time: messages of one row have the same bytes.
pub(super) fn seal_cursor(master: &Master, cursor: &Cursor) -> Option<Cursor> {
    let sealed = encrypt(master.cursor(), [0; NONCE], CURSOR.as_bytes(), cursor.as_str().as_bytes())?;
    Cursor::parse(&format!("{CURSOR}{}", URL_SAFE_NO_PAD.encode(sealed)))
}

/// What [`seal_cursor`] was given; `None` where it was another master's.
pub(super) fn open_cursor(master: &Master, cursor: &Cursor) -> Option<Cursor> {
    let sealed = URL_SAFE_NO_PAD.decode(cursor.as_str().strip_prefix(CURSOR)?).ok()?;
    let text = decrypt(master.cursor(), CURSOR.as_bytes(), &sealed)?;
    Cursor::parse(std::str::from_utf8(&text).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sealed(key: &[u8; 32], subject: &SubjectId, column: &str, json: &str) -> String {
        let mut out = Vec::new();
        write(key, subject, column, json.as_bytes(), &mut out).expect("seals");
        String::from_utf8(out).expect("ascii")
    }

    /// Computed by Python's `cryptography`, as the docs tell it.
    #[test]
    fn the_form_is_that_of_the_docs() {
        let subject = Master::new("correct horse battery staple").subject("customer", "42");
        let sealed = sealed(&[7; 32], &subject, "public.customers.address", r#""Fig Lane 1""#);
        let wanted = "fv1:tUpvCIAGG2lHXePx5JRl1w:GRmYk527D5knrCo5TMp6SstwJsO2gf0PpF3hl-p_L6ejMGzGjAvmkQ";
        assert_eq!(sealed, wanted);
    }

    #[test]
    fn a_value_opens_with_its_key_alone() {
        let master = Master::new("a secret of sixteen");
        let (anna, bert) = (master.subject("", "anna"), master.subject("", "bert"));
        let text = sealed(&[7; 32], &anna, "a.b.c", "42");
        let value = Sealed::parse(&text).expect("sealed");
        assert_eq!(value.open(&[7; 32]).as_deref(), Some("42"));
        assert_eq!(value.open(&[8; 32]), None);
        // Not even under the same key is it another subject's.
        assert_eq!(Sealed { subject: bert, ..value.clone() }.open(&[7; 32]), None);
        assert_eq!(text, sealed(&[7; 32], &anna, "a.b.c", "42"));
        assert_ne!(text, sealed(&[7; 32], &anna, "a.b.d", "42"));
    }

    #[test]
    fn what_is_gone_is_no_value_and_keeps_keys_apart() {
        let master = Master::new("a secret of sixteen");
        let subject = master.subject("", "anna");
        let gone = |json: &str| {
            let mut out = Vec::new();
            write_gone(&master, &subject, "a.b.c", json.as_bytes(), &mut out);
            String::from_utf8(out).expect("ascii")
        };
        assert!(Sealed::parse(&gone("1")).is_none());
        assert_ne!(gone("1"), gone("2"));
        assert_eq!(gone("1"), gone("1"));
    }

    proptest! {
        #[test]
        fn any_value_opens_again(json in any::<String>(), key in any::<[u8; 32]>(), column in any::<String>()) {
            let subject = Master::new("a secret of sixteen").subject("", "anna");
            let value = Sealed::parse(&sealed(&key, &subject, &column, &json)).expect("sealed");
            prop_assert_eq!(value.open(&key), Some(json));
        }

        #[test]
        fn any_text_is_a_value_or_none(text in any::<String>(), tail in "[A-Za-z0-9_-]{0,60}") {
            for text in [text.clone(), format!("fv1:{text}"), format!("fv1:AAAAAAAAAAAAAAAAAAAAAA:{tail}")] {
                if let Some(value) = Sealed::parse(&text) {
                    prop_assert_eq!(value.open(&[0; 32]), None);
                }
            }
        }

        #[test]
        fn any_cursor_opens_again_for_its_master_alone(text in "[!-~]{1,80}") {
            let (one, other) = (Master::new("a secret of sixteen"), Master::new("another of sixteen"));
            let cursor = Cursor::parse(&text).expect("a cursor");
            let sealed = seal_cursor(&one, &cursor).expect("seals");
            prop_assert!(is_sealed_cursor(&sealed) && !sealed.as_str().contains(&text) || text.len() < 4);
            prop_assert_eq!(open_cursor(&one, &sealed), Some(cursor));
            prop_assert_eq!(open_cursor(&other, &sealed), None);
        }
    }
}
