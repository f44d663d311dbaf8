//! What the outside sends, and what it gets.

use crate::support::{Spec, at, gateway::wechat_sender, number};

#[tokio::test(flavor = "multi_thread")]
async fn r5_2_a_message_on_saturday_night_is_promised_monday_and_tuesday() {
    let gateway = Spec::at(at("2026-11-28 22:14")).start().await;
    let reply = gateway.wechat("oA", "城东路路灯坏了三天没人修", "1").await.reply();
    assert_eq!(
        reply,
        "您的反映已登记，编号 BCS-2026-000001。我们11月30日（周一）8:30开始办理，最晚12月1日（周二）16:30前给您答复。周末和法定节假日不计入。如有补充，直接在这里发给我们。方便的话，请回复您的姓名和电话，工作人员好联系您，不影响办理。"
    );
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["registered_at"], "2026-11-28T22:14:00+08:00");
    assert_eq!(ticket["accepted_at"], "2026-11-30T08:30:00+08:00");
    assert_eq!(ticket["follow_up_at"], "2026-11-30T08:30:00+08:00");
    assert_eq!(ticket["due_at"], "2026-12-01T16:30:00+08:00");
    assert_eq!(ticket["provisional"], false);
    assert_eq!(ticket["messages"][0]["text"], "城东路路灯坏了三天没人修");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivered_message_makes_one_ticket_and_gets_the_same_reply() {
    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    let first = gateway.wechat("oA", "灯坏了", "7").await.reply();
    // The platform tries again after five seconds, signed anew; later it is another hour.
    gateway.clock.set(at("2026-11-24 21:01"));
    let again = gateway.wechat("oA", "灯坏了", "7").await.reply();
    assert_eq!(first, again);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_one_citizen_makes_one_ticket() {
    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    let sends = (0..12).map(|n| {
        let gateway = &gateway;
        async move { gateway.wechat("oA", &format!("第{n}条"), &format!("{n}")).await.number() }
    });
    let numbers = futures::future::join_all(sends).await;
    assert!(numbers.iter().all(|number| number == "BCS-2026-000001"), "{numbers:?}");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 12);
    // Another citizen is another matter.
    assert_eq!(gateway.wechat("oB", "别的事", "x").await.number(), "BCS-2026-000002");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_matter_is_not_grown_by_the_next_message() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let mut db = gateway.pool.acquire().await.unwrap();
    crate::support::sql(&mut db, "UPDATE ticket SET state = 'closed', outcome = 'solved'").await;
    gateway.clock.set(at("2026-12-02 10:00"));
    assert_eq!(gateway.wechat("oA", "又坏了", "2").await.number(), "BCS-2026-000002");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_address_check_is_answered() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let now = at("2026-11-24 10:00").timestamp();
    let query = wechat_sender().address_check(now, "5", "aB3-_xy");
    let url = format!("{}/channels/wechat/main?{query}", gateway.base);
    let response = gateway.client.get(url).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.text().await.unwrap(), "aB3-_xy");
    let url = format!("{}/channels/wechat/main?echostr=%3Cscript%3E", gateway.base);
    let response = gateway.client.get(url).send().await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(response.text().await.unwrap(), "refused\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_hostile_callback_gets_one_generic_answer_and_leaves_nothing() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let sender = wechat_sender();
    let now = at("2026-11-24 10:00").timestamp();
    let xml = sender.text("oA", "灯坏了", "1", now);
    let (query, body) = gateway.callback(&xml);
    let stale = sender.callback(&xml, now - 601, "5", [0; 16]);
    let wrong_app = {
        let key = "Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OUFCQ0RFRkdISUp";
        let other = intake_wechat::sender::Sender::new(
            "gov_center_token_2026",
            Some(key),
            "wx0000000000000000",
            "gh_8a1b2c3d4e5f",
        );
        other.callback(&xml, now, "5", [0; 16])
    };
    let doctype =
        sender.callback("<!DOCTYPE x [<!ENTITY a \"b\">]><xml>&a;</xml>", now, "5", [0; 16]);
    let outer = format!("<!DOCTYPE x>{body}");
    let cases: [(&str, &str, &str); 8] = [
        ("bad signature", &query.replace("msg_signature=", "msg_signature=0"), &body),
        ("no signature", "timestamp=1&nonce=2", &body),
        ("changed body", &query, &body.replace("<Encrypt><![CDATA[", "<Encrypt><![CDATA[A")),
        ("stale", &stale.0, &stale.1),
        ("wrong app", &wrong_app.0, &wrong_app.1),
        ("doctype inside", &doctype.0, &doctype.1),
        ("doctype outside", &query, &outer),
        ("not xml", &query, "{}"),
    ];
    for (name, query, body) in cases {
        let path = format!("/channels/wechat/main?{query}");
        let answer = gateway.post(&path, &[], body.as_bytes().to_vec()).await;
        assert!((400..500).contains(&answer.status), "{name}: {}", answer.status);
        assert_eq!(answer.text(), "refused\n", "{name}");
    }
    let path = format!("/channels/wechat/main?{query}");
    let oversize = gateway.post(&path, &[], vec![b'<'; 70_000]).await;
    assert_eq!((oversize.status, oversize.text().as_str()), (413, "refused\n"));
    assert_eq!(gateway.post("/channels/wechat/other", &[], Vec::new()).await.status, 404);

    for table in ["ticket", "inbound", "quarantine", "outbox"] {
        assert_eq!(number(&gateway.pool, &format!("SELECT count(*) FROM {table}")).await, 0);
    }
    let metrics = gateway.metrics().await;
    for reason in ["bad_signature", "stale", "appid_mismatch", "bad_xml", "too_large"] {
        assert!(metrics.contains(&format!("reason=\"{reason}\"")), "{reason}");
    }
    // The door still works.
    gateway.wechat("oA", "灯坏了", "1").await.reply();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_cannot_hold_is_cleaned_and_the_original_kept() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let entry = serde_json::json!({
        "channel": "counter", "citizen": { "name": "王\u{0}芳" }, "problem": "灯\u{0}坏了\u{1b}[31m",
    });
    assert_eq!(gateway.entry("k", &entry).await.status, 201);
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["messages"][0]["text"], "灯坏了[31m");
    assert_eq!(ticket["citizen"]["name"], "王芳");
    let raw: Vec<u8> = sqlx::query_scalar("SELECT original(m) FROM message m")
        .fetch_one(&gateway.pool)
        .await
        .unwrap();
    assert_eq!(raw, entry.to_string().as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_2_a_recording_of_the_night_is_followed_up_though_it_came_in_the_morning() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let answer = gateway.voicemail("r1", "2026-11-23T23:11:54+08:00").await;
    assert_eq!(answer.status, 202);
    let ticket = gateway.api(&format!("/tickets/{}", answer.number())).await.json();
    assert_eq!(ticket["channel"], "hotline");
    assert_eq!(ticket["follow_up_at"], "2026-11-24T08:30:00+08:00");
    assert_eq!(ticket["accepted_at"], "2026-11-24T09:10:00+08:00");
    assert_eq!(ticket["due_at"], "2026-11-25T16:30:00+08:00");
    assert_eq!(ticket["messages"][0]["occurred_at"], "2026-11-23T23:11:54+08:00");
    let again = gateway.voicemail("r1", "2026-11-23T23:11:54+08:00").await;
    assert_eq!((again.status, again.number()), (200, answer.number()));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hotlines_refusals_have_the_codes_of_its_contract() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let unsigned = gateway.post("/channels/hotline/pbx1", &[], b"{}".to_vec()).await;
    assert_eq!((unsigned.status, unsigned.text().as_str()), (401, "refused\n"));
    let oversize = gateway.post("/channels/hotline/pbx1", &[], vec![b'{'; 70_000]).await;
    assert_eq!(oversize.status, 413);
    let zoneless = gateway.voicemail("r1", "2026-11-23T23:11:54").await;
    assert_eq!(zoneless.status, 422);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_date_without_a_notice_is_not_told_as_a_fact_and_readiness_asks_for_the_notice() {
    let gateway = Spec::at(at("2026-12-31 17:00")).start().await;
    let reply = gateway.wechat("oA", "灯坏了", "1").await.reply();
    assert!(reply.contains("BCS-2026-000001") && reply.contains("国务院"), "{reply}");
    assert!(!reply.contains("1月"), "{reply}");
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["provisional"], true);
    let readiness = gateway.readiness().await;
    assert_eq!(readiness.status, 200);
    assert!(readiness.text().contains("calendar load"), "{}", readiness.text());
}
