//! The one door: group commit, deduplication, register numbers, poison, and a full queue.

use crate::support::{
    Spec, TestGateway, at, gateway::submission, number, sql, until, waiting_for_a_lock,
};
use intake_gateway::{
    gateway::Role,
    intake::{AcceptError, Accepted},
};
use std::{collections::BTreeSet, sync::Arc};

fn of(accepted: &Accepted) -> (i32, bool) {
    match accepted {
        Accepted::Ticket { made, repeated, .. } => (made.ticket.sequence(), *repeated),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_1_numbers_have_no_gap_and_no_double_whatever_the_load() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let all = (0..2000).map(|n| gateway.accept_owned(format!("s{}", n % 1500)));
    let accepted = futures::future::join_all(all).await;
    let numbers: BTreeSet<i32> = accepted.iter().map(|one| of(one).0).collect();
    assert_eq!(numbers, (1..=1500).collect());
    assert_eq!(accepted.iter().filter(|one| of(one).1).count(), 500);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1500);
    // In order of registration.
    let disorder = "SELECT count(*) FROM (SELECT registered_at < lag(registered_at) OVER (ORDER BY ticket) AS back FROM ticket) t WHERE back";
    assert_eq!(number(&gateway.pool, disorder).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_twice_in_one_batch_makes_one_ticket_and_tells_both() {
    let gateway = Spec::at(at("2026-11-24 09:10")).with("intake.writers = 1").start().await;
    // The writer cannot commit while the register is locked: what comes meanwhile is one batch.
    let mut blocker = gateway.pool.begin().await.unwrap();
    sql(&mut blocker, "INSERT INTO register VALUES (1, 2026, 0)").await;
    let first = gateway.spawn_accept("first");
    until("the first is under way", async || waiting_for_a_lock(&gateway.pool).await == 1).await;
    let twins: Vec<_> = (0..8).map(|_| gateway.spawn_accept("twin")).collect();
    until("the twins wait", async || gateway.app.intake.waiting() == 8).await;
    blocker.rollback().await.unwrap();
    first.await.unwrap().unwrap();
    let mut told = Vec::new();
    for twin in twins {
        told.push(of(&twin.await.unwrap().unwrap()));
    }
    assert!(told.iter().all(|(number, _)| *number == 2), "{told:?}");
    assert_eq!(told.iter().filter(|(_, repeated)| !repeated).count(), 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_in_two_writers_and_two_gateways_makes_one_ticket_and_tells_all() {
    let one =
        Spec::at(at("2026-11-24 09:10")).with("intake.writers = 4\nintake.batch = 3").start().await;
    let two = Spec::at(at("2026-11-24 09:10"))
        .on(&one.database_url)
        .with("intake.writers = 4\nintake.batch = 3")
        .start()
        .await;
    for round in 0..20 {
        let sends = (0..24).map(|n| {
            let gateway = if n % 2 == 0 { &one } else { &two };
            gateway.accept_owned(format!("round{round}"))
        });
        let told: Vec<_> = futures::future::join_all(sends).await.iter().map(of).collect();
        assert!(told.iter().all(|(number, _)| *number == round + 1), "{told:?}");
        assert_eq!(told.iter().filter(|(_, repeated)| !repeated).count(), 1, "{told:?}");
    }
    assert_eq!(number(&one.pool, "SELECT count(*) FROM ticket").await, 20);
    assert_eq!(number(&one.pool, "SELECT last FROM register").await, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_and_one_citizens_burst_make_one_ticket() {
    let one = Spec::at(at("2026-11-24 09:10")).start().await;
    let two = Spec::at(at("2026-11-24 09:10")).on(&one.database_url).start().await;
    let sends = (0..40).map(|n| {
        let gateway = if n % 2 == 0 { &one } else { &two };
        async move {
            let mut message = submission(&format!("m{n}"), "灯坏了");
            message.thread = Some("test:oA".to_owned());
            gateway.app.intake.accept(gateway.office, message).await.unwrap()
        }
    });
    let told: BTreeSet<i32> =
        futures::future::join_all(sends).await.iter().map(|one| of(one).0).collect();
    assert_eq!(told, BTreeSet::from([1]));
    assert_eq!(number(&one.pool, "SELECT count(*) FROM message").await, 40);
    assert_eq!(number(&one.pool, "SELECT events FROM ticket").await, 40);
    let faults = crate::verify::faults(&one).await;
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_gateway_guesses_and_another_has_changed_is_noticed() {
    let one = Spec::at(at("2026-11-24 09:10")).start().await;
    let two = Spec::at(at("2026-11-24 09:10")).on(&one.database_url).start().await;
    let send = async |gateway: &TestGateway, id: &str, thread: &str| {
        let mut message = submission(id, "灯坏了");
        message.thread = Some(format!("test:{thread}"));
        let accepted = gateway.app.intake.accept(gateway.office, message).await.unwrap();
        let Accepted::Ticket { made, repeated, .. } = accepted else { panic!() };
        (made.ticket.sequence(), made.appended, repeated)
    };
    // Each alone, so that each is guessed to be new once its gateway knows the register.
    assert_eq!(send(&one, "a1", "oA").await, (1, false, false));
    assert_eq!(send(&two, "b1", "oB").await, (2, false, false));
    // The register has moved on without the first.
    assert_eq!(send(&one, "c1", "oC").await, (3, false, false));
    // Two and the citizens whom only the other one knows: a growing ticket, a repeat.
    assert_eq!(send(&two, "d1", "oD").await, (4, false, false));
    assert_eq!(send(&two, "a2", "oA").await, (1, true, false));
    assert_eq!(send(&two, "c1", "oC").await, (3, false, true));
    assert_eq!(send(&two, "e1", "oE").await, (5, false, false));
    // A citizen who is known to write, and whose matter takes no more messages, opens a new one.
    sql(&mut one.pool.acquire().await.unwrap(), "UPDATE ticket SET thread = NULL").await;
    assert_eq!(send(&one, "a3", "oA").await, (6, false, false));
    assert_eq!(number(&one.pool, "SELECT last FROM register").await, 6);
    let faults = crate::verify::faults(&one).await;
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_1_a_guess_that_is_wrong_of_one_register_leaves_no_gap_in_another() {
    let one = Spec::at(at("2026-01-01 09:10")).with("intake.writers = 1").start().await;
    let two = Spec::at(at("2026-01-01 09:10")).on(&one.database_url).start().await;
    let before = at("2025-12-31 09:10");
    let send = |gateway: &TestGateway, id: &str, received_at| {
        let (app, office, message) =
            (gateway.app.clone(), gateway.office, submission(id, "灯坏了"));
        tokio::spawn(async move { app.intake.accept_at(office, message, received_at).await })
    };
    let now = one.clock.now();
    // The first gateway knows how both registers stand, until the second one goes on in the newer.
    for (gateway, id, received_at) in [(&one, "a", before), (&one, "b", now), (&two, "c", now)] {
        send(gateway, id, received_at).await.unwrap().unwrap();
    }
    let mut blocker = one.pool.begin().await.unwrap();
    sql(&mut blocker, "SELECT FROM register WHERE year = 2025 FOR UPDATE").await;
    let first = send(&one, "d", before);
    until("the first is under way", async || waiting_for_a_lock(&one.pool).await == 1).await;
    let batch = [send(&one, "e", before), send(&one, "f", now)];
    until("a batch of both years waits", async || one.app.intake.waiting() == 2).await;
    blocker.rollback().await.unwrap();
    first.await.unwrap().unwrap();
    for sent in batch {
        sent.await.unwrap().unwrap();
    }
    let last = async |year| {
        number(&one.pool, &format!("SELECT last FROM register WHERE year = {year}")).await
    };
    assert_eq!((last(2025).await, last(2026).await), (3, 3));
    assert_eq!(crate::verify::faults(&one).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_in_a_batch_goes_to_the_quarantine_and_its_neighbours_go_through() {
    let gateway = Spec::at(at("2026-11-24 09:10")).with("intake.writers = 1").start().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "ALTER TABLE ticket ADD CHECK (problem <> 'poison')").await;
    drop(db);
    let all = (0..40).map(|n| {
        let text = if n == 17 { "poison" } else { "灯坏了" };
        gateway.accept(Box::leak(format!("s{n}").into_boxed_str()), text)
    });
    let accepted = futures::future::join_all(all).await;
    for (n, one) in accepted.iter().enumerate() {
        assert_eq!(matches!(one, Accepted::Quarantined), n == 17, "{n}");
    }
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 39);
    assert_eq!(number(&gateway.pool, "SELECT last FROM register").await, 39);
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM quarantine WHERE state = 'open'").await,
        1
    );
    // A repeat of the poison is answered in the same way and kept once.
    assert!(matches!(gateway.accept("s17", "poison").await, Accepted::Quarantined));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 1);
    let faults = crate::verify::faults(&gateway).await;
    assert!(faults.is_empty(), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_with_retry_after_and_memory_stays_bounded() {
    let gateway = Spec::at(at("2026-11-24 09:10"))
        .with("intake.queue = 4\nintake.batch = 1\nintake.writers = 1")
        .start()
        .await;
    let mut blocker = gateway.pool.begin().await.unwrap();
    sql(&mut blocker, "INSERT INTO register VALUES (1, 2026, 0)").await;
    let first = gateway.spawn_accept("first");
    until("the first is under way", async || waiting_for_a_lock(&gateway.pool).await == 1).await;
    let waiting: Vec<_> = (0..4).map(|n| gateway.spawn_accept(&format!("w{n}"))).collect();
    until("the queue is full", async || gateway.app.intake.waiting() == 4).await;
    let refused = gateway.wechat("oA", "灯坏了", "1").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    blocker.rollback().await.unwrap();
    first.await.unwrap().unwrap();
    for one in waiting {
        one.await.unwrap().unwrap();
    }
    assert_eq!(gateway.wechat("oA", "灯坏了", "1").await.number(), "BCS-2026-000006");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_answers_everything_that_was_taken_in() {
    let gateway = Arc::new(Spec::at(at("2026-11-24 09:10")).role(Role::All).start().await);
    let sends: Vec<_> = (0..300).map(|n| gateway.spawn_accept(&format!("s{n}"))).collect();
    gateway.app.intake.close();
    let (mut kept, mut refused) = (0, 0);
    for send in sends {
        match send.await.unwrap() {
            Ok(_) => kept += 1,
            Err(AcceptError::Busy(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(kept + refused, 300);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_an_urgent_word_marks_the_ticket_and_puts_it_first() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    gateway.accept("s1", "灯坏了").await;
    gateway.accept("s2", "他说要轻生").await;
    let page = gateway.api("/tickets").await.json();
    assert_eq!(page["items"][0]["number"], "BCS-2026-000002");
    assert_eq!(page["items"][0]["urgent"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn rd3_2_an_urgent_word_in_a_later_message_makes_the_ticket_an_emergency_once() {
    let gateway = Spec::at(at("2026-11-28 22:14")).start().await;
    gateway.accept("other", "灯坏了").await;
    for (id, text) in [("m1", "灯坏了"), ("m2", "我要轻生"), ("m3", "你们在哪"), ("m4", "轻生")]
    {
        let mut message = submission(id, text);
        message.thread = Some("test:oA".to_owned());
        gateway.app.intake.accept(gateway.office, message).await.unwrap();
    }
    let page = gateway.api("/tickets").await.json();
    assert_eq!(page["items"][0]["number"], "BCS-2026-000002", "first in the queue");
    assert_eq!(page["items"][0]["urgent"], true);
    let marked =
        "SELECT count(*) FROM event WHERE (data->>'urgent')::boolean AND kind = 'message_received'";
    assert_eq!(number(&gateway.pool, marked).await, 1, "the trail says when it became one");
    // RD3.2: at any hour. What is said after it as well, at most once for a burst.
    let now =
        "SELECT count(*) FROM outbox WHERE kind = 'grew' AND urgent AND ticket % 1000000000 = 2";
    assert!(number(&gateway.pool, now).await >= 2);
    assert!(crate::verify::faults(&gateway).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_at_its_end_is_not_answered_as_received() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    // Refused only when the transaction ends, after every row has been written.
    sql(
        &mut db,
        "CREATE FUNCTION too_late() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = 'disk_full'; END $$;
         CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON ticket DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION too_late()",
    )
    .await;
    let answer = gateway.app.intake.accept(gateway.office, submission("s1", "灯坏了")).await;
    assert!(matches!(answer, Err(AcceptError::Busy(_))), "{answer:?}");
    sql(&mut db, "DROP TRIGGER too_late ON ticket").await;
    assert_eq!(of(&gateway.accept("s1", "灯坏了").await), (1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_e_who_registers_at_the_counter_is_accountable() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let mut entry = submission("s1", "灯坏了");
    entry.taken_by = Some("zhao.min".to_owned());
    gateway.app.intake.accept(gateway.office, entry).await.unwrap();
    let ticket = gateway.api("/tickets/BCS-2026-000001").await.json();
    assert_eq!(ticket["accountable"], "赵敏");
    assert_eq!(ticket["state"], "accepted");
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_1_a_new_year_starts_a_new_register() {
    let gateway = Spec::at(at("2025-12-31 23:59")).start().await;
    assert_eq!(gateway.wechat("oA", "一", "1").await.number(), "BCS-2025-000001");
    gateway.clock.set(at("2026-01-01 00:00"));
    assert_eq!(gateway.wechat("oB", "二", "2").await.number(), "BCS-2026-000001");
}

impl TestGateway {
    async fn accept_owned(&self, source_id: String) -> Accepted {
        self.accept(&source_id, "灯坏了").await
    }

    fn spawn_accept(
        &self,
        source_id: &str,
    ) -> tokio::task::JoinHandle<Result<Accepted, AcceptError>> {
        let (app, office) = (self.app.clone(), self.office);
        let submission = submission(source_id, "灯坏了");
        tokio::spawn(async move { app.intake.accept(office, submission).await })
    }
}
