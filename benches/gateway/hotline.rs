//! A night of the telephone: so many voicemails of three sources, each told once to three times and in
//! no order. Nothing may be lost or doubled, and nobody may wait for anything but the commit.

use crate::{Plan, figures::Figures, fresh_database, gateway::Gateway, load, office};
use axum::{Router, extract::Path as At, routing::get};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use intake_contract::china;
use intake_gateway::clock::Clock;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 32;
/// A record as FreeSWITCH sends it, 8 KB.
const CAPTURE: &str =
    include_str!("../../adapters/hotline/tests/fixtures/freeswitch/007_json_cdr.body");
const PASSWORD: &str = "bench-password-0001";
/// Every so many callers call again half a minute later: the same ticket.
const AGAIN: usize = 10;

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let each = plan.voicemails / 3;
    let folder = std::env::temp_dir().join(format!("intake-hotline-{}", crate::prefix()));
    let (recordings, spool) = (folder.join("recordings"), folder.join("spool"));
    fs::create_dir_all(&recordings).unwrap();
    fs::create_dir_all(&spool).unwrap();
    let vendor = recorder().await;
    let (url, pool) = fresh_database(server, "intake_hotline").await;
    office(&pool).await;
    let verify =
        format!("verify.auth = {{ kind = 'basic', user = 'bench', password = '{PASSWORD}' }}");
    let settings = format!(
        "[[hotline]]\noffice = 'bench'\nid = 'fs'\nkind = 'freeswitch'\n{verify}\naudio.roots = ['{}']\n\
         [[hotline]]\noffice = 'bench'\nid = 'ast'\nkind = 'asterisk'\nspools = ['{}']\nscan_every_s = 1\n\
         [[hotline]]\noffice = 'bench'\nid = 'tccc'\nkind = 'vendor'\nmapping = 'tencent-tccc'\n{verify}\naudio.inside_hosts = ['127.0.0.1']\n",
        recordings.display(),
        spool.display()
    );
    let gateway = Gateway::on_with(&url, pool, redis, "all", &settings).await;

    let mut requests = Vec::new();
    for n in 0..each {
        let file = recordings.join(format!("msg_{n}.wav"));
        fs::write(&file, sound(n)).unwrap();
        repeated(&mut requests, n, freeswitch(n, &file));
        for (part, request) in tccc(n, vendor).into_iter().enumerate() {
            repeated(&mut requests, n + part, request);
        }
    }
    shuffle(&mut requests);
    let pushes = requests.len();
    println!(
        "\nhotline: {} voicemails of three sources: {pushes} pushes over {CONNECTIONS} connections, {each} messages in a spool",
        each * 3
    );
    let began = Instant::now();
    let writing = tokio::task::spawn_blocking({
        let spool = spool.clone();
        move || (0..each).for_each(|n| asterisk(&spool, n))
    });
    let figures = send(gateway.address, requests).await;
    let pushed = began.elapsed();
    writing.await.unwrap();
    let count = async |query: &str| counted(&gateway.pool, query).await;
    let mut turn = tokio::time::interval(Duration::from_millis(100));
    let total = (each * 3) as i64;
    while count("SELECT count(*) FROM call_recording WHERE seq IS NOT NULL").await < total {
        turn.tick().await;
        assert!(began.elapsed() < plan.cell * 360, "voicemails are missing");
    }
    let registered = began.elapsed();
    while count("SELECT count(*) FROM call_recording WHERE state = 'stored'").await < total {
        turn.tick().await;
        assert!(began.elapsed() < plan.cell * 720, "recordings are missing");
    }
    let stored = began.elapsed();
    let again = (0..each).filter(|n| n % AGAIN == 1).count() * 3;
    let expected = total - again as i64;
    let calls = count("SELECT count(*) FROM call").await;
    let told = count("SELECT count(DISTINCT (ticket, seq)) FROM call_recording").await;
    assert_eq!((calls, told), (total, total), "each call once, each message once");
    // A record whose message came more than a minute later was a missed call first, on one ticket.
    let missed = count("SELECT count(*) FROM inbound WHERE source_id LIKE 'call:%'").await;
    let messages = count("SELECT count(*) FROM message").await;
    assert_eq!(messages, total + missed, "nothing else was said of them");
    assert_eq!(gateway.tickets().await, expected, "a ticket for each caller of each source");
    assert_eq!(count("SELECT count(*) FROM quarantine").await, 0);
    // What the sources say is what is here.
    let compared = Command::new(env!("CARGO_BIN_EXE_intake"))
        .args(["--config".as_ref(), gateway.config.as_os_str()])
        .args(["hotline", "reconcile"])
        .env_remove("DATABASE_URL")
        .env_remove("REDIS_URL")
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&compared.stdout).into_owned();
    assert!(compared.status.success(), "{table}{}", String::from_utf8_lossy(&compared.stderr));
    let (_, peak) = gateway.memory_mib();
    gateway.stop(true).await;
    fs::remove_dir_all(&folder).unwrap();
    let parts = pushes as f64 / (each * 3) as f64;
    println!(
        "| pushes | answered in | p50 | p99 | p99.9 | calls | tickets | all registered after | all recordings kept after | memory |\n\
         | {pushes} ({parts:.1} a voicemail, with the spool's) | {:.1} s | {:.1} ms | {:.1} ms | {:.1} ms | {calls} | {expected} | {:.1} s | {:.1} s | {peak:.0} MiB |\n\
         {missed} calls were missed ones first: their message came more than a minute after their record\n\
         none lost, none doubled, verify clean, reconcile finds nothing:\n{table}",
        pushed.as_secs_f64(),
        figures.p50_ms,
        figures.p99_ms,
        figures.p999_ms,
        registered.as_secs_f64(),
        stored.as_secs_f64(),
    );
    json!({
        "voicemails": total, "pushes": pushes, "pushed_s": pushed.as_secs_f64(), "figures": figures,
        "calls": calls, "tickets": expected, "missed_first": missed, "registered_after_s": registered.as_secs_f64(),
        "stored_after_s": stored.as_secs_f64(), "peak_mib": peak,
    })
}

async fn counted(pool: &PgPool, query: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(pool).await.unwrap()
}

/// The last evening: nobody is at the window, whenever this runs.
fn spoken_at(n: usize) -> DateTime<Utc> {
    let today = Clock::system().now().with_timezone(&china()).date_naive();
    let evening = (today - TimeDelta::days(1)).and_hms_opt(22, 0, 0).unwrap();
    let begins = china().from_local_datetime(&evening).single().unwrap().to_utc();
    begins + TimeDelta::seconds((n / 2) as i64 + 30 * (n % AGAIN == 1) as i64)
}

/// Who calls: one of ten calls twice.
fn caller(n: usize) -> String {
    let n = if n % AGAIN == 1 { n - 1 } else { n };
    format!("139{n:08}")
}

/// A quarter of a second, each another one.
fn sound(n: usize) -> Vec<u8> {
    let mut file = b"RIFF\xc4\x0f\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\xa0\x0f\0\0".to_vec();
    file.extend((0..2000_u32).flat_map(|at| {
        let wave = ((at % 18) as i16 - 9) * 900;
        (wave ^ ((n >> (at % 16)) & 1) as i16).to_le_bytes()
    }));
    file
}

/// Gives out recordings of the vendor.
async fn recorder() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/{n}", get(async |At(n): At<usize>| sound(1_000_000 + n)));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn repeated(requests: &mut Vec<String>, n: usize, request: String) {
    requests.extend(std::iter::repeat_n(request, 1 + n % 3));
}

/// The same disorder at each run.
fn shuffle(requests: &mut [String]) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for at in (1..requests.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        requests.swap(at, (state % (at as u64 + 1)) as usize);
    }
}

fn http(path: &str, body: &str) -> String {
    let credential = BASE64_STANDARD.encode(format!("bench:{PASSWORD}"));
    format!(
        "POST /channels/hotline/{path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Basic {credential}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn freeswitch(n: usize, file: &Path) -> String {
    let at = spoken_at(n);
    let said = format!("\"voicemail_file_path\":\"{}\",\"record_ms\":\"9380\"", file.display());
    let mut body = CAPTURE
        .replace(
            "b8d8d03e-67ae-4e95-a969-52582e7bcdf4",
            &format!("{n:08x}-67ae-4e95-a969-52582e7bcdf4"),
        )
        .replace("13700000001", &caller(n))
        .replace("\"record_ms\":\"1520\"", &said);
    for (name, at) in [("start", at), ("answer", at), ("end", at + TimeDelta::seconds(17))] {
        for (unit, value) in [("epoch", at.timestamp()), ("uepoch", at.timestamp_micros())] {
            let key = format!("\"{name}_{unit}\":\"");
            let from = body.find(&key).unwrap() + key.len();
            let to = from + body[from..].find('"').unwrap();
            body.replace_range(from..to, &value.to_string());
        }
    }
    http("fs", &body)
}

fn tccc(n: usize, recorder: SocketAddr) -> [String; 2] {
    let (from, to) = (spoken_at(n).timestamp(), spoken_at(n).timestamp() + 24);
    let session = format!("e97be0ab-1ef6-4ad2-a8c4-{n:012}");
    let voicemail = json!({
        "SdkAppId": 1_400_000_001, "SessionId": session, "Timestamp": to,
        "RecordURL": format!("http://{recorder}/{n}"), "EndpointUser": caller(n).parse::<u64>().unwrap(),
    });
    let record = json!({
        "SdkAppId": 1_400_000_001, "SessionId": session, "Caller": caller(n), "Callee": "12333",
        "Direction": 0, "CallType": 2, "Duration": 24, "StartTimestamp": from, "EndedTimestamp": to,
        "EndStatus": 106,
    });
    [
        http("tccc?action=voicemail", &voicemail.to_string()),
        http("tccc?action=cdr&version=1", &record.to_string()),
    ]
}

/// As Asterisk does: sound, then text, both moved to their place; every third also into a second
/// mailbox, under another identity.
fn asterisk(spool: &Path, n: usize) {
    let (at, number) = (spoken_at(n).timestamp(), caller(n));
    let mailboxes: &[&str] = if n.is_multiple_of(3) { &["12333", "8001"] } else { &["12333"] };
    for (copy, mailbox) in mailboxes.iter().enumerate() {
        let folder: PathBuf = spool.join("default").join(mailbox).join("INBOX");
        fs::create_dir_all(&folder).unwrap();
        let text = format!(
            ";\n; Message Information file\n;\n[message]\norigmailbox=12333\ncontext=from-carrier\nexten=12333\npriority=6\ncallerchan=SIP/127.0.0.1-{n:08x}\ncallerid=\"{number}\" <{number}>\norigtime={at}\ncategory=night\nmsg_id={at}-{:08x}\nflag=\nduration=9\n",
            n * 2 + copy
        );
        for (ending, content) in [("wav", sound(2_000_000 + n)), ("txt", text.into_bytes())] {
            let draft = folder.join(format!("draft.{ending}"));
            fs::write(&draft, content).unwrap();
            fs::rename(&draft, folder.join(format!("msg{n:04}.{ending}"))).unwrap();
        }
    }
}

/// Sends all, each connection one after the other; every one must be answered as kept.
async fn send(address: SocketAddr, requests: Vec<String>) -> Figures {
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let began = Instant::now();
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (mut buffer, mut latencies) = (Vec::with_capacity(8192), Vec::new());
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sent = Instant::now();
                    assert_eq!(load::post(&mut stream, &mut buffer, request).await, 200, "refused");
                    latencies.push(sent.elapsed());
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    let per_second = latencies.len() as f64 / began.elapsed().as_secs_f64();
    Figures::of(latencies, per_second)
}
