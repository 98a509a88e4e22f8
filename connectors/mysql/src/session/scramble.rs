//! Proofs that we know the password, per authentication plugin.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mysql_common::scramble::{create_response_for_ed25519, scramble_native, scramble_sha256};

pub(super) const CACHING_SHA2: &str = "caching_sha2_password";

/// What a plugin wants to see first; `None` where we do not know it.
pub(super) fn proof(plugin: &str, nonce: &[u8], password: &str) -> Option<Vec<u8>> {
    let password = password.as_bytes();
    match plugin {
        CACHING_SHA2 => Some(scramble_sha256(nonce, password).map_or_else(Vec::new, Vec::from)),
        "mysql_native_password" => Some(scramble_native(nonce, password).map_or_else(Vec::new, Vec::from)),
        "client_ed25519" if nonce.len() == 32 => Some(create_response_for_ed25519(password, nonce).to_vec()),
        // The server asks the system who stands at the other end of a Unix socket.
        "auth_socket" | "unix_socket" => Some(Vec::new()),
        _ => None,
    }
}

/// The password, mixed with the nonce, under the server's RSA key (PEM). `None` where that is no key for it.
pub(super) fn sealed(clear: &[u8], nonce: &[u8], pem: &[u8]) -> Option<Vec<u8>> {
    let (modulus, exponent) = public_key(pem)?;
    // OAEP with SHA-1 takes up 42 bytes.
    if nonce.is_empty() || clear.len() + 42 > modulus.len() {
        return None;
    }
    let mixed: Vec<u8> = clear.iter().zip(nonce.iter().cycle()).map(|(byte, salt)| byte ^ salt).collect();
    // `encrypt` panics on what is no key, so it is given one that we wrote.
    let key = element(0x30, &[integer(&modulus), integer(&exponent)].concat());
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", STANDARD.encode(key));
    Some(mysql_common::crypto::encrypt(&mixed, pem.as_bytes()))
}

/// Modulus and exponent out of PEM: SubjectPublicKeyInfo (RFC 5280) or RSAPublicKey (RFC 8017), without leading zeros.
fn public_key(pem: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (kind, rest) = rest.split_once("PUBLIC KEY-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(body).ok()?;
    let mut rest = &der[..];
    let mut fields = match kind {
        "RSA " => take(&mut rest, 0x30)?,
        "" => {
            let mut info = take(&mut rest, 0x30)?;
            let _algorithm = take(&mut info, 0x30)?;
            // The bit string's first byte counts unused bits.
            let mut key = take(&mut info, 0x03)?.strip_prefix(&[0])?;
            take(&mut key, 0x30)?
        }
        _ => return None,
    };
    let mut number = || take(&mut fields, 0x02).map(|n| n.iter().copied().skip_while(|&b| b == 0).collect::<Vec<u8>>());
    let (modulus, exponent) = (number()?, number()?);
    // Odd, of 1,024 to 16,384 whole bytes' bits; an exponent that costs no more than usual.
    let is_modulus = (128..=2048).contains(&modulus.len())
        && modulus.first().is_some_and(|&b| b >= 0x80)
        && modulus.last().is_some_and(|&b| b & 1 == 1);
    (is_modulus && (1..=8).contains(&exponent.len())).then_some((modulus, exponent))
}

/// The content of a DER element with this tag.
fn take<'a>(rest: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    if *rest.split_off_first()? != tag {
        return None;
    }
    let length = match *rest.split_off_first()? {
        short @ ..=0x7f => usize::from(short),
        long @ 0x81..=0x84 => {
            let bytes = rest.split_off(..usize::from(long & 0x7f))?;
            bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte))
        }
        _ => return None,
    };
    rest.split_off(..length)
}

/// A DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(0));
    } else {
        out.push(0x84);
        out.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_be_bytes());
    }
    out.extend_from_slice(content);
    out
}

/// A positive DER integer: a leading zero keeps the sign away.
fn integer(bytes: &[u8]) -> Vec<u8> {
    element(0x02, &[&[0], bytes].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What `openssl rsa -pubout` gives of a 2,048-bit key.
    const KEY: &str = include_str!("../../tests/captures/public_key.pem");

    #[test]
    fn a_servers_key_seals_the_password() {
        let (modulus, exponent) = public_key(KEY.as_bytes()).expect("a key");
        assert_eq!((modulus.len(), exponent.as_slice()), (256, &[1, 0, 1][..]));
        let sealed = sealed(b"secret\0", &[7; 20], KEY.as_bytes()).expect("sealed");
        assert_eq!(sealed.len(), 256);
    }

    #[test]
    fn what_is_no_key_seals_nothing() {
        let even = element(0x30, &[integer(&[0x80; 128]), integer(&[3])].concat());
        let even = format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----", STANDARD.encode(even));
        for pem in ["", "-----BEGIN PUBLIC KEY-----", &KEY.replace('A', "-"), &KEY.replace("MIIB", "MIIC"), &even] {
            assert_eq!(sealed(b"secret\0", &[7; 20], pem.as_bytes()), None);
        }
        assert_eq!(sealed(&[b'x'; 215], &[7; 20], KEY.as_bytes()), None, "too long for the key");
        assert_eq!(sealed(b"secret\0", &[], KEY.as_bytes()), None, "without a nonce");
    }

    #[test]
    fn an_empty_password_proves_nothing() {
        assert_eq!(proof(CACHING_SHA2, &[1; 20], ""), Some(Vec::new()));
        assert_eq!(proof("mysql_native_password", &[1; 20], ""), Some(Vec::new()));
        assert_eq!(proof("dialog", &[1; 20], "x"), None);
    }

    proptest! {
        #[test]
        fn no_key_panics(at in 0..450usize, byte in any::<u8>(), der in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut pem = KEY.as_bytes().to_vec();
            if let Some(place) = pem.get_mut(at) {
                *place = byte;
            }
            let _ = sealed(b"secret\0", &[7; 20], &pem);
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(der));
            let _ = sealed(b"secret\0", &[7; 20], pem.as_bytes());
        }
    }
}
