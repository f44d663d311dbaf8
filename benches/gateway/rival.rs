//! pgbench with the same rows: what one transaction for each submission can reach at best, without
//! HTTP, cryptography and parsing.

use crate::{APP_ID, ORIGINAL_ID, WORDS, figures::Figures, fresh_database, office};
use intake_gateway::clock::Clock;
use sqlx::PgPool;
use std::{path::PathBuf, process::Command, time::Duration};

/// How a rival writes a submission.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// BEGIN, three statements, COMMIT; numbers from a sequence, with gaps.
    Naive,
    /// One prepared statement for each transaction; numbers from a sequence, with gaps.
    OneStatement,
    /// The same with the number from the register's row, as gap-free numbers (R7.1) demand.
    GapFree,
    /// 32 submissions in one statement and transaction.
    Batch,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Naive, Self::OneStatement, Self::GapFree, Self::Batch];

    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "three_statements",
            Self::OneStatement => "one_statement",
            Self::GapFree => "one_statement_gap_free",
            Self::Batch => "batches_of_32",
        }
    }

    fn rows(self) -> usize {
        if matches!(self, Self::Batch) { BATCH } else { 1 }
    }
}

const BATCH: usize = 32;

/// A database of its own with the same tables and indexes.
pub struct Rival {
    url: String,
    folder: PathBuf,
}

impl Rival {
    pub async fn prepare(server: &str) -> Self {
        let (url, pool) = fresh_database(server, "intake_ceiling").await;
        office(&pool).await;
        let sequence = "CREATE SEQUENCE numbers; INSERT INTO register VALUES (1, 2026, 500000000)";
        sqlx::raw_sql(sequence).execute(&pool).await.unwrap();
        let folder = std::env::temp_dir().join(format!("intake-ceiling-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for way in Way::ALL {
            std::fs::write(folder.join(way.name()), script(way)).unwrap();
        }
        Self { url, folder }
    }

    pub fn run(&self, way: Way, connections: usize, cell: Duration) -> Figures {
        // As many submissions under way as connections would have.
        let clients = match way {
            Way::Batch => (connections / 16).max(1),
            _ => connections,
        };
        for old in std::fs::read_dir(&self.folder).unwrap().flatten() {
            if old.file_name().to_string_lossy().starts_with("log.") {
                let _ = std::fs::remove_file(old.path());
            }
        }
        let output = Command::new(postgres("pgbench"))
            .args(["--no-vacuum", "--protocol=prepared", "--log"])
            .arg(format!("--time={}", cell.as_secs()))
            .arg(format!("--client={clients}"))
            .arg(format!("--jobs={}", clients.min(2)))
            .arg(format!("--log-prefix={}", self.folder.join("log").display()))
            .arg(format!("--file={}", self.folder.join(way.name()).display()))
            .arg(&self.url)
            .output()
            .expect("pgbench comes with PostgreSQL");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find(|line| line.starts_with("tps = "));
        let line = line.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let per_second: f64 = line.split_whitespace().nth(2).unwrap().parse().unwrap();
        Figures::of(self.latencies(), per_second * way.rows() as f64)
    }

    /// Of each transaction, from pgbench's logs.
    fn latencies(&self) -> Vec<Duration> {
        std::fs::read_dir(&self.folder)
            .unwrap()
            .flatten()
            .filter(|file| file.file_name().to_string_lossy().starts_with("log."))
            .flat_map(|file| {
                let text = std::fs::read_to_string(file.path()).unwrap();
                text.lines()
                    .filter_map(|line| line.split(' ').nth(2)?.parse().ok())
                    .map(Duration::from_micros)
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The kinds of timers that the gateway arms at this hour: three out of hours, two within.
pub fn timers_of_one() -> &'static [i16] {
    let calendar = intake_gateway::domain::calendar::WorkingCalendar::national().build();
    let open = calendar.is_open(Clock::system().now());
    if open { &[2, 3] } else { &[1, 2, 3] }
}

/// Fills an office with so many tickets as the gateway would have written and closed them, after
/// number `last`; one in a hundred is open.
pub async fn fill(pool: &PgPool, last: i64, count: i64) {
    const AT_ONCE: i64 = 250_000;
    let end = last + count;
    let mut first = last + 1;
    while first <= end {
        let until = end.min(first + AT_ONCE - 1);
        let number = format!("SELECT n::bigint FROM generate_series({first}, {until}) n");
        let statement = with(&number, &parts("n % 100 > 0"));
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
        first = until + 1;
    }
    let register = format!(
        "INSERT INTO register VALUES (1, 2026, {end})
         ON CONFLICT (office_id, year) DO UPDATE SET last = {end}"
    );
    for statement in [register.as_str(), "VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    }
}

fn script(way: Way) -> String {
    let sequence = "SELECT nextval('numbers') AS n";
    match way {
        Way::OneStatement => one_statement(sequence) + ";\n",
        Way::GapFree => {
            one_statement(
                "UPDATE register SET last = last + 1 WHERE office_id = 1 AND year = 2026 RETURNING last AS n",
            ) + ";\n"
        }
        Way::Batch => {
            one_statement(&format!(
                "SELECT nextval('numbers') AS n FROM generate_series(1, {BATCH})"
            )) + ";\n"
        }
        Way::Naive => {
            let parts = parts(NEW);
            let three = [
                with(sequence, &parts[..1]),
                with("SELECT currval('numbers') AS n", &parts[1..4]),
                with("SELECT currval('numbers') AS n", &parts[4..]),
            ];
            format!("BEGIN;\n{};\nCOMMIT;\n", three.join(";\n"))
        }
    }
}

fn one_statement(number: &str) -> String {
    with(number, &parts(NEW))
}

fn with(number: &str, parts: &[String]) -> String {
    format!("WITH n AS MATERIALIZED ({number}), {} SELECT count(*) FROM n", parts.join(", "))
}

/// Of a ticket that has just come in: nothing of it is over.
const NEW: &str = "false";

/// What the gateway writes for one submission, table by table; `over` says of which tickets that they
/// are closed, their timers cancelled and the staff told. Without colons before letters and digits:
/// these are pgbench's variables.
fn parts(over: &str) -> [String; 6] {
    let digest = "sha256(n::text::bytea)";
    let xml = format!(
        "<xml><ToUserName><![CDATA[{ORIGINAL_ID}]]></ToUserName> <FromUserName><![CDATA[oBench]]></FromUserName> <CreateTime>1770000000</CreateTime> <MsgType><![CDATA[text]]></MsgType> <Content><![CDATA[]]></Content> <MsgId>1</MsgId> </xml>"
    );
    // The words stand in the row once.
    let words_at = xml.find("]]></Content>").unwrap();
    let first: String = WORDS.chars().take(48).collect();
    let data = format!(
        r#"{{"channel":"wechat","digest":"{:064}","accepted_at":"2026-11-24T01.10.00Z","follow_up_at": null,"due_at":"2026-11-25T08.30.00Z","provisional": false,"urgent": false}}"#,
        APP_ID.len()
    );
    let timers: Vec<String> = timers_of_one().iter().map(|kind| format!("({kind})")).collect();
    let timers = timers.join(", ");
    [
        format!(
            "i AS (INSERT INTO inbound (office_id, source, source_id, digest, received_at, ticket, seq, appended, due_at, provisional) SELECT 1, 'wechat-main', lpad(n::text, 20, '0') || '/oBench' || lpad(n::text, 21, '0'), {digest}, now(), 2026000000000 + n, 1, false, now(), false FROM n)"
        ),
        format!(
            "t AS (INSERT INTO ticket (office_id, ticket, channel, state, outcome, urgency, problem, thread, registered_at, accepted_at, due_at, provisional, calendar_version, events, chain) SELECT 1, 2026000000000 + n, 'wechat', CASE WHEN {over} THEN 'closed' ELSE 'registered' END, CASE WHEN {over} THEN 'solved' END, 1, '{first}', 'wechat-main-oBench' || lpad(n::text, 21, '0'), now(), now(), now() + interval '1 day', false, 1, 1, {digest} FROM n)"
        ),
        format!(
            "e AS (INSERT INTO event SELECT 1, 2026000000000 + n, 1, now(), 'citizen', 'registered', '{data}', {digest} FROM n)"
        ),
        format!(
            "m AS (INSERT INTO message SELECT 1, 2026000000000 + n, 1, now(), now(), '{WORDS}', NULL, '{xml}'::bytea, n, {words_at} FROM n)"
        ),
        format!(
            "k AS (INSERT INTO timer SELECT 1, 2026000000000 + n, k, 1, CASE WHEN {over} THEN 2 ELSE 0 END, now() + interval '1 day' FROM n, (VALUES {timers}) v(k))"
        ),
        format!(
            "o AS (INSERT INTO outbox (office_id, kind, ticket, urgent, created_at, not_before, state) SELECT 1, 'registered', 2026000000000 + n, false, now(), now(), CASE WHEN {over} THEN 1 ELSE 0 END FROM n)"
        ),
    ]
}

/// A tool of the newest PostgreSQL that is installed.
pub fn postgres(tool: &str) -> PathBuf {
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
