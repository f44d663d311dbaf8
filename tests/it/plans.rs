//! Every statement reads by key, also with a plan that was made while the tables were empty: a
//! gateway that was started on a new database keeps such plans for days.

use crate::support::{database, sql};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

/// Tables that grow for ever.
const LARGE: [&str; 26] = [
    "ticket",
    "in_hand",
    "event",
    "message",
    "timer",
    "inbound",
    "outbox",
    "notice",
    "citizen_attempt",
    "citizen_link",
    "citizen_upload",
    "conversation",
    "held",
    "reply",
    "reply_attempt",
    "reply_receipt",
    "heard",
    "wechat_consent",
    "wechat_leaving",
    "media",
    "media_object",
    "media_opened",
    "transcript",
    "call",
    "call_recording",
    "call_part",
];

/// Statements that read whole tables on purpose, by some words of theirs, and why.
const WHOLE: [(&str, &str); 3] = [
    ("was answered and has no ticket", "verify compares everything, with plans of its own"),
    ("generate_series(1, $3::int)", "verify looks for gaps, with plans of its own"),
    ("SELECT given AS", "counts what is open, once: beside a single row"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_reads_by_key_though_it_was_planned_on_empty_tables() {
    let mut db = PgConnection::connect(&database().await).await.unwrap();
    sql(&mut db, intake_gateway::store::SESSION).await;
    let mut faults = Vec::new();
    let mut checked = 0;
    for file in std::fs::read_dir(".sqlx").unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let query: Value = serde_json::from_str(&text).unwrap();
        let query = query["query"].as_str().unwrap();
        let word = query.split_whitespace().next().unwrap_or_default();
        if !["SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "(SELECT"].contains(&word)
            || WHOLE.iter().any(|(part, _)| query.contains(part))
        {
            continue;
        }
        let parameters = (1..=99).rev().find(|n| query.contains(&format!("${n}"))).unwrap_or(0);
        let nothing = vec!["NULL"; parameters].join(", ");
        let arguments = if parameters == 0 { String::new() } else { format!("({nothing})") };
        sql(&mut db, &format!("PREPARE one AS {query}")).await;
        let explain = format!("EXPLAIN (FORMAT JSON) EXECUTE one{arguments}");
        let plan: Value =
            sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_one(&mut db).await.unwrap();
        sql(&mut db, "DEALLOCATE one").await;
        let mut wrong = Vec::new();
        look(&plan[0]["Plan"], false, &mut wrong);
        if !wrong.is_empty() {
            faults.push(format!("{}\n  {}", wrong.join("; "), query.trim()));
        }
        checked += 1;
    }
    assert!(checked > 60, "{checked} statements");
    assert!(faults.is_empty(), "\n{}", faults.join("\n\n"));
}

/// `repeated`: this part of the plan runs once for each row of another.
fn look(plan: &Value, repeated: bool, wrong: &mut Vec<String>) {
    let kind = plan["Node Type"].as_str().unwrap_or_default();
    let table = plan["Relation Name"].as_str().unwrap_or_default();
    if LARGE.contains(&table) {
        if kind == "Seq Scan" {
            wrong.push(format!("reads the whole of {table}"));
        }
        let by = plan["Index Cond"].as_str().unwrap_or_default();
        // A part that runs for each row of another must be told which row: a condition without a
        // column of another part reads the same rows again and again.
        if repeated && kind.contains("Index") && !by.contains('.') {
            wrong.push(format!("reads {table} again and again by {by:?}"));
        }
    }
    for (index, part) in plan["Plans"].as_array().into_iter().flatten().enumerate() {
        let repeats = kind == "Nested Loop" && index > 0;
        let once = part["Parent Relationship"] == "InitPlan";
        look(part, (repeated || repeats) && !once, wrong);
    }
}

/// A page of what was found among closed tickets reads the tickets that it shows: what holds the
/// words is put into order first, by its number alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_among_closed_tickets_does_not_fetch_what_it_does_not_show() {
    let mut db = PgConnection::connect(&database().await).await.unwrap();
    sql(&mut db, intake_gateway::store::SESSION).await;
    sql(&mut db, "SET enable_bitmapscan = on").await;
    let mut checked = 0;
    for file in std::fs::read_dir(".sqlx").unwrap().flatten() {
        let text = std::fs::read_to_string(file.path()).unwrap();
        let query: Value = serde_json::from_str(&text).unwrap();
        let query = query["query"].as_str().unwrap();
        if !query.contains("WITH s AS MATERIALIZED") || query.contains("urgency, due_at, t.ticket")
        {
            continue;
        }
        sql(&mut db, &format!("PREPARE one AS {query}")).await;
        let explain = "EXPLAIN (FORMAT JSON) EXECUTE one(1, 1, NULL, NULL, NULL, NULL, NULL, NULL, '''a''', -1, 61)";
        let plan: Value = sqlx::query_scalar(explain).fetch_one(&mut db).await.unwrap();
        let mut part = &plan[0]["Plan"];
        while part["Node Type"] != "Nested Loop" {
            let kind = part["Node Type"].as_str().unwrap_or_else(|| panic!("{plan:#}"));
            assert!(!kind.ends_with("Sort"), "{plan:#}");
            part = &part["Plans"][0];
        }
        assert!(plan.to_string().contains("ticket_search_all"), "{plan:#}");
        checked += 1;
    }
    assert_eq!(checked, 1);
}
