//! Finding tickets by words, open and closed, soon after they came in.

use crate::support::{Spec, TestGateway, at, number, sql, until};
use intake_gateway::{
    domain::{id::OfficeId, register::RegisterNumber},
    gateway::Role,
    search::Indexer,
    store::{self, search::Entered},
};
use serde_json::json;

async fn gateway() -> TestGateway {
    Spec::at(at("2026-11-24 09:10")).start().await
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// How many tickets the API finds, in the list of this state.
async fn found(gateway: &TestGateway, state: &str, words: &str) -> usize {
    let path = format!("/tickets?state={state}&limit=200&q={}", percent(words));
    let page = gateway.api(&path).await.json();
    page["items"].as_array().unwrap_or_else(|| panic!("{words}: {page}")).len()
}

async fn enter(gateway: &TestGateway, key: &str, name: &str, phone: &str, problem: &str) {
    let citizen = json!({ "name": name, "phone": phone });
    let entry = json!({ "channel": "counter", "citizen": citizen, "problem": problem });
    assert_eq!(gateway.entry(key, &entry).await.status, 201);
}

async fn close_all(gateway: &TestGateway) {
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE ticket SET state = 'closed', outcome = 'solved'").await;
}

/// Until there is nothing left to enter.
async fn index(gateway: &TestGateway) {
    while gateway.app.search.step().await.unwrap().more {}
}

#[tokio::test(flavor = "multi_thread")]
async fn words_of_two_characters_names_and_telephones_are_found_open_and_closed() {
    let gateway = gateway().await;
    enter(&gateway, "a", "王秀英", "13900001234", "小区门口路灯不亮，晚上看不见").await;
    enter(&gateway, "b", "李春梅", "13800008000", "灯不亮了。路灯旁边的井盖丢了，ＡＢＣ超市门口")
        .await;
    enter(&gateway, "c", "O'Neill", "02412345678", "工资100%没发，投诉\\无门").await;
    let expected = [
        ("路灯", 2),
        ("井盖", 1),
        ("路灯不亮", 1),
        ("路灯 井盖", 1),
        ("路灯 工资", 0),
        ("灯", 2),
        ("秀英", 1),
        ("王", 1),
        ("英", 1),
        ("1234", 2),
        ("1390", 1),
        ("8000", 1),
        ("13800008000", 1),
        ("abc超市", 1),
        ("ＡＢＣ", 1),
        ("o'neill", 1),
        ("100%", 1),
        ("\\", 1),
        ("不亮，晚上", 1),
        ("没有这个", 0),
        ("2026-00000", 3),
        ("000002", 1),
    ];
    // Before the worker has seen them: by the first look, which asks the texts.
    for (words, count) in expected {
        assert_eq!(found(&gateway, "open", words).await, count, "{words}");
    }
    index(&gateway).await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket_search").await, 3);
    for (words, count) in expected {
        assert_eq!(found(&gateway, "open", words).await, count, "{words}");
        assert_eq!(found(&gateway, "closed", words).await, 0, "{words}");
    }
    close_all(&gateway).await;
    for (words, count) in expected {
        assert_eq!(found(&gateway, "open", words).await, 0, "{words}");
        assert_eq!(found(&gateway, "closed", words).await, count, "{words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_2_a_corrected_name_or_telephone_is_found_open_and_closed() {
    let gateway = gateway().await;
    enter(&gateway, "1", "王芳", "13900001234", "社保卡丢了").await;
    index(&gateway).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    let ticket = RegisterNumber::new(2026, 1).unwrap();
    for (state, name, phone) in
        [("open", "汪方", "13800008000"), ("closed", "汪芳芳", "13700007000")]
    {
        if state == "closed" {
            close_all(&gateway).await;
            gateway.app.search.compare(&mut db).await.unwrap();
        }
        let now = (Some(name), Some(phone));
        store::ticket::correct_contact(&mut db, gateway.office, ticket, now).await.unwrap();
        gateway.app.search.compare(&mut db).await.unwrap();
        for words in [name, phone, "社保卡"] {
            assert_eq!(found(&gateway, state, words).await, 1, "{state} {words}");
        }
        assert_eq!(found(&gateway, state, "13900001234").await, 0, "{state}");
    }
    let open = "SELECT count(*) FROM ticket_search WHERE is_open";
    assert_eq!(number(&gateway.pool, open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_ticket_grew_by_is_found_after_the_next_look_and_closing_is_followed() {
    let gateway = gateway().await;
    gateway.wechat("oA", "社保卡丢了", "1").await;
    index(&gateway).await;
    gateway.wechat("oA", "身份证也丢了", "2").await;
    assert_eq!(found(&gateway, "open", "身份证").await, 0);
    let mut db = gateway.pool.acquire().await.unwrap();
    assert_eq!(gateway.app.search.compare(&mut db).await.unwrap(), 1);
    assert_eq!(found(&gateway, "open", "身份证").await, 1);
    assert_eq!(found(&gateway, "open", "社保卡 身份证").await, 1);
    assert_eq!(gateway.app.search.compare(&mut db).await.unwrap(), 0, "nothing is entered twice");

    close_all(&gateway).await;
    let open = "SELECT count(*) FROM ticket_search WHERE is_open";
    assert_eq!(number(&gateway.pool, open).await, 1);
    gateway.app.search.compare(&mut db).await.unwrap();
    assert_eq!(number(&gateway.pool, open).await, 0);
    assert_eq!(found(&gateway, "closed", "身份证").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_full_of_tickets_is_entered_from_its_newest_end_while_new_ones_come_in() {
    let gateway = gateway().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    fill(&mut db, 1200).await;
    assert!(gateway.app.search.step().await.unwrap().more);
    // The newest batch and the one before it.
    let newest = "SELECT count(*) FROM ticket_search WHERE ticket > 2026000000200";
    assert_eq!(number(&gateway.pool, newest).await, 1000);
    gateway.accept("new", "刚刚反映的桥面裂缝").await;
    // The worker is killed here; another one goes on from where it was.
    let other = Indexer::new(gateway.app.pool.clone(), "other".to_owned());
    assert!(other.step().await.unwrap().more);
    assert_eq!(number(&gateway.pool, "SELECT max(last) FROM search_progress").await, 1201);
    while other.step().await.unwrap().more {}
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket_search").await, 1201);
    assert_eq!(number(&gateway.pool, "SELECT min(first) FROM search_progress").await, 1);
    assert_eq!(found(&gateway, "open", "桥面裂缝").await, 1);
    assert_eq!(found(&gateway, "closed", "第一千件").await, 1);
    assert_eq!(found(&gateway, "closed", "树木").await, 200, "a page is full");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_what_was_found_have_no_gap_and_no_double() {
    let gateway = gateway().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    fill(&mut db, 3000).await;
    index(&gateway).await;
    // One beyond the first look, so that index and look meet.
    for (state, words, count) in
        [("closed", "七七", 246), ("open", "树木", 300), ("open", "第三千", 1)]
    {
        let mut seen = Vec::new();
        let mut path = format!("/tickets?state={state}&limit=40&q={}", percent(words));
        let first = path.clone();
        loop {
            let page = gateway.api(&path).await.json();
            for item in page["items"].as_array().unwrap() {
                seen.push((item["due_at"].to_string(), item["number"].to_string()));
            }
            let Some(next) = page["next"].as_str() else { break };
            path = format!("{first}&after={next}");
        }
        assert_eq!(seen.len(), count, "{state} {words}");
        let mut sorted = seen.clone();
        sorted.sort();
        if state == "closed" {
            sorted.sort_by(|a, b| b.1.cmp(&a.1));
        }
        sorted.dedup();
        assert_eq!(seen, sorted, "{state} {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_finds_its_work_by_itself_and_one_replica_has_the_turn() {
    let gateway = Spec::at(at("2026-11-24 09:10")).role(Role::All).start().await;
    let second =
        Spec::at(at("2026-11-24 09:10")).on(&gateway.database_url).role(Role::All).start().await;
    gateway.accept("a", "路灯不亮").await;
    gateway.wechat("oA", "社保卡丢了", "1").await;
    gateway.wechat("oA", "身份证也丢了", "2").await;
    until("the words are entered", async || {
        number(&gateway.pool, "SELECT count(*) FROM ticket_search WHERE v @@ '''路灯'' | ''份证'''")
            .await
            == 2
    })
    .await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM lease WHERE name = 'search'").await, 1);
    assert!(gateway.app.search.indexed() == 0 || second.app.search.indexed() == 0);
    gateway.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_reading_replaces_no_later_one() {
    let gateway = gateway().await;
    gateway.wechat("oA", "社保卡丢了", "1").await;
    gateway.wechat("oA", "身份证也丢了", "2").await;
    index(&gateway).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    let older = Entered {
        office: vec![gateway.office.0],
        ticket: vec![2_026_000_000_001],
        is_open: vec![true],
        seq: vec![1],
        entries: vec!["社保 保卡".to_owned()],
    };
    store::search::enter(&mut db, &older).await.unwrap();
    assert_eq!(found(&gateway, "open", "身份证").await, 1);
    close_all(&gateway).await;
    gateway.app.search.compare(&mut db).await.unwrap();
    store::search::enter(&mut db, &older).await.unwrap();
    let open = number(&gateway.pool, "SELECT count(*) FROM ticket_search WHERE is_open").await;
    assert_eq!(open, 0, "closing is not taken back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_office_finds_its_own_tickets_only() {
    let gateway = gateway().await;
    gateway.accept("a", "路灯不亮").await;
    index(&gateway).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(
        &mut db,
        "UPDATE ticket SET office_id = 77; UPDATE message SET office_id = 77;
         UPDATE ticket_search SET office_id = 77",
    )
    .await;
    assert_eq!(found(&gateway, "open", "路灯").await, 0);
    assert_ne!(gateway.office, OfficeId(77));
}

/// Tickets as the gateway would have written them; one in ten is open.
async fn fill(db: &mut sqlx::PgConnection, count: i64) {
    let statement = format!(
        "INSERT INTO register VALUES (1, 2026, {count});
         INSERT INTO ticket (office_id, ticket, channel, state, outcome, urgency, problem, registered_at,
             accepted_at, due_at, provisional, calendar_version, events, chain)
         SELECT 1, 2026000000000 + n, 'counter', CASE WHEN n % 10 = 0 THEN 'registered' ELSE 'closed' END,
             CASE WHEN n % 10 > 0 THEN 'solved' END, 1, '树木', now(), now(), now() + n * interval '1 minute',
             false, 1, 1, sha256('x') FROM generate_series(1, {count}) n;
         INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, raw)
         SELECT 1, 2026000000000 + n, 1, now(), now(),
             '树木倒了' || CASE n WHEN 1001 THEN '第一千件' WHEN 3000 THEN '第三千件' ELSE '' END
                 || CASE WHEN n % 11 = 7 THEN '七七' ELSE '' END, ''
         FROM generate_series(1, {count}) n"
    );
    sql(db, &statement).await;
}
