//! The calendar: what a date costs, and what bringing ten thousand open tickets to a changed
//! calendar takes.

use crate::{Plan, fresh_database, office, own_pool};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use intake_contract::china;
use intake_gateway::{
    amend,
    clock::Clock,
    domain::{calendar::WorkingCalendar, id::OfficeId, ladder::timers_of_level, level::Level},
    offices::Offices,
    store::{self, calendar::NewDecision},
};
use serde_json::{Value, json};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const GOAL_NS: f64 = 1000.0;
const GOAL_AMEND_S: f64 = 1.0;

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let calendar = WorkingCalendar::national().build();
    let moments = moments();
    println!("\nCalendar, {} moments of two years, at all hours", moments.len());
    let mut rows = Vec::new();
    for days in [1, 3, 5] {
        let deadline = nanoseconds(plan, &moments, |at| {
            black_box(calendar.deadline(at, days));
        });
        let why = nanoseconds(plan, &moments, |at| {
            black_box(calendar.why(at, days));
        });
        println!(
            "{days:>9} working days: {deadline:>6.0} ns; with each day and its reason {why:>6.0} ns (goal {GOAL_NS})"
        );
        rows.push(json!({ "days": days, "deadline_ns": deadline, "why_ns": why }));
    }
    let amended = amendment(plan.amended, server, redis).await;
    println!(
        "{:>9} open tickets brought to a changed calendar: {:.2} s (goal {GOAL_AMEND_S} for 10000)",
        plan.amended, amended
    );
    json!({ "dates": rows, "amended": plan.amended, "amend_s": amended })
}

/// From the middle of 2025 on: years with a notice, and one whose notice is to come.
fn moments() -> Vec<DateTime<Utc>> {
    let first = NaiveDate::from_ymd_opt(2025, 6, 1).unwrap();
    let first = first.and_hms_opt(0, 7, 0).unwrap().and_local_timezone(china()).unwrap().to_utc();
    // A step that meets every hour of the day and every day of the week.
    (0..1000).map(|n| first + TimeDelta::minutes(n * 1051)).collect()
}

fn nanoseconds(plan: &Plan, moments: &[DateTime<Utc>], work: impl Fn(DateTime<Utc>)) -> f64 {
    let until = Instant::now() + plan.cell / 5;
    let mut rounds: Vec<Duration> = Vec::new();
    while rounds.is_empty() || Instant::now() < until {
        let began = Instant::now();
        moments.iter().copied().for_each(&work);
        rounds.push(began.elapsed());
    }
    rounds.sort_unstable();
    rounds[rounds.len() / 2].as_secs_f64() * 1e9 / moments.len() as f64
}

/// All came in on one evening; then the day on which they are due is closed.
async fn amendment(count: i64, server: &str, redis: &str) -> f64 {
    let (url, admin) = fresh_database(server, "intake_amendment").await;
    office(&admin).await;
    let (_, pool) = own_pool(&url, redis).await;
    let evening = NaiveDate::from_ymd_opt(2026, 11, 24).unwrap().and_hms_opt(21, 0, 0).unwrap();
    let clock = Clock::standing_at(evening.and_local_timezone(china()).unwrap().to_utc());
    let now = clock.now();
    let calendar = WorkingCalendar::national().build();
    let due_at = calendar.deadline(now, 1).at;
    let statement = "WITH t AS (
             INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, registered_at,
                 accepted_at, follow_up_at, due_at, provisional, calendar_version, events, chain)
             SELECT 1, 2026000000000 + n, 'wechat', 'registered', 1, '灯坏了', $2, $3, $4, $5, false,
                 1, 1, sha256('x') FROM generate_series(1, $1) n
             RETURNING ticket
         ), e AS (
             INSERT INTO event SELECT 1, ticket, 1, $2, 'citizen', 'registered', '{}', sha256('x')
             FROM t
         )
         INSERT INTO timer SELECT 1, ticket, kind, 1, 0, due_at
         FROM t, unnest($6::smallint[], $7::timestamptz[]) AS k(kind, due_at)";
    let follow_up_at = calendar.follow_up_at(now).unwrap().value;
    let mut timers = timers_of_level(&calendar, Level::Duty, due_at);
    timers.push((intake_gateway::domain::timer::TimerKind::FollowUp, follow_up_at));
    sqlx::query(statement)
        .bind(count)
        .bind(now)
        .bind(calendar.accepted_at(now).value)
        .bind(follow_up_at)
        .bind(due_at)
        .bind(timers.iter().map(|(kind, _)| kind.number()).collect::<Vec<i16>>())
        .bind(timers.iter().map(|(_, at)| *at).collect::<Vec<_>>())
        .execute(&pool)
        .await
        .unwrap();
    sqlx::raw_sql("VACUUM ANALYZE").execute(&pool).await.unwrap();

    let mut db = pool.acquire().await.unwrap();
    let decision = NewDecision {
        day: due_at.with_timezone(&china()).date_naive(),
        kind: "closed",
        reason: "台风",
        authority: "县政府令〔2026〕1号",
        by: "bench",
    };
    store::calendar::decide(&mut db, OfficeId(1), &decision, now).await.unwrap();
    let offices = Offices::default();
    offices.reload(&mut db).await.unwrap();
    drop(db);
    let changed = offices.get(OfficeId(1)).unwrap();
    let began = Instant::now();
    let amended = amend::recompute(&pool, &clock, &changed).await.unwrap();
    let took_s = began.elapsed().as_secs_f64();
    assert_eq!((amended.moved as i64, amended.failed), (count, 0), "all of them move");
    took_s
}
