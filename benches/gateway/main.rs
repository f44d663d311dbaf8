//! `make bench`: where the gateway stands beside the physical ceiling and beside what people would
//! use instead. Side by side in one run, on one machine, with `fsync` and `synchronous_commit` on;
//! figures are worth something as ratios only.
//!
//! Beside it stand what people would use instead: the same intake with wechatpy and FastAPI, the same
//! timers with BullMQ, each with the same rows in the same tables (benches/peers).
//!
//! The work measured is the real work: verify, decrypt, parse, deduplicate, thread, number, chain,
//! commit, answer encrypted. What it is measured against is pgbench with the same rows, without HTTP
//! and cryptography: more than any program that commits each submission by itself can reach.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a measurement stops where it fails"
)]

mod calendar;
mod figures;
mod gateway;
mod hotline;
mod intake;
mod load;
mod peers;
mod process;
mod queue;
mod rival;
mod schedule;
mod start;
mod wechat;

use intake_gateway::{
    clock::Clock,
    config::Config,
    gateway::{MIGRATIONS, connect, migrate},
    secret, store,
};
use serde_json::json;
use sqlx::PgPool;
use std::{process::Command, time::Duration};

const TOKEN: &str = "bench_token_0001";
const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
const APP_ID: &str = "wx0000000000000001";
const ORIGINAL_ID: &str = "gh_000000000001";
const WORDS: &str = "我在县里的窗口办理灵活就业人员社会保险补贴，材料交了三次，每次都说缺一样，第一次说要原件，第二次说要复印件，第三次说系统里查不到我的缴费记录。请问到底需要哪些材料，能不能一次说清楚？我家住得远，来回一趟要半天。";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

/// What is measured, how long and how often.
struct Plan {
    parts: Vec<String>,
    cell: Duration,
    rounds: usize,
    connections: Vec<usize>,
    /// The same beside a peer.
    peer_connections: Vec<usize>,
    /// Tickets that are there already.
    sizes: Vec<i64>,
    timers: Vec<i64>,
    /// How long timers fall due one after the other.
    spread: Duration,
    /// Timers that are changed one by one.
    changes: i64,
    /// Open tickets that are brought to a changed calendar.
    amended: i64,
    /// Delayed jobs of a peer, and processes that carry them out.
    jobs: i64,
    workers: Vec<usize>,
    /// Citizens who write at once, each with a photo.
    citizens: usize,
    /// Left in one night.
    voicemails: usize,
}

impl Plan {
    /// `BENCH=short`: so short that the figures mean nothing; `BENCH=long`: ten million tickets and
    /// a million timers. `BENCH_PARTS`, `BENCH_ROUNDS` and `BENCH_CONNECTIONS` choose.
    fn read() -> Self {
        let list = |name: &str, default: &str| -> Vec<String> {
            let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
            text.split(',').map(|one| one.trim().to_owned()).collect()
        };
        let numbers = |name: &str, default: &str| -> Vec<usize> {
            let number = |text: &String| {
                text.parse().unwrap_or_else(|_| panic!("{name}: numbers with commas"))
            };
            list(name, default).iter().map(number).collect()
        };
        let parts = list(
            "BENCH_PARTS",
            "intake,growth,wechat,hotline,schedule,queue,calendar,start,python,bullmq",
        );
        match std::env::var("BENCH").as_deref() {
            Ok("short") => Self {
                parts,
                cell: Duration::from_secs(1),
                rounds: 1,
                connections: numbers("BENCH_CONNECTIONS", "1,8"),
                peer_connections: numbers("BENCH_CONNECTIONS", "8"),
                sizes: vec![1000, 50_000],
                timers: vec![5000],
                spread: Duration::from_secs(2),
                changes: 200,
                amended: 1000,
                jobs: 300,
                workers: vec![1],
                citizens: 100,
                voicemails: 90,
            },
            other => Self {
                parts,
                cell: Duration::from_secs(5),
                rounds: numbers("BENCH_ROUNDS", "5")[0],
                connections: numbers("BENCH_CONNECTIONS", "1,8,32,64"),
                peer_connections: match other {
                    Ok("long") => numbers("BENCH_CONNECTIONS", "1,8,32,64"),
                    _ => numbers("BENCH_CONNECTIONS", "32,64"),
                },
                sizes: match other {
                    Ok("long") => vec![10_000, 1_000_000, 10_000_000],
                    _ => vec![10_000, 1_000_000],
                },
                timers: match other {
                    Ok("long") => vec![100_000, 1_000_000],
                    _ => vec![100_000],
                },
                spread: Duration::from_secs(if other == Ok("long") { 60 } else { 20 }),
                changes: 5000,
                amended: 10_000,
                jobs: 100_000,
                workers: vec![1, 2],
                citizens: 5000,
                voicemails: 10_000,
            },
        }
    }
}

async fn measure() {
    let plan = Plan::read();
    let server = std::env::var("DATABASE_URL").expect("run `make bench`");
    let redis = std::env::var("REDIS_URL").expect("run `make bench`");
    let flush = flushes_per_second();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{cores} cores; fdatasync {} per second; fsync and synchronous_commit on",
        flush.map_or("?".to_owned(), |f| format!("{f:.0}")),
    );
    let mut result = json!({
        "at": Clock::system().now(), "cores": cores, "fdatasync_per_s": flush,
        "cell_s": plan.cell.as_secs(), "rounds": plan.rounds,
    });
    for part in &plan.parts {
        result[part] = match part.as_str() {
            "intake" => intake::run(&plan, &server, &redis).await,
            "growth" => intake::growth(&plan, &server, &redis).await,
            "hotline" => hotline::run(&plan, &server, &redis).await,
            "wechat" => wechat::run(&plan, &server, &redis).await,
            "schedule" => schedule::run(&plan, &server, &redis).await,
            "calendar" => calendar::run(&plan, &server, &redis).await,
            "start" => start::run(&plan, &server, &redis).await,
            "python" => peers::python::run(&plan, &server, &redis).await,
            "bullmq" => peers::bullmq::run(&plan, &server, &redis).await,
            "queue" => queue::run(&plan, &server, &redis).await,
            other => panic!("BENCH_PARTS: there is no part {other}"),
        };
        std::fs::create_dir_all("target/bench").unwrap();
        let text = serde_json::to_string_pretty(&result).unwrap();
        std::fs::write("target/bench/result.json", text).unwrap();
    }
    println!("\nalso in target/bench/result.json");
}

async fn fresh_database(server: &str, name: &str) -> (String, PgPool) {
    let (head, _) = server.rsplit_once('/').unwrap();
    let admin = PgPool::connect(server).await.unwrap();
    for statement in
        [format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"), format!("CREATE DATABASE {name}")]
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&admin).await.unwrap();
    }
    let url = format!("{head}/{name}");
    let pool = PgPool::connect(&url).await.unwrap();
    MIGRATIONS.run(&pool).await.unwrap();
    (url, pool)
}

async fn office(pool: &PgPool) {
    let mut db = pool.acquire().await.unwrap();
    store::office::create(&mut db, "bench", "反映窗口", "BCS", &json!({})).await.unwrap();
}

/// What the disk does: without it no figure here can be compared with another machine's.
fn flushes_per_second() -> Option<f64> {
    let output = Command::new(rival::postgres("pg_test_fsync"))
        .args(["-s", "1", "-f", "target/bench-fsync"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.trim_start().starts_with("fdatasync"))?.to_owned();
    line.split_whitespace().nth(1)?.parse().ok()
}

/// For the parts that need a pool as the gateway makes it.
async fn own_pool(url: &str, redis: &str) -> (Config, PgPool) {
    let config =
        Config::from_toml(&format!("database_url = '{url}'\nredis_url = '{redis}'")).unwrap();
    let pool = connect(&config).await.unwrap();
    migrate(&pool).await.unwrap();
    (config, pool)
}

/// A connection with patience: FLUSHALL after millions of timers takes its time.
async fn redis_connection(client: &redis::Client) -> redis::aio::MultiplexedConnection {
    let patient =
        redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    client.get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// A prefix that no other run uses.
fn prefix() -> String {
    format!("bench{}", hex::encode(secret::random::<4>()))
}
