//! The same herd of timers as delayed jobs of BullMQ, with the same effect in the same tables.

use super::installed;
use crate::{
    Plan, fresh_database, office,
    schedule::{
        Lag, every,
        herd::{self, Herd, used_memory},
        lag, tickets,
    },
};
use intake_gateway::clock::Clock;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// Far longer than it takes.
const WITHIN: Duration = Duration::from_secs(600);

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let folder = match installed("bullmq") {
        Ok(folder) => folder,
        Err(why) => return why,
    };
    let mut rows = Vec::new();
    for &workers in &plan.workers {
        let ours = herd::run(server, redis, plan.jobs).await;
        let theirs = Peer::prepare(&folder, server, redis).await.herd(plan.jobs, workers).await;
        rows.push(report(plan.jobs, workers, &ours, &theirs));
    }
    json!(rows)
}

#[derive(serde::Serialize)]
struct Jobs {
    effects_per_s: f64,
    lag: Lag,
    bytes_per_job: f64,
    add_s: f64,
}

fn report(count: i64, workers: usize, ours: &Herd, theirs: &Jobs) -> Value {
    println!("\n{count} timers at one instant beside BullMQ, {workers} worker process(es)");
    println!("{:>38} {:>12} {:>12} {:>8}", "", "the gateway", "the peer", "ratio");
    let line = |what: &str, ours: f64, theirs: f64, ratio: f64, digits: usize| {
        println!("{what:>38} {ours:>12.digits$} {theirs:>12.digits$} {ratio:>8.1}");
    };
    let effects = ours.effects_per_s / theirs.effects_per_s;
    line("durable effects per second", ours.effects_per_s, theirs.effects_per_s, effects, 0);
    let (a, b) = (ours.lag, theirs.lag);
    line("late by, the middle one, s", a.p50_s, b.p50_s, b.p50_s / a.p50_s, 2);
    line("late by, 99 of 100 less than, s", a.p99_s, b.p99_s, b.p99_s / a.p99_s, 2);
    let (a, b) = (ours.redis_growth_per_timer, theirs.bytes_per_job);
    line("bytes each in Redis", a, b, b / a, 0);
    line("all entered in, s", ours.enter_s, theirs.add_s, theirs.add_s / ours.enter_s, 2);
    json!({
        "jobs": count, "worker_processes": workers, "ours": ours, "theirs": theirs,
        "effects_ratio": effects, "lag_p99_ratio": theirs.lag.p99_s / ours.lag.p99_s,
        "bytes_ratio": b / a,
    })
}

struct Peer {
    script: PathBuf,
    url: String,
    pool: PgPool,
    redis: String,
}

impl Peer {
    async fn prepare(folder: &Path, server: &str, redis: &str) -> Self {
        // Beside its packages, where node looks for them.
        let script = folder.join("herd.js");
        std::fs::copy("benches/peers/bullmq/herd.js", &script).unwrap();
        let (url, pool) = fresh_database(server, "intake_bullmq").await;
        office(&pool).await;
        Self { script, url, pool, redis: redis.to_owned() }
    }

    fn node(&self, what: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(&self.script).arg(what);
        command.env("DATABASE_URL", &self.url).env("REDIS_URL", &self.redis);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn herd(&self, count: i64, workers: usize) -> Jobs {
        tickets(&self.pool, count).await;
        let client = redis::Client::open(self.redis.as_str()).unwrap();
        let mut connection = crate::redis_connection(&client).await;
        let () = redis::cmd("FLUSHALL").query_async(&mut connection).await.unwrap();
        let before = used_memory(&mut connection).await;
        // It adds some thousand a second; the workers start before the instant.
        let due_ms = Clock::system().now().timestamp_millis() + 5000 + count / 2;
        sqlx::query("UPDATE timer SET due_at = to_timestamp($1 / 1000.0)")
            .bind(due_ms as f64)
            .execute(&self.pool)
            .await
            .unwrap();
        sqlx::raw_sql("VACUUM ANALYZE timer").execute(&self.pool).await.unwrap();
        let added = self
            .node("add")
            .args([count.to_string(), due_ms.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .await
            .unwrap();
        assert!(added.status.success(), "jobs could not be added");
        let added: Value = serde_json::from_slice(&added.stdout).unwrap();
        let bytes = used_memory(&mut connection).await - before;

        let mut working = Vec::new();
        for _ in 0..workers {
            working.push(self.worker().await);
        }
        let early = due_ms - Clock::system().now().timestamp_millis();
        assert!(early > 0, "the herd was due before the workers were ready");
        let took_s = self.done(due_ms).await;
        for mut worker in working {
            let id = worker.id().unwrap().to_string();
            std::process::Command::new("kill").arg(id).status().unwrap();
            worker.wait().await.unwrap();
        }
        Jobs {
            effects_per_s: count as f64 / took_s,
            lag: lag(&self.pool).await,
            bytes_per_job: bytes / count as f64,
            add_s: added["add_s"].as_f64().unwrap(),
        }
    }

    async fn worker(&self) -> Child {
        let mut worker = self.node("work").spawn().unwrap();
        let mut said = BufReader::new(worker.stdout.take().unwrap()).lines();
        assert_eq!(said.next_line().await.unwrap().as_deref(), Some("ready"));
        worker
    }

    /// Until all jobs took effect, in seconds from their instant.
    async fn done(&self, due_ms: i64) -> f64 {
        let began = Instant::now();
        let mut turn = every(Duration::from_millis(20));
        let armed = "SELECT EXISTS (SELECT FROM timer WHERE state = 0)";
        while sqlx::query_scalar::<_, bool>(armed).fetch_one(&self.pool).await.unwrap() {
            assert!(began.elapsed() < WITHIN, "jobs were lost");
            turn.tick().await;
        }
        let late_ms = Clock::system().now().timestamp_millis() - due_ms;
        late_ms as f64 / 1000.0
    }
}
