//! Who we are, in the words of the `CONNECT` line.
//!
//! Files are read anew for each connection, so that rotated credentials are taken up.

use std::path::Path;

use async_nats::ServerAddr;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::{Auth, NatsError};

/// The fields of `CONNECT` that prove who we are. Holds secrets: neither shown nor logged.
#[derive(Default, Serialize)]
pub(super) struct Proof {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jwt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

impl Proof {
    /// Answers the server's `nonce`. What stands in the address counts where nothing is configured.
    pub(super) async fn new(auth: &Auth, address: &ServerAddr, nonce: &str) -> Result<Self, NatsError> {
        Ok(match auth {
            Auth::None => match (address.username(), address.password()) {
                (None, _) => Self::default(),
                (Some(token), None) => Self { auth_token: Some(token.to_owned()), ..Self::default() },
                (Some(user), Some(password)) => {
                    Self { user: Some(user.to_owned()), pass: Some(password.to_owned()), ..Self::default() }
                }
            },
            Auth::User { user, password } => {
                Self { user: Some(user.clone()), pass: Some(password.expose_secret().to_owned()), ..Self::default() }
            }
            Auth::Token(token) => Self { auth_token: Some(token.expose_secret().to_owned()), ..Self::default() },
            Auth::Nkey(file) => {
                let pair = seed(&read(file).await?, file)?;
                Self { nkey: Some(pair.public_key()), sig: Some(sign(&pair, nonce, file)?), ..Self::default() }
            }
            Auth::Jwt { jwt, seed: file } => {
                let pair = seed(&read(file).await?, file)?;
                let jwt = read(jwt).await?.trim().to_owned();
                Self { jwt: Some(jwt), sig: Some(sign(&pair, nonce, file)?), ..Self::default() }
            }
            Auth::Creds(file) => {
                let text = read(file).await?;
                let (jwt, words) = creds(&text).ok_or_else(|| {
                    NatsError::refused(format!("no jwt and seed in credentials file {}", file.display()))
                })?;
                let pair = seed(words, file)?;
                Self { jwt: Some(jwt.to_owned()), sig: Some(sign(&pair, nonce, file)?), ..Self::default() }
            }
        })
    }
}

/// A file that holds what we authenticate with.
pub(super) async fn read(file: &Path) -> Result<String, NatsError> {
    tokio::fs::read_to_string(file)
        .await
        .map_err(|e| NatsError::refused(format!("cannot read {}", file.display())).because(e))
}

fn seed(words: &str, file: &Path) -> Result<nkeys::KeyPair, NatsError> {
    nkeys::KeyPair::from_seed(words.trim())
        .map_err(|e| NatsError::refused(format!("no valid nkey seed in {}", file.display())).because(e))
}

fn sign(pair: &nkeys::KeyPair, nonce: &str, file: &Path) -> Result<String, NatsError> {
    let signature = pair
        .sign(nonce.as_bytes())
        .map_err(|e| NatsError::refused(format!("the nkey of {} cannot sign", file.display())).because(e))?;
    Ok(URL_SAFE_NO_PAD.encode(signature))
}

/// JWT and seed of a `.creds` file: two blocks between lines of dashes, the JWT first.
/// Layout: `nsc generate creds`.
fn creds(text: &str) -> Option<(&str, &str)> {
    let mut blocks = text.lines().map(str::trim).scan(false, |inside, line| {
        if line.starts_with("---") {
            *inside = line.contains("BEGIN");
            return Some(None);
        }
        Some((*inside && !line.is_empty()).then_some(line))
    });
    let mut next = || blocks.find_map(|line| line);
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_gives_its_jwt_and_its_seed() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0.abc.def\n------END NATS USER JWT------\n\n\
            ************************* IMPORTANT *************************\nsign things\n\n\
            -----BEGIN USER NKEY SEED-----\nSUAXYZ\n------END USER NKEY SEED------\n\n****\n";
        assert_eq!(creds(text), Some(("eyJ0.abc.def", "SUAXYZ")));
        assert_eq!(creds("nothing of the kind"), None);
    }

    #[tokio::test]
    async fn an_nkey_signs_the_nonce_of_the_server() {
        let pair = nkeys::KeyPair::new_user();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("user.nk");
        std::fs::write(&file, format!("{}\n", pair.seed().expect("a seed"))).expect("written");
        let address = "nats://127.0.0.1".parse().expect("an address");
        let proof = Proof::new(&Auth::Nkey(file), &address, "nonce").await.expect("signed");
        let signature = URL_SAFE_NO_PAD.decode(proof.sig.expect("a signature")).expect("base64");
        pair.verify(b"nonce", &signature).expect("the signature holds");
        assert_eq!(proof.nkey, Some(pair.public_key()));
    }
}
