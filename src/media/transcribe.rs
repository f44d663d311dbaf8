//! What a machine understands of a recording, as a suggestion for who listens to it: never the
//! citizen's words, in no answer to them. A program that the settings name reads a play copy and
//! writes text; without one nothing happens. One recording at a time, behind everything else.

use super::{Keeper, program};
use crate::{
    clock::Clock,
    config,
    domain::id::OfficeId,
    lifecycle::Wake,
    secret,
    store::{
        self, StoreError,
        recording::{self as rows, ToWrite},
    },
    telemetry,
};
use bytes::Bytes;
use chrono::TimeDelta;
use futures::StreamExt;
use intake_contract::clean_text;
use sqlx::PgPool;
use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Of what a program writes, in bytes.
const OUTPUT: usize = 256 * 1024;
/// Of a text that is shown, in characters: what is spoken in half an hour.
const LONGEST: usize = 10_000;
/// Between two tries, in seconds.
const LADDER: [i64; 3] = [60, 600, 3600];

/// The worker of one replica.
pub struct Transcriber {
    pool: PgPool,
    keeper: Arc<Keeper>,
    settings: config::Transcribe,
    clock: Clock,
    wake: Wake,
}

/// A file that only this account can read, and that is gone afterwards.
struct Temporary(PathBuf);

impl Temporary {
    fn write(bytes: &[u8]) -> std::io::Result<Self> {
        use std::io::Write;
        let folder = std::env::temp_dir().join(format!("intake-{}", secret::token()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let made = Self(folder);
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(made.path())?;
        file.write_all(bytes)?;
        Ok(made)
    }

    fn path(&self) -> PathBuf {
        self.0.join("recording.wav")
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new(&self.0));
    }
}

impl Transcriber {
    /// A worker; nothing runs yet.
    #[must_use]
    pub fn new(
        pool: PgPool,
        keeper: Arc<Keeper>,
        settings: config::Transcribe,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self { pool, keeper, settings, clock, wake: Wake::default() })
    }

    /// Writes down what is due until `shutdown`; what is under way then is done again later.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        if self.settings.command.is_empty() {
            return;
        }
        let mut failing = false;
        while !shutdown.is_cancelled() {
            let done = tokio::select! {
                done = self.step() => done,
                () = shutdown.cancelled() => return,
            };
            match done {
                Ok(true) => {
                    failing = false;
                    continue;
                }
                Ok(false) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %telemetry::causes(&error), "recordings could not be written down; trying again");
                    }
                }
            }
            self.wake.wait(LOOK_EVERY, &shutdown).await;
        }
    }

    /// Takes one that is due and writes down what is said in it; false when none is due.
    ///
    /// # Errors
    /// [`StoreError`]; it is due again after a while.
    pub async fn step(&self) -> Result<bool, StoreError> {
        if self.settings.command.is_empty() {
            return Ok(false);
        }
        let now = self.clock.now();
        let lease = now + TimeDelta::seconds(self.settings.timeout_s.cast_signed() + 60);
        let claimed = store::within(CALL_WITHIN, async {
            rows::claim_transcript(&mut *self.pool.acquire().await?, now, lease).await
        });
        let Some(due) = claimed.await? else { return Ok(false) };
        let written = self.write_down(&due).await;
        let now = self.clock.now();
        if let Err(says) = &written {
            let (office, tries) = (due.office.0, due.tries);
            tracing::warn!(
                office.id = office,
                tries,
                says,
                "a recording could not be written down"
            );
        }
        let step = usize::try_from(due.tries - 1).unwrap_or(0);
        let again = LADDER.get(step).filter(|_| due.tries < self.settings.tries);
        let again = again.map(|wait| now + TimeDelta::seconds(*wait));
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            match &written {
                Ok(text) => rows::transcribed(&mut db, &due, text).await,
                Err(says) => rows::not_transcribed(&mut db, &due, again, says).await,
            }
        })
        .await?;
        Ok(true)
    }

    async fn write_down(&self, due: &ToWrite) -> Result<String, String> {
        let sound = self.sound(due.office, due).await.ok_or("its play copy cannot be read")?;
        let file = tokio::task::spawn_blocking(move || Temporary::write(&sound)).await;
        let file = file.ok().and_then(Result::ok).ok_or("no temporary file can be made")?;
        let [program, arguments @ ..] = &self.settings.command[..] else {
            return Err("no program is named".to_owned());
        };
        let path = file.path();
        let mut all: Vec<&std::ffi::OsStr> = arguments.iter().map(AsRef::as_ref).collect();
        all.push(path.as_os_str());
        let within = Duration::from_secs(self.settings.timeout_s);
        let said = program::run(program.as_ref(), &all, Bytes::new(), within, OUTPUT).await;
        let said = said.map_err(|error| error.to_string())?;
        let text = clean_text(&String::from_utf8_lossy(&said));
        Ok(text.trim().chars().take(LONGEST).collect())
    }

    async fn sound(&self, office: OfficeId, due: &ToWrite) -> Option<Vec<u8>> {
        let (variant, _) = super::shown_as(&due.content, super::Variant::Play)?;
        let opened = self.keeper.store.get(office, &due.content.hash, variant, None).await;
        let mut bytes = opened.ok()??.bytes;
        let mut sound = Vec::new();
        while let Some(part) = bytes.next().await {
            sound.extend_from_slice(&part.ok()?);
        }
        Some(sound)
    }
}
