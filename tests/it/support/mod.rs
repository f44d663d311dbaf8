//! What tests stand on: a database each, a gateway each, and peers that behave badly.

pub mod gateway;
pub mod proxy;
pub mod redis;
pub mod robot;

use chrono::{DateTime, Utc};
use intake_gateway::{gateway::MIGRATIONS, secret};
use sqlx::{Connection, PgConnection, PgPool};
use std::time::Duration;

pub use gateway::{Spec, TestGateway};

/// A moment as it is written on the wall of the office: `2026-11-24 09:00`.
pub fn at(text: &str) -> DateTime<Utc> {
    let text = format!("{}:00+08:00", text.replace(' ', "T"));
    DateTime::parse_from_rfc3339(&text).unwrap().to_utc()
}

fn server() -> String {
    let url = std::env::var("DATABASE_URL")
        .expect("DATABASE_URL is missing: run `make test`, which starts a private PostgreSQL");
    url.rsplit_once('/').map_or(url.clone(), |(server, _)| server.to_owned())
}

/// The private Redis of the test run, shared; each test has its own prefix.
pub fn redis_url() -> String {
    std::env::var("REDIS_URL")
        .expect("REDIS_URL is missing: run `make test`, which starts a private Redis")
}

/// A database of one's own, with the tables; returns its URL.
pub async fn database() -> String {
    let server = server();
    let newest = MIGRATIONS.iter().map(|m| hex::encode(&m.checksum)).collect::<String>();
    let template = format!("intake_template_{}", &hex::encode(secret::digest(&newest))[..12]);
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    // One test makes the template, the others wait for it.
    sql(&mut admin, "SELECT pg_advisory_lock(742)").await;
    let there: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(&template)
            .fetch_one(&mut admin)
            .await
            .unwrap();
    if !there {
        let draft = format!("{template}_draft");
        sql(&mut admin, &format!("DROP DATABASE IF EXISTS {draft}")).await;
        sql(&mut admin, &format!("CREATE DATABASE {draft}")).await;
        let pool = PgPool::connect(&format!("{server}/{draft}")).await.unwrap();
        MIGRATIONS.run(&pool).await.unwrap();
        pool.close().await;
        sql(&mut admin, &format!("ALTER DATABASE {draft} RENAME TO {template}")).await;
    }
    let name = format!("t_{}", hex::encode(secret::random::<8>()));
    sql(&mut admin, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    sql(&mut admin, "SELECT pg_advisory_unlock(742)").await;
    format!("{server}/{name}")
}

/// Runs a statement that a test put together.
pub async fn sql(db: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(db).await.unwrap();
}

/// One number from the database.
pub async fn number(pool: &PgPool, query: &str) -> i64 {
    let query = format!("SELECT ({query})::bigint");
    sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(pool).await.unwrap()
}

/// How many sessions of this database wait for a lock.
pub async fn waiting_for_a_lock(pool: &PgPool) -> i64 {
    let query = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    number(pool, query).await
}

/// Asks again until it holds; fails after a while. For what another task does in its own time.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let mut turn = tokio::time::interval(Duration::from_millis(20));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        turn.tick().await;
    }
}
