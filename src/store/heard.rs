//! What channels hear besides submissions: windows, consents, who left (wechat.md §6).

use super::StoreError;
use crate::domain::id::OfficeId;
use chrono::{DateTime, Utc};
use intake_contract::{ConsentChange, Correspondent, Heard};
use intake_wechat::platform::Act;
use sqlx::PgConnection;

/// Notes that this was heard; false when it was before.
///
/// # Errors
/// [`StoreError`].
pub async fn note(
    db: &mut PgConnection,
    office: OfficeId,
    heard: &Heard,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO heard (office_id, source, identity, heard_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
        office.0,
        heard.source,
        heard.identity,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// What citizens did that allows messages, column by column.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of wechat_allowance")]
pub struct Acts {
    pub office: Vec<i32>,
    pub app_id: Vec<String>,
    pub openid: Vec<String>,
    pub message_until: Vec<Option<DateTime<Utc>>>,
    pub tap_until: Vec<Option<DateTime<Utc>>>,
    pub at: Vec<DateTime<Utc>>,
}

/// Opens the windows of many citizens, each named once, as `Allowance::changed` does for one: only
/// something newer opens one anew. Who left and acts later is back.
///
/// # Errors
/// [`StoreError`].
pub async fn acted(db: &mut PgConnection, acts: &Acts) -> Result<(), StoreError> {
    let count = |act: Act| i16::from(act.count());
    sqlx::query!(
        "WITH acts AS MATERIALIZED (
             SELECT * FROM unnest($1::int[], $2::text[], $3::text[], $4::timestamptz[],
                $5::timestamptz[], $6::timestamptz[])
                AS i(office_id, app_id, openid, message_until, tap_until, at)
             ORDER BY office_id, app_id, openid
         ), back AS (
             UPDATE wechat_leaving l SET back_at = greatest(back_at, acts.at) FROM acts
             WHERE l.office_id = acts.office_id AND l.app_id = acts.app_id
               AND l.openid = acts.openid
         )
         INSERT INTO wechat_allowance AS a
            (office_id, app_id, openid, message_until, message_left, tap_until, tap_left)
         SELECT office_id, app_id, openid,
                message_until, CASE WHEN message_until IS NOT NULL THEN $7::smallint END,
                tap_until, CASE WHEN tap_until IS NOT NULL THEN $8::smallint END
         FROM acts
         ON CONFLICT (office_id, app_id, openid) DO UPDATE SET
            message_left = CASE WHEN excluded.message_until > coalesce(a.message_until, '-infinity')
                                THEN excluded.message_left ELSE a.message_left END,
            message_until = CASE WHEN excluded.message_until > coalesce(a.message_until, '-infinity')
                                THEN excluded.message_until ELSE a.message_until END,
            tap_left = CASE WHEN excluded.tap_until > coalesce(a.tap_until, '-infinity')
                                THEN excluded.tap_left ELSE a.tap_left END,
            tap_until = CASE WHEN excluded.tap_until > coalesce(a.tap_until, '-infinity')
                                THEN excluded.tap_until ELSE a.tap_until END",
        &acts.office,
        &acts.app_id,
        &acts.openid,
        &acts.message_until as &[Option<DateTime<Utc>>],
        &acts.tap_until as &[Option<DateTime<Utc>>],
        &acts.at,
        count(Act::Message),
        count(Act::Tap)
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that somebody left the account, and forgets their consents.
///
/// # Errors
/// [`StoreError`].
pub async fn left(
    db: &mut PgConnection,
    office: OfficeId,
    app_id: &str,
    citizen: &Correspondent,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "WITH forgotten AS (
             DELETE FROM wechat_consent WHERE office_id = $1 AND app_id = $2 AND openid = $3
                 AND changed_at <= $4
         )
         INSERT INTO wechat_leaving AS l (office_id, app_id, openid, left_at)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (office_id, app_id, openid)
         DO UPDATE SET left_at = greatest(l.left_at, excluded.left_at)",
        office.0,
        app_id,
        citizen.as_str(),
        at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets what is remembered of a citizen for the next ticket. The tickets are the office's record
/// and stay.
///
/// # Errors
/// [`StoreError`].
pub async fn forget(
    db: &mut PgConnection,
    office: OfficeId,
    thread: &str,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE conversation SET citizen_name = NULL, citizen_phone = NULL, scene = NULL
         WHERE office_id = $1 AND thread = $2",
        office.0,
        thread
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Counts a consent that was given, or forgets those that were taken back.
///
/// # Errors
/// [`StoreError`].
pub async fn consented(
    db: &mut PgConnection,
    office: OfficeId,
    app_id: &str,
    citizen: &Correspondent,
    template_id: &str,
    (change, at): (ConsentChange, DateTime<Utc>),
) -> Result<(), StoreError> {
    let given = match change {
        ConsentChange::Given => 1,
        ConsentChange::Revoked => 0,
        ConsentChange::Unchanged => return Ok(()),
    };
    sqlx::query!(
        "INSERT INTO wechat_consent AS c
            (office_id, app_id, openid, template_id, remaining, changed_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (office_id, app_id, openid, template_id) DO UPDATE
         SET remaining = CASE WHEN $5 > 0 THEN c.remaining + 1
                              WHEN c.changed_at > $6 THEN c.remaining ELSE 0 END,
             changed_at = greatest(c.changed_at, $6)",
        office.0,
        app_id,
        citizen.as_str(),
        template_id,
        given,
        at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes one consent for a one-time template; false when none is left.
///
/// # Errors
/// [`StoreError`].
pub async fn take_consent(
    db: &mut PgConnection,
    office: OfficeId,
    app_id: &str,
    citizen: &Correspondent,
    template_id: &str,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE wechat_consent SET remaining = remaining - 1
         WHERE office_id = $1 AND app_id = $2 AND openid = $3 AND template_id = $4
           AND remaining > 0",
        office.0,
        app_id,
        citizen.as_str(),
        template_id
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The platform says that no consent is left, or gives back one that was taken and not used.
///
/// # Errors
/// [`StoreError`].
pub async fn set_consent(
    db: &mut PgConnection,
    office: OfficeId,
    app_id: &str,
    citizen: &Correspondent,
    template_id: &str,
    given_back: bool,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE wechat_consent SET remaining = CASE WHEN $5 THEN remaining + 1 ELSE 0 END
         WHERE office_id = $1 AND app_id = $2 AND openid = $3 AND template_id = $4",
        office.0,
        app_id,
        citizen.as_str(),
        template_id,
        given_back
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What is known of a citizen of an account.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// They do not follow it any more.
    pub gone: bool,
    /// Templates for which a consent is left.
    pub consents: Vec<String>,
}

/// What is known of a citizen of an account.
///
/// # Errors
/// [`StoreError`].
pub async fn standing(
    db: &mut PgConnection,
    office: OfficeId,
    app_id: &str,
    citizen: &Correspondent,
) -> Result<Standing, StoreError> {
    let row = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM wechat_leaving
                  WHERE office_id = $1 AND app_id = $2 AND openid = $3
                    AND left_at > coalesce(back_at, '-infinity')) AS "gone!",
                  ARRAY(SELECT template_id FROM wechat_consent
                  WHERE office_id = $1 AND app_id = $2 AND openid = $3
                    AND remaining > 0) AS "consents!""#,
        office.0,
        app_id,
        citizen.as_str()
    )
    .fetch_one(db)
    .await?;
    Ok(Standing { gone: row.gone, consents: row.consents })
}

/// Removes what no source will repeat any more, receipts that belong to nothing or have done their
/// work, and the ids of those who left and did not come back.
///
/// # Errors
/// [`StoreError`].
pub async fn purge(
    db: &mut PgConnection,
    repeated_since: DateTime<Utc>,
    left_since: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let removed = sqlx::query_scalar!(
        r#"WITH heard AS (DELETE FROM heard WHERE heard_at < $1 RETURNING 1),
                receipts AS (DELETE FROM reply_receipt WHERE at < $1 RETURNING 1),
                leaving AS (DELETE FROM wechat_leaving WHERE left_at < $2 RETURNING 1)
           SELECT (SELECT count(*) FROM heard) + (SELECT count(*) FROM receipts)
                + (SELECT count(*) FROM leaving) AS "removed!""#,
        repeated_since,
        left_since
    )
    .fetch_one(db)
    .await?;
    Ok(u64::try_from(removed).unwrap_or_default())
}
