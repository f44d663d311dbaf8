//! Work that one replica does at a time: a row with an owner and an end, by the database's clock.

use super::StoreError;
use sqlx::PgConnection;

/// Takes or renews the lease `name` for `seconds`; false while another owner holds it.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    db: &mut PgConnection,
    name: &str,
    owner: &str,
    seconds: f64,
) -> Result<bool, StoreError> {
    let taken = sqlx::query!(
        "INSERT INTO lease AS l (name, owner, until)
         VALUES ($1, $2, now() + make_interval(secs => $3))
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
             WHERE l.owner = excluded.owner OR l.until < now()",
        name,
        owner,
        seconds
    )
    .execute(db)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Gives the lease back early.
///
/// # Errors
/// [`StoreError`].
pub async fn give_back(db: &mut PgConnection, name: &str, owner: &str) -> Result<(), StoreError> {
    sqlx::query!("DELETE FROM lease WHERE name = $1 AND owner = $2", name, owner)
        .execute(db)
        .await?;
    Ok(())
}
