//! A timer that gets another time, and one that is not wanted any more: in PostgreSQL, committed,
//! then in Redis; one after the other, and eight at a time.

use super::{Stage, follow_up, line};
use chrono::TimeDelta;
use intake_gateway::{clock::Clock, schedule::TimerKey, store};
use serde_json::{Map, Value, json};
use std::time::Instant;

#[derive(Clone, Copy)]
enum Change {
    Reschedule,
    Cancel,
}

pub async fn run(server: &str, redis: &str, count: i64) -> Value {
    println!("\nSchedule, changes of {count} timers, each its own transaction");
    let mut rows = Map::new();
    for parallel in [1, 8] {
        let stage = Stage::set(server, redis, count).await;
        stage.runner.rebuild().await.unwrap();
        for (change, name) in [(Change::Reschedule, "reschedule"), (Change::Cancel, "cancel")] {
            let per_second = changes(&stage, change, count, parallel).await;
            line(&format!("{name}, {parallel} at a time, per second"), per_second, 0);
            rows.insert(format!("{name}_{parallel}_per_s"), json!(per_second));
        }
        let armed: i64 = sqlx::query_scalar("SELECT count(*) FROM timer WHERE state = 0")
            .fetch_one(&stage.admin)
            .await
            .unwrap();
        assert_eq!(armed, 0, "all were cancelled");
        assert_eq!(stage.runner.index().counts().await.unwrap().0, 0, "in Redis too");
    }
    Value::Object(rows)
}

async fn changes(stage: &Stage, change: Change, count: i64, parallel: i64) -> f64 {
    let began = Instant::now();
    let one_after_the_other = |first: i64| async move {
        for n in (first..=count).step_by(parallel as usize) {
            one(stage, change, n).await;
        }
    };
    futures::future::join_all((1..=parallel).map(one_after_the_other)).await;
    count as f64 / began.elapsed().as_secs_f64()
}

async fn one(stage: &Stage, change: Change, n: i64) {
    let index = stage.runner.index();
    let before = follow_up(n, Clock::system().now() + TimeDelta::days(2));
    let TimerKey { office, ticket, kind, due_at, .. } = before;
    let mut transaction = stage.pool.begin().await.unwrap();
    match change {
        Change::Reschedule => {
            let armed = [(kind, due_at)];
            let armed = store::timer::arm(&mut transaction, office, ticket, &armed).await.unwrap();
            transaction.commit().await.unwrap();
            index.remove(&[before]).await.unwrap();
            index.schedule(&armed).await.unwrap();
        }
        Change::Cancel => {
            let cancelled =
                store::timer::cancel_all(&mut transaction, office, ticket).await.unwrap();
            transaction.commit().await.unwrap();
            index.remove(&cancelled).await.unwrap();
        }
    }
}
