//! Many timers at one instant, on the gateway's own runner.

use crate::{Plan, fresh_database, office, own_pool, prefix};
use intake_gateway::{
    offices::Offices,
    schedule::{index::Index, runner::Runner},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What was measured.
pub struct Figures {
    pub per_second: f64,
    pub latest_s: f64,
    pub bytes: f64,
    pub rebuild_s: f64,
}

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let mut rows = Vec::new();
    for &count in &plan.timers {
        let herd = herd(server, redis, count).await;
        println!("\nSchedule, {count} timers at one instant");
        println!("{:>28} {:>12.0}", "durable effects per second", herd.per_second);
        println!("{:>28} {:>12.2}", "the last one late, s", herd.latest_s);
        println!("{:>28} {:>12.0}", "bytes a timer in Redis", herd.bytes);
        println!("{:>28} {:>12.2}", "rebuild after FLUSHALL, s", herd.rebuild_s);
        rows.push(json!({
            "timers": count, "effects_per_s": herd.per_second, "latest_s": herd.latest_s,
            "bytes_per_timer": herd.bytes, "rebuild_s": herd.rebuild_s,
        }));
    }
    json!({ "herd": rows })
}

async fn herd(server: &str, redis: &str, count: i64) -> Figures {
    let (url, admin) = fresh_database(server, "intake_schedule").await;
    office(&admin).await;
    let (config, pool) = own_pool(&url, redis).await;
    tickets(&pool, count).await;
    let prefix = prefix();
    let index = Index::new(redis, &prefix).unwrap();
    let offices = Arc::new(Offices::default());
    offices.reload(&mut pool.acquire().await.unwrap()).await.unwrap();
    let runner = Runner::new(
        pool.clone(),
        index,
        offices,
        config.schedule.settings(),
        "bench".to_owned(),
        Arc::new(|_| {}),
    );
    let client = redis::Client::open(redis).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();

    // Bytes: what the index' keys take, everything counted.
    runner.rebuild().await.unwrap();
    let due = format!("{{{prefix}:s0}}:v1:due");
    let memory: i64 = redis::cmd("MEMORY")
        .arg("USAGE")
        .arg(&due)
        .arg("SAMPLES")
        .arg(0)
        .query_async(&mut connection)
        .await
        .unwrap();
    let bytes = memory as f64 / count as f64;

    // Rebuild: a running schedule finds Redis empty and fills it again by itself.
    let stop = CancellationToken::new();
    let running = [
        tokio::spawn(Arc::clone(&runner).run(stop.clone())),
        tokio::spawn(Arc::clone(&runner).listen(stop.clone())),
        tokio::spawn(Arc::clone(&runner).keep_true(stop.clone())),
    ];
    let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
    runner.wake();
    let began = Instant::now();
    let mut turn = tokio::time::interval(Duration::from_millis(5));
    loop {
        turn.tick().await;
        let filled = runner.index().epoch().await.is_ok_and(|epoch| epoch.is_some());
        if filled && runner.index().counts().await.unwrap().0 == count as usize {
            break;
        }
    }
    let rebuild_s = began.elapsed().as_secs_f64();

    // The herd: all at one instant, a moment from now.
    sqlx::raw_sql(
        "UPDATE timer SET due_at = date_trunc('milliseconds', now() + interval '15 seconds')",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::raw_sql("VACUUM ANALYZE timer").execute(&pool).await.unwrap();
    runner.rebuild().await.unwrap();
    loop {
        turn.tick().await;
        let armed: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT FROM timer WHERE state = 0 LIMIT 1) x",
        )
        .fetch_one(&admin)
        .await
        .unwrap();
        if armed == 0 {
            break;
        }
        tokio::time::interval_at(
            tokio::time::Instant::now() + Duration::from_millis(20),
            Duration::from_secs(1),
        )
        .tick()
        .await;
    }
    let took_s: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM clock_timestamp() - (SELECT due_at FROM timer LIMIT 1))::float8",
    )
    .fetch_one(&admin)
    .await
    .unwrap();
    stop.cancel();
    for task in running {
        task.await.unwrap();
    }
    let (effects, distinct, latest_s): (i64, i64, f64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT e.ticket), max(extract(epoch FROM e.at - t.due_at))::float8
         FROM event e JOIN timer t USING (office_id, ticket) WHERE e.kind = 'follow_up_due'",
    )
    .fetch_one(&admin)
    .await
    .unwrap();
    assert_eq!((effects, distinct), (count, count), "each timer took effect once");
    Figures { per_second: count as f64 / took_s, latest_s, bytes, rebuild_s }
}

async fn tickets(pool: &PgPool, count: i64) {
    let statement = format!(
        "INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, registered_at,
             accepted_at, follow_up_at, due_at, provisional, calendar_version, events, chain)
         SELECT 1, 2026000000000 + n, 'wechat', 'registered', 1, '灯坏了', now(), now(), now(),
             now() + interval '2 days', false, 1, 1, sha256('x') FROM generate_series(1, {count}) n;
         INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
         SELECT 1, ticket, 1, 1, 0, now() + interval '1 day' FROM ticket;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE ticket").execute(pool).await.unwrap();
}
