//! The schedule on the gateway's own runner and store: many timers at one instant, evenly spread,
//! changed one by one, leased by a process that died, and with Redis away.

mod absent;
mod change;
mod crash;
pub mod herd;
mod spread;

use crate::{Plan, fresh_database, office, own_pool, prefix};
use intake_gateway::{
    domain::{id::OfficeId, register::RegisterNumber, timer::TimerKind},
    offices::Offices,
    schedule::{TimerKey, index::Index, runner::Runner, runner::Settings},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let mut herds = Vec::new();
    for &count in &plan.timers {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            rounds.push(herd::run(server, redis, count).await);
        }
        println!(
            "\nSchedule, {count} timers at one instant (median of {}, least–greatest)",
            plan.rounds
        );
        herds.push(herd::report(&rounds));
    }
    json!({
        "herd": herds,
        "spread": spread::run(server, redis, plan.spread).await,
        "change": change::run(server, redis, plan.changes).await,
        "crash": crash::run(server, redis).await,
        "redis_absent": absent::run(server).await,
    })
}

/// A line of a table: what, and how much.
fn line(what: &str, value: f64, digits: usize) {
    println!("{what:>38} {value:>12.digits$}");
}

/// A database with so many tickets, each with a follow-up a day from now, and a runner on it.
struct Stage {
    /// Not the runner's: for looking on.
    admin: PgPool,
    pool: PgPool,
    runner: Arc<Runner>,
    settings: Settings,
    prefix: String,
}

impl Stage {
    async fn set(server: &str, redis: &str, count: i64) -> Self {
        let (url, admin) = fresh_database(server, "intake_schedule").await;
        office(&admin).await;
        let (config, pool) = own_pool(&url, redis).await;
        tickets(&admin, count).await;
        let prefix = prefix();
        let index = Index::new(redis, &prefix).unwrap();
        let offices = Arc::new(Offices::default());
        offices.reload(&mut pool.acquire().await.unwrap()).await.unwrap();
        let settings = config.schedule.settings();
        let owner = "bench".to_owned();
        let runner = Runner::new(pool.clone(), index, offices, settings, owner, Arc::new(|_| {}));
        Self { admin, pool, runner, settings, prefix }
    }

    /// Gives every follow-up its time; `due_at` is an expression that may use the ticket's `n`, from
    /// 1, and `soon`, a moment after this call.
    async fn due(&self, soon: Duration, due_at: &str) {
        let statement = format!(
            "UPDATE timer SET due_at = (SELECT {due_at} FROM (VALUES (ticket % 1000000000,
                 date_trunc('milliseconds', statement_timestamp() + interval '{} milliseconds')))
                 AS v(n, soon))",
            soon.as_millis()
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.admin).await.unwrap();
        // No plan may be made from the moment before.
        sqlx::raw_sql("VACUUM ANALYZE timer").execute(&self.admin).await.unwrap();
    }

    fn run(&self) -> Running {
        let stop = CancellationToken::new();
        let runner = || Arc::clone(&self.runner);
        let tasks = [
            tokio::spawn(runner().run(stop.clone())),
            tokio::spawn(runner().listen(stop.clone())),
            tokio::spawn(runner().keep_true(stop.clone())),
        ];
        Running { stop, tasks }
    }

    /// When no timer is armed any more.
    async fn done(&self) {
        let armed = "SELECT EXISTS (SELECT FROM timer WHERE state = 0)";
        let mut turn = every(Duration::from_millis(20));
        while sqlx::query_scalar::<_, bool>(armed).fetch_one(&self.admin).await.unwrap() {
            turn.tick().await;
        }
    }

    async fn lag(&self) -> Lag {
        lag(&self.admin).await
    }
}

/// A runner's loops.
struct Running {
    stop: CancellationToken,
    tasks: [JoinHandle<()>; 3],
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// From the instant to the transaction that carried the timer out, by the database's clock.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Lag {
    pub effects: i64,
    pub p50_s: f64,
    pub p99_s: f64,
    pub max_s: f64,
}

pub async fn lag(pool: &PgPool) -> Lag {
    let (effects, distinct, lags): (i64, i64, Vec<f64>) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT e.ticket),
             percentile_disc('{0.5, 0.99, 1}'::float8[]) WITHIN GROUP (
                 ORDER BY extract(epoch FROM e.at - t.due_at)::float8)
         FROM event e JOIN timer t USING (office_id, ticket) WHERE e.kind = 'follow_up_due'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    let timers: i64 =
        sqlx::query_scalar("SELECT count(*) FROM timer").fetch_one(pool).await.unwrap();
    assert_eq!((effects, distinct), (timers, timers), "each timer takes effect once");
    Lag { effects, p50_s: lags[0], p99_s: lags[1], max_s: lags[2] }
}

pub async fn tickets(pool: &PgPool, count: i64) {
    let statement = format!(
        "INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, registered_at,
             accepted_at, follow_up_at, due_at, provisional, calendar_version, events, chain)
         SELECT 1, 2026000000000 + n, 'wechat', 'registered', 1, '灯坏了', now(), now(), now(),
             now() + interval '2 days', false, 1, 1, sha256('x') FROM generate_series(1, {count}) n;
         INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
         SELECT 1, ticket, 1, 1, 0, now() + interval '1 day' FROM ticket;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE ticket, timer").execute(pool).await.unwrap();
}

/// The key of the `n`-th ticket's follow-up, as it is before anything changes it.
fn follow_up(n: i64, due_at: chrono::DateTime<chrono::Utc>) -> TimerKey {
    TimerKey {
        office: OfficeId(1),
        ticket: RegisterNumber::from_i64(2_026_000_000_000 + n).unwrap(),
        kind: TimerKind::FollowUp,
        generation: 1,
        due_at,
    }
}

/// Turns that start a step from now.
pub fn every(step: Duration) -> tokio::time::Interval {
    tokio::time::interval_at(tokio::time::Instant::now() + step, step)
}
