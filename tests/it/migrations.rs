//! A database that an older version of the program has made.

use crate::support::{database, number, sql};
use intake_gateway::gateway::migrate;
use sqlx::PgPool;

/// Of migration 10 as it was when its function had a parsed body.
const BEFORE: &str = "330e703fd7ae288c1ab108ff3a3503a0ab710504ec3a13a32935c2a95621c1689152862be46b3e88ba8870f2f4b537ff";

#[tokio::test]
async fn one_with_a_parsed_body_over_tickets_is_brought_up_to_date() {
    let pool = PgPool::connect(&database().await).await.unwrap();
    let mut db = pool.acquire().await.unwrap();
    let made_before = format!(
        "CREATE OR REPLACE FUNCTION in_hand_of(t ticket) RETURNS SETOF in_hand LANGUAGE sql IMMUTABLE
         BEGIN ATOMIC
             SELECT t.office_id, list, whose, t.urgency, t.due_at, t.ticket
             FROM (VALUES ('person', t.accountable), ('unit', t.unit), (t.state, 0)) v(list, whose)
             WHERE t.state NOT IN ('registered', 'closed') AND whose IS NOT NULL;
         END;
         UPDATE _sqlx_migrations SET checksum = decode('{BEFORE}', 'hex') WHERE version = 10"
    );
    sql(&mut db, &made_before).await;
    let parsed =
        "SELECT count(*) FROM pg_proc WHERE proname = 'in_hand_of' AND prosqlbody IS NOT NULL";
    assert_eq!(number(&pool, parsed).await, 1);
    // The same again changes nothing.
    for _ in 0..2 {
        migrate(&pool).await.unwrap();
        assert_eq!(number(&pool, parsed).await, 0);
    }
    sql(&mut db, "ALTER TABLE ticket ADD COLUMN one_more boolean NOT NULL DEFAULT true").await;
}

#[tokio::test]
async fn one_that_somebody_else_has_changed_is_left_alone() {
    let pool = PgPool::connect(&database().await).await.unwrap();
    let mut db = pool.acquire().await.unwrap();
    sql(&mut db, "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 10").await;
    assert!(migrate(&pool).await.is_err());
}

#[tokio::test]
async fn keys_of_calls_are_compared_as_written_whatever_language_the_database_sorts_by() {
    // Which languages a test's machine has is anybody's guess; what the columns say is not.
    let pool = PgPool::connect(&database().await).await.unwrap();
    let as_written = "SELECT count(*) FROM information_schema.columns
                      WHERE column_name = 'call_key' AND collation_name = 'C'";
    assert_eq!(number(&pool, as_written).await, 2);
}
