//! A changed calendar and the dates that rest on it (scheduling.md A7.6, A4).
//!
//! A notice that is loaded, a closure that is entered: every open date is computed again, on the
//! record. A later date is taken over; an earlier one only while it leaves a working day, for nobody
//! is to be late by a paper that came yesterday; else the old one stays and the trail says so. What is
//! closed, solved or overdue is never judged again.

use crate::{
    clock::Clock,
    domain::{
        calendar::Amendment,
        event::{Actor, Happened},
        id::OfficeId,
        ladder::timers_of_level,
        policy::LimitsRunFrom,
        promise::limit,
        register::RegisterNumber,
        timer::TimerKind,
    },
    http::Shared,
    lifecycle::Wake,
    offices::Office,
    schedule::TimerKey,
    store::{self, StoreError},
    telemetry, wording,
};
use sqlx::{Connection, PgPool};
use std::time::Duration;
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
    /// Timers that were armed anew.
    pub timers: Vec<TimerKey>,
}

/// Brings an office's open tickets to its calendar; the same again changes nothing. One
/// transaction for each ticket: an office may have thousands, and officers go on working.
///
/// # Errors
/// [`StoreError`]; tickets before the failing one are done.
pub async fn recompute(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
) -> Result<Amended, StoreError> {
    const PAGE: i64 = 500;
    let mut amended = Amended::default();
    let mut after = None;
    loop {
        let mut db = pool.acquire().await?;
        let page = store::ticket::open_with_older_calendar(
            &mut db,
            office.id,
            office.calendar_version,
            after,
            PAGE,
        )
        .await?;
        drop(db);
        let Some(last) = page.last() else { return Ok(amended) };
        after = Some(*last);
        for ticket in page {
            one(pool, clock, office, ticket, &mut amended).await?;
        }
    }
}

async fn one(
    pool: &PgPool,
    clock: &Clock,
    office: &Office,
    number: RegisterNumber,
    amended: &mut Amended,
) -> Result<(), StoreError> {
    let mut db = pool.acquire().await?;
    let mut transaction = db.begin().await?;
    let Some(mut locked) = store::ticket::lock(&mut transaction, office.id, number).await? else {
        return Ok(());
    };
    let now = clock.now();
    let calendar = &office.calendar;
    let version = office.calendar_version;
    locked.calendar_version = version;
    let presses = locked.ticket.state.is_pressing() && !locked.ticket.overdue;
    if !presses || locked.ticket.due_at <= now {
        store::ticket::seen_calendar(&mut transaction, office.id, number, version).await?;
        transaction.commit().await?;
        amended.unchanged += 1;
        return Ok(());
    }

    let accepted = calendar.accepted_at(locked.registered_at).value;
    let entered = match office.policy.limits_run_from {
        LimitsRunFrom::Registration => accepted,
        LimitsRunFrom::HandUp => {
            store::ticket::entered_level_at(&mut transaction, office.id, number)
                .await?
                .unwrap_or(accepted)
        }
    };
    let level = locked.ticket.level;
    let due = limit(calendar, office.policy.limits_run_from, level, accepted, entered);
    let old = locked.ticket.due_at;
    let certain = locked.ticket.provisional != due.provisional;
    let amendment = calendar.amendment(old, due.at, now);
    // What has not begun yet begins when the window now opens.
    let follow_up = match locked.follow_up_at {
        Some(at) if at > now => {
            let opens = calendar.next_open(locked.registered_at).value;
            (opens != at).then_some(opens)
        }
        _ => None,
    };

    let mut arm = Vec::new();
    let happened = match amendment {
        Amendment::Apply => {
            locked.ticket.due_at = due.at;
            arm = timers_of_level(calendar, level, due.at);
            arm.retain(|(kind, at)| *kind != TimerKind::Warning || *at > now);
            Some(Happened::DateMoved {
                timer: TimerKind::Limit.as_str().to_owned(),
                from: old,
                to: due.at,
                calendar_version: version,
                provisional: due.provisional,
            })
        }
        Amendment::Keep => {
            Some(Happened::DateKept { kept: old, computed: due.at, calendar_version: version })
        }
        Amendment::Unchanged if certain => Some(Happened::DateMoved {
            timer: TimerKind::Limit.as_str().to_owned(),
            from: old,
            to: old,
            calendar_version: version,
            provisional: due.provisional,
        }),
        Amendment::Unchanged => None,
    };
    locked.ticket.provisional = due.provisional;
    if let Some(happened) = &happened {
        store::ticket::write(&mut transaction, &mut locked, Actor::Gateway, happened, now).await?;
    }
    if let (Some(to), Some(from)) = (follow_up, locked.follow_up_at) {
        arm.push((TimerKind::FollowUp, to));
        let moved = Happened::DateMoved {
            timer: TimerKind::FollowUp.as_str().to_owned(),
            from,
            to,
            calendar_version: version,
            provisional: due.provisional,
        };
        store::ticket::write(&mut transaction, &mut locked, Actor::Gateway, &moved, now).await?;
    }
    let dates = store::ticket::Dates {
        accepted_at: accepted,
        follow_up_at: follow_up.or(locked.follow_up_at),
        needs_year: due.needs_year,
    };
    store::ticket::set_dates(&mut transaction, &locked, &dates).await?;
    let armed = store::timer::arm(&mut transaction, office.id, number, &arm).await?;
    transaction.commit().await?;
    match (amendment, happened) {
        (Amendment::Keep, _) => amended.kept += 1,
        (_, Some(_)) => amended.moved += 1,
        (_, None) => amended.unchanged += 1,
    }
    amended.timers.extend(armed);
    Ok(())
}

const LOOK_EVERY: Duration = Duration::from_secs(3);
const LOOK_WITHIN: Duration = Duration::from_secs(10);

/// Reads the offices again whenever one has changed, and brings open dates to a changed calendar,
/// until `shutdown`.
pub async fn follow(app: Shared, shutdown: CancellationToken) {
    let turn = Wake::default();
    let mut known = None;
    // Intakes of other replicas may have used the calendar before for one look more.
    let mut again = 2;
    while !shutdown.is_cancelled() {
        let look = tokio::time::timeout(LOOK_WITHIN, look(&app, &mut known, &mut again));
        match look.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %telemetry::causes(&error), "the offices could not be read again; trying again");
            }
            Err(_) => {
                tracing::warn!("the database was too slow to read the offices again; trying again")
            }
        }
        turn.wait(LOOK_EVERY, &shutdown).await;
    }
}

async fn look(
    app: &Shared,
    known: &mut Option<(i64, i64)>,
    again: &mut u32,
) -> Result<(), StoreError> {
    let mut db = app.pool.acquire().await?;
    let version = store::office::version(&mut db).await?;
    if *known != Some(version) {
        app.offices.reload(&mut db).await?;
        *known = Some(version);
        *again = 2;
    }
    drop(db);
    if *again == 0 {
        return Ok(());
    }
    *again -= 1;
    let offices = app.offices.all();
    for office in offices.values() {
        let amended = recompute(&app.pool, &app.clock, office).await?;
        told(app, office.id, &amended);
        app.schedule.enter(&amended.timers).await;
    }
    Ok(())
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
    }
}

/// A sentence for whoever loaded a calendar.
#[must_use]
pub fn summary(office: &Office, amended: &Amended, clock: &Clock) -> String {
    let today = wording::day_of(clock.now());
    format!(
        "{}: {} open dates moved or confirmed, {} kept for a person to decide, {} unchanged; holidays known for {} days",
        office.code,
        amended.moved,
        amended.kept,
        amended.unchanged,
        office.calendar.days_known_ahead(today)
    )
}
