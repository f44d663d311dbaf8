//! As a county's day is, only denser: 833 a second, fifty thousand a minute.

use super::{Stage, line};
use serde_json::{Value, json};
use std::time::Duration;

const PER_SECOND: i64 = 833;

pub async fn run(server: &str, redis: &str, time: Duration) -> Value {
    let count = PER_SECOND * time.as_secs() as i64;
    let stage = Stage::set(server, redis, count).await;
    let due_at = format!("soon + n * interval '1 second' / {PER_SECOND}");
    stage.due(Duration::from_secs(3), &due_at).await;
    stage.runner.rebuild().await.unwrap();
    let running = stage.run();
    stage.done().await;
    running.end().await;
    let lag = stage.lag().await;
    println!("\nSchedule, {PER_SECOND} a second for {} s", time.as_secs());
    line("late by, the middle one, ms", lag.p50_s * 1000.0, 1);
    line("late by, 99 of 100 less than, ms", lag.p99_s * 1000.0, 1);
    line("late by, the latest, ms", lag.max_s * 1000.0, 1);
    json!({ "per_s": PER_SECOND, "for_s": time.as_secs(), "lag": lag })
}
