//! PostgreSQL away: every sender hears so in time, and nothing that was answered is lost.

use crate::support::{Spec, at, database, number, proxy::Proxy, sql, until};
use sqlx::Connection;
use std::time::{Duration, Instant};

async fn hears_503_in_time(break_it: impl Fn(&Proxy)) {
    let url = database().await;
    let (proxy, through) = Proxy::of_database(&url).await;
    let gateway = Spec::at(at("2026-11-24 10:00")).on(&through).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    break_it(&proxy);
    for n in 0..3 {
        let began = Instant::now();
        let answer = gateway.wechat("oB", "灯坏了", &format!("b{n}")).await;
        let took = began.elapsed();
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["retry-after"], "5");
        assert!(took < Duration::from_secs(4), "{took:?}");
    }
    let began = Instant::now();
    let voicemail = gateway.voicemail("r1", "2026-11-24T09:00:00+08:00").await;
    assert_eq!(voicemail.status, 503);
    assert!(began.elapsed() < Duration::from_secs(4));
    let readiness = gateway.readiness().await;
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("postgres"));
    proxy.mend();
    until("it takes submissions again", async || {
        gateway.wechat("oB", "灯坏了", "b0").await.status == 200
    })
    .await;
    let direct = sqlx::PgPool::connect(&url).await.unwrap();
    let tickets = number(&direct, "SELECT count(*) FROM ticket").await;
    // What was refused may have been kept all the same, once; what was answered was.
    assert!((2..=3).contains(&tickets), "{tickets}");
    assert_eq!(number(&direct, "SELECT last FROM register").await, tickets);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_refuses_connections_costs_a_503_within_4_seconds() {
    hears_503_in_time(Proxy::cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_costs_a_503_within_4_seconds() {
    hears_503_in_time(Proxy::silence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_once_is_not_noticed_by_the_sender() {
    let url = database().await;
    let (proxy, through) = Proxy::of_database(&url).await;
    let gateway = Spec::at(at("2026-11-24 10:00")).on(&through).start().await;
    for n in 0..5 {
        gateway.wechat("oA", "灯坏了", &format!("a{n}")).await.reply();
        proxy.cut();
        proxy.mend();
    }
    gateway.wechat("oA", "灯坏了", "last").await.reply();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_gone_in_the_middle_of_a_transaction_holds_its_locks_for_seconds() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    // Another gateway, whose machine lost its power: its session lives on and says nothing.
    let mut gone = sqlx::PgConnection::connect(&gateway.database_url).await.unwrap();
    sql(&mut gone, intake_gateway::store::SESSION).await;
    sql(&mut gone, "BEGIN; INSERT INTO register VALUES (1, 2026, 0)").await;
    let submission = crate::support::gateway::submission("s1", "灯坏了");
    until("its locks are free", async || {
        gateway.app.intake.accept(gateway.office, submission.clone()).await.is_ok()
    })
    .await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
}
