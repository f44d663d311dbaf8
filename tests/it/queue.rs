//! What the lists cost: which index answers, how much is read, and what a change of state writes.

use crate::support::{Spec, at, number, sql};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::ChannelKind;
use intake_gateway::{
    desk,
    domain::{
        id::{OfficeId, StaffId},
        level::Level,
        register::RegisterNumber,
    },
    search::words::Words,
    store::{
        self,
        queue::{Cursor, Filter},
        search::Which,
    },
};
use serde_json::Value;
use sqlx::{PgConnection, Row, postgres::PgPoolOptions};
use std::time::Duration;

const OFFICE: OfficeId = OfficeId(1);

/// Asks every list once, so that its statement is prepared.
async fn ask_all(db: &mut PgConnection, now: DateTime<Utc>) {
    let level = Filter { level: Level::from_number(5), ..Filter::default() };
    let channel = Filter { channel: Some(ChannelKind::Hotline), ..Filter::default() };
    let dates = Filter {
        due_from: Some(now),
        due_before: Some(now + TimeDelta::hours(24)),
        ..Filter::default()
    };
    let (common, rare) = (Words::of("树木"), Words::of("裂缝"));
    let after = Cursor { urgency: 1, due_at: now, ticket: RegisterNumber::new(2026, 500).unwrap() };
    for filter in [&Filter::default(), &level, &channel, &dates] {
        for which in [Which::Open, Which::Closed] {
            for words in [None, common.as_ref(), rare.as_ref()] {
                store::search::list(db, OFFICE, which, filter, words, None, 51).await.unwrap();
                store::search::list(db, OFFICE, which, filter, words, Some(after), 51)
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
    let open = "!FROM (SELECT * FROM ticket";
    let closed = "NOT is_open";
    {
        for (parts, index, may_sort) in [
            (
                vec![
                    "AND is_open AND (urgency",
                    "LIMIT $13",
                    "!level > 1",
                    "!channel <> 'wechat'",
                    open,
                ],
                "ticket_queue",
                false,
            ),
            (vec!["AND is_open AND (urgency", "level > 1"], "ticket_queue_raised", false),
            (
                vec!["AND is_open AND (urgency", "channel <> 'wechat'"],
                "ticket_queue_by_hand",
                false,
            ),
            (vec![closed, "LIMIT $3", "!level > 1", "!channel <> 'wechat'"], "ticket_pkey", false),
            (vec![closed, "level > 1"], "ticket_closed_raised", false),
            (vec![closed, "channel <> 'wechat'"], "ticket_closed_by_hand", false),
            // A search: the first look, in the order of the list.
            (
                vec!["FROM (SELECT * FROM ticket", "(urgency, due_at, ticket) >", "LIMIT $14"],
                "ticket_queue",
                false,
            ),
            (vec!["FROM (SELECT * FROM ticket", closed, "LIMIT $6"], "ticket_pkey", false),
            // And what the index has, which is put into order.
            (vec!["MATERIALIZED", "WHERE is_open AND v @@"], "ticket_search_open", true),
            (vec!["MATERIALIZED", "WHERE v @@"], "ticket_search_all", true),
            (vec!["WITH ORDINALITY AS i(ticket, n)", "search_text"], "ticket_pkey", true),
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
            assert!(!has("Seq Scan"), "{age} {parts:?}: {all:?}");
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
    let level = Filter { level: Level::from_number(5), ..Filter::default() };
    let channel = Filter { channel: Some(ChannelKind::Hotline), ..Filter::default() };
    let nobody = Filter { channel: Some(ChannelKind::WindowPhone), ..Filter::default() };
    let overdue = Filter { due_before: Some(DateTime::UNIX_EPOCH), ..Filter::default() };
    let after = Cursor {
        urgency: 1,
        due_at: now + TimeDelta::days(5),
        ticket: RegisterNumber::new(2026, 500).unwrap(),
    };
    let (common, rare) = (Words::of("树木"), Words::of("裂缝"));
    for (name, filter, words, after, most) in [
        // Among closed tickets one in ten is open and passed over.
        ("first", &Filter::default(), None, None, 58),
        ("deep", &Filter::default(), None, Some(after), 58),
        ("level", &level, None, None, 51),
        ("channel", &channel, None, None, 51),
        ("channel without tickets", &nobody, None, None, 51),
        ("nothing overdue", &overdue, None, None, 58),
        // Each candidate once from the list, once with its words, once to be shown.
        ("a common word", &Filter::default(), common.as_ref(), None, 200),
        ("a rare word", &Filter::default(), rare.as_ref(), None, 1200),
    ] {
        for which in [Which::Open, Which::Closed] {
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
                store::search::list(&mut own, OFFICE, which, filter, words, after, 51)
                    .await
                    .unwrap();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_staff_do_to_a_ticket_changes_no_index() {
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    const COUNT: i64 = 100;
    // One on each page: there is room for its new version, as there is between the clicks of a day.
    fill(&mut gateway.pool.acquire().await.unwrap()).await;
    let updates = "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'ticket'";
    let hot = "SELECT n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'ticket'";
    // A connection counts for itself until it is told to say what.
    let own = PgPoolOptions::new().max_connections(1).connect(&gateway.database_url).await.unwrap();
    for n in 1..=COUNT {
        let ticket = RegisterNumber::new(2026, i32::try_from(n * 200).unwrap()).unwrap();
        desk::claim(&own, &gateway.clock, gateway.office, ticket, StaffId(1)).await.unwrap();
    }
    sql(&mut own.acquire().await.unwrap(), "SELECT pg_stat_force_next_flush()").await;
    let updated = number(&gateway.pool, updates).await;
    assert!(updated >= COUNT, "{updated}");
    let share = number(&gateway.pool, hot).await * 100 / updated;
    assert!(share >= 95, "{share} %");
}

/// Tickets as the gateway would have written them; one in ten is open.
async fn fill(db: &mut PgConnection) {
    sql(
        db,
        "INSERT INTO register VALUES (1, 2026, 20000);
         INSERT INTO ticket (office_id, ticket, channel, state, outcome, level, urgency, problem,
             registered_at, accepted_at, due_at, provisional, calendar_version, events, chain)
         SELECT 1, 2026000000000 + n, (ARRAY['wechat', 'wechat', 'wechat', 'hotline'])[1 + n % 4],
             CASE WHEN n % 10 = 0 THEN 'registered' ELSE 'closed' END,
             CASE WHEN n % 10 > 0 THEN 'solved' END, (ARRAY[1, 1, 1, 3, 5])[1 + n / 10 % 5],
             CASE WHEN n % 500 = 0 THEN 0 ELSE 1 END, '树木', now(), now(),
             now() + n * interval '1 minute', false, 1, 1, sha256('x')
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
