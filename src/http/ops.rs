//! Health and metrics, on the operations listener.

use super::{App, Shared};
use crate::{spool::Standing, store, telemetry, wording};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::time::Duration;

/// The calendar should be known this far ahead (DESIGN.md §4, Time).
const CALENDAR_DAYS: i64 = 60;
/// Late from here on: more than the sweep allows.
const LATE_S: f64 = 30.0;
/// The oldest notice may have been due for so long.
const OUTBOX_S: f64 = 120.0;
/// Clocks may differ by this much.
const SKEW_MS: i64 = 500;

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    /// `ok`; `degraded` where the gateway goes on working; `failed` where it cannot.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<String>,
}

impl Check {
    fn ok(name: &'static str) -> Self {
        Self { name, state: "ok", says: None }
    }

    fn degraded(name: &'static str, says: impl Into<String>) -> Self {
        Self { name, state: "degraded", says: Some(says.into()) }
    }

    fn failed(name: &'static str, says: impl Into<String>) -> Self {
        Self { name, state: "failed", says: Some(says.into()) }
    }
}

/// Whether this process can do its work, and what fails. 503 where nothing can be kept,
/// without PostgreSQL and without room in the spool, and where PostgreSQL is not set to keep what was
/// answered. Redis away is said, and costs lateness of seconds.
pub async fn ready(State(app): State<Shared>) -> Response {
    let now = app.clock.now();
    let database = async {
        let mut db = app.pool.acquire().await?;
        let durable = store::office::durability(&mut db).await?;
        let (armed, late) = store::timer::state(&mut db).await?;
        let outbox = store::notice::oldest_due_s(&mut db, now).await?;
        let clock = store::office::clock(&mut db).await?;
        Ok::<_, store::StoreError>((durable, armed, late, outbox, clock))
    };
    let mut checks = Vec::new();
    let spool = app.spool.standing().await;
    let takes_in = spool.is_some_and(|spool| spool.has_room());
    match tokio::time::timeout(Duration::from_secs(2), database).await {
        Ok(Ok((durable, armed, late, outbox, clock))) => {
            checks.push(match durable {
                None => Check::ok("postgres"),
                Some(setting) => Check::failed(
                    "postgres",
                    format!(
                        "{setting} is off: what is answered as received could be lost; switch it on"
                    ),
                ),
            });
            checks.push(if late <= LATE_S {
                Check { says: Some(format!("{armed} timers armed")), ..Check::ok("schedule") }
            } else {
                Check::degraded("schedule", format!("a timer is {late:.0} s late"))
            });
            checks.push(if outbox <= OUTBOX_S {
                Check::ok("outbox")
            } else {
                Check::degraded("outbox", format!("a notice has been due for {outbox:.0} s"))
            });
            let skew = (clock - now).num_milliseconds().abs();
            checks.push(if skew <= SKEW_MS {
                Check::ok("clock")
            } else {
                Check::degraded(
                    "clock",
                    format!("differs from PostgreSQL's by {skew} ms; check NTP"),
                )
            });
        }
        // Out of the balancer is where no citizen could be heard.
        _ if takes_in => checks.push(Check::degraded(
            "postgres",
            "no answer; what WeChat and the telephone send is kept in the spool, all else gets 503",
        )),
        _ => checks
            .push(Check::failed("postgres", "no answer; submissions get 503 until it is back")),
    }
    checks.extend(spool.map(|spool| stands(&app, &spool)));
    if app.spool.is_barred() {
        let says = "off: spool.folder is used by another process or cannot be written";
        checks.push(Check::degraded("spool", says));
    }
    checks.push(match app.schedule.index().memory_policy().await {
        Ok(policy) if policy == "noeviction" => Check::ok("redis"),
        Ok(policy) => Check::degraded(
            "redis",
            format!(
                "maxmemory-policy is {policy}: timers may be dropped and fire late; set noeviction"
            ),
        ),
        // Managed services forbid CONFIG: what matters then is whether it answers at all.
        Err(_) => match app.schedule.index().time_ms().await {
            Ok(_) => Check::ok("redis"),
            Err(_) => {
                Check::degraded("redis", "no answer; timers fire from PostgreSQL, late by seconds")
            }
        },
    });
    let today = wording::day_of(now);
    let ahead = app.offices.all().values().map(|o| o.calendar.days_known_ahead(today)).min();
    checks.push(match ahead {
        Some(days) if days < CALENDAR_DAYS => Check::degraded(
            "calendar",
            format!("holidays are known for {days} more days; load next year's notice with `intake calendar load`"),
        ),
        _ => Check::ok("calendar"),
    });
    let failed = checks.iter().any(|check| check.state == "failed");
    let all_ok = checks.iter().all(|check| check.state == "ok");
    let state = if failed {
        "failed"
    } else if all_ok {
        "ok"
    } else {
        "degraded"
    };
    let status = if failed { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, Json(serde_json::json!({ "state": state, "checks": checks }))).into_response()
}

fn stands(app: &App, spool: &Standing) -> Check {
    let Standing { waiting, aside, .. } = spool;
    let mut says = Vec::new();
    if *waiting > 0 {
        let age = app.spool.age_s(spool);
        says.push(format!("{waiting} entries wait for PostgreSQL, the oldest for {age:.0} s"));
    }
    if !spool.has_room() {
        says.push("it is full, and more gets 503: see spool.limit_mb".to_owned());
    }
    if *aside > 0 {
        says.push(format!(
            "{aside} entries could not be taken in and lie in spool.folder as aside-…; see the README"
        ));
    }
    if says.is_empty() {
        return Check::ok("spool");
    }
    Check::degraded("spool", says.join("; "))
}

/// An exchange says that something lies in a source's folders: they are looked through at once, which
/// is done every few seconds anyway. It names nothing and gives nothing away.
pub async fn scan(State(app): State<Shared>, Path(id): Path<String>) -> Response {
    match app.sources.0.get(&format!("hotline:{id}")) {
        Some(source) if source.has_folders() => {
            source.look.wake();
            (StatusCode::ACCEPTED, "looking\n").into_response()
        }
        Some(_) => (StatusCode::CONFLICT, "this source has no folders\n").into_response(),
        None => {
            let with_folders = app.sources.0.values().filter(|source| source.has_folders());
            let mut names: Vec<&str> =
                with_folders.map(|source| source.settings.id.as_str()).collect();
            names.sort_unstable();
            let says = format!("no such source; with folders there are: {}\n", names.join(", "));
            (StatusCode::NOT_FOUND, says).into_response()
        }
    }
}

/// For Prometheus.
pub async fn metrics(State(app): State<Shared>) -> String {
    let today = wording::day_of(app.clock.now());
    for office in app.offices.all().values() {
        metrics::gauge!(telemetry::CALENDAR_DAYS_AHEAD, "office" => office.code.clone())
            .set(office.calendar.days_known_ahead(today) as f64);
    }
    if let Some(spool) = app.spool.standing().await {
        metrics::gauge!(telemetry::SPOOL_WAITING).set(spool.waiting as f64);
        metrics::gauge!(telemetry::SPOOL_OLDEST_S).set(app.spool.age_s(&spool));
        metrics::gauge!(telemetry::SPOOL_BYTES).set(spool.bytes as f64);
        metrics::gauge!(telemetry::SPOOL_ASIDE).set(spool.aside as f64);
    }
    metrics::gauge!(telemetry::QUEUE_WAITING).set(app.intake.waiting() as f64);
    metrics::gauge!(telemetry::SCHEDULE_STEPS).set(app.schedule.steps() as f64);
    telemetry::metrics().render()
}
