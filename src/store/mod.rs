//! All SQL. Plain functions on a connection; the caller holds the transaction and commits.
//!
//! Rows stay in here: what leaves is of the domain, or a read model for a page. Locks are taken in
//! one order everywhere: `register`, `thread`, `ticket`, `timer`, `inbound`; within a table by key.

pub mod access;
pub mod calendar;
pub mod intake;
pub mod lease;
pub mod notice;
pub mod office;
pub mod quarantine;
pub mod queue;
pub mod ticket;
pub mod timer;
pub mod verify;

use crate::domain::register::{NotANumber, RegisterNumber};
use sqlx::{PgConnection, PgPool};
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
    /// longer held, a deadlock.)
    #[must_use]
    pub fn is_overtaken(&self) -> bool {
        let (Self::Refused(error) | Self::Unavailable(error)) = self else { return false };
        let sqlx::Error::Database(error) = error else { return false };
        error.is_unique_violation() || error.code().is_some_and(|code| code.starts_with("40"))
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
                let code = database.code().unwrap_or_default();
                // Connection, rollback (serialisation, deadlock), resources, operator, system:
                // nothing is wrong with the data. 25006: a standby that was the primary.
                const TRANSIENT: [&str; 5] = ["08", "40", "53", "57", "58"];
                !(TRANSIENT.iter().any(|class| code.starts_with(class)) || code == "25006")
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

/// A connection of one's own, for work that never pauses: its plans stay warm and nobody asks
/// first whether it is alive. Batches join tables by key: the planner has no idea how long an
/// `unnest` is, and on a young table it would rather read the whole of it and keep that plan.
///
/// # Errors
/// [`StoreError`].
pub async fn own_connection(pool: &PgPool) -> Result<PgConnection, StoreError> {
    const BY_KEY: &str = "SET enable_seqscan = off; SET enable_hashjoin = off; \
        SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan";
    let mut db = pool.acquire().await?.detach();
    sqlx::raw_sql(BY_KEY).execute(&mut db).await?;
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
