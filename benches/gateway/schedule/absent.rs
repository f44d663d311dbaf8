//! No Redis at all: the sweep fires straight from PostgreSQL.

use super::{Stage, line};
use serde_json::{Value, json};
use std::time::Duration;

const TIMERS: i64 = 1000;
/// They fall due over so long that every moment of the sweep's turn is met.
const OVER_S: i64 = 8;
/// A port of this machine where nothing listens.
const NOWHERE: &str = "redis://127.0.0.1:1/0";

pub async fn run(server: &str) -> Value {
    let stage = Stage::set(server, NOWHERE, TIMERS).await;
    let running = stage.run();
    let due_at = format!("soon + n * interval '{OVER_S} seconds' / {TIMERS}");
    stage.due(Duration::from_secs(1), &due_at).await;
    stage.done().await;
    running.end().await;
    let lag = stage.lag().await;
    println!("\nSchedule without Redis, {TIMERS} timers over {OVER_S} s");
    line("late by, the middle one, s", lag.p50_s, 2);
    line("late by, the latest, s", lag.max_s, 2);
    line("the sweep's turn, s", stage.settings.reconcile_every.as_secs_f64(), 0);
    json!({ "timers": TIMERS, "lag": lag, "reconcile_every_s": stage.settings.reconcile_every.as_secs_f64() })
}
