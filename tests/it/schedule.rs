//! The schedule against everything that happens to Redis and to replicas (invariants 1 and 6,
//! scheduling.md B5).

use crate::support::{
    Spec, TestGateway, at, database, number, proxy::Proxy, redis::OwnRedis, sql, until,
};
use chrono::TimeDelta;
use intake_gateway::{
    clock::Clock,
    domain::{id::OfficeId, register::RegisterNumber, timer::TimerKind},
    gateway::Role,
    offices::Offices,
    schedule::{
        TimerKey,
        index::{Claim, Index},
        runner::{Runner, Settings},
    },
    store,
};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const SETTINGS: Settings = Settings {
    batch: 500,
    workers: 2,
    lease: Duration::from_secs(2),
    look_every: Duration::from_secs(1),
    reconcile_every: Duration::from_millis(300),
    late: Duration::from_secs(2),
};

/// As above, with a sweep that comes too late to cover for anything else.
const WITHOUT_SWEEP: Settings = Settings { late: Duration::from_secs(3600), ..SETTINGS };

/// Seconds that nothing may be late, in a debug build on a busy machine.
const TOLERABLE_S: f64 = 30.0;

/// One office on a database of its own.
async fn office() -> (PgPool, String) {
    let url = database().await;
    let gateway = Spec::at(at("2026-11-24 09:00")).on(&url).start().await;
    gateway.stop().await;
    (PgPool::connect(&url).await.unwrap(), url)
}

/// Tickets with a follow-up each, due so many milliseconds from now by the database's clock.
async fn tickets(pool: &PgPool, count: i64, due_in_ms: i64) {
    let mut db = pool.acquire().await.unwrap();
    let statement = format!(
        "INSERT INTO ticket (office_id, ticket, channel, state, urgency, problem, registered_at,
             accepted_at, follow_up_at, due_at, provisional, calendar_version, events, chain)
         SELECT 1, 2026000000000 + n, 'counter', 'registered', 1, '灯坏了', now() - interval '1 hour',
             now(), now(), now() + interval '2 days', false, 1, 1, sha256('x')
         FROM generate_series((SELECT coalesce(max(ticket % 1000000000), 0) + 1 FROM ticket),
                              (SELECT coalesce(max(ticket % 1000000000), 0) + {count} FROM ticket)) n;
         INSERT INTO timer (office_id, ticket, kind, gen, state, due_at)
         SELECT 1, ticket, 1, 1, 0, now() + interval '{due_in_ms} milliseconds'
         FROM ticket WHERE NOT EXISTS (SELECT FROM timer t WHERE t.ticket = ticket.ticket)"
    );
    sql(&mut db, &statement).await;
}

/// One replica of the schedule.
struct Replica {
    runner: Arc<Runner>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Replica {
    async fn start(pool: &PgPool, redis: &str, name: &str) -> Self {
        Self::start_with(pool, redis, name, SETTINGS).await
    }

    async fn start_with(pool: &PgPool, redis: &str, name: &str, settings: Settings) -> Self {
        let replica = Self::with(pool, redis, name, settings).await;
        replica.tasks.spawn(Arc::clone(&replica.runner).run(replica.stop.clone()));
        replica.tasks.spawn(Arc::clone(&replica.runner).listen(replica.stop.clone()));
        replica.tasks.spawn(Arc::clone(&replica.runner).keep_true(replica.stop.clone()));
        replica
    }

    async fn new(pool: &PgPool, redis: &str, name: &str) -> Self {
        Self::with(pool, redis, name, SETTINGS).await
    }

    async fn with(pool: &PgPool, redis: &str, name: &str, settings: Settings) -> Self {
        let offices = Arc::new(Offices::default());
        offices.reload(&mut pool.acquire().await.unwrap()).await.unwrap();
        let index = Index::new(redis, "test").unwrap();
        let runner =
            Runner::new(pool.clone(), index, offices, settings, name.to_owned(), Arc::new(|_| {}));
        Self { runner, stop: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn effects(pool: &PgPool) -> i64 {
    number(pool, "SELECT count(*) FROM event WHERE kind = 'follow_up_due'").await
}

/// All took effect, each once, none too late, none early.
async fn each_took_effect_once(pool: &PgPool, count: i64) {
    until("every timer has fired", async || {
        number(pool, "SELECT count(*) FROM timer WHERE state = 0 AND kind = 1").await == 0
    })
    .await;
    assert_eq!(effects(pool).await, count);
    let distinct = "SELECT count(DISTINCT ticket) FROM event WHERE kind = 'follow_up_due'";
    assert_eq!(number(pool, distinct).await, count);
    let told = "SELECT count(*) FROM outbox WHERE kind = 'follow_up'";
    assert_eq!(number(pool, told).await, count);
    let (earliest, latest): (f64, f64) = sqlx::query_as(
        "SELECT min(l)::float8, max(l)::float8 FROM (
             SELECT extract(epoch FROM e.at - t.due_at) AS l
             FROM event e JOIN timer t USING (office_id, ticket) WHERE e.kind = 'follow_up_due' AND t.kind = 1) x",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    eprintln!("{count} effects, {latest:.3} s late at most");
    assert!(latest < TOLERABLE_S, "{latest} s late");
    assert!(earliest > -1.0, "{earliest} s early");
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_in_the_middle_of_20000_due_at_one_instant_loses_none() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 20_000, 1500).await;
    // The sweep is off: the rebuild alone brings them back.
    let one = Replica::start_with(&pool, &redis.url(), "one", WITHOUT_SWEEP).await;
    let two = Replica::start_with(&pool, &redis.url(), "two", WITHOUT_SWEEP).await;
    until("some have fired", async || effects(&pool).await > 2000).await;
    redis.command("FLUSHALL").await.unwrap();
    assert!(effects(&pool).await < 20_000, "it was in the middle");
    each_took_effect_once(&pool, 20_000).await;
    one.end().await;
    two.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_holding_leases_delays_and_loses_nothing() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 3000, 0).await;
    // It claims, carries half of its claims out, and is gone before it acknowledges any.
    let dead = Replica::new(&pool, &redis.url(), "dead").await;
    dead.runner.rebuild().await.unwrap();
    let mut db = pool.acquire().await.unwrap();
    let epoch = store::timer::epoch(&mut db, 0).await.unwrap().unwrap();
    let claim = dead.runner.index().claim(epoch, 1000, SETTINGS.lease).await.unwrap();
    let Claim::Due { leased, .. } = claim else { panic!("nothing claimed") };
    assert_eq!(leased.len(), 1000);
    let half: Vec<TimerKey> = leased.iter().take(500).filter_map(|one| one.key).collect();
    let offices = Offices::default();
    offices.reload(&mut db).await.unwrap();
    intake_gateway::schedule::fire::fire(&mut db, &offices, &half).await.unwrap();
    drop((db, leased, dead));

    // The sweep is off: the leases' end alone brings them back.
    let alive = Replica::start_with(&pool, &redis.url(), "alive", WITHOUT_SWEEP).await;
    each_took_effect_once(&pool, 3000).await;
    alive.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stopped_and_restarted_empty_delays_and_loses_nothing() {
    let (pool, _) = office().await;
    let mut redis = OwnRedis::start().await;
    let one = Replica::start(&pool, &redis.url(), "one").await;
    until("the index is there", async || {
        one.runner.index().epoch().await.is_ok_and(|e| e.is_some())
    })
    .await;
    tickets(&pool, 2000, 300).await;
    redis.end();
    // Without Redis, straight from PostgreSQL.
    until("they fire without Redis", async || effects(&pool).await == 2000).await;
    tickets(&pool, 2000, 300).await;
    redis.begin().await;
    tickets(&pool, 1000, 600).await;
    each_took_effect_once(&pool, 5000).await;
    until("the index is filled again", async || {
        one.runner.index().epoch().await.is_ok_and(|e| e.is_some())
    })
    .await;
    one.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_races_a_claim_wins_or_loses_and_never_both() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 600, 0).await;
    let one = Replica::new(&pool, &redis.url(), "one").await;
    one.runner.rebuild().await.unwrap();
    let cancels = (1..=600_i32).map(|n| {
        let pool = pool.clone();
        async move {
            let ticket = RegisterNumber::new(2026, n).unwrap();
            let mut transaction = pool.begin().await.unwrap();
            store::ticket::lock(&mut transaction, OfficeId(1), ticket).await.unwrap().unwrap();
            store::timer::cancel_all(&mut transaction, OfficeId(1), ticket).await.unwrap();
            transaction.commit().await.unwrap();
        }
    });
    let cancelling =
        futures::StreamExt::for_each_concurrent(futures::stream::iter(cancels), 6, |one| one);
    let (_, stepped) = tokio::join!(cancelling, one.runner.step());
    let fired = stepped.unwrap().fired as i64;
    assert_eq!(number(&pool, "SELECT count(*) FROM timer WHERE state = 1").await, fired);
    assert_eq!(number(&pool, "SELECT count(*) FROM timer WHERE state = 2").await, 600 - fired);
    assert_eq!(effects(&pool).await, fired);
    let both = "SELECT count(*) FROM timer t JOIN event e USING (office_id, ticket) WHERE t.state = 2 AND e.kind = 'follow_up_due'";
    assert_eq!(number(&pool, both).await, 0);
    eprintln!("{fired} fired, {} cancelled", 600 - fired);
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_fire_nothing_early_and_lose_nothing() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 400, 1500).await;
    let one = Replica::new(&pool, &redis.url(), "one").await;
    one.runner.rebuild().await.unwrap();
    let mut db = pool.acquire().await.unwrap();
    let mut armed = store::timer::armed_after(&mut db, None, 400).await.unwrap();
    drop(db);
    // As a Redis would order them whose clock is 10 s ahead, and one that is 10 s behind.
    for (index, timer) in armed.iter_mut().enumerate() {
        let skew = TimeDelta::seconds(if index % 2 == 0 { -10 } else { 10 });
        timer.due_at += skew;
    }
    one.runner.index().schedule(&armed).await.unwrap();
    one.runner.step().await.unwrap();
    assert_eq!(effects(&pool).await, 0, "claimed by Redis' clock, not due by PostgreSQL's");
    let running = Replica::start(&pool, &redis.url(), "one").await;
    each_took_effect_once(&pool, 400).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_armed_elsewhere_wakes_a_sleeping_replica() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    let sleeping = Replica::new(&pool, &redis.url(), "sleeping").await;
    sleeping.runner.rebuild().await.unwrap();
    let stop = sleeping.stop.clone();
    sleeping.tasks.spawn(Arc::clone(&sleeping.runner).listen(stop.clone()));
    let mut listening = sleeping.runner.index().listen().await.unwrap();
    tickets(&pool, 1, 0).await;
    let timer = TimerKey {
        office: OfficeId(1),
        ticket: RegisterNumber::new(2026, 1).unwrap(),
        kind: TimerKind::FollowUp,
        generation: 1,
        due_at: "2026-11-24T00:00:00Z".parse().unwrap(),
    };
    let elsewhere = Index::new(&redis.url(), "test").unwrap();
    elsewhere.schedule(&[timer]).await.unwrap();
    let mut messages = listening.on_message();
    let message =
        tokio::time::timeout(Duration::from_secs(5), futures::StreamExt::next(&mut messages));
    assert!(message.await.unwrap().is_some());
    // A later one moves nothing and wakes nobody.
    let later = TimerKey { due_at: timer.due_at + TimeDelta::hours(1), generation: 2, ..timer };
    elsewhere.schedule(&[later]).await.unwrap();
    let silence =
        tokio::time::timeout(Duration::from_millis(300), futures::StreamExt::next(&mut messages));
    assert!(silence.await.is_err());
    drop(messages);
    sleeping.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_entries_in_redis_harm_nothing() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 10, 0).await;
    let one = Replica::new(&pool, &redis.url(), "one").await;
    one.runner.rebuild().await.unwrap();
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for member in
        ["", "x", "1:2:3", "1:2026000000001:1:99", "9:2026000000001:1:1", "1:-1:1:1", "a:b:c:d:e"]
    {
        let () = redis::cmd("ZADD")
            .arg("{test:s0}:v1:due")
            .arg(1)
            .arg(member)
            .query_async(&mut connection)
            .await
            .unwrap();
    }
    assert_eq!(one.runner.step().await.unwrap().fired, 10);
    assert_eq!(one.runner.index().counts().await.unwrap(), (0, 0));
    assert_eq!(effects(&pool).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_somebody_holds_delays_no_other_and_fires_when_it_is_free() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 300, 0).await;
    let mut holder = pool.begin().await.unwrap();
    sql(&mut holder, "SELECT FROM ticket WHERE ticket = 2026000000007 FOR UPDATE").await;
    let one = Replica::new(&pool, &redis.url(), "one").await;
    one.runner.rebuild().await.unwrap();
    assert_eq!(one.runner.step().await.unwrap().fired, 299);
    assert_eq!(one.runner.reconcile().await.unwrap(), 0, "the sweep does not wait for it either");
    holder.rollback().await.unwrap();
    until("the sweep finds it", async || one.runner.reconcile().await.unwrap() == 1).await;
    each_took_effect_once(&pool, 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_that_cannot_be_carried_out_holds_up_no_other() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 200, 0).await;
    let mut db = pool.acquire().await.unwrap();
    // One whose event the database refuses, one whose ticket cannot be read, one without a ticket.
    sql(&mut db, "ALTER TABLE event ADD CHECK (ticket <> 2026000000050)").await;
    sql(&mut db, "UPDATE ticket SET state_data = '[]' WHERE ticket = 2026000000060").await;
    sql(&mut db, "INSERT INTO timer VALUES (1, 2026000009999, 1, 1, 0, now())").await;
    let one = Replica::new(&pool, &redis.url(), "one").await;
    one.runner.rebuild().await.unwrap();
    assert_eq!(one.runner.step().await.unwrap().fired, 198);
    assert_eq!(one.runner.reconcile().await.unwrap(), 0);
    assert_eq!(number(&pool, "SELECT count(*) FROM timer WHERE state = 0").await, 3);
    assert_eq!(effects(&pool).await, 198);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_went_missing_from_redis_are_entered_again() {
    let (pool, _) = office().await;
    let redis = OwnRedis::start().await;
    tickets(&pool, 50, 3_600_000).await;
    let one = Replica::with(&pool, &redis.url(), "one", WITHOUT_SWEEP).await;
    one.runner.reconcile().await.unwrap();
    let mut db = pool.acquire().await.unwrap();
    let lost = store::timer::armed_after(&mut db, None, 20).await.unwrap();
    one.runner.index().remove(&lost).await.unwrap();
    assert_eq!(one.runner.index().counts().await.unwrap(), (30, 0));
    for _ in 0..62 {
        one.runner.reconcile().await.unwrap();
    }
    assert_eq!(one.runner.index().counts().await.unwrap(), (50, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn r6_an_unsolved_matter_rises_at_each_limit_once_and_ends_overdue() {
    let gateway = Spec::at(at("2025-03-03 21:00")).start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    // Years later by the database's clock: all that should have happened does, in order.
    until("nothing is due any more", async || gateway.app.schedule.reconcile().await.unwrap() == 0)
        .await;
    let ticket = gateway.api("/tickets/BCS-2025-000001").await.json();
    assert_eq!(ticket["level"], 5);
    assert_eq!(ticket["overdue"], true);
    // R6: all limits run from acceptance on Tuesday the 4th.
    assert_eq!(ticket["due_at"], "2025-03-11T16:30:00+08:00");
    let kinds: Vec<String> = ticket["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].as_str().unwrap().to_owned())
        .collect();
    let count = |kind: &str| kinds.iter().filter(|one| *one == kind).count();
    assert_eq!((count("raised"), count("overdue"), count("follow_up_due")), (2, 1, 1), "{kinds:?}");
    assert_eq!(kinds.last().map(String::as_str), Some("overdue"));
    assert!(crate::verify::faults(&gateway).await.is_empty());
    assert_eq!(gateway.app.schedule.reconcile().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_the_gateway_takes_submissions_fires_and_says_so() {
    let nowhere = Proxy::before("127.0.0.1:1".to_owned()).await;
    nowhere.cut();
    let mut spec = Spec::at(Clock::system().now())
        .role(Role::All)
        .with("schedule.reconcile_every_s = 1\nschedule.look_every_s = 1");
    spec.redis_url = Some(format!("redis://{}/0", nowhere.address));
    let gateway: TestGateway = spec.start().await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE timer SET due_at = now() WHERE kind = 2").await;
    until("the warning fires without Redis", async || {
        number(&gateway.pool, "SELECT count(*) FROM event WHERE kind = 'limit_near'").await == 1
    })
    .await;
    let readiness = gateway.readiness().await;
    assert_eq!(readiness.status, 200);
    let redis = readiness.json()["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["name"] == "redis")
        .cloned()
        .unwrap();
    assert_eq!(redis["state"], "degraded", "{redis}");
    gateway.stop().await;
}
