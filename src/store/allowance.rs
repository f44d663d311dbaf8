//! What a citizen may still be sent by custom messages (wechat.md §6.1).

use super::StoreError;
use crate::domain::id::OfficeId;
use chrono::{DateTime, Utc};
use intake_wechat::platform::{Act, Allowance, Change, Grant, Openid};
use sqlx::PgConnection;

/// Applies a change under the row's lock; returns what is left, and which act's message was taken.
/// The caller's transaction commits it.
///
/// # Errors
/// [`StoreError`].
pub async fn change(
    db: &mut PgConnection,
    office: OfficeId,
    app_id: &str,
    citizen: &Openid,
    change: Change,
    now: DateTime<Utc>,
) -> Result<(Allowance, Option<Act>), StoreError> {
    // Made if need be and locked in one statement: between two, housekeeping could remove the row.
    let row = sqlx::query!(
        "INSERT INTO wechat_allowance AS held (office_id, app_id, openid) VALUES ($1, $2, $3)
         ON CONFLICT (office_id, app_id, openid) DO UPDATE SET message_left = held.message_left
         RETURNING message_until, message_left, tap_until, tap_left",
        office.0,
        app_id,
        citizen.as_str()
    )
    .fetch_one(&mut *db)
    .await?;
    let before = Allowance {
        message: grant("message_left", row.message_until, row.message_left)?,
        tap: grant("tap_left", row.tap_until, row.tap_left)?,
    };
    let (after, taken) = before.changed(change, now);
    let left = |grant: Option<Grant>| grant.map(|grant| i16::from(grant.left));
    sqlx::query!(
        "UPDATE wechat_allowance
         SET message_until = $4, message_left = $5, tap_until = $6, tap_left = $7
         WHERE office_id = $1 AND app_id = $2 AND openid = $3",
        office.0,
        app_id,
        citizen.as_str(),
        after.message.map(|grant| grant.until),
        left(after.message),
        after.tap.map(|grant| grant.until),
        left(after.tap)
    )
    .execute(db)
    .await?;
    Ok((after, taken))
}

fn grant(
    column: &'static str,
    until: Option<DateTime<Utc>>,
    left: Option<i16>,
) -> Result<Option<Grant>, StoreError> {
    let (Some(until), Some(left)) = (until, left) else { return Ok(None) };
    let left =
        left.try_into().map_err(|_| StoreError::BadRow { table: "wechat_allowance", column })?;
    Ok(Some(Grant { until, left }))
}

/// Removes what allows nothing any more: the citizen's id is not kept for its own sake.
///
/// # Errors
/// [`StoreError`].
pub async fn purge(db: &mut PgConnection, now: DateTime<Utc>) -> Result<u64, StoreError> {
    let removed = sqlx::query!(
        "DELETE FROM wechat_allowance
         WHERE coalesce(message_until, '-infinity') < $1 AND coalesce(tap_until, '-infinity') < $1",
        now
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}
