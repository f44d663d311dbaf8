//! Random tokens, their digests, and passwords.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::Rng;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

/// Random bytes from the operating system's generator.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where randomness is drawn")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A token of 256 bits for a cookie, a form or an API.
#[must_use]
pub fn token() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(random::<32>())
}

/// A password that can be read out and typed: 16 of 31 letters and digits that look different, in
/// groups; 79 bits.
#[must_use]
pub fn readable_password() -> String {
    const LETTERS: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let mut password = String::new();
    let mut drawn = 0;
    while drawn < 16 {
        for byte in random::<32>() {
            // 248 is the largest multiple of 31: beyond it some letters would be likelier.
            if byte >= 248 || drawn == 16 {
                continue;
            }
            if drawn > 0 && drawn % 4 == 0 {
                password.push('-');
            }
            password.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
            drawn += 1;
        }
    }
    password
}

/// What is stored of a token.
#[must_use]
pub fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares in constant time.
#[must_use]
pub fn same(a: &str, b: &str) -> bool {
    use subtle::ConstantTimeEq;
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

/// At most two hashes at a time: each takes 19 MiB and some 65 ms of a core (S22).
static HASHING: Semaphore = Semaphore::const_new(2);

fn argon2() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Hashes a password; blocks for some 65 ms.
#[must_use]
pub fn hash_password(password: &str) -> Option<String> {
    argon2()
        .hash_password_with_salt(password.as_bytes(), &random::<16>())
        .ok()
        .map(|hash| hash.to_string())
}

/// Checks a password against a stored hash; for `None` it works as long and says no, so that an
/// unknown name cannot be told from a wrong password (S21).
pub async fn password_fits(password: String, stored: Option<String>) -> bool {
    // The hash of a random password that nobody knows.
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$2yP7S4gkY7lmJh+kCz1HqX0yT4r6ycq0a6b0b8mWm3A";
    let Ok(_turn) = HASHING.acquire().await else { return false };
    let known = stored.is_some();
    let work = tokio::task::spawn_blocking(move || {
        let stored = stored.unwrap_or_else(|| NOBODY.to_owned());
        PasswordHash::new(&stored)
            .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
    });
    work.await.unwrap_or(false) && known
}
