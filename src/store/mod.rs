//! All SQL. Plain functions on a connection; the caller holds the transaction and commits.
//!
//! Rows stay in here: what leaves is of the domain, or a read model for a page. Locks are taken in
//! one order everywhere, which ARCHITECTURE.md names.

pub mod access;
pub mod allowance;
pub mod calendar;
pub mod call;
pub mod call_back;
pub mod citizen;
pub mod conversation;
pub mod heard;
pub mod intake;
pub mod lease;
pub mod media;
pub mod notice;
pub mod office;
pub mod quarantine;
pub mod queue;
pub mod reconcile;
pub mod recording;
pub mod reply;
pub mod search;
pub mod ticket;
pub mod timer;
pub mod verify;

use crate::domain::register::{NotANumber, RegisterNumber};
use sqlx::{Connection, PgConnection, PgPool};
use std::time::Duration;

/// Why a statement did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or not in time; the same again may succeed.
    #[error("the database is not available")]
    Unavailable(#[source] sqlx::Error),
    /// The database refused the data.
    #[error("the database refused the data")]
    Refused(#[source] sqlx::Error),
    /// A row holds what the domain does not know.
    #[error("{table}.{column} holds an unknown value")]
    BadRow {
        /// Where.
        table: &'static str,
        /// Which column.
        column: &'static str,
    },
    /// Fewer or more rows changed than the rule says.
    #[error("{table}: {changed} rows changed instead of {wanted}")]
    RowCount {
        /// Where.
        table: &'static str,
        /// How many did.
        changed: u64,
        /// How many should have.
        wanted: u64,
    },
}

impl StoreError {
    /// Whether trying the same again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// Whether what was asked for holds a value that the database cannot even read (class 22): the
    /// fault of who asked.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        let Self::Refused(sqlx::Error::Database(error)) = self else { return false };
        error.code().is_some_and(|code| code.starts_with("22"))
    }

    /// Whether somebody else changed what this rested on, at the same time: what was refused may
    /// go through once it is decided anew. (A unique key that was taken meanwhile, a guard that no
    /// longer held, a lock that was not given up in time, a deadlock.)
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        let (Self::Refused(error) | Self::Unavailable(error)) = self else { return false };
        let sqlx::Error::Database(error) = error else { return false };
        error.is_unique_violation()
            || error.code().is_some_and(|code| code.starts_with("40") || code == "55P03")
    }

    /// Whether a unique or primary key was already taken.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Refused(sqlx::Error::Database(error)) = self else { return false };
        error.is_unique_violation()
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let refused = match &error {
            sqlx::Error::Database(database) => {
                // Data exceptions, violated constraints, limits of a row: the same again would be
                // refused again. All else (connection, deadlock, resources, a missing grant, a
                // standby that was the primary) is no fault of what was sent.
                let code = database.code().unwrap_or_default();
                ["22", "23", "54"].iter().any(|class| code.starts_with(class))
            }
            sqlx::Error::Encode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                true
            }
            _ => false,
        };
        if refused { Self::Refused(error) } else { Self::Unavailable(error) }
    }
}

/// A call with its limit on this side: a network that swallows packets answers nothing, and the
/// server's own limit is then never heard of.
///
/// # Errors
/// [`StoreError`]; unavailable when `limit` has passed.
pub async fn within<T, E: From<StoreError>>(
    limit: Duration,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut).into()),
    }
}

/// What every session of the gateway starts with. Each statement here reads by key, through an
/// index made for it: the planner, which has no idea how long an `unnest` is and what a young table
/// will grow to, would now and then rather read the whole of it (or all that an index has, and sort
/// that, to show one page), and keep that plan. And a session whose gateway is gone must not hold
/// its locks until TCP notices, two hours later.
pub const SESSION: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; \
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; SET jit = off; \
    SET max_parallel_workers_per_gather = 0; SET idle_in_transaction_session_timeout = '5s'";

/// What a session that changes the tables takes back of [`SESSION`].
pub const MIGRATING: &str = "RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_hashjoin; \
    RESET enable_mergejoin; RESET plan_cache_mode; SET statement_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0";

/// For the rest of this transaction: no limit of time.
///
/// # Errors
/// [`StoreError`].
pub async fn as_long_as_it_takes(db: &mut PgConnection) -> Result<(), StoreError> {
    const LONG: &str =
        "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";
    sqlx::raw_sql(LONG).execute(db).await?;
    Ok(())
}

/// For the rest of this transaction: compares whole tables by hashing them. Row by row would take
/// the square of the time on a database that was just restored and has no statistics yet.
///
/// # Errors
/// [`StoreError`].
pub async fn read_whole_tables(db: &mut PgConnection) -> Result<(), StoreError> {
    const WHOLE: &str = "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; \
        SET LOCAL enable_hashjoin = on; SET LOCAL enable_nestloop = off; \
        SET LOCAL plan_cache_mode = auto";
    sqlx::raw_sql(WHOLE).execute(db).await?;
    Ok(())
}

/// A connection of one's own, for work that never pauses: made on the caller's runtime, its plans
/// stay warm, and nobody asks first whether it is alive. No statement takes longer than `limit`.
///
/// # Errors
/// [`StoreError`].
pub async fn own_connection(pool: &PgPool, limit: Duration) -> Result<PgConnection, StoreError> {
    let mut db = PgConnection::connect_with(&pool.connect_options()).await?;
    let session = format!("{SESSION}; SET statement_timeout = {}", limit.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(session)).execute(&mut db).await?;
    Ok(db)
}

/// Checks that a statement changed as many rows as the rule says.
fn changed(
    table: &'static str,
    result: &sqlx::postgres::PgQueryResult,
    wanted: usize,
) -> Result<(), StoreError> {
    let (changed, wanted) = (result.rows_affected(), wanted as u64);
    if changed == wanted { Ok(()) } else { Err(StoreError::RowCount { table, changed, wanted }) }
}

fn number(raw: i64) -> Result<RegisterNumber, StoreError> {
    RegisterNumber::from_i64(raw)
        .map_err(|NotANumber| StoreError::BadRow { table: "ticket", column: "ticket" })
}

fn bad(table: &'static str, column: &'static str) -> StoreError {
    StoreError::BadRow { table, column }
}
