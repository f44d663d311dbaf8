//! `intake verify` finds what was tampered with.

use crate::{
    desk::Desk,
    support::{Spec, TestGateway, at, sql},
};
use intake_gateway::verify::verify;

pub async fn faults(gateway: &TestGateway) -> Vec<String> {
    let mut db = gateway.pool.acquire().await.unwrap();
    verify(&mut db).await.unwrap().faults
}

/// Three tickets, one with two messages and a claim.
async fn gateway() -> TestGateway {
    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    for (openid, id) in [("oA", "1"), ("oB", "2"), ("oA", "3"), ("oC", "4")] {
        gateway.wechat(openid, "灯坏了", id).await.reply();
    }
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_register_has_no_fault() {
    assert_eq!(faults(&gateway().await).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rd4_2_every_kind_of_tampering_is_named() {
    const FREE: &str = "ALTER TABLE event DISABLE TRIGGER event_only_grows;";
    for (tampering, says) in [
        (
            "UPDATE event SET data = replace(data::text, 'false', 'true')::json WHERE ticket % 10 = 2",
            "event 1 does not fit its hash",
        ),
        (
            "UPDATE event SET at = at - interval '1 day' WHERE ticket % 10 = 3",
            "event 1 does not fit its hash",
        ),
        (
            "UPDATE event SET actor = 'gateway' WHERE ticket % 10 = 1 AND seq = 2",
            "event 2 does not fit its hash",
        ),
        (
            "DELETE FROM event WHERE ticket % 10 = 1 AND seq = 2",
            "the trail does not end where the ticket says",
        ),
        ("DELETE FROM event WHERE ticket % 10 = 1 AND seq = 1", "event 1 is missing"),
        ("DELETE FROM event WHERE ticket % 10 = 2", "has no event"),
        (
            "UPDATE message SET raw = 'x' WHERE ticket % 10 = 1 AND seq = 2",
            "the message of event 2 was changed",
        ),
        (
            "UPDATE message SET text = '灯没坏' WHERE ticket % 10 = 1 AND seq = 2",
            "the message of event 2 was changed",
        ),
        (
            "DELETE FROM message WHERE ticket % 10 = 1 AND seq = 1",
            "the message of event 1 is missing",
        ),
        ("DELETE FROM ticket WHERE ticket % 10 = 2", "number 2 is missing"),
        ("DELETE FROM ticket WHERE ticket % 10 = 3", "number 3 is missing"),
        ("UPDATE register SET last = 4", "number 4 is missing"),
        ("UPDATE register SET last = 2", "number 3 is beyond the counter"),
        ("DELETE FROM timer WHERE kind = 3", "no armed limit"),
        ("DELETE FROM ticket WHERE ticket % 10 = 1", "has no ticket"),
        (
            "UPDATE ticket SET due_at = due_at + interval '1 day' WHERE ticket % 10 = 2",
            "due_at is not what the trail says",
        ),
        ("UPDATE ticket SET level = 3 WHERE ticket % 10 = 2", "level is not what the trail says"),
        (
            "UPDATE ticket SET level = 5, overdue = true WHERE ticket % 10 = 2",
            "overdue is not what the trail says",
        ),
        (
            "UPDATE ticket SET state = 'accepted' WHERE ticket % 10 = 1",
            "state is not what the trail says",
        ),
        (
            "UPDATE ticket SET accountable = 1 WHERE ticket % 10 = 3",
            "accountable is not what the trail says",
        ),
        (
            "UPDATE ticket SET follow_up_at = NULL WHERE ticket % 10 = 3",
            "follow_up_at is not what the trail says",
        ),
        (
            "UPDATE ticket SET runs_from = now() WHERE ticket % 10 = 3",
            "runs_from is not what the trail says",
        ),
        ("UPDATE ticket SET unit = 1 WHERE ticket % 10 = 3", "unit is not what the trail says"),
        (
            "UPDATE ticket SET cause = 'staff' WHERE ticket % 10 = 3",
            "cause is not what the trail says",
        ),
        (
            "INSERT INTO in_hand SELECT 1, 'unit', 1, urgency, due_at, ticket FROM ticket",
            "is not in the lists that it belongs in",
        ),
        (
            "UPDATE ticket SET outcome = 'solved' WHERE ticket % 10 = 3",
            "has another outcome than its state",
        ),
        (
            "UPDATE ticket SET state = 'awaiting_citizen' WHERE ticket % 10 = 3",
            "row cannot be read",
        ),
        (
            "UPDATE timer SET due_at = due_at + interval '1 day' WHERE kind = 3",
            "due at another time than its armed limit",
        ),
        // The end of a trail cut off, and the ticket's own end of it made to fit.
        (
            "DELETE FROM event WHERE ticket % 10 = 1 AND seq = 2;
             DELETE FROM message WHERE ticket % 10 = 1 AND seq = 2;
             UPDATE ticket t SET events = 1, chain = e.hash FROM event e
             WHERE e.ticket = t.ticket AND e.seq = 1 AND t.ticket % 10 = 1",
            "grew was told and is not in the trail",
        ),
    ] {
        let gateway = gateway().await;
        let mut db = gateway.pool.acquire().await.unwrap();
        sql(&mut db, &format!("{FREE} {tampering}")).await;
        let faults = faults(&gateway).await;
        assert!(faults.iter().any(|fault| fault.contains(says)), "{tampering}: {faults:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rd4_2_words_put_beside_a_step_that_is_no_message_are_named() {
    let gateway = gateway().await;
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    desk.post("/desk/tickets/BCS-2026-000002/claim", &[("csrf", &csrf)]).await;
    assert_eq!(faults(&gateway).await, Vec::<String>::new());
    let mut db = gateway.pool.acquire().await.unwrap();
    let forged = "INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, raw) \
        SELECT office_id, ticket, 2, received_at, received_at, '已办结', 'x' FROM message \
        WHERE ticket % 10 = 2 AND seq = 1";
    sql(&mut db, forged).await;
    let faults = faults(&gateway).await;
    assert!(faults.iter().any(|fault| fault.contains("is none of a message")), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_refuses_to_change_the_trail() {
    let gateway = gateway().await;
    for statement in ["UPDATE event SET kind = 'x'", "DELETE FROM event", "TRUNCATE event"] {
        let refused = sqlx::query(statement).execute(&gateway.pool).await.unwrap_err();
        assert!(refused.to_string().contains("the trail only grows"), "{statement}: {refused}");
    }
}
