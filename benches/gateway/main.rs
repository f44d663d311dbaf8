//! `make bench`: durable intake through HTTP beside the ceiling of one transaction for each
//! submission, and the schedule with 100,000 timers at one instant. Side by side in one run, on one
//! machine, with `fsync` and `synchronous_commit` on; figures are worth something as ratios only.
//!
//! The ceiling is pgbench with the same rows in one prepared statement for each transaction, no HTTP,
//! no cryptography, numbers from a sequence: more than any program that commits each submission by
//! itself can reach. A second ceiling takes the number from the register's row, as gap-free numbers
//! (R7.1) demand of such a program.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a measurement stops where it fails"
)]

mod load;
mod schedule;

use intake_gateway::{
    clock::Clock,
    config::Config,
    gateway::{MIGRATIONS, connect, migrate},
    secret, store,
};
use sqlx::PgPool;
use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

const TOKEN: &str = "bench_token_0001";
const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
const APP_ID: &str = "wx0000000000000001";
const ORIGINAL_ID: &str = "gh_000000000001";
const WORDS: &str = "我在县里的窗口办理灵活就业人员社会保险补贴，材料交了三次，每次都说缺一样，第一次说要原件，第二次说要复印件，第三次说系统里查不到我的缴费记录。请问到底需要哪些材料，能不能一次说清楚？我家住得远，来回一趟要半天。";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

/// How long and how often.
struct Plan {
    cell: Duration,
    rounds: usize,
    connections: Vec<usize>,
    timers: i64,
}

impl Plan {
    fn read() -> Self {
        let short = std::env::var_os("BENCH_SHORT").is_some();
        let connections = std::env::var("BENCH_CONNECTIONS")
            .unwrap_or_else(|_| if short { "1,8" } else { "1,8,32,64" }.to_owned())
            .split(',')
            .map(|number| number.parse().expect("BENCH_CONNECTIONS is like 1,8,64"))
            .collect();
        if short {
            return Self { cell: Duration::from_secs(1), rounds: 1, connections, timers: 5000 };
        }
        let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
        Self { cell: Duration::from_secs(5), rounds, connections, timers: 100_000 }
    }
}

async fn measure() {
    let plan = Plan::read();
    let server = std::env::var("DATABASE_URL").expect("run `make bench`");
    let redis = std::env::var("REDIS_URL").expect("run `make bench`");
    let flush = flushes_per_second();
    let mut rows = Vec::new();
    let gateway = Gateway::start(&server, &redis).await;
    let rival = Rival::prepare(&server).await;
    for connections in &plan.connections {
        let mut cells = Vec::new();
        for _ in 0..plan.rounds {
            let ceiling = rival.run("sequence.sql", *connections, plan.cell);
            let gap_free = rival.run("register.sql", *connections, plan.cell);
            let ours = load::run(gateway.address, *connections, plan.cell).await;
            cells.push((ours, ceiling, gap_free));
        }
        rows.push(Row::of(*connections, cells));
    }
    let (peak_mib, tickets) = (gateway.peak_mib(), gateway.tickets().await);
    assert!(
        load::ANSWERED.load(std::sync::atomic::Ordering::SeqCst) <= tickets as u64,
        "an answer without a ticket"
    );
    gateway.stop().await;
    let timers = schedule::run(&server, &redis, plan.timers).await;
    report(&plan, flush, &rows, peak_mib, tickets, &timers);
}

/// A cell's middle round, by ratio.
struct Row {
    connections: usize,
    ours: load::Figures,
    ceiling: f64,
    gap_free: f64,
}

impl Row {
    fn of(connections: usize, mut rounds: Vec<(load::Figures, f64, f64)>) -> Self {
        rounds.sort_by(|a, b| (a.0.per_second / a.1).total_cmp(&(b.0.per_second / b.1)));
        let (ours, ceiling, gap_free) = rounds.swap_remove(rounds.len() / 2);
        Self { connections, ours, ceiling, gap_free }
    }
}

/// The gateway as its own process, as it runs in earnest.
struct Gateway {
    process: Child,
    address: std::net::SocketAddr,
    pool: PgPool,
    config: PathBuf,
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
    store::office::create(&mut db, "bench", "反映窗口", "BCS", &serde_json::json!({}))
        .await
        .unwrap();
}

impl Gateway {
    async fn start(server: &str, redis: &str) -> Self {
        let (url, pool) = fresh_database(server, "intake_bench").await;
        office(&pool).await;
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, ops) = (free(), free());
        let text = format!(
            "database_url = '{url}'\nredis_url = '{redis}'\n[schedule]\nprefix = 'bench'\n\
             [http]\nlisten = '{address}'\n[ops]\nlisten = '{ops}'\n[log]\nfilter = 'warn'\n\
             [[wechat]]\noffice = 'bench'\nid = 'main'\napp_id = '{APP_ID}'\noriginal_id = '{ORIGINAL_ID}'\n\
             token = '{TOKEN}'\nencoding_aes_key = '{KEY}'\n"
        );
        let config = std::env::temp_dir().join(format!("intake-bench-{}.toml", std::process::id()));
        std::fs::write(&config, text).unwrap();
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_intake"));
        let process = Command::new(binary)
            .args(["--config".as_ref(), config.as_os_str(), "serve".as_ref()])
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self { process, address, pool, config };
        let mut turn = tokio::time::interval(Duration::from_millis(50));
        while tokio::net::TcpStream::connect(address).await.is_err() {
            turn.tick().await;
        }
        gateway
    }

    /// The most memory that the process had in use, in MiB.
    fn peak_mib(&self) -> f64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }

    async fn tickets(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM ticket").fetch_one(&self.pool).await.unwrap()
    }

    async fn stop(mut self) {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap();
        let mut db = self.pool.acquire().await.unwrap();
        let report = intake_gateway::verify::verify(&mut db).await.unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// pgbench on a database of its own with the same tables and indexes.
struct Rival {
    url: String,
    folder: PathBuf,
}

impl Rival {
    async fn prepare(server: &str) -> Self {
        let (url, pool) = fresh_database(server, "intake_ceiling").await;
        office(&pool).await;
        let sequence = "CREATE SEQUENCE numbers; INSERT INTO register VALUES (1, 2026, 500000000)";
        sqlx::raw_sql(sequence).execute(&pool).await.unwrap();
        let folder = std::env::temp_dir().join(format!("intake-ceiling-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let timers = timers_of_one().await;
        let number = "SELECT nextval('numbers') AS n";
        std::fs::write(folder.join("sequence.sql"), one_transaction(number, &timers)).unwrap();
        let number = "UPDATE register SET last = last + 1 WHERE office_id = 1 AND year = 2026 RETURNING last AS n";
        std::fs::write(folder.join("register.sql"), one_transaction(number, &timers)).unwrap();
        Self { url, folder }
    }

    /// Transactions per second.
    fn run(&self, script: &str, clients: usize, cell: Duration) -> f64 {
        let seconds = cell.as_secs().to_string();
        let threads = clients.min(2).to_string();
        let output = Command::new(postgres("pgbench"))
            .args([
                "-n",
                "-M",
                "prepared",
                "-T",
                &seconds,
                "-c",
                &clients.to_string(),
                "-j",
                &threads,
                "-f",
            ])
            .arg(self.folder.join(script))
            .arg(&self.url)
            .output()
            .expect("pgbench comes with PostgreSQL");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("tps = "));
        let line = line.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        line.split_whitespace().nth(2).unwrap().parse().unwrap()
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The kinds of timers that the gateway arms at this hour: three out of hours, two within.
async fn timers_of_one() -> Vec<i16> {
    let calendar = intake_gateway::domain::calendar::WorkingCalendar::national().build();
    let open = calendar.is_open(Clock::system().now());
    if open { vec![2, 3] } else { vec![1, 2, 3] }
}

/// One statement that writes for one submission what the gateway writes. Without colons before
/// letters and digits: these are pgbench's variables.
fn one_transaction(number: &str, timers: &[i16]) -> String {
    let digest = "sha256(n::text::bytea)";
    let xml = format!(
        "<xml><ToUserName><![CDATA[{ORIGINAL_ID}]]></ToUserName>\n<FromUserName><![CDATA[oBench]]></FromUserName>\n<CreateTime>1770000000</CreateTime>\n<MsgType><![CDATA[text]]></MsgType>\n<Content><![CDATA[{WORDS}]]></Content>\n<MsgId>1</MsgId>\n</xml>"
    );
    let first: String = WORDS.chars().take(80).collect();
    let data = r#"{"channel":"wechat","digest":"0000000000000000000000000000000000000000000000000000000000000000","accepted_at":"2026-11-24T01.10.00Z","follow_up_at": null,"due_at":"2026-11-25T08.30.00Z","provisional": false,"urgent": false}"#;
    let timers: Vec<String> = timers.iter().map(|kind| format!("({kind})")).collect();
    let timers = timers.join(", ");
    let lines = [
        format!("WITH n AS MATERIALIZED ({number})"),
        format!("i AS (INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, appended, due_at, provisional) SELECT 1, 'wechat-main', 'oBench/' || n, {digest}, now(), 2026000000000 + n, false, now(), false FROM n)"),
        "h AS (INSERT INTO thread SELECT 1, 'wechat-main-oBench' || n, 2026000000000 + n FROM n)".to_owned(),
        format!("t AS (INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, thread, registered_at, accepted_at, due_at, provisional, calendar_version, events, chain) SELECT 1, 2026000000000 + n, 'wechat', 'registered', 1, '{first}', 'wechat-main-oBench' || n, now(), now(), now() + interval '1 day', false, 1, 1, {digest} FROM n)"),
        format!("e AS (INSERT INTO event SELECT 1, 2026000000000 + n, 1, now(), 'citizen', 'registered', '{data}', {digest} FROM n)"),
        format!("m AS (INSERT INTO message SELECT 1, 2026000000000 + n, 1, 'wechat-main', 'oBench/' || n, now(), now(), '{WORDS}', NULL, '{xml}'::bytea FROM n)"),
        format!("k AS (INSERT INTO timer SELECT 1, 2026000000000 + n, k, 1, 0, now() + interval '1 day' FROM n, (VALUES {timers}) v(k))"),
        "o AS (INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before) SELECT 1, 'registered', 2026000000000 + n, false, '{\"channel\": \"wechat\"}', now(), now() FROM n)".to_owned(),
    ];
    format!("{} SELECT n FROM n;\n", lines.join(", ").replace('\n', " "))
}

fn postgres(tool: &str) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin").join(tool))
        .filter(|path| path.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| PathBuf::from(tool))
}

/// What the disk does: without it no figure here can be compared with another machine's.
fn flushes_per_second() -> Option<f64> {
    let output = Command::new(postgres("pg_test_fsync"))
        .args(["-s", "1", "-f", "target/bench-fsync"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.trim_start().starts_with("fdatasync"))?.to_owned();
    line.split_whitespace().nth(1)?.parse().ok()
}

fn report(
    plan: &Plan,
    flush: Option<f64>,
    rows: &[Row],
    peak_mib: f64,
    tickets: i64,
    timers: &schedule::Figures,
) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "\n{cores} cores; fdatasync {} per second; fsync and synchronous_commit on; {} s a cell, middle of {} rounds",
        flush.map_or("?".to_owned(), |f| format!("{f:.0}")),
        plan.cell.as_secs(),
        plan.rounds
    );
    println!("\nDurable intake, WeChat safe mode over HTTP, unique and signed");
    println!(
        "{:>12} {:>12} {:>9} {:>9} {:>14} {:>7} {:>16} {:>7}",
        "connections",
        "tickets/s",
        "p50 ms",
        "p99 ms",
        "1 tx each/s",
        "ratio",
        "same, gap-free",
        "ratio"
    );
    for row in rows {
        println!(
            "{:>12} {:>12.0} {:>9.2} {:>9.2} {:>14.0} {:>7.2} {:>16.0} {:>7.2}",
            row.connections,
            row.ours.per_second,
            row.ours.p50_ms,
            row.ours.p99_ms,
            row.ceiling,
            row.ours.per_second / row.ceiling,
            row.gap_free,
            row.ours.per_second / row.gap_free
        );
    }
    println!(
        "{tickets} tickets in all, register and trail verified; peak memory of the gateway {peak_mib:.0} MiB"
    );
    println!("\nSchedule, {} timers at one instant", timers.timers);
    println!("{:>28} {:>12.0}", "durable effects per second", timers.per_second);
    println!("{:>28} {:>12.2}", "the last one late, s", timers.latest_s);
    println!("{:>28} {:>12.0}", "bytes a timer in Redis", timers.bytes);
    println!("{:>28} {:>12.2}", "rebuild after FLUSHALL, s", timers.rebuild_s);

    let intake: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "connections": row.connections,
                "tickets_per_s": row.ours.per_second,
                "p50_ms": row.ours.p50_ms,
                "p99_ms": row.ours.p99_ms,
                "errors": row.ours.errors,
                "one_transaction_each_per_s": row.ceiling,
                "ratio": row.ours.per_second / row.ceiling,
                "one_gap_free_transaction_each_per_s": row.gap_free,
                "ratio_gap_free": row.ours.per_second / row.gap_free,
            })
        })
        .collect();
    let json = serde_json::json!({
        "at": Clock::system().now(),
        "cores": cores,
        "fdatasync_per_s": flush,
        "cell_s": plan.cell.as_secs(),
        "rounds": plan.rounds,
        "intake": intake,
        "tickets": tickets,
        "peak_mib": peak_mib,
        "schedule": {
            "timers": timers.timers,
            "effects_per_s": timers.per_second,
            "latest_s": timers.latest_s,
            "bytes_per_timer": timers.bytes,
            "rebuild_s": timers.rebuild_s,
        },
    });
    std::fs::create_dir_all("target/bench").unwrap();
    std::fs::write("target/bench/result.json", serde_json::to_string_pretty(&json).unwrap())
        .unwrap();
    println!("\nalso in target/bench/result.json");
}

/// For the parts that need a pool as the gateway makes it.
async fn own_pool(url: &str, redis: &str) -> (Config, PgPool) {
    let config =
        Config::from_toml(&format!("database_url = '{url}'\nredis_url = '{redis}'")).unwrap();
    let pool = connect(&config).await.unwrap();
    migrate(&pool).await.unwrap();
    (config, pool)
}

/// A prefix that no other run uses.
fn prefix() -> String {
    format!("bench{}", hex::encode(secret::random::<4>()))
}
