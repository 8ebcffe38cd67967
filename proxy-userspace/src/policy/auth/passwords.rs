//! Passwords of users against their argon2 hashes. A hash takes tens of milliseconds and megabytes, so it is computed away
//! from the threads that serve, two at a time, and a password that was right is known again by a keyed hash that only
//! this process can compute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

/// Hashes that are computed at one time.
const AT_WORK: usize = 2;
/// Those that wait for that.
const WAITING: usize = 64;
/// Passwords that are known. More than users only where hashes have been replaced.
const MAX_KNOWN: usize = 4096;

pub(super) struct Passwords {
    key: hmac::Key,
    /// By the hash of the configuration.
    known: Mutex<HashMap<String, hmac::Tag>>,
    at_work: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Too many are to be checked already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Busy;

impl std::fmt::Debug for Passwords {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        text.write_str("Passwords")
    }
}

impl Passwords {
    pub(super) fn new() -> Self {
        Self {
            key: random_key(),
            known: Mutex::default(),
            at_work: Arc::new(Semaphore::new(AT_WORK)),
            waiting: Arc::new(Semaphore::new(WAITING)),
        }
    }

    /// Whether the password was found right for that hash before. In constant time.
    pub(super) fn is_known(&self, hash: &str, password: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let tag = known.get(hash);
        tag.is_some_and(|tag| hmac::verify(&self.key, &message(hash, password), tag.as_ref()).is_ok())
    }

    /// Whether the password is right.
    pub(super) async fn verify(&self, hash: &str, password: &str) -> Result<bool, Busy> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| Busy)?;
        let turn = Arc::clone(&self.at_work).acquire_owned().await.map_err(|_| Busy)?;
        let (given, wanted) = (password.to_owned(), hash.to_owned());
        let check = tokio::task::spawn_blocking(move || {
            // Held until the thread is free again, whoever has given up.
            let _held = (waiting, turn);
            PasswordHash::new(&wanted)
                .is_ok_and(|hash| Argon2::default().verify_password(given.as_bytes(), &hash).is_ok())
        });
        let is_right = check.await.map_err(|_| Busy)?;
        if is_right {
            let tag = hmac::sign(&self.key, &message(hash, password));
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(hash.to_owned(), tag);
        }
        Ok(is_right)
    }
}

fn message(hash: &str, password: &str) -> Vec<u8> {
    [hash.as_bytes(), b"\0", password.as_bytes()].concat()
}

/// A key that nobody else has.
pub(super) fn random_key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &random::<32>())
}

/// Bytes from the kernel.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("getrandom(2) has never failed since Linux 3.17");
    bytes
}

/// The argon2id hash of a password, with a salt of its own, in the PHC string format.
///
/// # Errors
/// What argon2 says: the password is too long.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt = SaltString::encode_b64(&random::<16>()).map_err(|error| error.to_string())?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
    hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
}
