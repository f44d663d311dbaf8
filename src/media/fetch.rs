//! Fetches what citizens sent from where it lies. A reconciler: it takes what is due by its row, and
//! what it took and did not finish is due again after a while.

use super::{KeepError, Keeper};
use crate::{
    calls::{self, Sources, fetch::FetchError},
    clock::Clock,
    lifecycle::Wake,
    platform::Accounts,
    store::{
        self, StoreError,
        media::{self as rows, Claimed, Lost},
    },
    telemetry,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use intake_wechat::platform::{Again, PlatformError, Trouble};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The longest wait between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longer than a whole file over a slow line, with its second call.
const LEASE: TimeDelta = TimeDelta::minutes(6);
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries, in seconds; the last one from then on. WeChat's three days are some thirty
/// tries.
const LADDER: [i64; 8] = [30, 120, 600, 1800, 3600, 2 * 3600, 2 * 3600, 3 * 3600];
/// The same for recordings of calls (hotline.md §2): an exchange may be a moment late with the file.
const CALLS: [i64; 7] = [10, 60, 300, 1800, 2 * 3600, 6 * 3600, 6 * 3600];
/// The source of what came over a citizen's page.
pub const UPLOAD: &str = "upload";
/// An account without `[wechat.api]` may get one.
const NO_API: TimeDelta = TimeDelta::hours(1);

/// The worker of one replica.
pub struct Fetcher {
    pool: PgPool,
    keeper: Arc<Keeper>,
    accounts: Arc<Accounts>,
    sources: Arc<Sources>,
    clock: Clock,
    parallel: usize,
    wake: Wake,
}

/// Why a fetch came to nothing.
enum Fault {
    NoApi,
    Gone,
    Call(FetchError),
    Platform(PlatformError),
    Keep(KeepError),
}

impl Fetcher {
    /// A worker; nothing runs yet. `parallel`: files at a time.
    #[must_use]
    pub fn new(
        pool: PgPool,
        keeper: Arc<Keeper>,
        (accounts, sources): (Arc<Accounts>, Arc<Sources>),
        clock: Clock,
        parallel: usize,
    ) -> Arc<Self> {
        let wake = Wake::default();
        Arc::new(Self { pool, keeper, accounts, sources, clock, parallel, wake })
    }

    /// Looks now: something was committed.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Fetches what is due until `shutdown`; what is on its way then is fetched again later.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let hands = (0..self.parallel.max(1)).map(|_| self.work(&shutdown));
        tokio::select! {
            _ = join_all(hands) => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn work(&self, shutdown: &CancellationToken) {
        let mut failing = false;
        while !shutdown.is_cancelled() {
            match self.step().await {
                Ok(true) => failing = false,
                Ok(false) => {
                    failing = false;
                    self.wake.wait(LOOK_EVERY, shutdown).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(error = %telemetry::causes(&error), "what citizens sent could not be fetched; trying again");
                    }
                    Wake::default().wait(LOOK_EVERY, shutdown).await;
                }
            }
        }
    }

    /// Takes one that is due and fetches it; false when nothing is due.
    ///
    /// # Errors
    /// [`StoreError`]; it is due again after a while.
    pub async fn step(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let claimed = store::within(CALL_WITHIN, async {
            rows::claim(&mut *self.pool.acquire().await?, now, now + LEASE).await
        });
        let Some(claimed) = claimed.await? else { return Ok(false) };
        // Where there is one there may be more: the next hand looks as well.
        self.wake.wake();
        let result = match self.fetch(&claimed).await {
            Ok(()) => "kept",
            Err(Fault::Keep(KeepError::Store(error))) => return Err(error),
            Err(fault) => self.missed(&claimed, &fault).await?,
        };
        metrics::counter!(telemetry::MEDIA_FETCHES, "result" => result).increment(1);
        Ok(true)
    }

    async fn fetch(&self, claimed: &Claimed) -> Result<(), Fault> {
        let source = self.sources.of(claimed.key.office, &claimed.source);
        // A webhook may have brought its recording along.
        let brought = source.is_some() && claimed.reference.starts_with("upload:");
        if claimed.source == UPLOAD || brought {
            return self.take_upload(claimed).await;
        }
        if let Some(source) = source {
            let fetched = calls::fetch::fetch(source, &claimed.reference, self.keeper.limit());
            let bytes = fetched.await.map_err(Fault::Call)?;
            self.keeper.keep(claimed.key, claimed.kind, bytes).await.map_err(Fault::Keep)?;
            return Ok(());
        }
        let account = self.accounts.get(claimed.key.office, &claimed.source).ok_or(Fault::NoApi)?;
        let platform = &account.platform;
        let download = platform.media(&claimed.reference, self.keeper.limit());
        let media = download.await.map_err(Fault::Platform)?.whole().await;
        let media = media.map_err(Fault::Platform)?;
        self.keeper.keep(claimed.key, claimed.kind, media.bytes).await.map_err(Fault::Keep)?;
        Ok(())
    }

    /// What came with its message's transaction, from the table into the storage.
    async fn take_upload(&self, claimed: &Claimed) -> Result<(), Fault> {
        let digest =
            claimed.reference.strip_prefix("upload:").and_then(|hex| hex::decode(hex).ok());
        let digest = digest.ok_or(Fault::Gone)?;
        let store = |error: StoreError| Fault::Keep(KeepError::Store(error));
        let office = claimed.key.office;
        let mut db = self.pool.acquire().await.map_err(|error| store(error.into()))?;
        let found = store::citizen::upload(&mut db, office, &digest).await.map_err(store)?;
        drop(db);
        let (content, kept_at) = found.ok_or(Fault::Gone)?;
        self.keeper.keep(claimed.key, claimed.kind, content.into()).await.map_err(Fault::Keep)?;
        let mut db = self.pool.acquire().await.map_err(|error| store(error.into()))?;
        store::citizen::forget_upload(&mut db, office, &digest, &claimed.reference, kept_at)
            .await
            .map_err(store)
    }

    /// Puts it off or gives it up; returns what became of it.
    async fn missed(&self, claimed: &Claimed, fault: &Fault) -> Result<&'static str, StoreError> {
        let now = self.clock.now();
        let (says, next) = match fault {
            Fault::Gone => ("it is not there".to_owned(), Err(Lost::Failed)),
            Fault::NoApi => ("the account has no api settings".to_owned(), Ok(now + NO_API)),
            Fault::Call(FetchError::TooLarge) => ("too large".to_owned(), Err(Lost::Refused)),
            Fault::Call(error @ FetchError::NotAllowed(_)) => {
                (error.to_string(), Err(Lost::Failed))
            }
            Fault::Call(error) => {
                let step = usize::try_from(claimed.tries - 1).unwrap_or(0).min(CALLS.len() - 1);
                (error.to_string(), Ok(now + TimeDelta::seconds(CALLS[step])))
            }
            Fault::Platform(error) => (error.to_string(), when(error, claimed.tries, now)),
            Fault::Keep(KeepError::TooLarge) => ("too large".to_owned(), Err(Lost::Refused)),
            // Another file is not coming.
            Fault::Keep(KeepError::Empty) if claimed.reference.starts_with("upload:") => {
                ("empty".to_owned(), Err(Lost::Failed))
            }
            Fault::Keep(error) => (telemetry::causes(error), Ok(later(claimed.tries, now))),
        };
        let over = claimed.expires_at.is_some_and(|end| end <= now);
        let next = match next {
            Ok(_) if over && matches!(fault, Fault::Call(FetchError::Page)) => Err(Lost::Failed),
            Ok(_) if over => Err(Lost::Expired),
            Ok(at) => Ok(claimed.expires_at.map_or(at, |end| at.min(end))),
            lost => lost,
        };
        tracing::info!(
            office.id = claimed.key.office.0,
            ticket.number = claimed.key.ticket.as_i64(),
            media.tries = claimed.tries,
            media.given_up = next.is_err(),
            says,
            "what a citizen sent could not be fetched"
        );
        store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            match next {
                Ok(at) => rows::put_off(&mut db, claimed, at, &says).await?,
                Err(lost) => rows::give_up(&mut db, claimed, lost, &says).await?,
            }
            Ok::<_, StoreError>(if next.is_ok() { "put_off" } else { "given_up" })
        })
        .await
    }
}

fn later(tries: i32, now: DateTime<Utc>) -> DateTime<Utc> {
    let step = usize::try_from(tries - 1).unwrap_or(0).min(LADDER.len() - 1);
    now + TimeDelta::seconds(LADDER[step])
}

/// When it is tried again, or why not.
fn when(error: &PlatformError, tries: i32, now: DateTime<Utc>) -> Result<DateTime<Utc>, Lost> {
    let later = later(tries, now);
    match (error.trouble(), error.again(now)) {
        // The same code says that it is over and that it is not there yet: its three days decide.
        (Trouble::Media, _) | (_, Again::Later) => Ok(later),
        (_, Again::NotBefore(at)) => Ok(later.max(at)),
        (Trouble::TooLarge, Again::Never) => Err(Lost::Refused),
        (_, Again::Never) => Err(Lost::Failed),
    }
}
