//! What citizens send beside their words: photos, voice, video.
//!
//! Their source keeps them for days only, so they are fetched (`fetch.rs`) and kept in the object
//! storage (`store.rs`), named by what is in them. What came is never shown: a picture is drawn anew
//! (`picture.rs`), a voice is put into a form that browsers play (`sound.rs`), and the original is
//! given out as a file only, whatever its sender calls it (`kind.rs`; security.md S25).
//!
//! **Nothing is lost between storage and database.** A content's row (`media_object`) is there before
//! the content, unused at first; the content is written whole; then one statement says that it is
//! the medium's. A crash in between costs another fetch. Removing goes the other way and only after
//! a day unused, under the row's lock ([`Keeper::tidy`]); a foreign key refuses to remove what a
//! medium names.

pub mod fetch;
mod kind;
mod picture;
mod sound;
mod store;

pub use fetch::Fetcher;
pub use kind::Type;
pub use store::{Opened, StorageError, Store, Variant, shown_as};

use crate::{
    domain::id::{OfficeId, StaffId},
    store::{
        StoreError,
        media::{self as rows, Content, Key},
    },
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgPool};
use tokio::sync::Semaphore;

/// The name of a content: its SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of this content.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// What was made of a content to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// Nothing: it is given out as a file.
    None,
    /// [`Variant::Preview`] and [`Variant::Thumb`].
    Picture,
    /// [`Variant::Play`].
    Sound,
}

impl Copies {
    /// As the database has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Picture => "picture",
            Self::Sound => "sound",
        }
    }

    /// As the database had it.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        [Self::None, Self::Picture, Self::Sound].into_iter().find(|one| one.as_str() == text)
    }
}

/// Why content was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// Larger than `media.limit_mb`.
    #[error("the content is too large")]
    TooLarge,
    /// No photo, voice or video (S25).
    #[error("the content is of no known type")]
    Type,
    /// Nothing in it.
    #[error("the content is empty")]
    Empty,
    /// The storage does not answer; the same again may succeed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A picture takes up to a quarter of a gigabyte while it is drawn: one at a time.
static DRAWING: Semaphore = Semaphore::const_new(1);

/// Keeps content and knows whose it is.
pub struct Keeper {
    pool: PgPool,
    /// Where it lies.
    pub store: Store,
    limit: usize,
}

impl Keeper {
    /// `limit`: of one content, in bytes.
    #[must_use]
    pub fn new(pool: PgPool, store: Store, limit: usize) -> Self {
        Self { pool, store, limit }
    }

    /// What is read of one content at most, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Keeps the content of a medium that is waiting for it, whatever it is.
    ///
    /// # Errors
    /// [`KeepError`]; the medium goes on waiting then.
    pub async fn keep(&self, key: Key, bytes: Bytes) -> Result<Content, KeepError> {
        if bytes.is_empty() {
            return Err(KeepError::Empty);
        }
        if bytes.len() > self.limit {
            return Err(KeepError::TooLarge);
        }
        let hash = Hash::of(&bytes);
        let kind = Type::of(&bytes);
        let mut db = self.pool.acquire().await.map_err(StoreError::from)?;
        rows::announce(&mut db, key.office, &hash).await?;
        drop(db);
        let made = make(kind, bytes.clone()).await;
        let copies = match &made[..] {
            [] => Copies::None,
            [(Variant::Play, _)] => Copies::Sound,
            _ => Copies::Picture,
        };
        let content = Content { hash, kind, size: bytes.len() as u64, copies };
        for (variant, bytes) in made.into_iter().chain([(Variant::Original, bytes)]) {
            self.store.put(key.office, &hash, variant, bytes).await?;
        }
        let mut db = self.pool.acquire().await.map_err(StoreError::from)?;
        rows::kept(&mut db, key, &content).await?;
        Ok(content)
    }

    /// Notes that somebody of the staff opened a voice or an original; for everybody who gives one
    /// out. `variant` is [`Variant::Play`] or [`Variant::Original`]; the others are not noted.
    ///
    /// # Errors
    /// [`StoreError`]: then it must not be given out.
    pub async fn record_opened(
        &self,
        key: Key,
        by: StaffId,
        variant: Variant,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let variant = match variant {
            Variant::Play => "play",
            Variant::Original => "original",
            Variant::Preview | Variant::Thumb => return Ok(()),
        };
        let mut db = self.pool.acquire().await?;
        rows::opened(&mut db, key, by, variant, now).await
    }

    /// Removes content that no medium has named for a day; never one that a medium names. Returns
    /// how many.
    ///
    /// # Errors
    /// [`KeepError`]; what is left is removed the next time.
    pub async fn tidy(&self) -> Result<u64, KeepError> {
        let mut db = self.pool.acquire().await.map_err(StoreError::from)?;
        let unused = rows::unused(&mut db).await?;
        let mut removed = 0;
        for (office, hash) in unused {
            removed += u64::from(self.remove(&mut db, office, &hash).await?);
        }
        Ok(removed)
    }

    async fn remove(
        &self,
        db: &mut sqlx::PgConnection,
        office: OfficeId,
        hash: &Hash,
    ) -> Result<bool, KeepError> {
        let mut transaction = db.begin().await.map_err(StoreError::from)?;
        if !rows::forget(&mut transaction, office, hash).await? {
            transaction.commit().await.map_err(StoreError::from)?;
            return Ok(false);
        }
        self.store.remove(office, hash).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }
}

/// What can be made of a content to be shown. A decoder that panics has made nothing.
async fn make(kind: Type, bytes: Bytes) -> Vec<(Variant, Bytes)> {
    let turn = DRAWING.acquire().await;
    let made = tokio::task::spawn_blocking(move || {
        if let Some(picture) = picture::show(kind, &bytes) {
            return vec![(Variant::Preview, picture.preview), (Variant::Thumb, picture.thumb)];
        }
        sound::play(kind, &bytes).map(|wav| (Variant::Play, wav)).into_iter().collect()
    });
    let made = made.await;
    drop(turn);
    made.unwrap_or_else(|_| {
        tracing::warn!(media.kind = kind.mime(), "a decoder gave up on what a citizen sent");
        Vec::new()
    })
}
