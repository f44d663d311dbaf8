//! From the outbox to the people on duty.
//!
//! Two steps, each of which reads the truth again and can be repeated: `plan` makes notices of
//! effects (what is pending for the same people becomes one notice, so that an opening brings one
//! digest and a burst one message), `send` attempts each notice by its way. Whom a notice reaches is
//! decided when it is sent (RD1.2): who is on duty now, else the lead on duty of the week, else the
//! office; never nobody, and nobody twice. Every way of every office has a lane of its own: one that
//! is down or hangs holds up no other.
//!
//! Out of hours emergencies alone are told (RD3.2), whatever was planned when: the calendar is asked
//! when it is time, so that a closure, a worker that was down and a way that failed at 16:25 disturb
//! nobody at night.

mod audience;
mod words;

use crate::{
    clock::Clock,
    domain::id::OfficeId,
    lifecycle::Wake,
    offices::{Office, Offices},
    platform::Accounts,
    reply,
    store::{
        self, StoreError,
        notice::{Attempt, Ended, NewNotice, Room, Told},
    },
    telemetry,
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{Notice, Notifier, Recipient, SendError, Sent};
use rand::RngExt;
use sqlx::{Connection, PgPool};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{
    task::{self, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// How the relay works; see `relay` in config/default.toml.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The longest wait between two looks.
    pub look_every: Duration,
    /// Attempts before a notice is dead.
    pub attempts: i32,
    /// The first wait after a failure; doubles, with jitter.
    pub first_retry: Duration,
    /// The longest wait between attempts.
    pub longest_retry: Duration,
    /// Attempts under way at a time, of each way of each office.
    pub parallel: usize,
    /// Where the desk is, for links; empty for none.
    pub desk_url: String,
}

/// The ways of one office, by name. The desk's own list of notices is always one of them: a notice
/// is kept there whatever else fails.
pub type Targets = HashMap<OfficeId, Vec<(String, Arc<dyn Notifier>)>>;

/// The way that only shows on the desk.
pub const DESK: &str = "desk";

/// One attempt is given up after this; the adapter's own limit is shorter.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(20);
/// Of one call on the database.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// What can wait so long gathers: a rush is one message to the group, not twenty, and robots allow
/// about twenty a minute.
const MOMENT: Duration = Duration::from_secs(1);
const EFFECTS_AT_A_TIME: i64 = 2000;
/// What is told at an opening gathers so long: what came in overnight and what is to be followed up
/// are one digest.
pub const GATHER_S: i64 = 5;

/// The relay of one replica.
pub struct Relay {
    pool: PgPool,
    offices: Arc<Offices>,
    clock: Clock,
    settings: Settings,
    targets: Targets,
    wake: Wake,
    urgent: Wake,
    /// What citizens are told, and who is woken to tell it.
    citizens: OnceLock<(Arc<Accounts>, Arc<Wake>)>,
    /// Up to which opening the staff of an office were told of the closed hours, as far as this
    /// replica knows; the database knows better.
    opened: Mutex<HashMap<OfficeId, DateTime<Utc>>>,
}

impl Relay {
    /// A relay; nothing runs yet.
    #[must_use]
    pub fn new(
        pool: PgPool,
        offices: Arc<Offices>,
        clock: Clock,
        settings: Settings,
        targets: Targets,
    ) -> Arc<Self> {
        Arc::new(Self {
            pool,
            offices,
            clock,
            settings,
            targets,
            wake: Wake::default(),
            urgent: Wake::default(),
            citizens: OnceLock::new(),
            opened: Mutex::default(),
        })
    }

    /// Whether an office's notices reach anybody who is not looking at the desk.
    #[must_use]
    pub fn reaches_people(&self, office: OfficeId) -> bool {
        self.targets.get(&office).is_some_and(|ways| !ways.is_empty())
    }

    /// From now on makes replies to citizens too, and wakes who sends them. Said once.
    pub fn tell_citizens(&self, accounts: Arc<Accounts>, replies: Arc<Wake>) {
        let _ = self.citizens.set((accounts, replies));
    }

    /// Looks again in a moment: what comes in within it is told as one.
    pub fn wake(&self) {
        self.wake.wake();
    }

    /// Looks again at once.
    pub fn wake_now(&self) {
        self.urgent.wake();
        self.wake.wake();
    }

    /// Plans and sends until `shutdown`; what is under way then is ended.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        const SWEEP_EVERY: Duration = Duration::from_secs(60);
        let mut under_way = UnderWay::default();
        let mut swept: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            // Each failure is logged where it happens; nothing is lost but time.
            let _ = self.plan_all().await;
            if swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
                let done = self.give_up_without_way().await;
                done.unwrap_or_else(|error| cannot_send(&error));
                swept = Some(Instant::now());
            }
            let look_again = Instant::now() + self.settings.look_every;
            let mut lanes = self.lanes();
            loop {
                let started = self.start(&lanes, &mut under_way).await;
                started.map(drop).unwrap_or_else(|error| cannot_send(&error));
                let left = look_again.saturating_duration_since(Instant::now());
                tokio::select! {
                    // The room that they leave is taken at once by what waits for the same ways.
                    Some(ended) = under_way.ended() => lanes = ended,
                    _ = self.wake.wait(left, &shutdown) => break,
                }
            }
            self.urgent.wait(MOMENT, &shutdown).await;
        }
        while under_way.ended().await.is_some() {}
    }

    /// One look: plans what is due, sends what is due, until all of it has ended. Returns how many
    /// notices were attempted.
    ///
    /// # Errors
    /// [`StoreError`]; what did not fail is done.
    pub async fn step(self: &Arc<Self>) -> Result<usize, StoreError> {
        let mut failed = self.plan_all().await.err();
        failed = self.give_up_without_way().await.err().or(failed);
        let mut under_way = UnderWay::default();
        let mut lanes = self.lanes();
        let mut attempted = 0;
        loop {
            match self.start(&lanes, &mut under_way).await {
                Ok(started) => attempted += started,
                Err(error) => failed = Some(error),
            }
            match under_way.ended().await {
                Some(ended) => lanes = ended,
                None => break,
            }
        }
        failed.map_or(Ok(attempted), Err)
    }

    /// Makes notices of what is due in every office; one that fails stops no other.
    async fn plan_all(&self) -> Result<(), StoreError> {
        let mut failed = None;
        for office in self.offices.all().values() {
            let now = self.clock.now();
            // Whatever keeps citizens from being told, the staff are.
            let citizens = store::within(CALL_WITHIN, self.plan_for_citizens(office, now)).await;
            let staff = store::within(CALL_WITHIN, self.plan(office, now)).await;
            for error in [citizens.err(), staff.err()].into_iter().flatten() {
                tracing::warn!(
                    office.id = office.id.0,
                    error = %telemetry::causes(&error),
                    "what is to be told in an office could not be planned; trying again"
                );
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Begins attempts by these ways, as many as there is room for in each.
    async fn start(
        self: &Arc<Self>,
        lanes: &BTreeSet<Lane>,
        under_way: &mut UnderWay,
    ) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let rooms: Vec<Room> = lanes
            .iter()
            .filter_map(|lane| {
                let office = self.offices.get(lane.office)?;
                let free = self.settings.parallel.saturating_sub(under_way.of(lane));
                (free > 0).then(|| Room {
                    office: lane.office,
                    target: lane.target.clone(),
                    free: i64::try_from(free).unwrap_or(i64::MAX),
                    told: told_at(&office, now),
                })
            })
            .collect();
        if rooms.is_empty() {
            return Ok(0);
        }
        let lease_until = now + TimeDelta::from_std(ATTEMPT_WITHIN * 3).unwrap_or_default();
        let taken = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::notice::take(&mut db, now, lease_until, &rooms).await
        })
        .await?;
        let count = taken.len();
        for attempt in taken {
            let lane = Lane { office: attempt.office, target: attempt.target.clone() };
            let relay = Arc::clone(self);
            under_way.begin(lane, async move { relay.attempt(attempt).await });
        }
        Ok(count)
    }

    async fn give_up_without_way(&self) -> Result<(), StoreError> {
        let ways: Vec<(OfficeId, String)> =
            self.lanes().into_iter().map(|lane| (lane.office, lane.target)).collect();
        let given_up = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            store::notice::give_up_without_way(&mut db, self.clock.now(), &ways).await
        })
        .await?;
        if given_up > 0 {
            tracing::error!(
                notices = given_up,
                "notices are dead: their way is not configured any more"
            );
        }
        Ok(())
    }

    /// Makes replies of what citizens should know, at any hour.
    async fn plan_for_citizens(
        &self,
        office: &Office,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let Some((accounts, replies)) = self.citizens.get() else { return Ok(()) };
        loop {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            let planned = reply::plan(&mut transaction, office, accounts, now).await?;
            transaction.commit().await?;
            if planned > 0 {
                replies.wake();
            }
            if planned < reply::AT_A_TIME {
                return Ok(());
            }
        }
    }

    /// Makes notices of an office's effects whose time has come.
    async fn plan(&self, office: &Office, now: DateTime<Utc>) -> Result<(), StoreError> {
        let told = told_at(office, now);
        let mut opening = self.opening(office, now);
        loop {
            let mut db = self.pool.acquire().await?;
            let mut transaction = db.begin().await?;
            if told == Told::Emergencies {
                let opens = office.calendar.next_open(now).value;
                let until = opens + TimeDelta::seconds(GATHER_S);
                store::notice::put_off(&mut transaction, office.id, now, until).await?;
            }
            let effects = store::notice::take_effects(
                &mut transaction,
                office.id,
                now,
                told,
                EFFECTS_AT_A_TIME,
            )
            .await?;
            let groups = audience::group(office, &effects);
            let mut notices: Vec<(String, words::Said)> = groups
                .into_iter()
                .map(|(audience, effects)| (audience, words::compose(office, &effects, now)))
                .collect();
            let opening = opening.take();
            if let Some(hours) = opening
                && let Some(closed) =
                    store::reconcile::take_closed_hours(&mut transaction, office.id, hours).await?
                && let Some(said) = words::telephone(&closed)
            {
                // With what those on duty are told anyway, else for itself.
                match notices.iter_mut().find(|(audience, _)| audience::is_for_duty(audience)) {
                    Some((_, digest)) => digest.lines.extend(said.lines),
                    None => notices.push((audience::DUTY.to_owned(), said)),
                }
            }
            for (audience, said) in &notices {
                for target in self.ways(office.id) {
                    let notice = NewNotice {
                        target,
                        audience,
                        title: &said.title,
                        lines: &said.lines,
                        ticket: said.ticket,
                        urgent: said.urgent,
                        at: now,
                    };
                    store::notice::add(&mut transaction, office.id, &notice).await?;
                }
            }
            transaction.commit().await?;
            if let Some((_, opened)) = opening {
                self.opened
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(office.id, opened);
            }
            if (effects.len() as i64) < EFFECTS_AT_A_TIME {
                return Ok(());
            }
        }
    }

    /// The closed hours of which the staff may not have been told yet, once what came in overnight has
    /// gathered.
    fn opening(
        &self,
        office: &Office,
        now: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let hours = office.calendar.closed_before(now)?;
        let told = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = told.get(&office.id).is_none_or(|opened| *opened < hours.1);
        (is_new && now >= hours.1 + TimeDelta::seconds(GATHER_S)).then_some(hours)
    }

    fn lanes(&self) -> BTreeSet<Lane> {
        let offices = self.offices.all();
        let lanes = offices.keys().flat_map(|office| {
            self.ways(*office).map(|target| Lane { office: *office, target: target.to_owned() })
        });
        lanes.collect()
    }

    fn ways(&self, office: OfficeId) -> impl Iterator<Item = &str> {
        let configured = self.targets.get(&office).into_iter().flatten();
        std::iter::once(DESK).chain(configured.map(|(name, _)| name.as_str()))
    }

    async fn attempt(&self, attempt: Attempt) {
        let now = self.clock.now();
        let (recipients, ended) = match self.deliver(&attempt, now).await {
            Ok(done) => done,
            Err(error) => {
                // Nothing was sent; the lease ends and the notice comes again.
                tracing::warn!(error = %telemetry::causes(&error), notice.id = attempt.id.0, "a notice could not be attempted");
                return;
            }
        };
        let result = match &ended {
            End::Sent(_) => "sent",
            End::Retry(..) => "retry",
            End::Dead(_) => "dead",
        };
        metrics::counter!(telemetry::NOTICES, "target" => attempt.target.clone(), "result" => result)
            .increment(1);
        let ended = match &ended {
            End::Sent(missed) => Ended::Sent(missed.as_deref()),
            End::Retry(at, reason) => Ended::Retry(*at, reason),
            End::Dead(reason) => {
                tracing::error!(
                    notice.id = attempt.id.0,
                    target = attempt.target,
                    reason,
                    "a notice is dead; staff can send it again from the desk"
                );
                Ended::Dead(reason)
            }
        };
        let recorded = async {
            let mut db = self.pool.acquire().await?;
            store::notice::ended(&mut db, &attempt, &recipients, &ended, now).await
        };
        if let Err(error) = store::within(CALL_WITHIN, recorded).await {
            tracing::warn!(error = %telemetry::causes(&error), notice.id = attempt.id.0, "a notice's end could not be recorded; it may be sent twice");
        }
    }

    async fn deliver(
        &self,
        attempt: &Attempt,
        now: DateTime<Utc>,
    ) -> Result<(Vec<String>, End), StoreError> {
        let recipients = store::within(CALL_WITHIN, async {
            let mut db = self.pool.acquire().await?;
            audience::resolve(&mut db, attempt.office, &attempt.audience, now).await
        })
        .await?;
        let mut names: Vec<String> =
            recipients.iter().map(|contact| contact.name.clone()).collect();
        if recipients.is_empty() {
            let why = "all of them are told the same and more by another notice";
            return Ok((names, End::Sent(Some(why.to_owned()))));
        }
        if attempt.target == DESK {
            return Ok((names, End::Sent(None)));
        }
        let way = self
            .targets
            .get(&attempt.office)
            .and_then(|ways| ways.iter().find(|(name, _)| *name == attempt.target));
        let Some((_, notifier)) = way else {
            return Ok((names, End::Dead("no such way is configured any more".to_owned())));
        };
        let notice = Notice {
            idempotency_key: format!("intake-{}", attempt.delivery),
            title: attempt.title.clone(),
            lines: attempt.lines.clone(),
            link: self.link(attempt),
            recipients: recipients
                .into_iter()
                .map(|c| Recipient { name: c.name, email: c.email, mobile: c.mobile })
                .collect(),
            urgent: attempt.urgent,
        };
        let ended = match tokio::time::timeout(ATTEMPT_WITHIN, notifier.send(&notice, now)).await {
            Ok(Ok(Sent { missed, .. })) => {
                names.retain(|name| !missed.contains(name));
                let missed =
                    (!missed.is_empty()).then(|| format!("not told: {}", missed.join(", ")));
                End::Sent(missed)
            }
            Ok(Err(SendError::Permanent { reason })) => End::Dead(reason),
            Ok(Err(SendError::Retry { reason, after })) => self.later(attempt, now, reason, after),
            Err(_) => self.later(attempt, now, "no answer in time".to_owned(), None),
        };
        Ok((names, ended))
    }

    fn link(&self, attempt: &Attempt) -> Option<String> {
        let base = self.settings.desk_url.trim_end_matches('/');
        if base.is_empty() {
            return None;
        }
        let office = self.offices.get(attempt.office)?;
        Some(match attempt.ticket {
            Some(ticket) => format!("{base}/desk/tickets/{}", ticket.display(&office.prefix)),
            None => format!("{base}/desk"),
        })
    }

    /// Exponential with jitter, or what the other side asked for if that is longer.
    fn later(
        &self,
        attempt: &Attempt,
        now: DateTime<Utc>,
        reason: String,
        after: Option<Duration>,
    ) -> End {
        if attempt.attempts >= self.settings.attempts {
            return End::Dead(reason);
        }
        let doubled =
            2_u32.saturating_pow(attempt.attempts.saturating_sub(1).unsigned_abs().min(16));
        let wait =
            self.settings.first_retry.saturating_mul(doubled).min(self.settings.longest_retry);
        #[expect(clippy::disallowed_methods, reason = "jitter; nothing depends on its value")]
        let jitter = wait.mul_f64(rand::rng().random_range(0.0..0.25));
        let wait = (wait + jitter).max(after.unwrap_or_default());
        let at = now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::hours(1));
        End::Retry(self.in_hours(attempt, at), reason)
    }

    /// The moment itself for an emergency (RD3.2) and while the office is open, else when it opens.
    fn in_hours(&self, attempt: &Attempt, at: DateTime<Utc>) -> DateTime<Utc> {
        match self.offices.get(attempt.office) {
            Some(office) if !attempt.urgent => office.calendar.next_open(at).value,
            _ => at,
        }
    }
}

fn told_at(office: &Office, now: DateTime<Utc>) -> Told {
    if office.calendar.is_open(now) { Told::Everything } else { Told::Emergencies }
}

fn cannot_send(error: &StoreError) {
    tracing::warn!(error = %telemetry::causes(error), "notices could not be sent; trying again");
}

/// One way of one office.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) office: OfficeId,
    pub(crate) target: String,
}

/// Attempts under way, by lane. Tasks of their own: they go on while the database is asked for more.
#[derive(Default)]
pub(crate) struct UnderWay {
    attempts: JoinSet<()>,
    of: HashMap<task::Id, Lane>,
}

impl UnderWay {
    pub(crate) fn of(&self, lane: &Lane) -> usize {
        self.of.values().filter(|other| *other == lane).count()
    }

    pub(crate) fn begin(&mut self, lane: Lane, attempt: impl Future<Output = ()> + Send + 'static) {
        let task = self.attempts.spawn(attempt);
        self.of.insert(task.id(), lane);
    }

    /// Waits for the next attempts to end; returns their lanes, `None` when none is under way.
    pub(crate) async fn ended(&mut self) -> Option<BTreeSet<Lane>> {
        let mut lanes = BTreeSet::new();
        let mut ended = Some(self.attempts.join_next_with_id().await?);
        while let Some(one) = ended {
            // One that panicked has let go of its lane as well; its lease ends by itself.
            let task = match one {
                Ok((task, ())) => task,
                Err(error) => {
                    tracing::error!(error = %error, "an attempt broke off; it will be made again");
                    error.id()
                }
            };
            lanes.extend(self.of.remove(&task));
            ended = self.attempts.try_join_next_with_id();
        }
        Some(lanes)
    }
}

enum End {
    Sent(Option<String>),
    Retry(DateTime<Utc>, String),
    Dead(String),
}
