//! Calling back whoever left a message in the night or hung up (R5.2), and who cannot be reached
//! (R7.d).

use crate::{
    browser::{Driver, appears, log_in},
    calls::{a_minute_later, delivered, freeswitch, push},
    desk::Desk,
    support::{Spec, TestGateway, at, gateway::Answer, number, until},
};

const LIST: &str = "/desk?view=call_back";

async fn night() -> TestGateway {
    Spec::at(at("2026-11-23 23:46")).with(&freeswitch("")).start().await
}

async fn calls(gateway: &TestGateway, uuid: u32, caller: &str) {
    let uuid = format!("00000000-0000-4000-8000-{uuid:012}");
    assert_eq!(push(gateway, delivered(&uuid, caller, "/nowhere/msg.wav")).await.status, 200);
    a_minute_later(gateway).await;
}

fn it_is(gateway: &TestGateway, when: &str) {
    gateway.clock.set(at(when));
}

/// Notes what came of a try, as the page that is shown would.
async fn notes(desk: &Desk<'_>, ticket: &str, answer: &str) -> Answer {
    let csrf = desk.csrf().await;
    let page = format!("/desk/tickets/{ticket}");
    let seen = desk.hidden(&page, "seen").await;
    let form = [("csrf", &*csrf), ("seen", &*seen), ("answer", answer), ("from", "list")];
    desk.post(&format!("{page}/call_back"), &form).await
}

async fn list(desk: &Desk<'_>) -> String {
    desk.get(LIST).await.text()
}

/// The numbers of the list in its order.
fn order(page: &str) -> Vec<String> {
    page.split("data-ticket=\"").skip(1).map(|row| row[..15].to_owned()).collect()
}

async fn is_sound(gateway: &TestGateway) {
    let mut db = gateway.pool.acquire().await.unwrap();
    let report = intake_gateway::verify::verify(&mut db).await.unwrap();
    assert!(report.faults.is_empty(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_2_at_the_opening_the_list_has_everybody_who_called_in_order() {
    let gateway = night().await;
    let empty = list(&Desk::login(&gateway, "zhao.min").await).await;
    assert!(empty.contains("没有要回的电话"), "{empty}");
    calls(&gateway, 1, "13900001234").await;
    calls(&gateway, 2, "13900005678").await;
    calls(&gateway, 3, "anonymous").await;
    calls(&gateway, 4, "13900005678").await;
    it_is(&gateway, "2026-11-24 08:30");
    let page = list(&Desk::login(&gateway, "zhao.min").await).await;
    let all = ["BCS-2026-000001", "BCS-2026-000002", "BCS-2026-000003"];
    assert_eq!(order(&page), all, "who waits longest first, who cannot be called last: {page}");
    assert!(page.contains("139****1234") && page.contains("139****5678"), "{page}");
    assert!(page.contains("来电 2 次"), "{page}");
    assert_eq!(page.matches("13900001234").count(), 2, "whole where it is dialled only: {page}");
    assert!(!page.contains("13900005678"), "{page}");
    assert!(page.contains("待回拨<b class=\"count\">3</b>"), "{page}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_e_who_reaches_the_citizen_is_the_first_receiver() {
    let gateway = night().await;
    calls(&gateway, 1, "13900001234").await;
    it_is(&gateway, "2026-11-24 08:40");
    let desk = Desk::login(&gateway, "zhao.min").await;
    let answer = notes(&desk, "BCS-2026-000001", "reached").await;
    assert_eq!(answer.headers["location"], "/desk/tickets/BCS-2026-000001?done=reached");
    let page = desk.get("/desk/tickets/BCS-2026-000001?done=reached").await.text();
    assert!(page.contains("回拨：已接通") && page.contains("认领，首次接待"), "{page}");
    assert!(list(&desk).await.contains("没有要回的电话"));
    // Who calls again afterwards has a matter of its own, which waits.
    calls(&gateway, 2, "13900001234").await;
    assert_eq!(order(&list(&desk).await), ["BCS-2026-000002"]);
    is_sound(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_d_three_unanswered_tries_at_three_times_propose_that_nobody_was_reached() {
    let gateway = night().await;
    calls(&gateway, 1, "13900001234").await;
    let ticket = "BCS-2026-000001";
    it_is(&gateway, "2026-11-24 08:40");
    let desk = Desk::login(&gateway, "zhao.min").await;
    let answer = notes(&desk, ticket, "no_answer").await;
    let after = format!("{LIST}&done=no_answer&of={ticket}");
    assert_eq!(answer.headers["location"], after);
    let page = desk.get(&after).await.text();
    assert!(page.contains("稍后再打") && page.contains("今天 13:00再打"), "{page}");
    assert!(page.contains("1 次无人接听") && page.contains("已记下：无人接听"), "{page}");
    // At once again is no other time.
    it_is(&gateway, "2026-11-24 08:44");
    notes(&desk, ticket, "no_answer").await;
    it_is(&gateway, "2026-11-24 13:05");
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert!(!list(&desk).await.contains("稍后再打"), "it is time");
    notes(&desk, ticket, "no_answer").await;
    it_is(&gateway, "2026-11-25 08:31");
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert!(!list(&desk).await.contains("没有要回的电话"), "two times are not three");
    let answer = notes(&desk, ticket, "no_answer").await;
    let after = format!("{LIST}&done=unreachable&of={ticket}");
    assert_eq!(answer.headers["location"], after);
    let page = desk.get(&after).await.text();
    assert!(page.contains("没有要回的电话") && page.contains("不再列入待回拨"), "{page}");
    let csrf = desk.csrf().await;
    desk.post(&format!("/desk/tickets/{ticket}/claim"), &[("csrf", &csrf)]).await;
    let page = desk.get(&format!("/desk/tickets/{ticket}")).await.text();
    assert!(page.contains("<option value=\"unreachable\" selected>"), "{page}");
    let opinion = "11月25日（周三）8:31回拨，都无人接听。";
    assert!(page.contains(opinion) && page.contains(">11月24日（周二）8:40、"), "{page}");
    // What is noted is an event, and the citizen may see that somebody tried.
    let tries = "SELECT count(*) FROM event WHERE kind = 'called_back'";
    assert_eq!(number(&gateway.pool, tries).await, 4);
    is_sound(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_line_is_tried_again_soon_a_wrong_number_never_and_a_mistake_is_taken_back() {
    let gateway = night().await;
    calls(&gateway, 1, "13900001234").await;
    calls(&gateway, 2, "13900005678").await;
    let (one, two) = ("BCS-2026-000001", "BCS-2026-000002");
    it_is(&gateway, "2026-11-24 11:20");
    let desk = Desk::login(&gateway, "zhao.min").await;
    notes(&desk, one, "busy").await;
    let page = list(&desk).await;
    assert!(page.contains("今天 13:00再打"), "the office closes at 11:30: {page}");
    assert_eq!(order(&page), [two, one]);
    notes(&desk, two, "wrong_number").await;
    assert_eq!(order(&list(&desk).await), [one]);
    let refused = notes(&desk, two, "reached").await;
    assert_eq!(refused.status, 409);
    assert!(refused.text().contains("现在不用回拨"), "{}", refused.text());
    notes(&desk, two, "again").await;
    notes(&desk, one, "again").await;
    assert_eq!(order(&list(&desk).await), [one, two]);
    // Sent twice, it is noted once.
    let (csrf, page) = (desk.csrf().await, format!("/desk/tickets/{one}"));
    let seen = desk.hidden(&page, "seen").await;
    let form = [("csrf", &*csrf), ("seen", &*seen), ("answer", "busy")];
    for _ in 0..2 {
        assert_eq!(desk.post(&format!("{page}/call_back"), &form).await.status, 303);
    }
    let busy =
        "SELECT count(*) FROM event WHERE ticket = 2026000000001 AND data->>'answer' = 'busy'";
    assert_eq!(number(&gateway.pool, busy).await, 2);
    let form = [("csrf", &*csrf), ("answer", "perhaps")];
    assert_eq!(desk.post(&format!("{page}/call_back"), &form).await.status, 422);
    is_sound(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_again_is_there_and_what_has_a_result_needs_no_call() {
    let gateway = night().await;
    calls(&gateway, 1, "13900001234").await;
    let ticket = "BCS-2026-000001";
    it_is(&gateway, "2026-11-24 08:40");
    let desk = Desk::login(&gateway, "zhao.min").await;
    notes(&desk, ticket, "wrong_number").await;
    assert!(list(&desk).await.contains("没有要回的电话"));
    it_is(&gateway, "2026-11-24 07:10");
    calls(&gateway, 2, "13900001234").await;
    it_is(&gateway, "2026-11-24 08:45");
    assert_eq!(order(&list(&desk).await), [ticket], "the same closed period, the same ticket");
    let act = async |path: &str, body: &str| {
        let bearer = format!("Bearer {}", gateway.api_token);
        let headers = [("authorization", &*bearer), ("content-type", "application/json")];
        let path = format!("/api/v1/tickets/{ticket}/{path}");
        gateway.post(&path, &headers, body.as_bytes().to_vec()).await
    };
    assert_eq!(act("call_back", r#"{"answer":"busy"}"#).await.status, 200);
    assert_eq!(act("call_back", r#"{"answer":"perhaps"}"#).await.status, 422);
    let csrf = desk.csrf().await;
    desk.post(&format!("/desk/tickets/{ticket}/claim"), &[("csrf", &csrf)]).await;
    let solved = r#"{"outcome":"solved","opinion":"已补办"}"#;
    assert_eq!(act("resolve", solved).await.status, 200);
    assert!(list(&desk).await.contains("没有要回的电话"));
    assert_eq!(act("call_back", r#"{"answer":"reached"}"#).await.status, 409);
    is_sound(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_up_again_or_joined_to_another_matter_waits_as_before() {
    let gateway = night().await;
    calls(&gateway, 1, "13900001234").await;
    calls(&gateway, 2, "13900005678").await;
    let (one, two) = ("BCS-2026-000001", "BCS-2026-000002");
    it_is(&gateway, "2026-11-24 08:40");
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let act = async |ticket: &str, act: &str, more: &[(&str, &str)]| {
        let form = [&[("csrf", &*csrf)], more].concat();
        let done = desk.post(&format!("/desk/tickets/{ticket}/{act}"), &form).await;
        assert_eq!(done.status, 303, "{}", done.text());
    };
    act(one, "claim", &[]).await;
    act(one, "resolve", &[("outcome", "solved"), ("opinion", "点错了")]).await;
    assert_eq!(order(&list(&desk).await), [two]);
    act(one, "reopen", &[("reason", "点错了")]).await;
    assert_eq!(order(&list(&desk).await), [one, two]);
    notes(&desk, one, "reached").await;
    assert_eq!(order(&list(&desk).await), [two]);
    act(two, "join", &[("into", one)]).await;
    let page = list(&desk).await;
    assert_eq!(order(&page), [one], "whoever waited waits there");
    assert!(page.contains("13900005678"), "{page}");
    // Joined by mistake: taken up again, it can be called, by its own telephone.
    act(two, "reopen", &[("reason", "并错了")]).await;
    assert!(order(&list(&desk).await).contains(&two.to_owned()));
    assert_eq!(notes(&desk, two, "busy").await.status, 303);
    is_sound(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_worked_with_one_key_for_each_end_of_a_try() {
    let gateway = night().await;
    calls(&gateway, 1, "13900001234").await;
    calls(&gateway, 2, "13900005678").await;
    it_is(&gateway, "2026-11-24 08:40");
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}{LIST}", gateway.base)).await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&format!("{}{LIST}", gateway.base)).await.unwrap();
    for (key, noted) in [("3", "无人接听"), ("2", "占线")] {
        appears(&browser, "button[data-key='1']").await;
        appears(&browser, "body").await.send_keys(key).await.unwrap();
        until("it is noted", async || {
            let says = browser.source().await.unwrap_or_default();
            says.contains(&format!("已记下：{noted}"))
        })
        .await;
    }
    let tries = "SELECT count(*) FROM event WHERE kind = 'called_back'";
    assert_eq!(number(&gateway.pool, tries).await, 2);
    browser.close().await.unwrap();
    gateway.stop().await;
}
