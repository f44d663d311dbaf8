//! All at one instant, as limits are: every one of them ends when the window closes.

use super::{Lag, Stage, every};
use crate::figures::Spread;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What was measured.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Herd {
    pub timers: i64,
    pub effects_per_s: f64,
    pub lag: Lag,
    /// What the index' keys take.
    pub bytes_per_timer: f64,
    /// By how much Redis grew.
    pub redis_growth_per_timer: f64,
    /// Until all of them were entered from PostgreSQL.
    pub enter_s: f64,
    pub rebuild_s: f64,
}

/// The middle of several, printed and for the record.
pub fn report(rounds: &[Herd]) -> Value {
    let mut record = json!({ "rounds": rounds });
    let mut line = |name: &str, what: &str, of: &dyn Fn(&Herd) -> f64| {
        let spread = Spread::of(rounds.iter().map(of));
        let digits = if spread.median < 100.0 { 2 } else { 0 };
        let Spread { median, min, max } = spread;
        println!("{what:>38} {median:>12.digits$} ({min:.digits$}–{max:.digits$})");
        record[name] = json!(spread);
    };
    line("effects_per_s", "durable effects per second", &|herd| herd.effects_per_s);
    line("lag_p50_s", "late by, the middle one, s", &|herd| herd.lag.p50_s);
    line("lag_p99_s", "late by, 99 of 100 less than, s", &|herd| herd.lag.p99_s);
    line("lag_max_s", "late by, the last one, s", &|herd| herd.lag.max_s);
    line("bytes_per_timer", "bytes a timer in Redis", &|herd| herd.bytes_per_timer);
    line("enter_s", "all entered anew in, s", &|herd| herd.enter_s);
    line("rebuild_s", "found and refilled after FLUSHALL in, s", &|herd| herd.rebuild_s);
    record
}

pub async fn run(server: &str, redis: &str, count: i64) -> Herd {
    let stage = Stage::set(server, redis, count).await;
    let runner = &stage.runner;
    let client = redis::Client::open(redis).unwrap();
    let mut connection = crate::redis_connection(&client).await;

    // Bytes: what the index' keys take, everything counted, and by how much all of Redis grew.
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    let before = used_memory(&mut connection).await;
    let began = Instant::now();
    runner.rebuild().await.unwrap();
    let enter_s = began.elapsed().as_secs_f64();
    let grown = used_memory(&mut connection).await - before;
    let due = format!("{{{}:s0}}:v1:due", stage.prefix);
    let memory: i64 = redis::cmd("MEMORY")
        .arg("USAGE")
        .arg(&due)
        .arg("SAMPLES")
        .arg(0)
        .query_async(&mut connection)
        .await
        .unwrap();

    // Rebuild: a running schedule finds Redis empty and fills it again by itself.
    let running = stage.run();
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    runner.wake();
    let began = Instant::now();
    let mut turn = every(Duration::from_millis(5));
    loop {
        turn.tick().await;
        let filled = runner.index().epoch().await.is_ok_and(|epoch| epoch.is_some());
        if filled && runner.index().counts().await.unwrap().0 == count as usize {
            break;
        }
    }
    let rebuild_s = began.elapsed().as_secs_f64();

    // The herd: all at one instant, once everything is ready for it.
    let soon = Duration::from_secs(2) + Duration::from_micros(100) * count as u32;
    stage.due(soon, "soon").await;
    runner.rebuild().await.unwrap();
    let left: f64 = seconds_since_due(&stage).await;
    assert!(left < 0.0, "the herd was due before it was entered");
    stage.done().await;
    let took_s = seconds_since_due(&stage).await;
    running.end().await;
    Herd {
        timers: count,
        effects_per_s: count as f64 / took_s,
        lag: stage.lag().await,
        bytes_per_timer: memory as f64 / count as f64,
        redis_growth_per_timer: grown / count as f64,
        enter_s,
        rebuild_s,
    }
}

async fn seconds_since_due(stage: &Stage) -> f64 {
    sqlx::query_scalar(
        "SELECT extract(epoch FROM clock_timestamp() - (SELECT due_at FROM timer LIMIT 1))::float8",
    )
    .fetch_one(&stage.admin)
    .await
    .unwrap()
}

/// Redis' own count, in bytes.
pub async fn used_memory(connection: &mut redis::aio::MultiplexedConnection) -> f64 {
    let said: String = redis::cmd("INFO").arg("memory").query_async(connection).await.unwrap();
    let line = said.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    line.trim().parse().unwrap()
}
