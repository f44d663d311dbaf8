//! What the lists cost: which index answers, how much is read, and what a change of state writes.

use crate::support::{Spec, at, number, sql};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::ChannelKind;
use intake_gateway::{
    domain::{
        event::{Actor, Happened},
        id::{OfficeId, StaffId, UnitId},
        level::Level,
        register::RegisterNumber,
        ticket::{Cause, Evaluation, NewLimit, NotAllowed, Outcome, Ticket},
    },
    search::words::Words,
    store::{
        self,
        queue::{Cursor, Filter},
        search::Which,
    },
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row, postgres::PgPoolOptions};
use std::time::Duration;

const OFFICE: OfficeId = OfficeId(1);

/// A filter for each of the lists that are made, and two of dates and of what no list is made for.
fn filters(now: DateTime<Utc>) -> [Filter; 8] {
    let all = Filter::default;
    [
        all(),
        Filter { level: Level::from_number(5), ..all() },
        Filter { channel: Some(ChannelKind::Hotline), ..all() },
        Filter { accountable: Some(StaffId(2)), ..all() },
        Filter { unit: Some(UnitId(2)), ..all() },
        Filter { state: Some("resolved"), ..all() },
        Filter { due_from: Some(now), due_before: Some(now + TimeDelta::hours(24)), ..all() },
        Filter { unclaimed: true, channel: Some(ChannelKind::Wechat), ..all() },
    ]
}

/// Asks every list once, so that its statement is prepared.
async fn ask_all(db: &mut PgConnection, now: DateTime<Utc>) {
    // In the first words, in messages only, nowhere.
    let [first, message, rare] = ["树木", "倒了", "裂缝"].map(Words::of);
    let after = Cursor { urgency: 1, due_at: now, ticket: RegisterNumber::new(2026, 500).unwrap() };
    for filter in &filters(now) {
        for which in [Which::Open, Which::Closed] {
            for words in [None, first.as_ref(), message.as_ref(), rare.as_ref()] {
                store::search::list(db, OFFICE, which, filter, words, None, 50).await.unwrap();
                store::search::list(db, OFFICE, which, filter, words, Some(after), 50)
                    .await
                    .unwrap();
            }
        }
    }
    store::queue::tally(db, OFFICE, now, now, now).await.unwrap();
    store::search::unfinished(db).await.unwrap();
    store::search::held_open(db, (OFFICE, 0), 100).await.unwrap();
    let number = |n| RegisterNumber::new(2026, n).unwrap();
    store::search::registered(db, OFFICE, (number(1), number(100))).await.unwrap();
    store::search::documents(db, &[(OFFICE, number(1))]).await.unwrap();
}

/// The plan that this connection has for the prepared statement that holds `part`.
async fn plan(db: &mut PgConnection, parts: &[&str]) -> Value {
    let all = sqlx::raw_sql(
        "SELECT name, statement, parameter_types::text[] AS types FROM pg_prepared_statements",
    )
    .fetch_all(&mut *db)
    .await
    .unwrap();
    let fitting: Vec<_> = all
        .iter()
        .filter(|row| {
            let statement: String = row.get("statement");
            parts.iter().all(|part| match part.strip_prefix('!') {
                Some(absent) => !statement.contains(absent),
                None => statement.contains(part),
            })
        })
        .collect();
    assert_eq!(fitting.len(), 1, "{parts:?}");
    let types: Vec<String> = fitting[0].get("types");
    let arguments: Vec<String> = types.iter().map(|kind| format!("NULL::{kind}")).collect();
    let name: String = fitting[0].get("name");
    // As the search does; a plan that has to be made anew is made now.
    let bitmaps = if parts.contains(&"MATERIALIZED") { "on" } else { "off" };
    sql(db, &format!("SET enable_bitmapscan = {bitmaps}")).await;
    let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE {name}({})", arguments.join(", "));
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(explain)).fetch_one(db).await.unwrap();
    row.get::<Value, _>(0)
}

/// Every node of a plan: its kind, its index, its table, whether it works for each row of another.
fn nodes(plan: &Value, into: &mut Vec<(String, String, String)>) {
    let text = |key: &str| plan[key].as_str().unwrap_or_default().to_owned();
    into.push((text("Node Type"), text("Index Name"), text("Alias")));
    for child in plan["Plans"].as_array().into_iter().flatten() {
        nodes(child, into);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_list_reads_more_than_it_shows_whenever_its_plan_was_made() {
    let now = at("2026-11-24 09:00");
    let gateway = Spec::at(now).start().await;
    let limit = Duration::from_secs(10);
    // Plans of the first minute, when every table is empty, stay.
    let mut young = store::own_connection(&gateway.app.pool, limit).await.unwrap();
    ask_all(&mut young, now).await;
    let mut db = gateway.pool.acquire().await.unwrap();
    fill(&mut db).await;
    // What has found nothing yet is asked of the texts now.
    ask_all(&mut young, now).await;
    uses_its_indexes("young", &mut young).await;
    // Which makes them all anew.
    sql(&mut db, "ANALYZE").await;
    let mut old = store::own_connection(&gateway.app.pool, limit).await.unwrap();
    ask_all(&mut old, now).await;
    uses_its_indexes("old", &mut old).await;
    uses_its_indexes("aged", &mut young).await;
}

async fn uses_its_indexes(age: &str, db: &mut PgConnection) {
    let queue = "$1 AND is_open AND (urgency";
    {
        for (parts, index, may_sort) in [
            // Pages, and the first look of a search, in the order of the list.
            (vec![queue], "ticket_queue", false),
            (vec!["is_open AND level > 1 AND level = $8"], "ticket_queue_raised", false),
            (
                vec!["is_open AND channel <> 'wechat' AND channel = $7"],
                "ticket_queue_by_hand",
                false,
            ),
            (vec!["FROM in_hand"], "in_hand_pkey", false),
            (vec!["FROM in_hand"], "ticket_pkey", false),
            (vec!["NOT is_open AND ticket < $2"], "ticket_pkey", false),
            (vec!["NOT is_open AND level > 1"], "ticket_closed_raised", false),
            (vec!["NOT is_open AND channel <> 'wechat'"], "ticket_closed_by_hand", false),
            // What the index has of words, which is put into order.
            (vec!["MATERIALIZED", "WHERE is_open AND v @@"], "ticket_search_open", true),
            (vec!["MATERIALIZED", "WHERE v @@"], "ticket_search_all", true),
            (vec!["AS i(ticket, word)"], "message_pkey", true),
            (vec!["t.ticket BETWEEN"], "ticket_pkey", true),
            (
                vec!["unnest($1::int[], $2::bigint[]) AS i(office_id, ticket)", "array_agg"],
                "ticket_pkey",
                true,
            ),
            (vec!["t.events > s.seq"], "ticket_search_followed", false),
        ] {
            let plan = plan(db, &parts).await;
            let mut all = Vec::new();
            nodes(&plan[0]["Plan"], &mut all);
            let has = |kind: &str| all.iter().any(|(node, ..)| node.contains(kind));
            assert!(all.iter().any(|(_, used, _)| used == index), "{age} {parts:?}: {all:?}");
            // Names of a handful of units and people apart.
            let whole = |(node, _, table): &(String, String, String)| {
                node == "Seq Scan" && !["staff", "u"].contains(&table.as_str())
            };
            assert!(!all.iter().any(whole), "{age} {parts:?}: {all:?}");
            assert!(may_sort || !has("Sort"), "{age} {parts:?}: {all:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_what_it_shows_and_a_search_not_much_more() {
    let now = at("2026-11-24 09:00");
    let gateway = Spec::at(now).start().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    fill(&mut db).await;
    let own = store::own_connection(&gateway.app.pool, Duration::from_secs(10));
    let mut own = own.await.unwrap();
    ask_all(&mut own, now).await;
    uses_its_indexes("filled", &mut own).await;
    let [first, level, channel, person, unit, resolved, _, mixed] = filters(now);
    let nobody = Filter { channel: Some(ChannelKind::WindowPhone), ..Filter::default() };
    let overdue = Filter { due_before: Some(DateTime::UNIX_EPOCH), ..Filter::default() };
    let nothing = Filter { to_do_before: overdue.due_before, unclaimed: true, ..level.clone() };
    let later = Filter { due_from: Some(now + TimeDelta::days(9)), ..unit.clone() };
    let after = Cursor {
        urgency: 1,
        due_at: now + TimeDelta::days(5),
        ticket: RegisterNumber::new(2026, 500).unwrap(),
    };
    let (common, rare) = (Words::of("树木"), Words::of("裂缝"));
    // Where a list is made, what is shown and one more; among closed tickets one in ten is open and
    // passed over. Where none is made, so many as one page may look at.
    let most_looked = store::queue::PAGE_LOOK * 10 / 9 + 60;
    for (name, filter, words, after, most_open, most_closed) in [
        ("first", &first, None, None, 58, 58),
        ("deep", &first, None, Some(after), 58, 58),
        ("level", &level, None, None, 51, 51),
        ("channel", &channel, None, None, 51, 51),
        ("channel without tickets", &nobody, None, None, 51, 51),
        ("nothing overdue", &overdue, None, None, 58, most_looked),
        ("of a person", &person, None, None, 51, most_looked),
        ("of a unit", &unit, None, None, 51, most_looked),
        ("of a unit, due later", &later, None, None, 51, most_looked),
        ("resolved", &resolved, None, None, 51, 58),
        ("unclaimed on WeChat", &mixed, None, None, 200, 200),
        ("a mix that is nowhere", &nothing, None, None, most_looked, most_looked),
        // Each candidate once from the list, once with its words.
        ("a common word", &first, common.as_ref(), None, 200, 200),
        ("a rare word", &first, rare.as_ref(), None, 1200, 1200),
    ] {
        for (which, most) in [(Which::Open, most_open), (Which::Closed, most_closed)] {
            let mut before = 0;
            for _ in 0..2 {
                sql(&mut own, "SELECT pg_stat_force_next_flush()").await;
                let now = number(
                    &gateway.pool,
                    "SELECT sum(idx_tup_fetch + seq_tup_read) FROM pg_stat_user_tables WHERE relname = 'ticket'",
                )
                .await;
                if before > 0 {
                    assert!(now - before <= most, "{name} {which:?}: {} rows", now - before);
                    break;
                }
                before = now.max(1);
                store::search::list(&mut own, OFFICE, which, filter, words, after, 50)
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_what_no_list_is_made_for_are_bounded_and_together_hold_all_of_it() {
    let now = at("2026-11-24 09:00");
    let gateway = Spec::at(now).start().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    fill(&mut db).await;
    // The queue's last, after more than one page looks at.
    sql(
        &mut db,
        "UPDATE ticket SET state = 'registered' WHERE state = 'closed' AND ticket % 10 > 5;
         UPDATE ticket SET channel = 'counter', level = 1 WHERE ticket IN (SELECT ticket FROM ticket
             WHERE is_open ORDER BY urgency DESC, due_at DESC LIMIT 3)",
    )
    .await;
    let rare = Filter { level: Level::from_number(1), due_from: Some(now), ..Filter::default() };
    let rare = Filter { channel: Some(ChannelKind::Counter), ..rare };
    let words = Filter { unclaimed: true, ..rare.clone() };
    for (filter, which, wanted) in [
        (&rare, Which::Open, 3),
        (&words, Which::Open, 3),
        (&Filter { unit: Some(UnitId(9)), ..Filter::default() }, Which::Closed, 0),
    ] {
        let (mut after, mut found, mut pages) = (None, 0, 0);
        loop {
            let page = store::search::list(&mut db, OFFICE, which, filter, None, after, 50).await;
            let page = page.unwrap();
            found += page.rows.len();
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "{filter:?} {which:?}");
        // Each page looks at as many as it may: the last one, and one for what is passed over.
        let most = 10_000 / store::queue::PAGE_LOOK + 2;
        assert!(pages <= most, "{pages} of {most}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r7_what_staff_do_to_a_ticket_changes_no_index_of_it_and_keeps_its_lists() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    const COUNT: i64 = 100;
    // One on each page: there is room for its new version, as there is between the clicks of a day.
    fill(&mut gateway.pool.acquire().await.unwrap()).await;
    let updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'ticket'";
    let hot = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'ticket'";
    let before = (number(&gateway.pool, updates).await, number(&gateway.pool, hot).await);
    // A connection counts for itself until it is told to say what.
    let own = PgPoolOptions::new().max_connections(1).connect(&gateway.database_url).await.unwrap();
    let mut db = own.acquire().await.unwrap();
    type Step = fn(&mut Ticket) -> Result<Happened, NotAllowed>;
    let steps: [Step; 8] = [
        |t| t.claim(StaffId(1)),
        |t| t.triage(Cause::Staff),
        |t| t.refer(UnitId(1)),
        |t| t.await_citizen("户口本", DateTime::UNIX_EPOCH),
        // On the day of asking: the limit is the same.
        |t| {
            let (runs_from, due_at) = (DateTime::UNIX_EPOCH, t.due_at);
            t.resume(NewLimit { runs_from, due_at, provisional: false })
        },
        |t| t.refer(UnitId(2)),
        |t| t.resolve(Outcome::Solved, "已补办", "已补办"),
        |t| t.evaluate(Evaluation::Satisfied, None),
    ];
    let step = async |db: &mut PgConnection, n: i64, step: Step| {
        let ticket = RegisterNumber::new(2026, i32::try_from(n * 200).unwrap()).unwrap();
        let mut transaction = db.begin().await.unwrap();
        let mut locked =
            store::ticket::lock(&mut transaction, OFFICE, ticket).await.unwrap().unwrap();
        let happened = step(&mut locked.ticket).unwrap();
        let (by, at) = (Actor::Staff(StaffId(1)), gateway.clock.now());
        store::ticket::write(&mut transaction, &mut locked, by, &happened, at).await.unwrap();
        transaction.commit().await.unwrap();
    };
    for one in steps {
        for n in 1..=COUNT {
            step(&mut db, n, one).await;
        }
    }
    sql(&mut db, "SELECT pg_stat_force_next_flush()").await;
    let updated = number(&gateway.pool, updates).await - before.0;
    assert!(updated >= COUNT * 8, "{updated}");
    let share = (number(&gateway.pool, hot).await - before.1) * 100 / updated;
    assert!(share >= 95, "{share} %");
    let lists = "SELECT count(*) FROM in_hand WHERE ticket % 200 = 0 AND (list, whose) IN
        (('person', 1), ('unit', 2), ('evaluated', 0))";
    assert_eq!(number(&gateway.pool, lists).await, COUNT * 3);
    // A date that moves, moves in each of them; what is closed is in none.
    sql(&mut db, "UPDATE ticket SET due_at = due_at + interval '1 day'").await;
    assert_eq!(number(&gateway.pool, WRONG_LISTS).await, 0);
    for n in 1..=COUNT {
        step(&mut db, n, |t| t.close(None)).await;
    }
    assert_eq!(number(&gateway.pool, lists).await, 0);
    assert_eq!(number(&gateway.pool, WRONG_LISTS).await, 0);
}

const WRONG_LISTS: &str = "SELECT count(*) FROM (
    (TABLE in_hand EXCEPT SELECT l.* FROM ticket t, in_hand_of(t) l)
    UNION ALL (SELECT l.* FROM ticket t, in_hand_of(t) l EXCEPT TABLE in_hand)) wrong";

/// Tickets as the gateway would have written them; one in ten is open, half of those in
/// somebody's hands.
async fn fill(db: &mut PgConnection) {
    sql(
        db,
        "INSERT INTO register VALUES (1, 2026, 20000);
         INSERT INTO ticket (office_id, ticket, channel, state, outcome, level, urgency, problem,
             registered_at, accepted_at, due_at, provisional, calendar_version, accountable, unit, events, chain)
         SELECT 1, 2026000000000 + n, (ARRAY['wechat', 'wechat', 'wechat', 'hotline'])[1 + n % 4],
             CASE WHEN n % 10 > 0 THEN 'closed' WHEN n % 20 = 0 THEN 'registered'
                  WHEN n % 100 = 30 THEN 'resolved' ELSE 'in_progress' END,
             CASE WHEN n % 10 > 0 THEN 'solved' END, (ARRAY[1, 1, 1, 3, 5])[1 + n / 10 % 5],
             CASE WHEN n % 500 = 0 THEN 0 ELSE 1 END, '树木', now(), now(),
             now() + n * interval '1 minute', false, 1, CASE WHEN n % 20 = 10 THEN 1 + n / 20 % 5 END,
             CASE WHEN n % 20 = 10 THEN 1 + n / 20 % 4 END, 1, sha256('x')
         FROM generate_series(1, 20000) n;
         INSERT INTO message (office_id, ticket, seq, occurred_at, received_at, text, raw)
         SELECT 1, 2026000000000 + n, 1, now(), now(), '树木倒了', ''
         FROM generate_series(1, 20000) n;
         INSERT INTO ticket_search
         SELECT 1, ticket, is_open, 1, array_to_tsvector(ARRAY['树木', '木倒', '倒了', '了'])
         FROM ticket;
         INSERT INTO search_progress VALUES (1, 2026, 1, 20000)",
    )
    .await;
}
