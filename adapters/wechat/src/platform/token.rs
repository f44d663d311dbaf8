//! One access token for all replicas (§5).
//!
//! `stable_token` gives everybody the same token, so that two replicas which ask at once do each
//! other no harm; the store spares the platform the asking, and one that asks at a time spares it
//! the rush when a token ends.

use super::error::PlatformError;
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// An access token. `Debug` does not show it.
#[derive(Debug, Clone)]
pub struct Token(SecretString);

impl Token {
    /// As the platform issued it; up to 512 characters and more.
    #[must_use]
    pub fn new(token: SecretString) -> Self {
        Self(token)
    }

    /// For the platform and for the store; never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The store does not answer. Tokens are then fetched without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store does not answer")]
pub struct Unavailable;

/// A store's answer, under way.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, Unavailable>> + Send + 'a>>;

/// Where replicas share the tokens, by AppID. Implementations answer within a second, or with
/// [`Unavailable`].
pub trait TokenStore: Send + Sync {
    /// The token in use; `None` when there is none or its time is over.
    fn get<'a>(&'a self, app_id: &'a str) -> StoreFuture<'a, Option<Token>>;

    /// Puts a token for this long.
    fn put<'a>(&'a self, app_id: &'a str, token: &'a Token, ttl: Duration) -> StoreFuture<'a, ()>;

    /// Removes the token if it is still this one: another replica may have renewed it. In one step.
    fn expire<'a>(&'a self, app_id: &'a str, token: &'a Token) -> StoreFuture<'a, ()>;

    /// Takes the right to fetch, for this long; false while another one has it.
    fn lock<'a>(&'a self, app_id: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool>;

    /// Gives the right back, if `owner` has it. In one step.
    fn unlock<'a>(&'a self, app_id: &'a str, owner: &'a str) -> StoreFuture<'a, ()>;
}

/// A store for one process: tests, and deployments of one process.
#[derive(Debug, Default)]
pub struct MemoryTokens(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    tokens: HashMap<String, (Token, Instant)>,
    locks: HashMap<String, (String, Instant)>,
}

impl MemoryTokens {
    fn with<T>(&self, work: impl FnOnce(&mut Memory) -> T) -> StoreFuture<'_, T>
    where
        T: Send + 'static,
    {
        let done = work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(std::future::ready(Ok(done)))
    }
}

impl TokenStore for MemoryTokens {
    fn get<'a>(&'a self, app_id: &'a str) -> StoreFuture<'a, Option<Token>> {
        self.with(|memory| {
            let (token, until) = memory.tokens.get(app_id)?;
            (*until > Instant::now()).then(|| token.clone())
        })
    }

    fn put<'a>(&'a self, app_id: &'a str, token: &'a Token, ttl: Duration) -> StoreFuture<'a, ()> {
        self.with(|memory| {
            memory.tokens.insert(app_id.to_owned(), (token.clone(), Instant::now() + ttl));
        })
    }

    fn expire<'a>(&'a self, app_id: &'a str, token: &'a Token) -> StoreFuture<'a, ()> {
        self.with(|memory| {
            let is_this = |(held, _): &(Token, Instant)| held.expose() == token.expose();
            if memory.tokens.get(app_id).is_some_and(is_this) {
                memory.tokens.remove(app_id);
            }
        })
    }

    fn lock<'a>(&'a self, app_id: &'a str, owner: &'a str, ttl: Duration) -> StoreFuture<'a, bool> {
        self.with(|memory| {
            let now = Instant::now();
            let free = memory.locks.get(app_id).is_none_or(|(_, until)| *until <= now);
            if free {
                memory.locks.insert(app_id.to_owned(), (owner.to_owned(), now + ttl));
            }
            free
        })
    }

    fn unlock<'a>(&'a self, app_id: &'a str, owner: &'a str) -> StoreFuture<'a, ()> {
        self.with(|memory| {
            if memory.locks.get(app_id).is_some_and(|(holder, _)| holder == owner) {
                memory.locks.remove(app_id);
            }
        })
    }
}

/// Whoever fetches has this long before another replica may; longer than a call may take.
const LOCKED_FOR: Duration = Duration::from_secs(15);
/// How often to look whether the replica that fetches has done it.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Then it is fetched here as well: that does no harm.
const PATIENCE: Duration = Duration::from_secs(5);
/// Both tokens are good for five minutes around a change: the old one is put away in time.
const MARGIN: Duration = Duration::from_secs(300);
const LEAST: Duration = Duration::from_secs(60);

/// A failure to fetch, for those who waited meanwhile: else each would wait for its own.
#[derive(Clone, Copy)]
struct Failed {
    at: Instant,
    error: PlatformError,
}

pub(super) struct Tokens {
    app_id: String,
    store: std::sync::Arc<dyn TokenStore>,
    /// Held by the one that fetches, in this process.
    one: tokio::sync::Mutex<Option<Failed>>,
    /// The last one fetched here, for when the store is away.
    last: Mutex<Option<(Token, Instant)>>,
}

impl Tokens {
    pub(super) fn new(app_id: &str, store: std::sync::Arc<dyn TokenStore>) -> Self {
        let one = tokio::sync::Mutex::new(None);
        Self { app_id: app_id.to_owned(), store, one, last: Mutex::new(None) }
    }

    async fn known(&self) -> Option<Token> {
        match self.store.get(&self.app_id).await {
            Ok(found) => found,
            Err(Unavailable) => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                let (token, until) = last.as_ref()?;
                (*until > Instant::now()).then(|| token.clone())
            }
        }
    }

    /// The token in use; where there is none, one caller in all replicas fetches it.
    pub(super) async fn current<F>(&self, fetch: impl FnOnce() -> F) -> Result<Token, PlatformError>
    where
        F: Future<Output = Result<(Token, Duration), PlatformError>>,
    {
        if let Some(token) = self.known().await {
            return Ok(token);
        }
        let asked_at = Instant::now();
        let mut one = self.one.lock().await;
        if let Some(failed) = *one
            && failed.at >= asked_at
        {
            return Err(failed.error);
        }
        let owner = hex::encode(rand::random::<[u8; 16]>());
        let locked = self.our_turn(&owner).await;
        // Whoever had the turn before has left it here.
        let fetched = match self.known().await {
            Some(token) => Ok(token),
            None => match fetch().await {
                Ok((token, lives)) => {
                    self.keep(&token, lives.saturating_sub(MARGIN).max(LEAST)).await;
                    Ok(token)
                }
                Err(error) => Err(error),
            },
        };
        if locked {
            let _ = self.store.unlock(&self.app_id, &owner).await;
        }
        *one = fetched.as_ref().err().map(|error| Failed { at: Instant::now(), error: *error });
        fetched
    }

    /// Waits until this replica may fetch; false when it will without the right to.
    async fn our_turn(&self, owner: &str) -> bool {
        let mut look = tokio::time::interval(LOOK_EVERY);
        let until = Instant::now() + PATIENCE;
        loop {
            match self.store.lock(&self.app_id, owner, LOCKED_FOR).await {
                Ok(true) => return true,
                Err(Unavailable) => return false,
                Ok(false) if Instant::now() >= until || self.known().await.is_some() => {
                    return false;
                }
                Ok(false) => drop(look.tick().await),
            }
        }
    }

    async fn keep(&self, token: &Token, ttl: Duration) {
        let until = Instant::now() + ttl;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((token.clone(), until));
        // Without the store the next one asks again, and gets the same.
        let _ = self.store.put(&self.app_id, token, ttl).await;
    }

    /// Puts a refused token away, unless somebody has put another one in its place.
    pub(super) async fn expire(&self, token: &Token) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.as_ref().is_some_and(|(held, _)| held.expose() == token.expose()) {
                *last = None;
            }
        }
        let _ = self.store.expire(&self.app_id, token).await;
    }
}
