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
mod gsm;
mod kind;
mod picture;
mod program;
mod retention;
mod sound;
mod store;
mod transcribe;

pub use fetch::Fetcher;
pub use kind::Type;
pub use retention::remove_old;
pub use store::{Opened, StorageError, Store, Variant, shown_as};
pub use transcribe::Transcriber;

use crate::{
    domain::id::{OfficeId, StaffId},
    store::{
        StoreError,
        media::{self as rows, Content, Key},
    },
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::AttachmentKind;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgPool};
use std::{path::PathBuf, time::Duration};
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
    /// Nothing, because it plays as it came: it is what would have been made.
    Itself,
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
            Self::Itself => "itself",
            Self::Picture => "picture",
            Self::Sound => "sound",
        }
    }

    /// As the database had it.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let all = [Self::None, Self::Itself, Self::Picture, Self::Sound];
        all.into_iter().find(|one| one.as_str() == text)
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

/// When so many contents cannot be removed, it is the storage that does not answer.
const AWAY: usize = 3;

/// A picture takes up to a quarter of a gigabyte while it is drawn: one at a time.
static DRAWING: Semaphore = Semaphore::const_new(1);
/// Half an hour of sound takes a tenth of that and some seconds; no picture waits for it.
static LISTENING: Semaphore = Semaphore::const_new(1);

/// What is made of content beside keeping it.
#[derive(Debug, Clone, Default)]
pub struct Helpers {
    /// Decodes what nothing here can: ffmpeg.
    pub ffmpeg: Option<PathBuf>,
    /// Whether recordings are to be written down ([`Transcriber`]).
    pub transcribe: bool,
}

/// Keeps content and knows whose it is.
pub struct Keeper {
    pool: PgPool,
    /// Where it lies.
    pub store: Store,
    limit: usize,
    helpers: Helpers,
}

impl Keeper {
    /// `limit`: of one content, in bytes.
    #[must_use]
    pub fn new(pool: PgPool, store: Store, limit: usize, helpers: Helpers) -> Self {
        Self { pool, store, limit, helpers }
    }

    /// What is read of one content at most, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Keeps the content of a medium that is waiting for it, whatever it is. `told`: what its source
    /// says that it is.
    ///
    /// # Errors
    /// [`KeepError`]; the medium goes on waiting then.
    pub async fn keep(
        &self,
        key: Key,
        told: AttachmentKind,
        bytes: Bytes,
    ) -> Result<Content, KeepError> {
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
        let ffmpeg = self.helpers.ffmpeg.as_deref().filter(|_| told == AttachmentKind::Voice);
        let Made { copies, kept, ms, silent } = make(kind, bytes.clone(), ffmpeg).await;
        let content = Content { hash, kind, size: bytes.len() as u64, copies, ms, silent };
        for (variant, bytes) in kept.into_iter().chain([(Variant::Original, bytes)]) {
            self.store.put(key.office, &hash, variant, bytes).await?;
        }
        let mut db = self.pool.acquire().await.map_err(StoreError::from)?;
        rows::kept(&mut db, key, &content, self.helpers.transcribe).await?;
        Ok(content)
    }

    /// Notes that somebody of the staff opens a voice or an original; for everybody who gives one
    /// out. `variant` is [`Variant::Play`] or [`Variant::Original`]; the others are not noted.
    ///
    /// A player asks for one thing in many pieces, from wherever somebody seeks to. All that one
    /// person asks of one thing is one opening, for as long as each piece comes within its length
    /// and a minute after the one before.
    ///
    /// # Errors
    /// [`StoreError`]: then it must not be given out.
    pub async fn record_opened(
        &self,
        key: Key,
        by: StaffId,
        (variant, content): (Variant, &Content),
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let lasts = TimeDelta::milliseconds(content.ms.unwrap_or_default().into());
        let until = now + TimeDelta::minutes(1) + lasts;
        let variant = match variant {
            Variant::Play => "play",
            Variant::Original => "original",
            Variant::Preview | Variant::Thumb => return Ok(()),
        };
        let mut db = self.pool.acquire().await?;
        rows::opened(&mut db, key, by, variant, (now, until)).await
    }

    /// Removes content that no medium has named for a day; never one that a medium names. Returns
    /// how many.
    ///
    /// # Errors
    /// [`KeepError`]; what is left is removed the next time.
    pub async fn tidy(&self) -> Result<u64, KeepError> {
        let mut db = self.pool.acquire().await.map_err(StoreError::from)?;
        let (mut removed, mut failures, mut last) = (0, 0, Ok(()));
        loop {
            let unused = rows::unused(&mut db).await?;
            if unused.is_empty() || failures >= AWAY {
                return last.map(|()| removed);
            }
            for (office, hash) in unused {
                match self.remove(&mut db, office, &hash).await {
                    Ok(gone) => removed += u64::from(gone),
                    Err(error) => {
                        // The rest is not to wait behind one that cannot be removed.
                        rows::wait_behind(&mut db, office, &hash).await?;
                        (failures, last) = (failures + 1, Err(error));
                        if failures >= AWAY {
                            break;
                        }
                    }
                }
            }
        }
    }

    async fn remove(
        &self,
        db: &mut sqlx::PgConnection,
        office: OfficeId,
        hash: &Hash,
    ) -> Result<bool, KeepError> {
        let mut transaction = db.begin().await.map_err(StoreError::from)?;
        // A bucket may be slow; the row is held until it has answered.
        crate::store::as_long_as_it_takes(&mut transaction).await?;
        if !rows::forget(&mut transaction, office, hash).await? {
            transaction.commit().await.map_err(StoreError::from)?;
            return Ok(false);
        }
        self.store.remove(office, hash).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(true)
    }
}

/// What was made of a content, and what was found out about it.
struct Made {
    copies: Copies,
    kept: Vec<(Variant, Bytes)>,
    /// Of sound, in milliseconds; `None` where it cannot be decoded.
    ms: Option<i32>,
    silent: bool,
}

impl Made {
    fn nothing() -> Self {
        Self { copies: Copies::None, kept: Vec::new(), ms: None, silent: false }
    }

    fn sound(heard: sound::Heard, original: &Bytes) -> Self {
        let (copies, kept) = match heard.wav {
            none if none.is_empty() => (Copies::None, Vec::new()),
            same if same == *original => (Copies::Itself, Vec::new()),
            wav => (Copies::Sound, vec![(Variant::Play, wav)]),
        };
        Self { copies, kept, ms: Some(heard.ms), silent: heard.silent }
    }
}

/// What can be made of a content to be shown. A decoder that panics has made nothing.
async fn make(kind: Type, bytes: Bytes, ffmpeg: Option<&std::path::Path>) -> Made {
    let original = bytes.clone();
    let (turn, made) = if kind.is_picture() {
        let turn = DRAWING.acquire().await;
        let drawn = tokio::task::spawn_blocking(move || {
            let picture = picture::show(kind, &bytes)?;
            let kept = vec![(Variant::Preview, picture.preview), (Variant::Thumb, picture.thumb)];
            Some(Made { copies: Copies::Picture, kept, ..Made::nothing() })
        });
        (turn, drawn.await)
    } else {
        let turn = LISTENING.acquire().await;
        let heard = tokio::task::spawn_blocking(move || {
            sound::play(kind, &bytes).map(|heard| Made::sound(heard, &bytes))
        });
        (turn, heard.await)
    };
    let made = made.unwrap_or_else(|_| {
        tracing::warn!(media.kind = kind.mime(), "a decoder gave up on what a citizen sent");
        None
    });
    let made = match (made, ffmpeg) {
        (None, Some(ffmpeg)) => decoded_by(ffmpeg, &original).await,
        (made, _) => made,
    };
    drop(turn);
    made.unwrap_or_else(Made::nothing)
}

/// What ffmpeg hears in it. It is given the content and gives back samples, without a file and
/// without any other way to one: content may name others to be read.
async fn decoded_by(ffmpeg: &std::path::Path, bytes: &Bytes) -> Option<Made> {
    const RATE: u32 = 8000;
    const WITHIN: Duration = Duration::from_secs(60);
    let (rate, longest) = (RATE.to_string(), sound::LONGEST_S.to_string());
    let arguments = [
        "-nostdin",
        "-v",
        "error",
        "-protocol_whitelist",
        "pipe",
        "-i",
        "pipe:0",
        "-vn",
        "-t",
        &longest,
        "-ac",
        "1",
        "-ar",
        &rate,
        "-f",
        "s16le",
        "-c:a",
        "pcm_s16le",
        "pipe:1",
    ];
    let most = (RATE * sound::LONGEST_S) as usize * 2;
    let program = ffmpeg.as_os_str();
    match program::run(program, &arguments, bytes.clone(), WITHIN, most).await {
        Ok(samples) => Some(Made::sound(sound::of_samples(RATE, &samples)?, bytes)),
        Err(error) => {
            tracing::info!(%error, "a recording could not be decoded");
            None
        }
    }
}
