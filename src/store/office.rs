//! Offices with all that their dates depend on; units, staff, rosters.

use super::{StoreError, bad, calendar};
use crate::{
    domain::{
        id::{OfficeId, StaffId, UnitId},
        role::Role,
    },
    offices::Office,
};
use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

/// Reads all offices with their calendars.
///
/// # Errors
/// [`StoreError`].
pub async fn load_all(db: &mut PgConnection) -> Result<Vec<Office>, StoreError> {
    // Before the calendars, whose changes raise the version: one that is read between the two counts
    // as older than it is, and is read again.
    let rows = sqlx::query!(
        "SELECT office_id, code, name, number_prefix, policy, calendar_version, link_key FROM office"
    )
    .fetch_all(&mut *db)
    .await?;
    let notices = calendar::notices(db).await?;
    let mut offices = Vec::with_capacity(rows.len());
    for row in rows {
        let id = OfficeId(row.office_id);
        offices.push(Office {
            id,
            code: row.code,
            name: row.name,
            prefix: row.number_prefix,
            policy: serde_json::from_value(row.policy).map_err(|_| bad("office", "policy"))?,
            calendar: calendar::build(db, id, &notices, row.calendar_version).await?,
            calendar_version: row.calendar_version,
            link_key: row.link_key.into(),
        });
    }
    Ok(offices)
}

/// A number that grows whenever [`load_all`] would return something else.
///
/// # Errors
/// [`StoreError`].
pub async fn version(db: &mut PgConnection) -> Result<(i64, i64), StoreError> {
    let row = sqlx::query!(
        r#"SELECT count(*) AS "offices!", coalesce(sum(calendar_version), 0) AS "versions!" FROM office"#
    )
    .fetch_one(db)
    .await?;
    Ok((row.offices, row.versions))
}

/// Enters a new office.
///
/// # Errors
/// [`StoreError`]; a conflict when the code is taken.
pub async fn create(
    db: &mut PgConnection,
    code: &str,
    name: &str,
    prefix: &str,
    policy: &serde_json::Value,
) -> Result<OfficeId, StoreError> {
    let id = sqlx::query_scalar!(
        "INSERT INTO office (office_id, code, name, number_prefix, policy)
         SELECT coalesce(max(office_id), 0) + 1, $1, $2, $3, $4 FROM office
         RETURNING office_id",
        code,
        name,
        prefix,
        policy
    )
    .fetch_one(db)
    .await?;
    Ok(OfficeId(id))
}

/// Changes these settings of an office's policy, and brings open dates to it; returns all of it.
///
/// # Errors
/// [`StoreError`].
pub async fn change_policy(
    db: &mut PgConnection,
    office: OfficeId,
    changes: &serde_json::Value,
) -> Result<serde_json::Value, StoreError> {
    Ok(sqlx::query_scalar!(
        "UPDATE office SET policy = policy || $2, calendar_version = calendar_version + 1
         WHERE office_id = $1 RETURNING policy",
        office.0,
        changes
    )
    .fetch_one(db)
    .await?)
}

/// Enters a unit, or finds it by name.
///
/// # Errors
/// [`StoreError`].
pub async fn put_unit(
    db: &mut PgConnection,
    office: OfficeId,
    name: &str,
) -> Result<UnitId, StoreError> {
    let id = sqlx::query_scalar!(
        "INSERT INTO unit (office_id, unit_id, name)
         SELECT $1, coalesce(max(unit_id), 0) + 1, $2 FROM unit WHERE office_id = $1
         ON CONFLICT (office_id, name) DO UPDATE SET name = excluded.name
         RETURNING unit_id",
        office.0,
        name
    )
    .fetch_one(db)
    .await?;
    Ok(UnitId(id))
}

/// A unit as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of unit")]
pub struct Unit {
    pub id: UnitId,
    pub name: String,
}

/// The units of an office.
///
/// # Errors
/// [`StoreError`].
pub async fn units(db: &mut PgConnection, office: OfficeId) -> Result<Vec<Unit>, StoreError> {
    let rows = sqlx::query!(
        "SELECT unit_id, name FROM unit WHERE office_id = $1 ORDER BY unit_id",
        office.0
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| Unit { id: UnitId(row.unit_id), name: row.name }).collect())
}

/// A new person of the staff, or the new particulars of an existing one: there unit, e-mail and
/// mobile stay where they are `None`, and go where they are [`NewStaff::NO_UNIT`] or empty.
#[derive(Debug)]
#[expect(missing_docs, reason = "the columns of staff")]
pub struct NewStaff<'a> {
    pub login: &'a str,
    pub name: &'a str,
    pub role: Role,
    pub unit: Option<UnitId>,
    pub email: Option<&'a str>,
    pub mobile: Option<&'a str>,
    pub password_hash: &'a str,
}

impl NewStaff<'_> {
    /// Belongs to no unit.
    pub const NO_UNIT: UnitId = UnitId(0);
}

/// Enters a person; an existing login of the same office gets the new particulars and password, its
/// sessions end and its locks are gone: whoever has the new password can come in, nobody else
/// stays in.
///
/// # Errors
/// [`StoreError`]; [`StoreError::RowCount`] when the login belongs to another office.
pub async fn put_staff(
    db: &mut PgConnection,
    office: OfficeId,
    staff: &NewStaff<'_>,
) -> Result<StaffId, StoreError> {
    let mut transaction = db.begin().await?;
    let id = sqlx::query_scalar!(
        "INSERT INTO staff AS s (office_id, staff_id, login, name, role, unit_id, email, mobile, password_hash)
         SELECT $1, coalesce(max(staff_id), 0) + 1, $2, $3, $4, nullif($5, 0), nullif($6, ''), nullif($7, ''), $8
         FROM staff WHERE office_id = $1
         ON CONFLICT (login) DO UPDATE SET name = excluded.name, role = excluded.role,
             unit_id = nullif(coalesce($5, s.unit_id), 0),
             email = nullif(coalesce($6, s.email), ''),
             mobile = nullif(coalesce($7, s.mobile), ''),
             password_hash = excluded.password_hash, disabled = false
             WHERE s.office_id = excluded.office_id
         RETURNING staff_id",
        office.0,
        staff.login,
        staff.name,
        staff.role.as_str(),
        staff.unit.map(|unit| unit.0),
        staff.email,
        staff.mobile,
        staff.password_hash
    )
    .fetch_optional(&mut *transaction)
    .await?
    .ok_or(StoreError::RowCount { table: "staff", changed: 0, wanted: 1 })?;
    // Statements of their own: they must see a session that was opened while the first one waited.
    sqlx::query!("DELETE FROM desk_session WHERE office_id = $1 AND staff_id = $2", office.0, id)
        .execute(&mut *transaction)
        .await?;
    sqlx::query!("DELETE FROM login_failure WHERE login = $1", staff.login)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(StaffId(id))
}

/// A person as lists show them.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of staff")]
pub struct StaffRow {
    pub id: StaffId,
    pub login: String,
    pub name: String,
    pub role: Role,
    pub unit: Option<String>,
    pub disabled: bool,
}

/// The staff of an office.
///
/// # Errors
/// [`StoreError`].
pub async fn staff(db: &mut PgConnection, office: OfficeId) -> Result<Vec<StaffRow>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT staff_id, login, staff.name, role, unit.name AS "unit?", disabled
           FROM staff LEFT JOIN unit USING (office_id, unit_id)
           WHERE office_id = $1 ORDER BY staff_id"#,
        office.0
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(StaffRow {
                id: StaffId(row.staff_id),
                login: row.login,
                name: row.name,
                role: Role::parse(&row.role).ok_or(bad("staff", "role"))?,
                unit: row.unit,
                disabled: row.disabled,
            })
        })
        .collect()
}

/// Disables a person and ends their sessions; false when there is no such login.
///
/// # Errors
/// [`StoreError`].
pub async fn disable_staff(db: &mut PgConnection, login: &str) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "WITH gone AS (UPDATE staff SET disabled = true WHERE login = $1 RETURNING office_id, staff_id),
              ended AS (DELETE FROM desk_session USING gone
                        WHERE desk_session.office_id = gone.office_id
                          AND desk_session.staff_id = gone.staff_id)
         SELECT count(*) AS \"count!\" FROM gone",
        login
    )
    .fetch_one(db)
    .await?;
    Ok(done.count == 1)
}

/// What a shift is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// At the window.
    Officer,
    /// 带班领导, for the week (RD1.1).
    Lead,
}

impl Duty {
    fn as_str(self) -> &'static str {
        match self {
            Self::Officer => "officer",
            Self::Lead => "lead",
        }
    }
}

/// Enters a shift; the same again changes nothing.
///
/// # Errors
/// [`StoreError`].
pub async fn put_shift(
    db: &mut PgConnection,
    office: OfficeId,
    duty: Duty,
    staff: StaffId,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO shift (office_id, duty, starts_at, ends_at, staff_id)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (office_id, duty, starts_at, staff_id) DO UPDATE SET ends_at = excluded.ends_at",
        office.0,
        duty.as_str(),
        starts_at,
        ends_at,
        staff.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whom a notice reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the columns of staff")]
pub struct Contact {
    pub name: String,
    pub email: Option<String>,
    pub mobile: Option<String>,
}

/// Those whose shift covers the moment.
///
/// # Errors
/// [`StoreError`].
pub async fn on_duty(
    db: &mut PgConnection,
    office: OfficeId,
    duty: Duty,
    at: DateTime<Utc>,
) -> Result<Vec<Contact>, StoreError> {
    let rows = sqlx::query_as!(
        Contact,
        "SELECT DISTINCT staff.name, email, mobile FROM shift JOIN staff USING (office_id, staff_id)
         WHERE office_id = $1 AND duty = $2 AND starts_at <= $3 AND ends_at > $3 AND NOT disabled",
        office.0,
        duty.as_str(),
        at
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Everybody with a role.
///
/// # Errors
/// [`StoreError`].
pub async fn with_role(
    db: &mut PgConnection,
    office: OfficeId,
    role: Role,
) -> Result<Vec<Contact>, StoreError> {
    let rows = sqlx::query_as!(
        Contact,
        "SELECT name, email, mobile FROM staff
         WHERE office_id = $1 AND role = $2 AND NOT disabled ORDER BY staff_id",
        office.0,
        role.as_str()
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// One person, unless disabled.
///
/// # Errors
/// [`StoreError`].
pub async fn contact(
    db: &mut PgConnection,
    office: OfficeId,
    staff: StaffId,
) -> Result<Option<Contact>, StoreError> {
    let row = sqlx::query_as!(
        Contact,
        "SELECT name, email, mobile FROM staff
         WHERE office_id = $1 AND staff_id = $2 AND NOT disabled",
        office.0,
        staff.0
    )
    .fetch_optional(db)
    .await?;
    Ok(row)
}

/// The first of PostgreSQL's settings for durability that is off; `None` when all are on.
///
/// # Errors
/// [`StoreError`].
pub async fn durability(db: &mut PgConnection) -> Result<Option<String>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT name AS "name!" FROM pg_settings
           WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
           ORDER BY name LIMIT 1"#
    )
    .fetch_optional(db)
    .await?)
}

/// PostgreSQL's time.
///
/// # Errors
/// [`StoreError`].
pub async fn clock(db: &mut PgConnection) -> Result<DateTime<Utc>, StoreError> {
    Ok(sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(db).await?)
}
