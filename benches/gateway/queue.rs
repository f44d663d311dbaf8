//! The lists and the search over real HTTP, at a growing number of tickets, one in a hundred open.
//! The words are entered by the gateway itself, as on a database that it was started on.

use crate::{Plan, figures::Figures, fresh_database, gateway::Gateway, office};
use chrono::TimeDelta;
use intake_gateway::{
    clock::Clock,
    domain::{id::OfficeId, role::Role},
    secret,
    store::{self, office::NewStaff},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What people begin with: two words of each are in a fifth of all tickets, or fewer.
const BEGINNINGS: [&str; 8] = [
    "您好，我想反映一个情况，",
    "麻烦你们帮忙看看，",
    "我是本地居民，",
    "上次打电话没有人接，",
    "我母亲年纪大了，行动不便，",
    "我们几个邻居商量过了，",
    "已经反映过一次，没有答复，",
    "请问这件事归哪个部门管，",
];
/// What is the matter: each in one ticket of twenty.
const MATTERS: [&str; 20] = [
    "社会保险补贴材料交了三次都被退回",
    "门口路灯不亮，晚上看不见路",
    "失业登记在网上提交不了",
    "养老金这个月没有到账",
    "工资拖欠了两个月",
    "医保卡在药店刷不出来",
    "下水道堵了，污水流到楼道里",
    "楼上装修噪音很大，孩子睡不着",
    "小区电梯坏了一个星期",
    "公交车等了四十分钟也不来",
    "井盖松动，差点摔倒",
    "幼儿园报名的条件说不清楚",
    "暖气不热，室内只有十四度",
    "房产证办理的进度查不到",
    "垃圾堆了好几天没人清运",
    "自来水发黄，有股怪味",
    "退休手续要开的证明太多",
    "残疾人补助申请没有回音",
    "营业执照变更要跑几个窗口",
    "低保审核的结果一直没有通知",
];
/// What is asked for: each in one ticket of eight.
const WISHES: [&str; 8] = [
    "希望尽快处理。",
    "请给我一个准确的答复。",
    "能不能一次说清楚需要哪些材料？",
    "什么时候可以解决？",
    "盼望回电。",
    "家住得远，来回一趟要半天。",
    "谢谢工作人员。",
    "这样下去实在不方便。",
];
/// Two of these name a place: each pair in one ticket of a thousand.
const PLACES: &str = "柳槐枫桦榆杏桃梨梅兰竹菊荷莲芦苇鹤雁鹰燕鹿麒麟凤龙虎岗岭坡谷溪泉湾";
/// Two of these are somebody's given name: each pair in one ticket of ten thousand.
const NAMES: &str = "秀英春梅建国志强丽华淑珍桂兰玉芝海涛晓东永红立新文博佳怡子涵浩然雨桐思远俊杰雅静宏伟庆丰铁柱金凤银铃瑞雪宝山长顺喜来福满仓广田占奎德胜万里书琴墨砚";
const SURNAMES: &str = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许";

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let mut sizes = Vec::new();
    for &size in &plan.sizes {
        sizes.push(at_size(plan, server, redis, size).await);
    }
    json!({ "sizes": sizes })
}

async fn at_size(plan: &Plan, server: &str, redis: &str, size: i64) -> Value {
    let (url, pool) = fresh_database(server, "intake_queue").await;
    office(&pool).await;
    fill(&pool, size).await;
    let (token, cookie) = callers(&pool).await;
    let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    let wal_before: f64 = sqlx::query_scalar(wal).fetch_one(&pool).await.unwrap();
    // Entering all words of more than that takes an hour: there only the lists are measured.
    let words_too = size <= 1_000_000;
    let role = if words_too { "all" } else { "web" };
    let gateway = Gateway::on_as(&url, pool.clone(), redis, role).await;
    let began = Instant::now();
    if words_too {
        until_entered(&pool, size).await;
    }
    let entered_s = began.elapsed().as_secs_f64();
    let wal_after: f64 = sqlx::query_scalar(wal).fetch_one(&pool).await.unwrap();
    let wal_bytes = (wal_after - wal_before) / size as f64;
    sqlx::raw_sql("VACUUM ANALYZE").execute(&pool).await.unwrap();
    println!("\nQueue, {size} tickets, {} open", size / 100);
    if words_too {
        println!(
            "{:>34} {:>10.0} a second, {wal_bytes:.0} bytes of WAL each",
            "entered into the index of words",
            size as f64 / entered_s
        );
    }
    println!("{:>34} {:>10} {:>10} {:>10}", "ms", "p50", "p95", "p99");
    let deep: (i16, i64, i64) = sqlx::query_as(
        "SELECT urgency, (extract(epoch FROM due_at) * 1000000)::bigint, ticket FROM ticket
         WHERE is_open ORDER BY urgency, due_at, ticket OFFSET $1 LIMIT 1",
    )
    .bind(size / 100 * 9 / 10)
    .fetch_one(&pool)
    .await
    .unwrap();
    let deep = format!("{}-{}-{}", deep.0, deep.1, deep.2);
    let closed_deep = format!("1-0-{}", 2_026_000_000_000 + size / 10);
    let bearer = format!("Authorization: Bearer {token}");
    let cookie = format!("Cookie: __Host-desk={cookie}");
    let mut rows = Vec::new();
    let api = |query: &str| vec![format!("/api/v1/tickets?{query}")];
    let desk = |view: &str| vec![format!("/desk?view={view}")];
    let tomorrow = (Clock::system().now() + TimeDelta::days(1)).format("%FT%TZ");
    let unit = |n: i32| format!("unit={}", percent(&format!("股室{n}")));
    let cases = [
        ("first page", &bearer, api("state=open")),
        ("deep page", &bearer, api(&format!("after={deep}"))),
        ("channel hotline", &bearer, api("channel=hotline")),
        ("channel window_phone (2 %)", &bearer, api("channel=window_phone")),
        ("level 1", &bearer, api("level=1")),
        ("level 5 (1 %)", &bearer, api("level=5")),
        ("unit (3 %)", &bearer, api(&unit(7))),
        ("unit, from tomorrow on", &bearer, api(&format!("{}&due_from={tomorrow}", unit(7)))),
        (
            "unit, level 3, state, due (20 tickets)",
            &bearer,
            api(&format!("{}&level=3&state=in_progress&due_before={tomorrow}", unit(7))),
        ),
        ("unit that has none", &bearer, api(&unit(21))),
        ("state registered (30 %)", &bearer, api("state=registered")),
        ("state in_progress (65 %)", &bearer, api("state=in_progress")),
        ("state resolved (5 %)", &bearer, api("state=resolved")),
        ("state evaluated (none)", &bearer, api("state=evaluated")),
        ("due from tomorrow on", &bearer, api(&format!("due_from={tomorrow}"))),
        (
            "due from tomorrow on, resolved",
            &bearer,
            api(&format!("due_from={tomorrow}&state=resolved")),
        ),
        ("closed", &bearer, api("state=closed")),
        ("closed, unit (3 %)", &bearer, api(&format!("state=closed&{}", unit(7)))),
        ("closed, unit that had none", &bearer, api(&format!("state=closed&{}", unit(21)))),
        ("closed, deep", &bearer, api(&format!("state=closed&after={closed_deep}"))),
        ("closed, level 5 (1 %)", &bearer, api("state=closed&level=5")),
        ("desk: to do today", &cookie, desk("today")),
        ("desk: overdue", &cookie, desk("overdue")),
        ("desk: soon", &cookie, desk("soon")),
        ("desk: unclaimed (30 %)", &cookie, desk("unclaimed")),
        ("desk: mine (3 %)", &cookie, desk("mine")),
        ("desk: resolved (5 %)", &cookie, desk("resolved")),
        ("desk: all", &cookie, desk("all")),
        ("desk: closed", &cookie, desk("closed")),
    ];
    for (name, head, paths) in cases {
        rows.push(cell(gateway.address, name, head, paths, plan.cell / 4).await);
    }
    for state in if words_too { &["open", "closed"][..] } else { &[] } {
        for (class, words) in words() {
            let path = |words| format!("/api/v1/tickets?state={state}&q={}", percent(words));
            let paths = words.iter().map(|words| path(words)).collect();
            let name = format!("{state}: {class}");
            rows.push(cell(gateway.address, &name, &bearer, paths, plan.cell / 4).await);
        }
    }
    let mut result = json!({ "tickets": size, "cells": rows });
    if words_too {
        let lag = lag_ms(&gateway, &token, &pool).await;
        println!("{:>34} {lag:>10.0}", "found after, ms");
        result["entered_per_s"] = json!(size as f64 / entered_s);
        result["wal_bytes_per_ticket"] = json!(wal_bytes);
        result["found_after_ms"] = json!(lag);
    }
    gateway.stop(false).await;
    result
}

/// What is looked for, by how common it is.
fn words() -> Vec<(&'static str, Vec<String>)> {
    let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    let pairs = |of: &str, count: usize| -> Vec<String> {
        let all: Vec<char> = of.chars().collect();
        (0..count)
            .map(|n| [all[n * 7 % all.len()], all[n * 11 % all.len()]].iter().collect())
            .collect()
    };
    vec![
        ("the commonest words (12 %)", texts(&["希望", "反映", "部门", "谢谢", "答复", "邻居"])),
        ("common words (5 %)", texts(&["路灯", "电梯", "暖气", "低保", "井盖", "退休"])),
        ("words in 1 of 1,000", pairs(PLACES, 30)),
        ("given names, 1 of 10,000", pairs(NAMES, 30)),
        ("words that are nowhere", texts(&["魍魉", "饕餮", "耄耋", "龃龉"])),
        ("four characters", texts(&["路灯不亮", "下水道堵", "没有到账", "电梯坏了"])),
        ("one character", texts(&["灯", "梅", "热", "柳"])),
        ("last four of a telephone", (0..30).map(|n| format!("{:04}", n * 331 + 17)).collect()),
        (
            "a telephone",
            (1..30).map(|n| format!("139{:08}", n * 100 * 7919 % 100_000_000)).collect(),
        ),
    ]
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Two connections that ask one after the other.
async fn cell(
    address: SocketAddr,
    name: &str,
    head: &str,
    paths: Vec<String>,
    cell: Duration,
) -> Value {
    const CONNECTIONS: usize = 2;
    let paths = Arc::new(paths);
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        let (paths, head) = (Arc::clone(&paths), head.to_owned());
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut latencies = Vec::new();
            // Plans are made and pages are read before anything counts.
            let warm = Instant::now() + cell / 5;
            let until = warm + cell;
            for n in connection.. {
                let asked = Instant::now();
                if asked >= until {
                    break;
                }
                get(&mut stream, &paths[n % paths.len()], &head).await;
                if asked >= warm {
                    latencies.push(asked.elapsed());
                }
            }
            latencies
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies.sort_unstable();
    let p95 = latencies[(latencies.len() - 1) * 95 / 100].as_secs_f64() * 1000.0;
    let per_second = latencies.len() as f64 / cell.as_secs_f64();
    let figures = Figures::of(latencies, per_second);
    println!("{name:>34} {:>10.2} {p95:>10.2} {:>10.2}", figures.p50_ms, figures.p99_ms);
    json!({ "list": name, "figures": figures, "p95_ms": p95 })
}

/// Asks and reads the answer whole.
async fn get(stream: &mut TcpStream, path: &str, head: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n{head}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = Vec::with_capacity(65536);
    loop {
        let read = stream.read_buf(&mut buffer).await.unwrap();
        assert!(read > 0, "the gateway closed the connection");
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let text = std::str::from_utf8(&buffer[..end]).unwrap().to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap().parse().unwrap();
        if buffer.len() >= end + 4 + length {
            assert_eq!(&text[9..12], "200", "{path}");
            return String::from_utf8(buffer.split_off(end + 4)).unwrap();
        }
    }
}

/// From the commit of a message that an old ticket grows by until it is found.
async fn lag_ms(gateway: &Gateway, token: &str, pool: &PgPool) -> f64 {
    const ROUNDS: i32 = 5;
    let mut latest: f64 = 0.0;
    let head = format!("Authorization: Bearer {token}");
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    for round in 0..ROUNDS {
        sqlx::query(
            "WITH t AS (
                 UPDATE ticket SET events = 2 + $1 WHERE (office_id, ticket) = (
                     SELECT office_id, ticket FROM ticket WHERE is_open
                     ORDER BY urgency DESC, due_at DESC LIMIT 1) RETURNING office_id, ticket)
             INSERT INTO message SELECT office_id, ticket, 2 + $1, now(), now(),
                 '补充：附近还有獬豸' || $1, NULL, '' FROM t",
        )
        .bind(round)
        .execute(pool)
        .await
        .unwrap();
        let began = Instant::now();
        let path = format!("/api/v1/tickets?q={}", percent(&format!("獬豸{round}")));
        let mut turn = tokio::time::interval(Duration::from_millis(10));
        while !get(&mut stream, &path, &head).await.contains("\"number\"") {
            turn.tick().await;
            assert!(began.elapsed() < Duration::from_secs(60), "it is never found");
        }
        latest = latest.max(began.elapsed().as_secs_f64() * 1000.0);
    }
    latest
}

async fn until_entered(pool: &PgPool, size: i64) {
    let mut turn = tokio::time::interval(Duration::from_millis(50));
    loop {
        turn.tick().await;
        let entered: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(last - first + 1), 0)::bigint FROM search_progress",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        if entered >= size {
            return;
        }
    }
}

/// A program's token and an officer's session.
async fn callers(pool: &PgPool) -> (String, String) {
    let mut db = pool.acquire().await.unwrap();
    let (token, cookie) = (secret::token(), secret::token());
    let scopes = ["tickets:read".to_owned()];
    let digest = secret::digest(&token);
    store::access::put_api_token(&mut db, OfficeId(1), "bench", &digest, &scopes).await.unwrap();
    let staff = NewStaff {
        login: "officer",
        name: "赵敏",
        role: Role::DutyOfficer,
        unit: None,
        email: None,
        mobile: None,
        password_hash: "",
    };
    store::office::put_staff(&mut db, OfficeId(1), &staff).await.unwrap();
    sqlx::query(
        "INSERT INTO desk_session (office_id, token_digest, staff_id, csrf, created_at, seen_at)
         SELECT 1, $1, staff_id, 'x', now(), now() FROM staff",
    )
    .bind(secret::digest(&cookie).as_slice())
    .execute(pool)
    .await
    .unwrap();
    (token, cookie)
}

/// Tickets with their first messages; what no list reads (events, timers, outbox) is left out.
async fn fill(pool: &PgPool, size: i64) {
    const CHUNK: i64 = 100_000;
    let list = |texts: &[&str]| {
        let quoted: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
        format!("(ARRAY[{}])", quoted.join(","))
    };
    let pick = |texts: &[&str], random: &str| {
        format!("{}[1 + ({random} * {})::int % {}]", list(texts), texts.len() * 1000, texts.len())
    };
    let letter = |of: &str, random: &str| {
        let count = of.chars().count();
        format!("substr('{of}', 1 + ({random} * {})::int % {count}, 1)", count * 1000)
    };
    let text = format!(
        "{} || {} || {} || '路' || (random() * 200)::int || '号' || {} || '，' || {} || '，' || {}",
        pick(&BEGINNINGS, "random()"),
        letter(PLACES, "random()"),
        letter(PLACES, "random()"),
        pick(&["的住户", "对面的商户", "的租户", "旁边"], "random()"),
        pick(&MATTERS, "random()"),
        pick(&WISHES, "random()"),
    );
    let name = format!(
        "{} || {} || {}",
        letter(SURNAMES, "random()"),
        letter(NAMES, "random()"),
        letter(NAMES, "random()")
    );
    sqlx::raw_sql("SELECT setseed(0.5)").execute(pool).await.unwrap();
    for first in (1..=size).step_by(CHUNK as usize) {
        let last = (first + CHUNK - 1).min(size);
        let statement = format!(
            "WITH one AS MATERIALIZED (
                 SELECT n::bigint, 2026000000000 + n AS ticket, n % 100 = 0 AS is_open,
                        {text} AS text, {name} AS name, random() AS a, random() AS b, random() AS c,
                        random() AS d
                 FROM generate_series({first}, {last}) n
             ), tickets AS (
                 INSERT INTO ticket (office_id, ticket, channel, state, outcome, level, urgency, problem,
                     citizen_name, citizen_phone, registered_at, accepted_at, due_at, provisional,
                     calendar_version, accountable, unit, events, chain)
                 SELECT 1, ticket,
                     CASE WHEN a < 0.6 THEN 'wechat' WHEN a < 0.85 THEN 'hotline'
                          WHEN a < 0.98 THEN 'counter' ELSE 'window_phone' END,
                     CASE WHEN NOT is_open THEN 'closed' WHEN b < 0.3 THEN 'registered'
                          WHEN b < 0.35 THEN 'resolved' ELSE 'in_progress' END,
                     CASE WHEN NOT is_open THEN 'solved' END,
                     CASE WHEN c < 0.01 THEN 5 WHEN c < 0.06 THEN 3 ELSE 1 END,
                     CASE WHEN d < 0.002 THEN 0 ELSE 1 END, left(text, 80), name,
                     '139' || lpad((n * 7919 % 100000000)::text, 8, '0'),
                     now() - interval '7 days', now() - interval '7 days',
                     now() - interval '12 hours' + d * interval '5 days', false, 1,
                     CASE WHEN b >= 0.3 THEN 1 + (d * 30000)::int % 30 END,
                     CASE WHEN b >= 0.35 THEN 1 + (d * 20000)::int % 20 END, 1, sha256('x')
                 FROM one
             )
             INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, raw)
             SELECT 1, ticket, 1, now(), now(), text, text::bytea FROM one"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    }
    let register = format!(
        "INSERT INTO register VALUES (1, 2026, {size});
         INSERT INTO unit SELECT 1, n, '股室' || n FROM generate_series(1, 21) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(register)).execute(pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE").execute(pool).await.unwrap();
    sqlx::raw_sql("CHECKPOINT").execute(pool).await.unwrap();
}
