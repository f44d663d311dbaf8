//! The API's contract (DESIGN.md §5).

use crate::support::{Spec, TestGateway, at, gateway::Answer, number, sql};
use intake_gateway::{
    desk,
    domain::{id::StaffId, register::RegisterNumber},
    store,
};
use serde_json::{Value, json};

fn entry(problem: &str) -> Value {
    json!({ "channel": "counter", "citizen": { "name": "李春梅", "phone": "13800008000" }, "problem": problem })
}

async fn gateway() -> TestGateway {
    Spec::at(at("2026-11-24 09:10")).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_answered_with_its_ticket() {
    let gateway = gateway().await;
    let answer = gateway.entry("k1", &entry("失业登记被退回三次")).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let ticket = answer.json();
    assert_eq!(ticket["number"], "BCS-2026-000001");
    assert_eq!(ticket["state"], "registered");
    assert_eq!(ticket["level"], 1);
    assert_eq!(ticket["registered_at"], "2026-11-24T09:10:00+08:00");
    assert_eq!(ticket["accepted_at"], "2026-11-24T09:10:00+08:00");
    assert_eq!(ticket["follow_up_at"], Value::Null);
    assert_eq!(ticket["due_at"], "2026-11-25T16:30:00+08:00");
    assert_eq!(ticket["provisional"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_again_answers_with_the_same_ticket_and_another_body_is_refused() {
    let gateway = gateway().await;
    let first = gateway.entry("k1", &entry("一")).await;
    let again = gateway.entry("k1", &entry("一")).await;
    assert_eq!((again.status, again.json()), (201, first.json()));
    let other = gateway.entry("k1", &entry("二")).await;
    assert_eq!(other.status, 422);
    assert_eq!(other.headers["content-type"], "application/problem+json");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_not_complete_is_told_field_by_field() {
    let gateway = gateway().await;
    let answer = gateway
        .entry("k1", &json!({ "channel": "wechat", "citizen": { "phone": "x" }, "problem": "" }))
        .await;
    assert_eq!(answer.status, 422);
    let fields: Vec<_> =
        answer.json()["errors"].as_array().unwrap().iter().map(|e| e["field"].clone()).collect();
    assert_eq!(fields, ["channel", "citizen.phone", "problem"]);
    let unknown = gateway
        .entry("k1", &json!({ "channel": "counter", "problem": "x", "citizen": { "name": "a" }, "level": 5 }))
        .await;
    assert_eq!(unknown.status, 422);
    let token = format!("Bearer {}", gateway.api_token);
    let no_key = gateway
        .post("/api/v1/tickets", &[("authorization", &token)], entry("x").to_string().into_bytes())
        .await;
    assert_eq!(no_key.status, 400);
    assert!(no_key.text().contains("Idempotency-Key"));
    let large = gateway.entry("k2", &entry(&"长".repeat(60_000))).await;
    assert_eq!(large.status, 413);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_or_the_wrong_scope_is_refused() {
    let gateway = gateway().await;
    let basic = format!("Basic {}", gateway.api_token);
    for authorization in ["", "Bearer", "Bearer wrong", "Basic eA==", &gateway.api_token, &basic] {
        let headers = [("authorization", authorization), ("idempotency-key", "k")];
        let answer = gateway.post("/api/v1/tickets", &headers, b"{}".to_vec()).await;
        assert_eq!(answer.status, 401, "{authorization}");
    }
    let lower = format!("bearer {}", gateway.api_token);
    let headers = [("authorization", lower.as_str())];
    let answer = gateway.post("/api/v1/tickets", &headers, b"{}".to_vec()).await;
    assert_eq!(answer.status, 400, "the scheme's case does not matter");
    let mut db = gateway.pool.acquire().await.unwrap();
    crate::support::sql(&mut db, "UPDATE api_token SET scopes = '{tickets:read}'").await;
    assert_eq!(gateway.entry("k", &entry("x")).await.status, 403);
    assert_eq!(gateway.api("/tickets").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_by_urgency_and_pages_without_gap_or_double() {
    let gateway = gateway().await;
    for n in 0..7 {
        gateway.clock.set(at(&format!("2026-11-24 09:1{n}")));
        let mut body = entry(&format!("第{n}件"));
        body["urgent"] = json!(n == 4);
        assert_eq!(gateway.entry(&format!("k{n}"), &body).await.status, 201);
    }
    gateway.clock.set(at("2026-11-23 10:00"));
    gateway.entry("earlier", &entry("更早到期")).await;
    let mut seen = Vec::new();
    let mut path = "/tickets?state=open&limit=3".to_owned();
    loop {
        let page = gateway.api(&path).await.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        seen.extend(items.iter().map(|item| item["problem"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/tickets?state=open&limit=3&after={next}");
    }
    assert_eq!(seen, ["第4件", "更早到期", "第0件", "第1件", "第2件", "第3件", "第5件", "第6件"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_by_channel_level_and_words() {
    let gateway = gateway().await;
    gateway.entry("k1", &entry("社保卡丢了")).await;
    gateway.wechat("oA", "工资100%没发_", "1").await;
    let count = async |query: &str| {
        let page = gateway.api(&format!("/tickets?{query}")).await.json();
        page["items"].as_array().unwrap_or_else(|| panic!("{query}: {page}")).len()
    };
    assert_eq!(count("").await, 2);
    assert_eq!(count("channel=wechat").await, 1);
    assert_eq!(count("channel=&level=&q=").await, 2);
    assert_eq!(count("level=1").await, 2);
    assert_eq!(count("level=3").await, 0);
    assert_eq!(count("q=%E7%A4%BE%E4%BF%9D%E5%8D%A1").await, 1);
    assert_eq!(count("q=13800008000").await, 1);
    // Not wildcards.
    assert_eq!(count("q=%25").await, 1);
    assert_eq!(count("q=_").await, 1);
    assert_eq!(count("q=000001").await, 1);
    // As a program writes it that fills in nothing.
    assert_eq!(count("state=open&channel=&level=&q=&limit=&after=").await, 2);
    assert_eq!(count("state=closed").await, 0);
    let mut db = gateway.pool.acquire().await.unwrap();
    crate::support::sql(&mut db, "UPDATE ticket SET state = 'closed', outcome = 'solved'").await;
    for (query, wanted) in [
        ("state=open", 0),
        ("state=closed", 2),
        ("state=closed&channel=wechat&level=&q=&limit=&after=", 1),
        ("state=closed&channel=hotline", 0),
        ("state=closed&level=1", 2),
        ("state=closed&level=3", 0),
        ("state=closed&q=BCS-2026-000002", 1),
        ("state=closed&q=BCS-2026-000002&channel=counter", 0),
    ] {
        assert_eq!(count(query).await, wanted, "{query}");
    }
    for wrong in [
        "state=x",
        "unit=x",
        "due_from=x",
        "due_before=2026-11-31",
        "channel=fax",
        "level=2",
        "limit=0",
        "limit=999",
        "limit=x",
        "after=x",
        "sort=a",
    ] {
        assert_eq!(gateway.api(&format!("/tickets?{wrong}")).await.status, 400, "{wrong}");
    }
}

async fn refer(gateway: &TestGateway, number: &str, unit: &str) -> Answer {
    let token = format!("Bearer {}", gateway.api_token);
    let body = json!({ "unit": unit }).to_string().into_bytes();
    let path = format!("/api/v1/tickets/{number}/refer");
    gateway.post(&path, &[("authorization", &token)], body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_b_a_program_refers_what_is_claimed_once_and_the_trail_names_it() {
    let gateway = gateway().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    gateway.entry("k1", &entry("办不了")).await;
    let number = "BCS-2026-000001";
    let unknown = refer(&gateway, number, "就业股").await;
    assert_eq!(unknown.status, 422);
    for name in ["就业股", "社保股"] {
        store::office::put_unit(&mut db, gateway.office, name).await.unwrap();
    }
    let unknown = refer(&gateway, number, "x").await;
    assert!(unknown.text().contains("就业股, 社保股"), "{}", unknown.text());
    let unclaimed = refer(&gateway, number, "就业股").await;
    assert_eq!(unclaimed.status, 409);
    assert!(unclaimed.text().contains("claim it first"));
    let ticket = RegisterNumber::parse(number, "BCS").unwrap();
    desk::claim(&gateway.app.pool, &gateway.clock, gateway.office, ticket, StaffId(1))
        .await
        .unwrap();
    for unit in ["就业股", "就业股", "社保股"] {
        let referred = refer(&gateway, number, unit).await;
        assert_eq!((referred.status, &referred.json()["unit"]), (200, &json!(unit)));
    }
    assert_eq!(refer(&gateway, "BCS-2026-000002", "就业股").await.status, 404);
    let whole = gateway.api(&format!("/tickets/{number}")).await.json();
    let events: Vec<_> = whole["events"].as_array().unwrap().iter().skip(2).collect();
    assert_eq!(events.len(), 2, "the same unit again is no event: {events:?}");
    assert_eq!((&events[0]["kind"], &events[0]["data"]["unit"]), (&json!("referred"), &json!(1)));
    assert!(events[0]["actor"].as_str().unwrap().starts_with("api:"), "{events:?}");
    assert_eq!(whole["state"], "in_progress");
    sql(&mut db, "UPDATE api_token SET scopes = '{tickets:read}'").await;
    assert_eq!(refer(&gateway, number, "就业股").await.status, 403);
    assert!(crate::verify::faults(&gateway).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_filtered_by_unit_state_and_dates() {
    let gateway = gateway().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    for name in ["就业股", "社保股"] {
        store::office::put_unit(&mut db, gateway.office, name).await.unwrap();
    }
    for n in 1..=4 {
        gateway.clock.set(at(&format!("2026-11-2{n} 09:10")));
        gateway.entry(&format!("k{n}"), &entry(&format!("第{n}件"))).await;
    }
    for n in 1..=2 {
        let ticket = RegisterNumber::new(2026, n).unwrap();
        let (pool, clock) = (&gateway.app.pool, &gateway.clock);
        desk::claim(pool, clock, gateway.office, ticket, StaffId(n)).await.unwrap();
    }
    refer(&gateway, "BCS-2026-000001", "就业股").await;
    let found = async |query: &str| {
        let page = gateway.api(&format!("/tickets?{query}")).await.json();
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{query}: {page}"));
        let numbers = items.iter().map(|item| item["problem"].as_str().unwrap().to_owned());
        numbers.collect::<Vec<_>>().join(" ")
    };
    // 21 and 22 November are a weekend: the first three are due on Tuesday, the fourth the day after.
    for (query, wanted) in [
        ("unit=就业股", "第1件"),
        ("unit=就业股&state=in_progress", "第1件"),
        ("unit=就业股&state=accepted", ""),
        ("unit=社保股", ""),
        ("unit=就业股&state=closed", ""),
        ("state=registered", "第3件 第4件"),
        ("state=accepted", "第2件"),
        ("state=accepted&level=1&channel=counter", "第2件"),
        ("state=resolved", ""),
        ("state=evaluated", ""),
        ("state=awaiting_citizen", ""),
        ("due_before=2026-11-25", "第1件 第2件 第3件"),
        ("due_from=2026-11-25", "第4件"),
        (
            "due_from=2026-11-24T16:30:00%2B08:00&due_before=2026-11-24T16:30:01+08:00",
            "第1件 第2件 第3件",
        ),
        ("due_before=2026-11-24T08:30:00Z", ""),
        ("state=in_progress&due_before=2026-11-25", "第1件"),
        ("state=in_progress&due_from=2026-11-25", ""),
        ("q=件&state=accepted", "第2件"),
        ("q=第1件&unit=社保股", ""),
        ("q=BCS-2026-000001&unit=就业股&state=in_progress&due_from=2026-11-24", "第1件"),
        ("q=BCS-2026-000001&unit=社保股", ""),
        ("q=BCS-2026-000001&state=accepted", ""),
        ("q=BCS-2026-000001&due_from=2026-11-25", ""),
        ("unit=&state=&due_from=&due_before=", "第1件 第2件 第3件 第4件"),
    ] {
        assert_eq!(found(query).await, wanted, "{query}");
    }
    for (query, values) in [
        (
            "state=done",
            "open, registered, accepted, in_progress, awaiting_citizen, resolved, evaluated, closed",
        ),
        ("unit=x", "就业股, 社保股"),
        ("due_from=soon", "2026-11-25"),
    ] {
        let answer = gateway.api(&format!("/tickets?{query}")).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(values), "{query}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_is_a_problem() {
    let gateway = Spec::at(at("2026-11-24 09:10")).with("http.body_timeout_s = 1").start().await;
    let token = format!("Bearer {}", gateway.api_token);
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let url = format!("{}/api/v1{path}", gateway.base);
        let mut request = gateway.client.request(method.parse().unwrap(), url);
        request = request.body(body);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", &token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        crate::support::gateway::Answer::of(request.send().await.unwrap()).await
    };
    let key = [("idempotency-key", "k")];
    for (method, path, headers, body, status) in [
        ("GET", "/nothing", &[][..], vec![], 404),
        ("GET", "", &[], vec![], 404),
        ("DELETE", "/tickets", &[], vec![], 405),
        ("PUT", "/tickets/BCS-2026-000001", &[], vec![], 405),
        ("TRACE", "/tickets", &[], vec![], 405),
        ("GET", "/tickets/%ff", &[], vec![], 400),
        ("GET", "/tickets/BCS-2026-000001/refer", &[], vec![], 405),
        ("POST", "/tickets/x/refer", &[], vec![], 404),
        ("POST", "/tickets/BCS-2026-000001/refer", &[], b"{".to_vec(), 422),
        ("GET", "/tickets/x", &[], vec![], 404),
        ("GET", "/tickets?limit=x", &[], vec![], 400),
        ("GET", "/tickets", &[("authorization", "Bearer x")], vec![], 401),
        ("POST", "/tickets", &[], vec![], 400),
        ("POST", "/tickets", &key, b"{".to_vec(), 422),
        ("POST", "/tickets", &key, vec![b' '; 200_000], 413),
        ("POST", "/tickets", &[("content-encoding", "gzip")], vec![], 415),
    ] {
        let answer = ask(method, path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{method} {path}");
        assert_eq!(answer.json()["status"], status, "{method} {path}");
        assert!(answer.json()["title"].as_str().is_some_and(|title| !title.is_empty()));
        if status == 405 && method != "TRACE" {
            let other = if method == "GET" { "POST" } else { "GET" };
            assert!(answer.headers["allow"].to_str().unwrap().contains(other), "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_a_problem_too() {
    let gateway = Spec::at(at("2026-11-24 09:10"))
        .with("http.answer_timeout_s = 1\ndatabase.acquire_timeout_ms = 10000")
        .start()
        .await;
    let mut db = gateway.pool.acquire().await.unwrap();
    crate::support::sql(&mut db, "BEGIN; LOCK TABLE api_token").await;
    let answer = gateway.api("/tickets").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert!(answer.headers.contains_key("retry-after"));
    crate::support::sql(&mut db, "ROLLBACK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_shown_with_its_messages_and_events() {
    let gateway = gateway().await;
    gateway.wechat("oA", "灯坏了", "1").await;
    gateway.wechat("oA", "还没修", "2").await;
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["messages"].as_array().unwrap().len(), 2);
    let kinds: Vec<_> =
        ticket["events"].as_array().unwrap().iter().map(|e| e["kind"].clone()).collect();
    assert_eq!(kinds, ["registered", "message_received"]);
    for missing in ["BCS-2026-000009", "BCS-2026-0", "XYZ-2026-000001", "x"] {
        assert_eq!(gateway.api(&format!("/tickets/{missing}")).await.status, 404, "{missing}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_every_route_of_the_api() {
    let gateway = gateway().await;
    let description = gateway.api("/openapi.json").await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3."));
    let paths = description["paths"].as_object().unwrap();
    let paths: Vec<&str> = paths.keys().map(String::as_str).collect();
    let mut wanted = vec!["/api/v1/tickets".to_owned(), "/api/v1/tickets/{number}".to_owned()];
    let acts = desk::Act::NAMES.into_iter().chain(["refer"]);
    wanted.extend(acts.map(|act| format!("/api/v1/tickets/{{number}}/{act}")));
    wanted.sort_unstable();
    assert_eq!(paths, wanted);
    let ticket = gateway.entry("k1", &entry("x")).await.json();
    let described =
        description["components"]["schemas"]["Ticket"]["properties"].as_object().unwrap();
    for field in ticket.as_object().unwrap().keys() {
        assert!(described.contains_key(field), "{field} is not described");
    }
}
