//! What a verified sender sent and nobody understood is kept, shown and can be replayed.

use crate::support::{Spec, at, number, sql};
use intake_gateway::{
    domain::id::QuarantineId,
    quarantine::{ReplayError, replay},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_message_is_acknowledged_and_kept_once() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let now = at("2026-11-24 10:00").timestamp();
    let sender = crate::support::gateway::wechat_sender();
    let xml = sender.message("oA", "hologram", &[("Beam", "x")], "9", now);
    for _ in 0..3 {
        let reply = gateway.wechat_xml(&xml).await.reply();
        assert!(reply.contains("工作人员会查看"), "{reply}");
    }
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 1);
    let id = number(&gateway.pool, "SELECT quarantine_id FROM quarantine").await;
    let outcome = replay(&gateway.app, gateway.office, QuarantineId(id), "zhao.min").await;
    assert!(matches!(outcome, Err(ReplayError::NotUnderstood)));
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM quarantine WHERE state = 'open'").await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refused_becomes_a_ticket_when_it_is_replayed() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "ALTER TABLE ticket ADD CONSTRAINT strict CHECK (problem <> '灯坏了')").await;
    let reply = gateway.wechat("oA", "灯坏了", "1").await.reply();
    assert!(reply.contains("工作人员会查看"), "{reply}");
    sql(&mut db, "ALTER TABLE ticket DROP CONSTRAINT strict").await;
    let id = number(&gateway.pool, "SELECT quarantine_id FROM quarantine").await;
    let ticket =
        replay(&gateway.app, gateway.office, QuarantineId(id), "zhao.min").await.unwrap().unwrap();
    assert_eq!(ticket.sequence(), 1);
    let again = replay(&gateway.app, gateway.office, QuarantineId(id), "zhao.min").await;
    assert!(matches!(again, Err(ReplayError::Gone)));
    // The citizen who sends it once more gets the number.
    assert_eq!(gateway.wechat("oA", "灯坏了", "1").await.number(), "BCS-2026-000001");
    assert!(crate::verify::faults(&gateway).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_anything_should_be_is_kept_and_acknowledged() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let now = at("2026-11-24 10:00").timestamp();
    let sender = crate::support::gateway::wechat_sender();
    let xml = sender.text(&"o".repeat(300), "灯坏了", "1", now);
    for _ in 0..2 {
        let reply = gateway.wechat_xml(&xml).await.reply();
        assert!(reply.contains("工作人员会查看"), "{reply}");
    }
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 1);
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM quarantine WHERE reason = 'out_of_bounds'")
            .await,
        1
    );
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_with_another_content_leaves_a_trace_and_the_first_one_stands() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let first = gateway.voicemail("r1", "2026-11-24T08:00:00+08:00").await;
    let same = gateway.voicemail("r1", "2026-11-24T08:00:00+08:00").await;
    assert_eq!((first.status, same.status), (202, 200));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 0);
    for _ in 0..2 {
        let other = gateway.voicemail("r1", "2026-11-24T09:00:00+08:00").await;
        assert_eq!((other.status, other.number()), (200, first.number()));
    }
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM quarantine WHERE reason = 'id_reused'").await,
        1
    );
    // It is no part of the ticket: replaying it would only look as if it were.
    let id = number(&gateway.pool, "SELECT quarantine_id FROM quarantine").await;
    let outcome = replay(&gateway.app, gateway.office, QuarantineId(id), "zhao.min").await;
    assert!(matches!(outcome, Err(ReplayError::NotUnderstood)));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 1);
}
