//! Each replica's loops. Both take no input but "wake up", read the truth again, and never end on
//! an error: they log, wait a little longer, and go on.

use super::{
    TimerKey, fire,
    index::{Claim, Index, IndexError},
};
use crate::{
    domain::timer::TimerKind,
    lifecycle::Wake,
    offices::Offices,
    store::{self, StoreError, within},
    telemetry,
};
use futures::StreamExt;
use sqlx::{PgConnection, PgPool};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// How the schedule works; see `schedule` in config/default.toml.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Timers claimed at a time.
    pub batch: usize,
    /// Batches under way at a time.
    pub workers: usize,
    /// How long a claim holds.
    pub lease: Duration,
    /// The longest wait between two looks, when no wake-up comes.
    pub look_every: Duration,
    /// How often the reconciler runs.
    pub reconcile_every: Duration,
    /// From how late on the sweep fires straight from PostgreSQL while Redis works.
    pub late: Duration,
}

/// Why a step failed. The next one may succeed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// PostgreSQL.
    #[error("PostgreSQL")]
    Store(#[source] StoreError),
    /// Redis.
    #[error("Redis")]
    Index(#[source] IndexError),
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for StepError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

impl From<IndexError> for StepError {
    fn from(error: IndexError) -> Self {
        Self::Index(error)
    }
}

/// Told after each batch that changed tickets.
pub type OnFired = Arc<dyn Fn(&fire::Done) + Send + Sync>;

/// The turn at reconciling, and for how long it holds, in seconds: with a replica that was killed
/// holding it, nothing is rebuilt or swept meanwhile.
const LEASE: &str = "schedule";
const LEASE_S: f64 = 8.0;
const STATEMENT_WITHIN: Duration = Duration::from_secs(10);

/// The schedule of one replica.
pub struct Runner {
    pool: PgPool,
    index: Index,
    offices: Arc<Offices>,
    settings: Settings,
    on_fired: OnFired,
    /// This replica's name in the lease table.
    owner: String,
    wake: Wake,
    reconcile: Wake,
    epoch: AtomicI64,
    index_works: AtomicBool,
    steps: AtomicU64,
    /// Passes of the reconciler, and since which of them fewer ids were found than timers.
    passes: AtomicU64,
    short_since: AtomicU64,
    /// A connection for each worker and, last, for the sweep, once it has one.
    hands: Vec<Mutex<Option<PgConnection>>>,
}

/// What a step brought.
#[derive(Debug, Default)]
pub struct Stepped {
    /// Timers that took effect.
    pub fired: usize,
    /// When the next one is due, as a wait from now; `None` when nothing is known.
    pub next: Option<Duration>,
}

impl Runner {
    /// A runner; nothing runs yet.
    #[must_use]
    pub fn new(
        pool: PgPool,
        index: Index,
        offices: Arc<Offices>,
        settings: Settings,
        owner: String,
        on_fired: OnFired,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool,
            index,
            offices,
            settings,
            on_fired,
            owner,
            wake: Wake::default(),
            reconcile: Wake::default(),
            epoch: AtomicI64::new(0),
            index_works: AtomicBool::new(true),
            steps: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            short_since: AtomicU64::new(0),
            hands: (0..=settings.workers.max(1)).map(|_| Mutex::default()).collect(),
        })
    }

    /// Looks again at once: something earlier may have been armed.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Whether Redis answered at the last step.
    #[must_use]
    pub fn index_works(&self) -> bool {
        self.index_works.load(Ordering::Relaxed)
    }

    /// The Redis side.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Steps taken since start: a number that must grow.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Enters timers that a commit armed. Failing is harmless: the sweep finds them.
    pub async fn enter(&self, timers: &[TimerKey]) {
        if timers.is_empty() {
            return;
        }
        if let Err(error) = self.index.schedule(timers).await {
            self.index_works.store(false, Ordering::Relaxed);
            tracing::debug!(error = %telemetry::causes(&error), "timers not entered in Redis; the sweep will find them");
        }
    }

    /// Claims and fires until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut failures = 0_u32;
        while !shutdown.is_cancelled() {
            self.steps.fetch_add(1, Ordering::Relaxed);
            let wait = match self.step().await {
                Ok(stepped) => {
                    failures = 0;
                    stepped.next.unwrap_or(self.settings.look_every).min(self.settings.look_every)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    metrics::counter!(telemetry::SCHEDULE_ERRORS).increment(1);
                    if failures == 1 {
                        tracing::warn!(error = %telemetry::causes(&error), "the schedule could not be claimed; trying again");
                    }
                    self.reconcile.wake();
                    backoff(failures, self.settings.look_every)
                }
            };
            self.wake.wait(wait, &shutdown).await;
        }
    }

    /// Listens for other replicas' wake-ups until `shutdown`; a lost connection costs lateness of
    /// `look_every` at most.
    pub async fn listen(self: Arc<Self>, shutdown: CancellationToken) {
        let pause = Wake::default();
        while !shutdown.is_cancelled() {
            if let Ok(mut listening) = self.index.listen().await {
                let mut messages = listening.on_message();
                loop {
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        message = messages.next() => match message {
                            Some(_) => self.wake.wake(),
                            None => break,
                        },
                    }
                }
            }
            pause.wait(self.settings.look_every, &shutdown).await;
        }
    }

    /// Rebuilds and sweeps until `shutdown`.
    pub async fn keep_true(self: Arc<Self>, shutdown: CancellationToken) {
        if let Ok(policy) = self.index.memory_policy().await
            && policy != "noeviction"
        {
            tracing::warn!(
                "Redis may drop timers to save memory (maxmemory-policy is {policy}); set it to noeviction, or they fire some seconds late"
            );
        }
        while !shutdown.is_cancelled() {
            if let Err(error) = self.reconcile().await {
                metrics::counter!(telemetry::SCHEDULE_ERRORS).increment(1);
                tracing::warn!(error = %telemetry::causes(&error), "the schedule could not be reconciled; trying again");
            }
            self.reconcile.wait(self.settings.reconcile_every, &shutdown).await;
        }
        // The next one need not wait until the lease ends.
        let given_back = within(STATEMENT_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::lease::give_back(&mut db, LEASE, &self.owner).await
        });
        if let Err(error) = given_back.await {
            tracing::debug!(error = %telemetry::causes(&error), "the turn at reconciling ends by itself");
        }
    }

    /// Claims what is due and fires it, until nothing is due.
    ///
    /// # Errors
    /// [`StepError`]; what was claimed comes back when its lease ends.
    pub async fn step(&self) -> Result<Stepped, StepError> {
        let epoch = self.current_epoch().await?;
        let workers = (0..self.hands.len() - 1).map(|hand| self.drain(epoch, hand));
        let mut stepped = Stepped::default();
        for result in futures::future::join_all(workers).await {
            let one = result.inspect_err(|error| {
                if matches!(error, StepError::Index(_)) {
                    self.index_works.store(false, Ordering::Relaxed);
                }
            })?;
            stepped.fired += one.fired;
            stepped.next = match (stepped.next, one.next) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        self.index_works.store(true, Ordering::Relaxed);
        Ok(stepped)
    }

    async fn drain(&self, epoch: i64, hand: usize) -> Result<Stepped, StepError> {
        let mut stepped = Stepped::default();
        loop {
            let claim = self.index.claim(epoch, self.settings.batch, self.settings.lease).await?;
            let Claim::Due { leased, now_ms, next_ms } = claim else {
                // Emptied, or of another epoch: nothing can be claimed before it is rebuilt.
                self.epoch.store(0, Ordering::Relaxed);
                self.reconcile.wake();
                return Ok(stepped);
            };
            if leased.is_empty() {
                stepped.next = next_ms
                    .map(|next| Duration::from_millis(next.saturating_sub(now_ms).max(1) as u64));
                return Ok(stepped);
            }
            let keys: Vec<TimerKey> = leased.iter().filter_map(|one| one.key).collect();
            let fired = self.fire(hand, &keys).await?;
            if fired.len() < keys.len() {
                self.put_back(&keys, &fired, now_ms).await?;
            }
            self.index.acknowledge(&leased).await?;
            stepped.fired += fired.len();
        }
    }

    /// What was claimed and is still armed: not due yet by PostgreSQL's clock (Redis' is ahead), or
    /// somebody else holds its ticket, or it cannot be carried out. It is claimed again when it may
    /// be due, by Redis' clock, but never at once.
    async fn put_back(
        &self,
        keys: &[TimerKey],
        fired: &[TimerKey],
        now_ms: i64,
    ) -> Result<(), StepError> {
        const AT_LEAST_MS: i64 = 250;
        const HELD_MS: i64 = 3000;
        let fired: std::collections::HashSet<_> = fired.iter().map(TimerKey::member).collect();
        let rest: Vec<TimerKey> =
            keys.iter().filter(|key| !fired.contains(&key.member())).copied().collect();
        let armed = within(STATEMENT_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::timer::still_armed(&mut db, &rest).await
        });
        let again = armed.await?.into_iter().map(|(key, in_ms)| {
            (now_ms + if in_ms > 0 { in_ms.max(AT_LEAST_MS) } else { HELD_MS }, key)
        });
        Ok(self.index.enter(again).await?)
    }

    /// Carries out what is due of these; returns what took effect. A timer that the database
    /// refuses is found by halving: it stays armed, and its neighbours go through.
    async fn fire(&self, hand: usize, keys: &[TimerKey]) -> Result<Vec<TimerKey>, StepError> {
        let mut fired = Vec::with_capacity(keys.len());
        let mut parts = vec![keys];
        while let Some(part) = parts.pop() {
            let done = match self.fire_part(hand, part).await {
                Ok(done) => done,
                Err(error) if error.is_transient() => return Err(error.into()),
                Err(error) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    if first.is_empty() {
                        metrics::counter!(telemetry::TIMERS_PARKED).increment(1);
                        tracing::error!(
                            error = %telemetry::causes(&error),
                            timer.key = part.first().map(TimerKey::member),
                            "a timer cannot be carried out; it is tried again"
                        );
                    } else {
                        parts.extend([second, first]);
                    }
                    continue;
                }
            };
            for kind in TimerKind::ALL {
                let count = done.fired.iter().filter(|key| key.kind == kind).count() as u64;
                if count > 0 {
                    metrics::counter!(telemetry::TIMERS_FIRED, "kind" => kind.as_str())
                        .increment(count);
                }
            }
            if !done.fired.is_empty() {
                (self.on_fired)(&done);
            }
            self.enter(&done.armed).await;
            fired.extend(done.fired);
        }
        Ok(fired)
    }

    async fn fire_part(&self, hand: usize, keys: &[TimerKey]) -> Result<fire::Done, StoreError> {
        // Kept only when it came through whole: after a failure its state is anybody's guess.
        let mut own = self.hands[hand].lock().await;
        let taken = own.take();
        let work = async {
            let mut db = match taken {
                Some(db) => db,
                None => {
                    let mut db = store::own_connection(&self.pool, STATEMENT_WITHIN).await?;
                    // A ticket that somebody holds is left out, not waited for.
                    sqlx::raw_sql("SET lock_timeout = '500ms'").execute(&mut db).await?;
                    db
                }
            };
            let done = fire::fire(&mut db, &self.offices, keys).await?;
            Ok::<_, StoreError>((db, done))
        };
        let (db, done) = within(STATEMENT_WITHIN, work).await?;
        *own = Some(db);
        Ok(done)
    }

    async fn current_epoch(&self) -> Result<i64, StepError> {
        let known = self.epoch.load(Ordering::Relaxed);
        if known != 0 {
            return Ok(known);
        }
        let epoch = self.truth().await?.unwrap_or(0);
        self.epoch.store(epoch, Ordering::Relaxed);
        Ok(epoch)
    }

    /// The epoch that PostgreSQL holds.
    async fn truth(&self) -> Result<Option<i64>, StoreError> {
        within(STATEMENT_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::timer::epoch(&mut db, store::timer::SHARD).await
        })
        .await
    }

    /// Takes or renews this replica's turn at reconciling.
    async fn take_turn(&self) -> Result<bool, StoreError> {
        within(STATEMENT_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::lease::take(&mut db, LEASE, &self.owner, LEASE_S).await
        })
        .await
    }

    /// Whether ids are missing from the index: evicted, lost with a failover, or dropped while Redis
    /// was slow. Looked at every few minutes, and believed when it is so twice: what is just being
    /// entered is not missing.
    async fn is_short(&self) -> Result<bool, StepError> {
        const EVERY: u64 = 60;
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        let before = self.short_since.load(Ordering::Relaxed);
        if before == 0 && pass % EVERY != EVERY - 1 {
            return Ok(false);
        }
        let armed = within(STATEMENT_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::timer::armed_count(&mut db).await
        })
        .await?;
        let (waiting, leased) = self.index.counts().await?;
        let short = ((waiting + leased) as u64) < armed.unsigned_abs();
        self.short_since.store(if short { pass.max(1) } else { 0 }, Ordering::Relaxed);
        if short && before > 0 {
            self.short_since.store(0, Ordering::Relaxed);
            tracing::warn!(
                timers.armed = armed,
                timers.indexed = waiting + leased,
                "timers are missing from Redis"
            );
            return Ok(true);
        }
        Ok(false)
    }

    /// Rebuilds the index when it is not of the current epoch, and fires what is late straight
    /// from PostgreSQL. One replica at a time.
    ///
    /// # Errors
    /// [`StepError`]. Redis being away is none: then the sweep does all the work.
    pub async fn reconcile(&self) -> Result<usize, StepError> {
        if !self.take_turn().await? {
            return Ok(0);
        }
        let epoch = self.truth().await?;
        match self.index.epoch().await {
            Ok(found) => {
                if found.is_none() || found != epoch || self.is_short().await? {
                    self.rebuild().await?;
                }
                self.index_works.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                if self.index_works.swap(false, Ordering::Relaxed) {
                    tracing::warn!(error = %telemetry::causes(&error), "Redis is away; timers are fired from PostgreSQL");
                }
            }
        }
        // While Redis works, what it will claim in a moment is left to it.
        let late = if self.index_works() { self.settings.late } else { Duration::ZERO };
        let mut swept = 0;
        let mut after: Option<TimerKey> = None;
        loop {
            let limit = self.settings.batch as i64;
            let keys = within(STATEMENT_WITHIN, async {
                let mut db = self.pool.acquire().await?;
                store::timer::late(&mut db, late.as_secs_f64(), after.as_ref(), limit).await
            })
            .await?;
            // What cannot be carried out now must not stand before what can.
            after = keys.last().copied();
            if after.is_none() {
                break;
            }
            swept += self.fire(self.hands.len() - 1, &keys).await?.len();
            self.take_turn().await?;
        }
        if swept > 0 {
            metrics::counter!(telemetry::TIMERS_SWEPT).increment(swept as u64);
        }
        Ok(swept)
    }

    /// Fills the index anew from PostgreSQL. Claims pause meanwhile; what is armed meanwhile is
    /// entered by whoever arms it, or found by the sweep.
    ///
    /// # Errors
    /// [`StepError`].
    pub async fn rebuild(&self) -> Result<usize, StepError> {
        let mut db = self.pool.acquire().await?;
        let epoch =
            within(STATEMENT_WITHIN, store::timer::next_epoch(&mut db, store::timer::SHARD))
                .await?;
        self.index.clear().await?;
        let mut after: Option<TimerKey> = None;
        let mut entered = 0;
        loop {
            const PAGE: i64 = 10_000;
            let page = store::timer::armed_after(&mut db, after.as_ref(), PAGE);
            let page = within(STATEMENT_WITHIN, page).await?;
            self.index.schedule(&page).await?;
            entered += page.len();
            // A long one must not lose its turn.
            within(STATEMENT_WITHIN, store::lease::take(&mut db, LEASE, &self.owner, LEASE_S))
                .await?;
            after = page.last().copied();
            if (page.len() as i64) < PAGE {
                break;
            }
        }
        self.index.finish(epoch).await?;
        self.epoch.store(epoch, Ordering::Relaxed);
        metrics::counter!(telemetry::SCHEDULE_REBUILDS).increment(1);
        tracing::info!(
            schedule.epoch = epoch,
            schedule.timers = entered,
            "the schedule in Redis was rebuilt from PostgreSQL"
        );
        self.wake.wake();
        Ok(entered)
    }
}

/// 0.1 s, doubling, up to `longest`.
fn backoff(failures: u32, longest: Duration) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(10);
    Duration::from_millis(100).saturating_mul(factor).min(longest)
}
