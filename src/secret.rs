//! Random tokens, their digests, and passwords.

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::Rng;
use sha2::{Digest, Sha256};
use std::sync::{Arc, LazyLock};
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

/// At most two hashes at a time: each takes 19 MiB and some 65 ms of a core. At most twenty wait;
/// more are told to come again (S22).
static HASHING: LazyLock<Turns> = LazyLock::new(|| Turns::new(2, 20));

/// Too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked")]
pub struct Crowded;

/// Work on the blocking threads, bounded together with those who wait for it.
struct Turns {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Turns {
    fn new(running: usize, waiting: usize) -> Self {
        Self { running: Arc::new(Semaphore::new(running)), waiting: Semaphore::new(waiting) }
    }

    /// Runs `work` when it is its turn; `None` when it came to nothing.
    ///
    /// The turn belongs to the work and not to who asked for it: a client that hangs up ends its
    /// request, but the work goes on to its end, and until then nobody else may begin.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Crowded> {
        let turn = match Arc::clone(&self.running).try_acquire_owned() {
            Ok(turn) => turn,
            Err(_) => {
                let _place = self.waiting.try_acquire().map_err(|_| Crowded)?;
                Arc::clone(&self.running).acquire_owned().await.map_err(|_| Crowded)?
            }
        };
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        Ok(work.await.ok())
    }
}

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
///
/// # Errors
/// [`Crowded`]: nothing was checked.
pub async fn password_fits(password: String, stored: Option<String>) -> Result<bool, Crowded> {
    // The hash of a random password that nobody knows.
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$2yP7S4gkY7lmJh+kCz1HqX0yT4r6ycq0a6b0b8mWm3A";
    let known = stored.is_some();
    let fits = HASHING.run(move || {
        let stored = stored.unwrap_or_else(|| NOBODY.to_owned());
        PasswordHash::new(&stored)
            .is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
    });
    Ok(fits.await?.unwrap_or(false) && known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::sync::mpsc;

    #[tokio::test]
    async fn s22_who_hangs_up_does_not_let_a_third_hash_begin() {
        let turns = Turns::new(2, 20);
        let (began, begins) = mpsc::channel();
        let (end_first, first) = mpsc::channel::<()>();
        let (end_second, second) = mpsc::channel::<()>();
        let work = |name: &'static str, until: mpsc::Receiver<()>| {
            let began = began.clone();
            move || {
                let _ = began.send(name);
                let _ = until.recv();
            }
        };
        // Both hang up as soon as their work was handed over.
        assert!(turns.run(work("first", first)).now_or_never().is_none());
        assert!(turns.run(work("second", second)).now_or_never().is_none());
        let mut running = [begins.recv().unwrap(), begins.recv().unwrap()];
        running.sort_unstable();
        assert_eq!(running, ["first", "second"]);

        let (end_third, third) = mpsc::channel::<()>();
        drop(end_third);
        let mut waits = Box::pin(turns.run(work("third", third)));
        assert!((&mut waits).now_or_never().is_none());
        assert_eq!(turns.running.available_permits(), 0);
        assert!(begins.try_recv().is_err(), "a third one began");
        end_first.send(()).unwrap();
        assert_eq!(waits.await, Ok(Some(())));
        assert_eq!(begins.recv(), Ok("third"));
        end_second.send(()).unwrap();
    }

    #[tokio::test]
    async fn s22_only_so_many_may_wait() {
        let turns = Turns::new(1, 2);
        let (end, until) = mpsc::channel::<()>();
        assert!(turns.run(move || until.recv().is_ok()).now_or_never().is_none());
        let mut one = Box::pin(turns.run(|| 1));
        let mut two = Box::pin(turns.run(|| 2));
        assert!((&mut one).now_or_never().is_none() && (&mut two).now_or_never().is_none());
        assert_eq!(turns.run(|| 3).now_or_never(), Some(Err(Crowded)));
        // Who gives up waiting makes room.
        drop(two);
        let mut three = Box::pin(turns.run(|| 3));
        assert!((&mut three).now_or_never().is_none());
        end.send(()).unwrap();
        assert_eq!((one.await, three.await), (Ok(Some(1)), Ok(Some(3))));
    }
}
