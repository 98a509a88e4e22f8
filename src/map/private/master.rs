//! The one secret of the configuration, and the keys that are made of it.

use std::fmt;

use aes_gcm_siv::aead::{Aead, KeyInit, Payload};
use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// HKDF's salt (RFC 5869): keeps our keys apart from those that others make of the same secret.
const SALT: &[u8] = b"figvine private 1";
/// Bytes of a nonce of AES-GCM-SIV.
pub(super) const NONCE: usize = 12;

/// Keys for each purpose, by HKDF-SHA256 of the configured secret with the purpose's name as `info`.
#[derive(Clone)]
pub struct Master {
    hash: Hmac<Sha256>,
    token: Hmac<Sha256>,
    subject: Hmac<Sha256>,
    gone: Hmac<Sha256>,
    wrap: Zeroizing<[u8; 32]>,
    cursor: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master")
    }
}

/// A subject's name where it may be seen: 128 bits of a keyed digest, 22 characters of base64url.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectId(Box<str>);

impl SubjectId {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads what may be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_of_ours = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        (text.len() == 22 && text.bytes().all(is_of_ours)).then(|| Self(text.into()))
    }
}

impl Master {
    /// Of the configured secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let source = Hkdf::<Sha256>::new(Some(SALT), secret.as_bytes());
        let key = |purpose: &str| {
            let mut key = Zeroizing::new([0; 32]);
            source.expand(purpose.as_bytes(), &mut *key).expect("HKDF gives up to 8160 bytes");
            key
        };
        // A key shorter than the block of the hash is filled up with zeros (RFC 2104).
        let mac = |purpose: &str| Hmac::new_from_slice(&*key(purpose)).expect("HMAC takes keys of any length");
        Self {
            hash: mac("hash"),
            token: mac("tokenise"),
            subject: mac("subject"),
            gone: mac("gone"),
            wrap: key("wrap"),
            cursor: key("cursor"),
        }
    }

    /// A value's hash: HMAC-SHA256.
    pub(super) fn hash(&self, text: &[u8]) -> [u8; 32] {
        digest(&self.hash, [text])
    }

    /// What stands for a value of a key whose subject was shredded.
    pub(super) fn gone(&self, text: &[u8]) -> [u8; 32] {
        digest(&self.gone, [text])
    }

    /// The round function of tokens.
    pub(super) fn round<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
        digest(&self.token, parts)
    }

    /// A subject's name where it may be seen. `value` is its text; that of null is empty.
    #[must_use]
    pub fn subject(&self, kind: &str, value: &str) -> SubjectId {
        let digest = digest(&self.subject, [&(kind.len() as u64).to_be_bytes(), kind.as_bytes(), value.as_bytes()]);
        let (half, _) = digest.split_at(16);
        SubjectId(URL_SAFE_NO_PAD.encode(half).into())
    }

    /// What tells whether another secret is this one, and nothing else of it. No subject has the name.
    #[must_use]
    pub fn mark(&self) -> SubjectId {
        self.subject("\0", "secret")
    }

    /// A subject's key as it may be kept.
    pub(super) fn wrap(&self, subject: &SubjectId, key: &[u8; 32], nonce: [u8; NONCE]) -> Option<Vec<u8>> {
        encrypt(&self.wrap, nonce, subject.as_str().as_bytes(), key)
    }

    /// What [`Master::wrap`] was given; `None` where it was another master's, or another subject's.
    pub(super) fn unwrap(&self, subject: &SubjectId, wrapped: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
        let key = Zeroizing::new(decrypt(&self.wrap, subject.as_str().as_bytes(), wrapped)?);
        key.as_slice().try_into().ok().map(Zeroizing::new)
    }

    /// The key of cursors.
    pub(super) fn cursor(&self) -> &[u8; 32] {
        &self.cursor
    }
}

fn digest<'p>(mac: &Hmac<Sha256>, parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 32] {
    let mut mac = mac.clone();
    parts.into_iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Nonce, ciphertext, tag.
pub(super) fn encrypt(key: &[u8; 32], nonce: [u8; NONCE], aad: &[u8], msg: &[u8]) -> Option<Vec<u8>> {
    let cipher = Aes256GcmSiv::new(&(*key).into());
    let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg, aad }).ok()?;
    Some([nonce.as_slice(), &sealed].concat())
}

/// What [`encrypt`] was given; `None` where key or associated data are others, or bytes were changed.
pub(super) fn decrypt(key: &[u8; 32], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, msg) = sealed.split_first_chunk::<NONCE>()?;
    Aes256GcmSiv::new(&(*key).into()).decrypt(&Nonce::from(*nonce), Payload { msg, aad }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_another_secret_or_purpose_are_others() {
        let (one, other) = (Master::new("one secret of many"), Master::new("another secret of many"));
        assert_ne!(one.hash(b"x"), other.hash(b"x"));
        assert_ne!(one.hash(b"x"), one.gone(b"x"));
        assert_eq!(one.hash(b"x"), Master::new("one secret of many").hash(b"x"));
        assert_ne!(one.subject("a", "b"), one.subject("ab", ""));
        assert!(!format!("{one:?}").contains("secret"));
    }

    #[test]
    fn a_wrapped_key_opens_for_its_subject_and_master_alone() {
        let (one, other) = (Master::new("one secret of many"), Master::new("another secret of many"));
        let (anna, bert) = (one.subject("", "anna"), one.subject("", "bert"));
        let wrapped = one.wrap(&anna, &[7; 32], [1; NONCE]).expect("wraps");
        assert_eq!(one.unwrap(&anna, &wrapped).as_deref(), Some(&[7; 32]));
        assert_eq!(one.unwrap(&bert, &wrapped), None);
        assert_eq!(other.unwrap(&anna, &wrapped), None);
        assert_eq!(one.unwrap(&anna, b"short"), None);
    }

    /// Computed by Python's `hmac` and `cryptography`, as the docs tell it.
    #[test]
    fn keys_and_hashes_are_those_of_the_docs() {
        let master = Master::new("correct horse battery staple");
        let hex: String = master.hash(b"anna@example.org").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "9ad2deb175797c79bc0ff1fc5f3b96b88f20b5e282d2e2ba4ee00ae3eee9610a");
        let subject = master.subject("customer", "42");
        assert_eq!(subject.as_str(), "tUpvCIAGG2lHXePx5JRl1w");
        let wrapped = master.wrap(&subject, &[7; 32], [1; NONCE]).expect("wraps");
        let wanted = "AQEBAQEBAQEBAQEB4Gw6TTQcZzFNI_PKIqqCVM5RP4MavVWskmwmOCAixEcNBT7kB-Q7wkF5jAFOfIPs";
        assert_eq!(URL_SAFE_NO_PAD.encode(wrapped), wanted);
    }
}
