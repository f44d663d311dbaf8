//! What sources say is compared with what is here, brought in and told; what an exchange says in other
//! ways than files; what is old goes.

use crate::{
    calls::{
        BASIC, FIXTURES, Spool, VERIFY, a_minute_later, calls_of, capture, delivered, folder,
        freeswitch, night, push, source, tickets, vendor, wav,
    },
    desk::Desk,
    media::TICKET,
    support::{Spec, TestGateway, at, number, sql},
};
use axum::{
    Json, Router,
    extract::{Query, State},
    routing::{get, post},
};
use chrono::TimeDelta;
use intake_gateway::{
    calls::{
        self,
        reconcile::{Repair, reconcile},
        scan::Seen,
    },
    housekeeping,
    store::reconcile::Outcome,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

async fn compared(gateway: &TestGateway, name: &str, repair: Repair) -> Outcome {
    reconcile(&gateway.app, &source(gateway, name), 3, repair).await.unwrap()
}

/// Told there (-1: cannot be compared), held here, repaired, missing, differs.
fn counts(outcome: &Outcome) -> [i32; 5] {
    let Outcome { told, held, repaired, missing, differs, .. } = outcome;
    [told.unwrap_or(-1), *held, *repaired, *missing, *differs]
}

/// Late enough that nothing of the captures' night is still on its way.
fn next_night() -> Spec {
    Spec::at(at("2026-11-24 02:31"))
}

async fn run_sql(gateway: &TestGateway, text: &str) {
    sql(&mut gateway.pool.acquire().await.unwrap(), text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_a_spool_and_is_not_here_is_brought_in_and_then_all_is_well() {
    let spool = Spool::new();
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    spool.put("12333", "msg0001", "12333_msg0002.txt");
    let csv = format!("cdr_csv = '{FIXTURES}/asterisk/cdr.csv'\nzone = 'UTC'");
    let gateway = next_night().with(&spool.settings(&csv)).start().await;
    let look = async |repair| counts(&compared(&gateway, "hotline:ast", repair).await);
    assert_eq!(look(Repair::No).await, [12, 0, 0, 12, 0]);
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (0, 0), "nothing was changed");
    assert_eq!(look(Repair::Yes).await, [12, 0, 12, 0, 0]);
    gateway.clock.set(at("2026-11-24 02:32"));
    assert_eq!(look(Repair::Yes).await, [12, 12, 0, 0, 0]);
    a_minute_later(&gateway).await;
    // The spool's own look finds nothing that is new.
    let (before, asterisk) = (tickets(&gateway).await, source(&gateway, "hotline:ast"));
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (12, before));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM reconciliation").await, 2);
    let metrics = gateway.metrics().await;
    assert!(metrics.contains(r#"calls_reconciled_total{result="repaired"} "#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_taken_from_its_folder_and_is_not_here_is_brought_in() {
    let folder = folder();
    let name = "a_a2150427-c1fb-4761-8c8d-611ff7aa1992.cdr.json";
    fs::write(folder.join(format!("{name}.taken")), capture("001_json_cdr.body")).unwrap();
    fs::write(folder.join(name.replace("a_a2", "a_b2")), "{").unwrap();
    let settings = freeswitch(&format!("err_log_dir = '{}'", folder.display()));
    let gateway = next_night().with(&settings).start().await;
    let outcome = compared(&gateway, "hotline:fs", Repair::Yes).await;
    assert_eq!(counts(&outcome), [1, 0, 1, 1, 0]);
    assert_eq!(outcome.says.unwrap(), "1 could not be read and wait in the quarantine");
    assert_eq!(calls_of(&gateway).await, 1);
    let waits = "SELECT count(*) FROM quarantine WHERE state = 'open' AND reason = 'bad_json'";
    assert_eq!(number(&gateway.pool, waits).await, 1);
    // Once somebody has dealt with it, it is missing no more.
    run_sql(&gateway, "UPDATE quarantine SET state = 'discarded'").await;
    gateway.clock.set(at("2026-11-24 02:32"));
    let outcome = compared(&gateway, "hotline:fs", Repair::Yes).await;
    assert_eq!((counts(&outcome), outcome.says), ([1, 1, 0, 0, 0], None));
    // A folder that is gone cannot say that all is well.
    fs::remove_dir_all(&folder).unwrap();
    let outcome = compared(&gateway, "hotline:fs", Repair::Yes).await;
    assert_eq!(counts(&outcome), [-1, 0, 0, 1, 0]);
    assert!(outcome.says.unwrap().ends_with("is not there"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_told_otherwise_than_it_is_held_is_for_a_person() {
    let folder = folder();
    let name = "a_a2150427-c1fb-4761-8c8d-611ff7aa1992.cdr.json";
    let other = String::from_utf8(capture("001_json_cdr.body")).unwrap();
    let other = other.replace("13700000002", "13700000009");
    fs::write(folder.join(format!("{name}.taken")), other).unwrap();
    let settings = freeswitch(&format!("err_log_dir = '{}'", folder.display()));
    let gateway = next_night().with(&settings).start().await;
    push(&gateway, capture("001_json_cdr.body")).await;
    let outcome = compared(&gateway, "hotline:fs", Repair::Yes).await;
    assert_eq!(counts(&outcome), [1, 1, 0, 0, 1]);
    let kept = "SELECT count(*) FROM call WHERE caller = '+8613700000002'";
    assert_eq!(number(&gateway.pool, kept).await, 1, "the first one stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_its_ticket_and_a_file_that_never_came_are_found() {
    let gateway = night().with(&freeswitch("audio.days = 1")).start().await;
    push(&gateway, delivered(&"1".repeat(36), "13900001234", "/x/msg.wav")).await;
    push(&gateway, delivered(&"2".repeat(36), "13900005678", "/x/msg.wav")).await;
    assert_eq!(tickets(&gateway).await, 2);
    // As after a fault of the program: nobody looks at this call any more.
    run_sql(
        &gateway,
        "UPDATE call_recording SET ticket = NULL, seq = NULL WHERE call_key LIKE '1%'",
    )
    .await;
    run_sql(&gateway, "UPDATE call SET ticket = NULL WHERE call_key LIKE '1%'").await;
    gateway.clock.set(at("2026-11-25 02:31"));
    let outcome = compared(&gateway, "hotline:fs", Repair::No).await;
    assert_eq!(counts(&outcome), [-1, 2, 0, 1, 0]);
    let outcome = compared(&gateway, "hotline:fs", Repair::Yes).await;
    assert_eq!(counts(&outcome), [-1, 2, 1, 0, 0]);
    assert_eq!(tickets(&gateway).await, 2, "it found its ticket again");
    let waiting = "SELECT count(*) FROM call_recording WHERE state = 'announced'";
    assert_eq!(number(&gateway.pool, waiting).await, 0);
    assert!(outcome.says.unwrap().contains("2 recordings never came"));
    // What is gone cannot be brought back.
    run_sql(&gateway, "UPDATE call_recording SET seq = 99 WHERE call_key LIKE '2%'").await;
    gateway.clock.set(at("2026-11-25 02:32"));
    let outcome = compared(&gateway, "hotline:fs", Repair::Yes).await;
    assert_eq!(counts(&outcome), [-1, 2, 0, 1, 0]);
}

/// A Yeastar exchange: gives a token for the right password, and its list for the token.
async fn exchange(rows: Value) -> (String, Arc<AtomicBool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let breaks = Arc::new(AtomicBool::new(false));
    let login = async |Json(given): Json<Value>| {
        let right = given == json!({ "username": "client", "password": "secret \"0\"" });
        let token = if right { "tok/en" } else { "" };
        Json(json!({ "errcode": 0, "access_token": token }))
    };
    let list = async move |State(breaks): State<Arc<AtomicBool>>,
                           Query(asked): Query<HashMap<String, String>>| {
        if breaks.load(Ordering::SeqCst) {
            return Json(json!({ "errcode": 10004, "errmsg": "TOKEN EXPIRED" }));
        }
        assert_eq!(asked["access_token"], "tok/en");
        let (page, size): (usize, usize) =
            (asked["page"].parse().unwrap(), asked["page_size"].parse().unwrap());
        let all = rows.as_array().unwrap();
        let page: Vec<&Value> = all.iter().skip((page - 1) * size).take(size).collect();
        Json(json!({ "errcode": 0, "total_number": all.len(), "data": page }))
    };
    let link = async |Query(asked): Query<HashMap<String, String>>| {
        assert_eq!(asked["access_token"], "tok/en");
        let url = match asked["file"].as_str() {
            "away.wav" => "//127.0.0.1:9/x.wav".to_owned(),
            name => format!("/api/download/{name}"),
        };
        Json(json!({ "errcode": 0, "file": asked["file"], "download_resource_url": url }))
    };
    let file = async |Query(asked): Query<HashMap<String, String>>| {
        if asked["access_token"] == "tok/en" { wav() } else { Vec::new() }
    };
    let router = Router::new()
        .route("/openapi/v1.0/get_token", post(login))
        .route("/openapi/v1.0/cdr/list", get(list))
        .route("/openapi/v1.0/recording/download", get(link))
        .route("/api/download/a%26b.wav", get(file))
        .route("/api/download/{name}", get(file))
        .with_state(Arc::clone(&breaks));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, breaks)
}

fn row(uid: &str, from: &str, at: i64, disposition: &str) -> Value {
    json!({ "uid": uid, "call_from": from, "call_to": "8001", "timestamp": at, "duration": 20,
        "disposition": disposition, "call_type": "Inbound", "did_number": "12333", "record_file": "" })
}

fn yeastar(url: &str, more: &str) -> String {
    format!(
        "[[hotline]]\noffice = 'tieling'\nid = 'yeastar'\nkind = 'vendor'\nmapping = 'yeastar-p'\n{VERIFY}\n\
         pull = {{ base_url = '{url}', user = 'client', password = 'secret \"0\"'{more} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendors_own_list_brings_in_the_push_that_never_came() {
    // 23:40 of the night; three pages of older ones behind, of which only the first is asked for.
    let began = 1_795_448_400;
    let mut rows = vec![
        row("u2", "13900005678", began + 60, "NO ANSWER"),
        row("u1", "13900001234", began, "VOICEMAIL"),
    ];
    rows.extend(
        (0..300)
            .map(|n| row(&format!("old{n}"), "13900009999", began - 10 * 86_400 - n, "NO ANSWER")),
    );
    let (url, breaks) = exchange(Value::Array(rows)).await;
    let gateway = next_night().with(&yeastar(&url, ", inside = true")).start().await;
    // One of the two was pushed, under the exchange's other name for it.
    let msg = json!({ "call_id": "1795448400.1", "uid": "u1", "time_start": "2026-11-23 23:40:02",
        "call_from": "13900001234", "call_to": "8001", "status": "VOICEMAIL", "type": "Inbound" });
    let event = json!({ "type": 30012, "sn": "3631A2124001", "msg": msg.to_string() });
    let pushed =
        gateway.post("/channels/hotline/yeastar", &[BASIC], event.to_string().into()).await;
    assert_eq!(pushed.status, 200);
    let look = async || counts(&compared(&gateway, "hotline:yeastar", Repair::Yes).await);
    assert_eq!(look().await, [2, 1, 2, 0, 0], "one was missing, one lacked its number's line");
    assert_eq!(look().await, [2, 2, 0, 0, 0]);
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, 2));
    breaks.store(true, Ordering::SeqCst);
    let outcome = compared(&gateway, "hotline:yeastar", Repair::Yes).await;
    assert_eq!(counts(&outcome), [-1, 0, 0, 1, 0]);
    assert_eq!(outcome.says.unwrap(), "page 1 of its list: unknown_form");
}

/// A call as the exchange pushes it; without `uid` where that is empty.
async fn event(gateway: &TestGateway, call_id: &str, uid: &str, from: &str, recording: &str) {
    let mut msg = json!({ "call_id": call_id, "time_start": "2026-11-23 23:40:02", "call_from": from,
        "call_to": "8001", "did_number": "12333", "call_duration": 20, "status": "VOICEMAIL",
        "type": "Inbound", "recording": recording });
    if !uid.is_empty() {
        msg["uid"] = uid.into();
    }
    let event = json!({ "type": 30012, "sn": "3631A2124001", "msg": msg.to_string() });
    let path = "/channels/hotline/yeastar";
    let pushed = gateway.post(path, &[BASIC], event.to_string().into()).await;
    assert_eq!(pushed.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_list_and_a_push_name_differently_is_one_call_whichever_came_first() {
    let began = 1_795_448_400;
    let rows = json!([
        row("u1", "13900001234", began + 60, "VOICEMAIL"),
        row("u2", "anonymous", began, "VOICEMAIL"),
        row("u3", "anonymous", began, "VOICEMAIL"),
        row("u4", "13900005678", began + 2, "VOICEMAIL"),
    ]);
    let (url, _) = exchange(rows).await;
    for list_first in [false, true] {
        let gateway = next_night().with(&yeastar(&url, ", inside = true")).start().await;
        let pushes = async || {
            // A minute apart, and the same by its identity; two who hide the number, of whom one has
            // none; one that only caller and moment tell.
            event(&gateway, "1795448400.1", "u1", "13900001234", "").await;
            event(&gateway, "1795448400.2", "u2", "anonymous", "").await;
            event(&gateway, "1795448400.3", "", "anonymous", "").await;
            event(&gateway, "1795448400.4", "", "13900005678", "").await;
        };
        let look = async || compared(&gateway, "hotline:yeastar", Repair::Yes).await;
        if list_first {
            assert_eq!(counts(&look().await), [4, 0, 4, 0, 0]);
        }
        pushes().await;
        pushes().await;
        assert_eq!(calls_of(&gateway).await, 4, "{list_first}");
        gateway.clock.set(at("2026-11-24 02:32"));
        look().await;
        gateway.clock.set(at("2026-11-24 02:33"));
        assert_eq!(counts(&look().await), [4, 4, 0, 0, 0], "{list_first}");
        a_minute_later(&gateway).await;
        assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (4, 4), "{list_first}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_that_only_the_vendor_gives_are_asked_for_or_said_to_be_there() {
    let (url, _) = exchange(json!([])).await;
    let settings = yeastar(&url, ", inside = true");
    let gateway = next_night().with(&settings).start().await;
    event(&gateway, "1795448400.1", "u1", "13900001234", "a&b.wav").await;
    event(&gateway, "1795448400.2", "u2", "13900005678", "away.wav").await;
    while gateway.app.fetcher.step().await.unwrap() {}
    let of = async |state: &str| {
        let query = format!("SELECT count(*) FROM call_recording WHERE state = '{state}'");
        number(&gateway.pool, &query).await
    };
    assert_eq!((of("stored").await, of("announced").await), (1, 1));
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert!(desk.get(TICKET).await.text().contains("<audio"));
    // Without the exchange's interface, and of a vendor whose requests nobody here can sign.
    let bare = settings.lines().filter(|line| !line.starts_with("pull")).collect::<Vec<_>>();
    let gateway = next_night().with(&bare.join("\n")).start().await;
    event(&gateway, "1795448400.1", "u1", "13900001234", "a.wav").await;
    assert!(!gateway.app.fetcher.step().await.unwrap());
    let desk = Desk::login(&gateway, "zhao.min").await;
    let says = "录音在电话系统里，本系统取不到。请到电话交换机或服务商的控制台收听";
    let page = desk.get(TICKET).await.text();
    assert!(page.contains(says), "{page}");
    gateway.clock.set(at("2026-11-28 02:32"));
    compared(&gateway, "hotline:yeastar", Repair::Yes).await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert!(desk.get(TICKET).await.text().contains(says), "nor is it waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_list_that_cannot_be_read_are_put_aside_and_missing() {
    let began = 1_795_448_400;
    let rows = json!([
        row("", "13900005678", began, "VOICEMAIL"),
        row("u1", "13900001234", began, "BUSY")
    ]);
    let (url, _) = exchange(rows).await;
    let gateway = next_night().with(&yeastar(&url, ", inside = true")).start().await;
    let waits = "SELECT count(*) FROM quarantine WHERE state = 'open'";
    let outcome = compared(&gateway, "hotline:yeastar", Repair::No).await;
    assert_eq!(outcome.says.as_deref(), Some("1 could not be read"));
    assert_eq!(number(&gateway.pool, waits).await, 0);
    for (repaired, held) in [(1, 0), (0, 1)] {
        let outcome = compared(&gateway, "hotline:yeastar", Repair::Yes).await;
        assert_eq!(counts(&outcome), [1, held, repaired, 1, 0]);
        assert_eq!(outcome.says.unwrap(), "1 could not be read and wait in the quarantine");
        assert_eq!(number(&gateway.pool, waits).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_asked_for_at_its_own_host_with_its_own_password_only() {
    let (url, _) = exchange(json!([])).await;
    let wrong = yeastar(&url, ", inside = true").replace("secret \"0\"", "another one");
    let gateway = next_night().with(&wrong).start().await;
    let outcome = compared(&gateway, "hotline:yeastar", Repair::Yes).await;
    let says = outcome.says.unwrap();
    assert_eq!((outcome.missing, says.as_str()), (1, "it gave no token: user or password?"));
    let nobody = yeastar("http://127.0.0.1:9", ", inside = true");
    let gateway = next_night().with(&nobody).start().await;
    let outcome = compared(&gateway, "hotline:yeastar", Repair::Yes).await;
    assert_eq!(outcome.says.unwrap(), "its list: the host does not answer");
    // A name of the world that leads inside is not followed.
    let inside = yeastar("https://127.0.0.1:9", "");
    let gateway = next_night().with(&inside).start().await;
    let outcome = compared(&gateway, "hotline:yeastar", Repair::Yes).await;
    assert_eq!(outcome.says.unwrap(), "its list: an address inside the network");
}

#[test]
fn settings_of_a_list_that_cannot_be_asked_for_are_refused() {
    let refused = |settings: &str| {
        let text = format!("database_url = 'postgres://x'\nredis_url = 'redis://x'\n{settings}");
        intake_gateway::config::Config::from_toml(&text).expect_err("refused").to_string()
    };
    let says = refused(&yeastar("http://pbx.example", ""));
    assert!(says.contains("hotline[0].pull.base_url is http"), "{says}");
    let says = refused(&yeastar("https://pbx.example/api", ""));
    assert!(says.contains("hotline[0].pull.base_url must be a host's address"), "{says}");
    let says = refused(&yeastar("https://pbx.example", "").replace("yeastar-p", "tencent-tccc"));
    assert!(says.contains("hotline[0].pull has no use"), "{says}");
    let none = yeastar("https://pbx.example", "")
        .replace(", user = 'client', password = 'secret \"0\"'", "");
    let says = refused(&none);
    assert!(says.contains("hotline[0].pull.user is missing"), "{says}");
    let says = refused("[calls]\nreconcile_at = '25:00'");
    assert!(says.contains("calls.reconcile_at must be a time of day"), "{says}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_night_one_replica_compares_and_the_morning_digest_says_what_came_in() {
    let spool = Spool::new();
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    let settings = format!("{}\n{}", spool.settings(""), freeswitch(""));
    let one = night().with(&settings).start().await;
    let two = night().with(&settings).on(&one.database_url).start().await;
    // 23:46: that of this morning was not done by anybody.
    assert_eq!(calls::reconcile::step(&one.app, "one").await.unwrap().len(), 3);
    assert!(calls::reconcile::step(&two.app, "two").await.unwrap().is_empty());
    push(&one, delivered(&"1".repeat(36), "13900005678", "/x/msg.wav")).await;
    push(&one, capture("001_json_cdr.body")).await;
    a_minute_later(&one).await;
    for gateway in [&one, &two] {
        gateway.clock.set(at("2026-11-24 02:30"));
    }
    let outcomes = futures::future::join_all([
        calls::reconcile::step(&one.app, "one"),
        calls::reconcile::step(&two.app, "two"),
    ]);
    let done: usize = outcomes.await.into_iter().map(|all| all.unwrap().len()).sum();
    assert_eq!(done, 3, "each source once");
    one.clock.set(at("2026-11-24 08:30") + TimeDelta::seconds(6));
    two.clock.set(one.clock.now());
    one.app.relay.step().await.unwrap();
    two.app.relay.step().await.unwrap();
    let lines = "SELECT count(*) FROM notice, unnest(lines) AS line WHERE line LIKE ";
    let said = async |line: &str| number(&one.pool, &format!("{lines}'{line}'")).await;
    assert_eq!(said("下班期间电话：留言 2 通，未接 1 通；待回拨 3 件%").await, 1);
    assert_eq!(said("电话对账：有 1 通当时没有收到，已经补上。").await, 1);
    assert_eq!(number(&one.pool, "SELECT count(*) FROM notice WHERE audience = 'duty'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_late_of_the_closed_hours_is_in_the_next_digest_and_in_no_other() {
    let gateway = night().with(&freeswitch("")).start().await;
    let digest = async |moment: &str| {
        gateway.clock.set(at(moment) + TimeDelta::seconds(6));
        gateway.app.relay.step().await.unwrap();
        let said =
            "SELECT count(*) FROM notice, unnest(lines) AS line WHERE line LIKE '下班期间电话%'";
        number(&gateway.pool, said).await
    };
    assert_eq!(digest("2026-11-24 08:30").await, 0);
    // Nobody was up in the night; the exchange tells of it in the morning, and of a call of just now.
    gateway.clock.set(at("2026-11-24 09:10"));
    push(&gateway, delivered(&"1".repeat(36), "13900005678", "/x/msg.wav")).await;
    push(&gateway, capture("001_json_cdr.body")).await;
    let now = String::from_utf8(delivered(&"2".repeat(36), "13900009999", "/x/msg.wav")).unwrap();
    push(&gateway, now.replace("17954487", "17954820").into_bytes()).await;
    a_minute_later(&gateway).await;
    assert_eq!(tickets(&gateway).await, 3);
    assert_eq!(digest("2026-11-24 13:00").await, 1);
    let said = "SELECT count(*) FROM notice, unnest(lines) AS line \
                WHERE line LIKE '下班期间电话：留言 1 通，未接 1 通%'";
    assert_eq!(number(&gateway.pool, said).await, 1);
    assert_eq!(digest("2026-11-25 08:30").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_asterisk_posts_and_the_spool_make_one_call() {
    let record = "Event: Cdr\r\nSource: 13900001234\r\nDestination: 12333\r\nCallerID: \"13900001234\" <13900001234>\r\nChannel: SIP/127.0.0.1-00000000\r\nDestinationChannel: \r\nLastApplication: VoiceMail\r\nStartTime: 2026-11-23 15:11:46\r\nEndTime: 2026-11-23 15:12:08\r\nDuration: 22\r\nDisposition: ANSWERED\r\nUniqueID: 1795446706.0\r\n\r\n";
    let settings = format!("zone = 'UTC'\n{VERIFY}");
    for record_first in [true, false] {
        let spool = Spool::new();
        let gateway = night().with(&spool.settings(&settings)).start().await;
        let asterisk = source(&gateway, "hotline:ast");
        let post = async |body: &str| {
            let answer = gateway.post("/channels/hotline/ast", &[BASIC], body.into()).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        };
        let mut seen = Seen::new();
        if record_first {
            post(record).await;
        }
        spool.put("12333", "msg0000", "12333_msg0000.txt");
        calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap();
        post(record).await;
        post(record).await;
        a_minute_later(&gateway).await;
        assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1), "{record_first}");
        let whole = "SELECT count(*) FROM call WHERE outcome = 'message_left' AND facts ->> 'call_s' = '22'";
        assert_eq!(number(&gateway.pool, whole).await, 1);
        // One who hung up in the greeting, by the form that the dialplan sends; and silence over ARI.
        post("Event=Cdr&UniqueID=1795446870.7&Source=13700000002&Destination=12333&Channel=SIP%2F127.0.0.1-00000007&StartTime=2026-11-23+15%3A14%3A30&EndTime=2026-11-23+15%3A14%3A32&Disposition=ANSWERED").await;
        post(r#"{"type":"RecordingFinished","timestamp":"2026-11-23T15:15:50.450+0000","recording":{"name":"vm-1795446940.10","format":"wav","state":"done","target_uri":"channel:1795446940.10","duration":8,"talking_duration":0,"silence_duration":8}}"#).await;
        a_minute_later(&gateway).await;
        let missed = "SELECT count(*) FROM call WHERE ticket IS NOT NULL AND outcome = ";
        assert_eq!(number(&gateway.pool, &format!("{missed}'gave_up'")).await, 1);
        assert_eq!(number(&gateway.pool, &format!("{missed}'silent'")).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_makes_the_gateway_look_at_once_and_a_wrong_one_is_told() {
    let spool = Spool::new();
    let settings = spool.settings("scan_every_s = 3600");
    let gateway = night().role(intake_gateway::gateway::Role::All).with(&settings).start().await;
    let intake = |arguments: &[&str]| {
        let ops = gateway.ops.trim_start_matches("http://").to_owned();
        let done = Command::new(env!("CARGO_BIN_EXE_intake"))
            .args(["hotline", "scan", "--ops", &ops])
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    // As Asterisk calls it.
    let said = intake(&["--source", "ast", "default", "12333", "1", "0", "0"]);
    assert_eq!(said, (Some(0), String::new()));
    crate::support::until("the message is taken", async || calls_of(&gateway).await == 1).await;
    let (code, says) = intake(&["--source", "pbx1"]);
    assert_eq!((code, says.as_str()), (Some(1), "intake: pbx1: this source has no folders\n"));
    let (code, says) = intake(&["--source", "asterisk"]);
    let expected = "intake: asterisk: no such source; with folders there are: ast\n";
    assert_eq!((code, says.as_str()), (Some(1), expected));
    let (code, says) = intake(&["--source", "../readyz"]);
    assert_eq!(code, Some(1));
    assert!(says.contains("--source is an id"), "{says}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_it_found_and_whether_that_was_all() {
    let spool = Spool::new();
    let gateway = night().start().await;
    let file = spool.root.join("intake.toml");
    let text = format!(
        "database_url = '{}'\nredis_url = '{}'\n[schedule]\nprefix = 'cmd'\n{}\n{}\n{}",
        gateway.database_url,
        crate::support::redis_url(),
        spool.settings("missed_calls = 'off'"),
        freeswitch("err_log_dir = '/nowhere/at/all'"),
        yeastar("http://127.0.0.1:9", ", inside = true")
    );
    fs::write(&file, text).unwrap();
    let intake = |arguments: &[&str]| {
        let done = Command::new(env!("CARGO_BIN_EXE_intake"))
            .arg("--config")
            .arg(&file)
            .args(["hotline", "reconcile"])
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (code, table, _) = intake(&["--source", "ast"]);
    let line = table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!((code, line), (Some(0), vec!["hotline:ast", "0", "0", "0", "0", "0"]), "{table}");
    let (code, table, _) = intake(&["--dry-run", "--days", "1"]);
    assert_eq!(code, Some(1));
    assert!(table.contains("/nowhere/at/all is not there"), "{table}");
    // By a process that has nothing to send but this.
    assert!(table.contains("its list: the host does not answer"), "{table}");
    let (code, _, says) = intake(&["--source", "pbx9"]);
    assert_eq!(code, Some(1));
    assert!(
        says.contains("there is no source pbx9 in the configuration; there are: ast, fs, yeastar"),
        "{says}"
    );
    let (code, _, says) = intake(&["--days", "0"]);
    assert_eq!(code, Some(2));
    assert!(says.contains("0 is not in 1..=30"), "{says}");
}

#[tokio::test(flavor = "multi_thread")]
async fn originals_go_after_a_while_unless_something_is_still_to_be_done() {
    let settings = format!("calls.keep_originals_days = 10\n{}\n{}", freeswitch(""), vendor());
    let gateway = night().with(&settings).start().await;
    push(&gateway, delivered(&"1".repeat(36), "13900001234", "/x/msg.wav")).await;
    push(&gateway, capture("001_json_cdr.body")).await;
    a_minute_later(&gateway).await;
    // Of this call something is still to be done.
    push(&gateway, delivered(&"2".repeat(36), "13900005678", "/x/msg.wav")).await;
    run_sql(&gateway, "UPDATE call SET settle_at = '2027-01-01' WHERE call_key LIKE '2%'").await;
    let parts = "SELECT count(*) FROM call_part";
    gateway.clock.set(at("2026-12-03 23:00"));
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, parts).await, 3);
    gateway.clock.set(at("2026-12-04 00:00"));
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(number(&gateway.pool, parts).await, 1);
    // What the trail refers to is still there.
    let report = intake_gateway::verify::verify(&mut gateway.pool.acquire().await.unwrap()).await;
    assert_eq!(report.unwrap().faults, [""; 0]);
    let originals = "SELECT count(*) FROM message WHERE length(raw) > 1000";
    assert_eq!(number(&gateway.pool, originals).await, 3);
    // More that is told of an old call is still taken.
    push(&gateway, delivered("a2150427-c1fb-4761-8c8d-611ff7aa1992", "13700000002", "/x/m.wav"))
        .await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 4);
}

/// Each told once to three times, in no order, by three sources and two gateways.
#[tokio::test(flavor = "multi_thread")]
async fn a_night_of_three_sources_is_neither_lost_nor_doubled() {
    const EACH: usize = 80;
    let spool = Spool::new();
    let settings = format!("{}\n{}\n{}", freeswitch(""), vendor(), spool.settings(""));
    let one = night().with(&settings).start().await;
    let two = night().with(&settings).on(&one.database_url).start().await;
    let template = fs::read_to_string(format!("{FIXTURES}/asterisk/12333_msg0000.txt")).unwrap();
    let mut pushes: Vec<(String, Vec<u8>)> = Vec::new();
    for n in 0..EACH {
        // One of ten calls again.
        let caller = format!("1390000{:04}", if n % 10 == 1 { n - 1 } else { n });
        let uuid = format!("{n:08x}-67ae-4e95-a969-52582e7bcdf4");
        let (session, times) = (format!("s{n}"), 1 + n % 3);
        let fs_push = ("/channels/hotline/fs".to_owned(), delivered(&uuid, &caller, "/x/msg.wav"));
        let voicemail = json!({ "SessionId": session, "Timestamp": 1_795_448_730, "EndpointUser": caller,
            "RecordURL": "http://r.example.com/1.mp3" });
        let record = json!({ "SessionId": session, "Direction": 0, "Caller": caller, "Callee": "12333",
            "StartTimestamp": 1_795_448_700, "EndedTimestamp": 1_795_448_730, "EndStatus": 106 });
        let tccc = |action: &str, body: &Value| {
            (format!("/channels/hotline/tccc?action={action}"), body.to_string().into_bytes())
        };
        for _ in 0..times {
            pushes.push(fs_push.clone());
            pushes.push(tccc("voicemail", &voicemail));
            pushes.push(tccc("cdr", &record));
        }
        // The spool: every third message also in a second mailbox, under another identity.
        for (copy, mailbox) in
            ["12333", "8001"].iter().enumerate().take(1 + usize::from(n % 3 == 0))
        {
            let text = template
                .replace("13900001234", &caller)
                .replace("-00000000\ncallerid", &format!("-{n:08x}\ncallerid"))
                .replace(
                    "msg_id=1795446714-00000000",
                    &format!("msg_id=1795446714-{:08x}", n * 2 + copy),
                );
            let inbox = spool.inbox(mailbox);
            fs::write(inbox.join(format!("msg{n:04}.wav")), crate::calls::wav()).unwrap();
            fs::write(inbox.join(format!("msg{n:04}.txt")), text).unwrap();
        }
    }
    // In an order that has nothing to do with the calls'.
    pushes.sort_by_cached_key(|(path, body)| {
        intake_gateway::secret::digest(&format!("{path}{}", String::from_utf8_lossy(body)))
    });
    let (here, there) = (source(&one, "hotline:ast"), source(&two, "hotline:ast"));
    let (mut seen, mut also) = (Seen::new(), Seen::new());
    let scans = async {
        let scan = calls::scan::scan;
        let (a, b) =
            tokio::join!(scan(&one.app, &here, &mut seen), scan(&two.app, &there, &mut also));
        a.unwrap();
        b.unwrap();
    };
    let sends = async {
        for chunk in pushes.chunks(16) {
            let sent = chunk.iter().enumerate().map(|(n, (path, body))| {
                let gateway = if n % 2 == 0 { &one } else { &two };
                gateway.post(path, &[BASIC], body.clone())
            });
            for answer in futures::future::join_all(sent).await {
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    };
    tokio::join!(scans, sends);
    a_minute_later(&one).await;
    let (all, again) = (EACH * 3, (0..EACH).filter(|n| n % 10 == 1).count() * 3);
    assert_eq!(calls_of(&one).await, all as i64);
    assert_eq!(tickets(&one).await, (all - again) as i64);
    assert_eq!(number(&one.pool, "SELECT count(*) FROM message").await, all as i64);
    let heard = "SELECT count(*) FROM call_recording WHERE seq IS NOT NULL";
    assert_eq!(number(&one.pool, heard).await, all as i64);
    one.clock.set(at("2026-11-24 02:31"));
    for (name, told) in [("hotline:ast", EACH as i32), ("hotline:fs", -1), ("hotline:tccc", -1)] {
        let outcome = compared(&one, name, Repair::Yes).await;
        assert_eq!(counts(&outcome), [told, EACH as i32, 0, 0, 0], "{name}");
    }
    let report = intake_gateway::verify::verify(&mut one.pool.acquire().await.unwrap()).await;
    assert_eq!(report.unwrap().faults, [""; 0]);
}
