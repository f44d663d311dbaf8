//! A changed calendar and the dates that rest on it (scheduling.md A7.6, A4).
//!
//! A notice that is loaded, a closure that is entered: every open date is computed again, on the
//! record. A later date is taken over; an earlier one only while it leaves a working day, for nobody
//! is to be late by a paper that came yesterday; else the old one stays, the trail says so, and the
//! lead on duty is told, who decides. So they are of a limit on a day that is closed by half (A7.7).
//! What is closed, solved or overdue is never judged again.

use crate::{
    clock::Clock,
    domain::{
        calendar::{Alert, Amendment, Dated, Deadline, amend},
        event::Happened,
        id::OfficeId,
        ladder::timers_ahead,
        policy::LimitsRunFrom,
        promise::limit,
        timer::TimerKind,
    },
    http::Shared,
    lifecycle::Wake,
    offices::Office,
    relay,
    schedule::TimerKey,
    store::{
        self, StoreError,
        ticket::{Locked, amend::Amendments},
    },
    telemetry, wording,
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use sqlx::{Connection, PgPool};
use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a recomputation did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Amended {
    /// Tickets whose date moved, or turned from provisional to certain.
    pub moved: usize,
    /// Tickets whose date was kept although the calendar says an earlier one.
    pub kept: usize,
    /// Tickets whose date is the same.
    pub unchanged: usize,
    /// Tickets that could not be brought to the calendar: logged, and tried again.
    pub failed: usize,
    /// Timers that were armed anew.
    pub timers: Vec<TimerKey>,
}

impl Amended {
    fn add(&mut self, page: Self) {
        self.moved += page.moved;
        self.kept += page.kept;
        self.unchanged += page.unchanged;
        self.failed += page.failed;
        self.timers.extend(page.timers);
    }
}

/// Tickets in one transaction: officers go on working in between.
const PAGE: i64 = 500;
/// Of one page.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

/// Brings an office's open tickets to its calendar; the same again changes nothing.
///
/// # Errors
/// [`StoreError`]; tickets of earlier pages are done.
pub async fn recompute(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
) -> Result<Amended, StoreError> {
    let mut amended = Amended::default();
    let mut after = 0;
    while let Some((last, page)) = page(pool, clock, office, after).await? {
        after = last;
        amended.add(page);
    }
    bring_forward(pool, clock, office, &amended).await?;
    Ok(amended)
}

/// What waits to be told at an opening waits for the next one that the calendar knows now.
async fn bring_forward(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
    amended: &Amended,
) -> Result<(), StoreError> {
    if amended.moved == 0 {
        return Ok(());
    }
    let opens = office.calendar.next_open(clock.now()).value;
    let gathered = opens + TimeDelta::seconds(relay::GATHER_S);
    store::within(PAGE_WITHIN, async {
        let mut db = pool.acquire().await?;
        store::notice::bring_forward(&mut db, office.id, gathered).await
    })
    .await
}

/// The next page of tickets after this number: what was done, and up to which one.
async fn page(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
    after: i64,
) -> Result<Option<(i64, Amended)>, StoreError> {
    let whole = span(pool, clock, office, (after, i64::MAX), PAGE).await;
    match whole {
        Err(error) if !error.is_transient() => {}
        done => return done,
    }
    // The database refuses one of them: each for itself, so that it holds up no other.
    let mut amended = Amended::default();
    let mut last = None;
    let mut from = after;
    for _ in 0..PAGE {
        let next = store::within(PAGE_WITHIN, async {
            let mut db = pool.acquire().await?;
            store::ticket::amend::next_outdated(&mut db, office.id, office.calendar_version, from)
                .await
        });
        let Some(ticket) = next.await? else { break };
        match span(pool, clock, office, (ticket - 1, ticket), 1).await {
            Ok(done) => amended.add(done.map(|(_, one)| one).unwrap_or_default()),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                skipped(ticket, &error);
                amended.failed += 1;
            }
        }
        from = ticket;
        last = Some(ticket);
    }
    Ok(last.map(|last| (last, amended)))
}

fn skipped(ticket: i64, error: &StoreError) {
    tracing::error!(
        ticket.number = ticket,
        error = %telemetry::causes(error),
        "a ticket cannot be brought to the calendar; its dates stay as they are"
    );
}

/// What the calendar says of one ticket.
struct Computed {
    accepted: Dated<DateTime<Utc>>,
    due: Deadline,
    amendment: Amendment,
}

async fn span(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
    span: (i64, i64),
    limit: i64,
) -> Result<Option<(i64, Amended)>, StoreError> {
    store::within(PAGE_WITHIN, locked_span(pool, clock, office, span, limit)).await
}

/// One transaction: locks, decides, writes.
async fn locked_span(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
    span: (i64, i64),
    limit: i64,
) -> Result<Option<(i64, Amended)>, StoreError> {
    let (version, calendar) = (office.calendar_version, &office.calendar);
    let mut db = pool.acquire().await?;
    let mut transaction = db.begin().await?;
    let outdated =
        store::ticket::amend::lock_outdated(&mut transaction, office.id, version, span, limit)
            .await?;
    let Some(last) = outdated.last() else { return Ok(None) };
    let mut amended = Amended { failed: outdated.unreadable.len(), ..Amended::default() };
    for (ticket, error) in &outdated.unreadable {
        skipped(*ticket, error);
    }

    let now = clock.now();
    let next_day = calendar.deadline(now, 1).at;
    let (pressing, rest): (Vec<Locked>, Vec<Locked>) =
        outdated.locked.into_iter().partition(|locked| {
            locked.ticket.state.is_pressing()
                && !locked.ticket.overdue
                && locked.ticket.due_at > now
        });
    let numbers: Vec<i64> = pressing.iter().map(|locked| locked.number.as_i64()).collect();
    let entered = match office.policy.limits_run_from {
        LimitsRunFrom::Registration => BTreeMap::new(),
        LimitsRunFrom::HandUp => {
            store::ticket::entered_level_at(&mut transaction, office.id, &numbers).await?
        }
    };
    let computed: Vec<Computed> = pressing
        .iter()
        .map(|locked| compute(office, locked, entered.get(&locked.number.as_i64()), next_day))
        .collect();

    // What was told already is not told again: only for the few whom it may concern.
    let among = |concerns: &dyn Fn(&Locked, &Computed) -> bool| -> Vec<i64> {
        let both = pressing.iter().zip(&computed);
        both.filter(|(l, c)| concerns(l, c)).map(|(l, _)| l.number.as_i64()).collect()
    };
    let kept = among(&|_, computed| computed.amendment == Amendment::Keep);
    let half = among(&|locked, computed| calendar.in_half_closure(in_force(locked, computed)));
    let kept_before = match kept.is_empty() {
        true => BTreeMap::new(),
        false => store::ticket::amend::last_kept(&mut transaction, office.id, &kept).await?,
    };
    let half_before = match half.is_empty() {
        true => BTreeSet::new(),
        false => {
            store::ticket::amend::told_half_closures(&mut transaction, office.id, &half).await?
        }
    };

    let mut amendments = Amendments::default();
    for locked in &rest {
        amendments.push(locked);
        amended.unchanged += 1;
    }
    for (mut locked, computed) in pressing.into_iter().zip(computed) {
        let number = locked.number.as_i64();
        let due_at = in_force(&locked, &computed);
        if calendar.in_half_closure(due_at) && !half_before.contains(&(number, due_at)) {
            let level = locked.ticket.level;
            let data = serde_json::json!({ "level": level, "due_at": due_at });
            amendments.tell(&locked, "half_closure", data);
        }
        let kept_before = kept_before.get(&number);
        match bring(office, &mut locked, &computed, kept_before, &mut amendments, now) {
            Amendment::Apply => amended.moved += 1,
            Amendment::Keep => amended.kept += 1,
            Amendment::Unchanged => amended.unchanged += 1,
        }
    }
    amended.timers = store::ticket::amend::write_amendments(
        &mut transaction,
        office.id,
        version,
        &amendments,
        now,
        office.staff_told_from(now),
    )
    .await?;
    transaction.commit().await?;
    Ok(Some((last, amended)))
}

fn compute(
    office: &Office,
    locked: &Locked,
    entered: Option<&DateTime<Utc>>,
    next_day: DateTime<Utc>,
) -> Computed {
    let accepted = office.calendar.accepted_at(locked.registered_at);
    // After a pause or a reopening the limits no longer run from acceptance.
    let start = locked.ticket.runs_from.unwrap_or(accepted.value);
    let entered = entered.map_or(start, |entered| start.max(*entered));
    let run_from = office.policy.limits_run_from;
    let level = locked.ticket.level;
    let mut due = limit(&office.calendar, run_from, level, start, entered);
    due.provisional |= accepted.provisional;
    due.needs_year = due.needs_year.or(accepted.needs_year);
    let amendment = amend(locked.ticket.due_at, due.at, next_day);
    Computed { accepted, due, amendment }
}

/// The limit that holds after the change.
fn in_force(locked: &Locked, computed: &Computed) -> DateTime<Utc> {
    match computed.amendment {
        Amendment::Apply => computed.due.at,
        Amendment::Keep | Amendment::Unchanged => locked.ticket.due_at,
    }
}

/// Brings one ticket to what was computed; says what became of its limit, a limit that turned
/// from provisional to certain among the moved ones.
fn bring(
    office: &Office,
    locked: &mut Locked,
    computed: &Computed,
    kept_before: Option<&(DateTime<Utc>, DateTime<Utc>)>,
    amendments: &mut Amendments,
    now: DateTime<Utc>,
) -> Amendment {
    let (calendar, version) = (&office.calendar, office.calendar_version);
    let due = &computed.due;
    let old = locked.ticket.due_at;
    let turned = locked.ticket.provisional != due.provisional;
    locked.ticket.due_at = in_force(locked, computed);
    locked.ticket.provisional = due.provisional;
    locked.needs_year = due.needs_year;
    let moved = |kind: TimerKind, from, to| Happened::DateMoved {
        timer: kind.as_str().to_owned(),
        from,
        to,
        calendar_version: version,
        provisional: due.provisional,
    };
    let mut became = computed.amendment;
    match computed.amendment {
        Amendment::Apply => {
            amendments.happen(locked, &moved(TimerKind::Limit, old, due.at), now);
            for timer in timers_ahead(calendar, locked.ticket.level, due.at, now) {
                amendments.arm(locked, timer);
            }
        }
        Amendment::Keep if kept_before == Some(&(old, due.at)) => {}
        Amendment::Keep => {
            let kept =
                Happened::DateKept { kept: old, computed: due.at, calendar_version: version };
            amendments.happen(locked, &kept, now);
            let level = locked.ticket.level;
            let data = serde_json::json!({ "level": level, "due_at": old, "computed": due.at });
            amendments.tell(locked, "date_kept", data);
        }
        Amendment::Unchanged if turned => {
            amendments.happen(locked, &moved(TimerKind::Limit, old, old), now);
            became = Amendment::Apply;
        }
        Amendment::Unchanged => {}
    }

    // What has not begun yet begins when the window now opens.
    let opens = calendar.next_open(locked.registered_at).value;
    if let Some(from) = locked.follow_up_at
        && from > now
        && from != opens
    {
        locked.follow_up_at = Some(opens);
        amendments.happen(locked, &moved(TimerKind::FollowUp, from, opens), now);
        amendments.arm(locked, (TimerKind::FollowUp, opens));
    }
    // A limit that was kept may lie before what the calendar now calls the acceptance.
    if computed.accepted.value < locked.ticket.due_at {
        locked.accepted_at = computed.accepted.value;
    }
    amendments.push(locked);
    became
}

const LOOK_EVERY: Duration = Duration::from_secs(3);
const LOOK_WITHIN: Duration = Duration::from_secs(10);
/// The longest wait before what could not be brought to the calendar is tried again.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// Reads the offices again whenever one has changed, and brings open dates to a changed calendar,
/// until `shutdown`.
pub async fn follow(app: Shared, shutdown: CancellationToken) {
    let turn = Wake::default();
    let mut follower = Follower::default();
    while !shutdown.is_cancelled() {
        follower.look(&app, Instant::now(), &shutdown).await;
        turn.wait(LOOK_EVERY, &shutdown).await;
    }
}

/// What is still to be done, between two looks.
#[derive(Debug)]
struct Follower {
    known: Option<(i64, i64)>,
    /// Passes to make. Intakes of other replicas may use the calendar before for one look more.
    passes: u32,
    /// After a pass that failed: not before.
    retry: Option<(Instant, Duration)>,
    said: Option<NaiveDate>,
}

impl Default for Follower {
    fn default() -> Self {
        Self { known: None, passes: PASSES, retry: None, said: None }
    }
}

const PASSES: u32 = 2;

impl Follower {
    async fn look(&mut self, app: &Shared, at: Instant, shutdown: &CancellationToken) {
        if let Err(error) = store::within(LOOK_WITHIN, self.read(app)).await {
            tracing::warn!(error = %telemetry::causes(&error), "the offices could not be read again; trying again");
            return;
        }
        self.ask_for_notice(app);
        if self.passes == 0 || self.retry.is_some_and(|(not_before, _)| at < not_before) {
            return;
        }
        if pass(app, shutdown).await {
            self.passes -= 1;
            self.retry = None;
        } else {
            let wait = self.retry.map_or(LOOK_EVERY, |(_, waited)| waited * 2).min(LONGEST_RETRY);
            self.retry = Some((at + wait, wait));
        }
    }

    async fn read(&mut self, app: &Shared) -> Result<(), StoreError> {
        let mut db = app.pool.acquire().await?;
        let version = store::office::version(&mut db).await?;
        if self.known != Some(version) {
            app.offices.reload(&mut db).await?;
            self.known = Some(version);
            self.passes = PASSES;
            self.retry = None;
        }
        Ok(())
    }

    /// A4: asks for next year's notice once a day, louder as the year ends.
    fn ask_for_notice(&mut self, app: &Shared) {
        let today = wording::day_of(app.clock.now());
        if self.said == Some(today) {
            return;
        }
        self.said = Some(today);
        let offices = app.offices.all();
        let alert = offices.values().filter_map(|o| o.calendar.missing_notice_alert(today)).max();
        let says = "the State Council's notice of the coming holidays is not loaded: dates that reach it are provisional; `intake calendar load`";
        match alert {
            None => {}
            Some(Alert::Info) => tracing::info!(calendar.alert = "info", "{says}"),
            Some(Alert::Warning) => tracing::warn!(calendar.alert = "warning", "{says}"),
            Some(Alert::Page) => tracing::error!(calendar.alert = "page", "{says}"),
        }
    }
}

/// Brings every office to its calendar, page by page; true when nothing is left to be done.
async fn pass(app: &Shared, shutdown: &CancellationToken) -> bool {
    let mut whole = true;
    for office in app.offices.all().values() {
        let mut amended = Amended::default();
        let mut after = 0;
        let ended = loop {
            if shutdown.is_cancelled() {
                return false;
            }
            match page(&app.pool, &app.clock, office, after).await {
                Ok(None) => break bring_forward(&app.pool, &app.clock, office, &amended).await,
                Ok(Some((last, page))) => {
                    after = last;
                    app.schedule.enter(&page.timers).await;
                    amended.add(Amended { timers: Vec::new(), ..page });
                }
                // Pages before are done; other offices are not this one's concern.
                Err(error) => break Err(error),
            }
        };
        told(app, office.id, &amended);
        if let Err(error) = &ended {
            tracing::warn!(
                office.id = office.id.0,
                error = %telemetry::causes(error),
                "open dates could not be brought to the calendar; trying again"
            );
        }
        whole &= ended.is_ok() && amended.failed == 0;
    }
    whole
}

fn told(app: &Shared, office: OfficeId, amended: &Amended) {
    if amended.moved + amended.kept > 0 {
        tracing::info!(
            office.id = office.0,
            tickets.moved = amended.moved,
            tickets.kept = amended.kept,
            "open dates were brought to the calendar"
        );
        app.live.changed(office);
        app.relay.wake();
    }
}

/// A sentence for whoever loaded a calendar.
#[must_use]
pub fn summary(office: &Office, amended: &Amended, clock: &Clock) -> String {
    let today = wording::day_of(clock.now());
    format!(
        "{}: {} open dates moved or confirmed, {} kept for a person to decide, {} unchanged{}; holidays known for {} days",
        office.code,
        amended.moved,
        amended.kept,
        amended.unchanged,
        match amended.failed {
            0 => String::new(),
            failed => format!(", {failed} FAILED (see the log)"),
        },
        office.calendar.days_known_ahead(today)
    )
}
