//! What citizens are told (wechat.md §6.4): replies, the attempts at each, and their receipts.

use super::{StoreError, bad, number};
use crate::domain::{
    id::{OfficeId, ReplyId, StaffId},
    register::RegisterNumber,
};
use chrono::{DateTime, Utc};
use intake_contract::{Correspondent, Delivery, Telling};
use serde_json::Value;
use sqlx::PgConnection;

/// An effect that a citizen should know of.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of outbox and ticket")]
pub struct ToTell {
    pub id: i64,
    pub kind: String,
    pub data: Value,
    pub not_before: DateTime<Utc>,
    pub ticket: RegisterNumber,
    pub due_at: DateTime<Utc>,
    pub follow_up_at: Option<DateTime<Utc>>,
    pub provisional: bool,
    pub level: i16,
    pub thread: Option<String>,
    pub accountable: Option<String>,
}

/// Takes an office's effects that citizens should know of, to be made into replies in this
/// transaction; each is taken once, whoever else takes at the same time.
///
/// # Errors
/// [`StoreError`].
pub async fn take_effects(
    db: &mut PgConnection,
    office: OfficeId,
    limit: i64,
) -> Result<Vec<ToTell>, StoreError> {
    let rows = sqlx::query!(
        r#"WITH taken AS (
             UPDATE outbox SET citizen_told = true
             WHERE office_id = $1 AND NOT citizen_told AND outbox_id = ANY(ARRAY(
                 SELECT outbox_id FROM outbox
                 WHERE office_id = $1 AND NOT citizen_told
                   AND (kind IN ('claimed', 'raised', 'awaiting', 'resolved', 'said', 'reopened')
                        OR data ? 'tell_citizen')
                 ORDER BY outbox_id LIMIT $2))
             RETURNING office_id, outbox_id, kind, ticket, data, not_before)
           SELECT outbox_id AS "outbox_id!", kind AS "kind!", o.ticket AS "ticket!",
                  data AS "data!", not_before AS "not_before!", due_at, follow_up_at, provisional,
                  level, thread, (SELECT name FROM staff s WHERE s.office_id = o.office_id
                                  AND s.staff_id = t.accountable) AS accountable
           FROM taken o CROSS JOIN LATERAL (
               SELECT due_at, follow_up_at, provisional, level, thread, accountable FROM ticket t
               WHERE t.office_id = o.office_id AND t.ticket = o.ticket LIMIT 1) t"#,
        office.0,
        limit
    )
    .fetch_all(db)
    .await?;
    let mut effects = rows
        .into_iter()
        .map(|row| {
            Ok(ToTell {
                id: row.outbox_id,
                kind: row.kind,
                data: row.data,
                not_before: row.not_before,
                ticket: number(row.ticket)?,
                due_at: row.due_at,
                follow_up_at: row.follow_up_at,
                provisional: row.provisional,
                level: row.level,
                thread: row.thread,
                accountable: row.accountable,
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    effects.sort_unstable_by_key(|effect| effect.id);
    Ok(effects)
}

/// Enters the effect that the citizen is told the number of their ticket, unless they were told since
/// `since`, or are about to be; whether it was entered. Takes the ticket's lock, so that two who do the
/// same find each other. The staff is told of the ticket by its own effect.
///
/// # Errors
/// [`StoreError`].
pub async fn number_follows(
    db: &mut PgConnection,
    (office, ticket): (OfficeId, RegisterNumber),
    data: &Value,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    sqlx::query!(
        "SELECT 1 AS one FROM ticket WHERE office_id = $1 AND ticket = $2 FOR UPDATE",
        office.0,
        ticket.as_i64()
    )
    .fetch_optional(&mut *db)
    .await?;
    let entered = sqlx::query!(
        "INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before, state)
         SELECT $1, 'number_follows', $2, false, $3, $5, $5, 1
         WHERE NOT EXISTS (SELECT FROM reply WHERE office_id = $1 AND ticket = $2
                               AND kind = 'registered' AND created_at >= $4)
           AND NOT EXISTS (SELECT FROM outbox WHERE office_id = $1 AND NOT citizen_told
                               AND data ? 'tell_citizen' AND kind = 'number_follows' AND ticket = $2)",
        office.0,
        ticket.as_i64(),
        data,
        since,
        now
    )
    .execute(db)
    .await?;
    Ok(entered.rows_affected() == 1)
}

/// Replies to enter, column by column.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the columns of reply")]
pub struct NewReplies {
    pub ticket: Vec<i64>,
    pub kind: Vec<&'static str>,
    pub facts: Vec<Value>,
    pub lane: Vec<String>,
    pub next_try_at: Vec<DateTime<Utc>>,
}

/// Enters replies.
///
/// # Errors
/// [`StoreError`].
pub async fn add(
    db: &mut PgConnection,
    office: OfficeId,
    new: &NewReplies,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO reply (office_id, ticket, kind, facts, lane, next_try_at, created_at)
         SELECT $1, ticket, kind, facts, lane, at, $7
         FROM unnest($2::bigint[], $3::text[], $4::jsonb[], $5::text[], $6::timestamptz[])
            AS i(ticket, kind, facts, lane, at)",
        office.0,
        &new.ticket,
        &new.kind as &[&str],
        &new.facts,
        &new.lane,
        &new.next_try_at,
        now
    )
    .execute(&mut *db)
    .await?;
    // Whoever is told something may answer that: a question of ours that was asked before ends, where
    // its answer could not be taken back.
    sqlx::query!(
        "UPDATE conversation c SET question = NULL, about = NULL, asked_at = NULL
         FROM unnest($2::bigint[]) AS i(ticket)
         CROSS JOIN LATERAL (SELECT thread FROM ticket t
             WHERE t.office_id = $1 AND t.ticket = i.ticket LIMIT 1) t
         WHERE c.office_id = $1 AND c.thread = t.thread AND c.question IN ('grade', 'withdraw')",
        office.0,
        &new.ticket
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A reply that is due, held for an attempt.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply and ticket")]
pub struct Due {
    pub office: OfficeId,
    pub id: ReplyId,
    pub ticket: RegisterNumber,
    pub kind: Telling,
    pub facts: Value,
    pub lane: String,
    /// Of this holding.
    pub attempt: i32,
    pub created_at: DateTime<Utc>,
    pub thread: Option<String>,
    pub phone: Option<String>,
    pub accountable: Option<StaffId>,
    pub level: i16,
    pub before: Vec<Tried>,
}

/// An attempt that was made before.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply_attempt")]
pub struct Tried {
    pub path: String,
    pub outcome: String,
    pub began_at: DateTime<Utc>,
    pub delivery: Option<Delivery>,
}

/// Takes due replies of these lanes, each with room for so many: counts the attempt and holds each
/// until `lease_until`, so that a replica that dies on the way loses nothing. What a citizen is told
/// of one ticket goes in its order: a later one waits for an earlier one that is due, under way, or
/// was tried and has not ended.
///
/// # Errors
/// [`StoreError`].
pub async fn take(
    db: &mut PgConnection,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    rooms: &[(OfficeId, String, i64)],
) -> Result<Vec<Due>, StoreError> {
    let offices: Vec<i32> = rooms.iter().map(|room| room.0.0).collect();
    let lanes: Vec<&str> = rooms.iter().map(|room| room.1.as_str()).collect();
    let free: Vec<i64> = rooms.iter().map(|room| room.2).collect();
    let rows = sqlx::query!(
        r#"WITH due AS MATERIALIZED (
             SELECT d.office_id, d.reply_id
             FROM unnest($3::int[], $4::text[], $5::bigint[]) AS room(office_id, lane, free)
             CROSS JOIN LATERAL (
                 SELECT r.office_id, r.reply_id FROM reply r
                 WHERE r.office_id = room.office_id AND r.lane = room.lane
                   AND r.state = 'pending' AND r.next_try_at <= $1
                   AND NOT EXISTS (SELECT FROM reply e
                       WHERE e.office_id = r.office_id AND e.ticket = r.ticket
                         AND e.reply_id < r.reply_id
                         AND e.state = 'pending'
                         AND (e.next_try_at <= $2 OR EXISTS (SELECT FROM reply_attempt a
                             WHERE a.office_id = e.office_id AND a.reply_id = e.reply_id
                               AND a.attempt > e.tried_before)))
                 ORDER BY r.next_try_at LIMIT room.free
                 FOR UPDATE SKIP LOCKED) d
         ), held AS (
             UPDATE reply r SET attempts = attempts + 1, next_try_at = $2
             FROM due WHERE r.office_id = due.office_id AND r.reply_id = due.reply_id
             RETURNING r.office_id, r.reply_id, ticket, kind, facts, lane, attempts, created_at)
         SELECT office_id AS "office_id!", reply_id AS "reply_id!", h.ticket AS "ticket!",
                kind AS "kind!", facts AS "facts!", lane AS "lane!", attempts AS "attempts!",
                created_at AS "created_at!", thread, citizen_phone, accountable, level
         FROM held h CROSS JOIN LATERAL (
             SELECT thread, citizen_phone, accountable, level FROM ticket t
             WHERE t.office_id = h.office_id AND t.ticket = h.ticket LIMIT 1) t"#,
        now,
        lease_until,
        &offices,
        &lanes as &[&str],
        &free
    )
    .fetch_all(&mut *db)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut due = rows
        .into_iter()
        .map(|row| {
            Ok(Due {
                office: OfficeId(row.office_id),
                id: ReplyId(row.reply_id),
                ticket: number(row.ticket)?,
                kind: Telling::parse(&row.kind).ok_or(bad("reply", "kind"))?,
                facts: row.facts,
                lane: row.lane,
                attempt: row.attempts,
                created_at: row.created_at,
                thread: row.thread,
                phone: row.citizen_phone,
                accountable: row.accountable.map(StaffId),
                level: row.level,
                before: Vec::new(),
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    due.sort_unstable_by_key(|one| one.id);
    let offices: Vec<i32> = due.iter().map(|one| one.office.0).collect();
    let ids: Vec<i64> = due.iter().map(|one| one.id.0).collect();
    let tried = sqlx::query!(
        r#"SELECT a.office_id, a.reply_id, path, outcome, began_at, delivery
           FROM unnest($1::int[], $2::bigint[]) AS i(office_id, reply_id)
           JOIN reply_attempt a ON a.office_id = i.office_id AND a.reply_id = i.reply_id
           WHERE attempt > (SELECT tried_before FROM reply r
                            WHERE r.office_id = i.office_id AND r.reply_id = i.reply_id)
           ORDER BY a.office_id, a.reply_id, attempt"#,
        &offices,
        &ids
    )
    .fetch_all(db)
    .await?;
    for row in tried {
        let of = |one: &&mut Due| (one.office.0, one.id.0) == (row.office_id, row.reply_id);
        let Some(one) = due.iter_mut().find(of) else { continue };
        one.before.push(Tried {
            path: row.path,
            outcome: row.outcome,
            began_at: row.began_at,
            delivery: row.delivery.as_deref().and_then(Delivery::parse),
        });
    }
    Ok(due)
}

/// By what and to whom an attempt goes.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply_attempt")]
pub struct Begun<'a> {
    pub path: &'a str,
    pub source: &'a str,
    pub recipient: &'a str,
    pub template_id: Option<&'a str>,
}

/// Writes down that an attempt begins, and that an earlier one which nobody came back from is
/// uncertain; false when the reply is not held by this attempt any more.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    db: &mut PgConnection,
    due: &Due,
    begun: &Begun<'_>,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "INSERT INTO reply_attempt
            (office_id, reply_id, attempt, path, source, recipient, template_id, began_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8 FROM reply
         WHERE office_id = $1 AND reply_id = $2 AND attempts = $3 AND state = 'pending'
         ON CONFLICT DO NOTHING",
        due.office.0,
        due.id.0,
        due.attempt,
        begun.path,
        begun.source,
        begun.recipient,
        begun.template_id,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Marks attempts of a reply that nobody came back from: the process that made them is gone.
///
/// # Errors
/// [`StoreError`].
pub async fn abandon(
    db: &mut PgConnection,
    due: &Due,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE reply_attempt SET outcome = 'uncertain', ended_at = $4, says = '程序中断，不知道是否已发出'
         WHERE office_id = $1 AND reply_id = $2 AND attempt < $3 AND outcome = 'under_way'",
        due.office.0,
        due.id.0,
        due.attempt,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How an attempt ended.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply_attempt")]
pub struct AttemptEnded<'a> {
    /// `taken`, `over`, `later`, `uncertain`.
    pub outcome: &'a str,
    pub code: Option<i64>,
    pub says: Option<&'a str>,
    pub message_id: Option<&'a str>,
}

/// What becomes of the reply after an attempt or a decision.
#[derive(Debug, Clone)]
pub enum Then {
    /// It was taken.
    Sent,
    /// Another look at this time, in this lane.
    Again(DateTime<Utc>, String),
    /// Nobody needs to telephone for it.
    Failed,
    /// Somebody has to telephone.
    Call,
}

/// Records the end of an attempt.
///
/// # Errors
/// [`StoreError`].
pub async fn attempted(
    db: &mut PgConnection,
    due: &Due,
    ended: &AttemptEnded<'_>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE reply_attempt SET ended_at = $4, outcome = $5, code = $6, says = $7, message_id = $8
         WHERE office_id = $1 AND reply_id = $2 AND attempt = $3",
        due.office.0,
        due.id.0,
        due.attempt,
        now,
        ended.outcome,
        ended.code,
        ended.says,
        ended.message_id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Moves a held reply on, unless another attempt holds it meanwhile; whether it did.
///
/// # Errors
/// [`StoreError`].
pub async fn move_on(
    db: &mut PgConnection,
    due: &Due,
    then: &Then,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let (state, at, lane, ended) = match then {
        Then::Sent => ("sent", now, due.lane.as_str(), Some(now)),
        Then::Again(at, lane) => ("pending", *at, lane.as_str(), None),
        Then::Failed => ("failed", now, due.lane.as_str(), Some(now)),
        Then::Call => ("call", now, due.lane.as_str(), Some(now)),
    };
    let done = sqlx::query!(
        "UPDATE reply SET state = $4, next_try_at = $5, lane = $6, ended_at = $7
         WHERE office_id = $1 AND reply_id = $2 AND attempts = $3 AND state = 'pending'",
        due.office.0,
        due.id.0,
        due.attempt,
        state,
        at,
        lane,
        ended
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// These citizens have written again: what somebody was to telephone about goes by message after all.
/// Threads with the lane in which it waits. Returns how many.
///
/// # Errors
/// [`StoreError`].
pub async fn wrote_again(
    db: &mut PgConnection,
    (offices, threads, lanes): (&[i32], &[String], &[String]),
    now: DateTime<Utc>,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "UPDATE reply r SET state = 'pending', next_try_at = $4, ended_at = NULL, lane = c.lane,
             tried_before = attempts
         FROM (SELECT i.office_id, w.reply_id, i.lane
               FROM unnest($1::int[], $2::text[], $3::text[]) AS i(office_id, thread, lane)
               CROSS JOIN LATERAL (SELECT ticket FROM ticket t
                   WHERE t.office_id = i.office_id AND t.thread = i.thread AND t.is_open AND t.grows
                     AND t.thread IS NOT NULL LIMIT 1) t
               CROSS JOIN LATERAL (SELECT reply_id FROM reply w
                   WHERE w.office_id = i.office_id AND w.ticket = t.ticket AND w.state = 'call'
                   ORDER BY reply_id LIMIT 100) w) c
         WHERE r.office_id = c.office_id AND r.reply_id = c.reply_id AND r.state = $5",
        offices,
        threads,
        lanes,
        now,
        // A parameter, so that it goes by the key and not by the index of this state.
        "call"
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// Tells the handler, or whoever is on duty, that somebody has to telephone.
///
/// # Errors
/// [`StoreError`].
pub async fn tell_staff_to_call(
    db: &mut PgConnection,
    due: &Due,
    now: DateTime<Utc>,
    not_before: DateTime<Utc>,
) -> Result<(), StoreError> {
    let data = serde_json::json!({ "reply": due.id.0 });
    sqlx::query!(
        "INSERT INTO outbox (office_id, kind, ticket, urgent, data, created_at, not_before)
         VALUES ($1, 'call_citizen', $2, false, $3, $4, $5)",
        due.office.0,
        due.ticket.as_i64(),
        data,
        now,
        not_before
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The two halves of a message's fate, once both are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched {
    /// Of which reply.
    pub reply: ReplyId,
    /// By which attempt.
    pub attempt: i32,
    /// What became of it.
    pub delivery: Delivery,
}

/// Puts down that an attempt's message has this id; returns its receipt, if it came before. The row
/// is the meeting point: whoever comes second waits for the first one's transaction and sees it.
///
/// # Errors
/// [`StoreError`].
pub async fn named(
    db: &mut PgConnection,
    due: &Due,
    source: &str,
    message_id: &str,
    now: DateTime<Utc>,
) -> Result<Option<Delivery>, StoreError> {
    let delivery = sqlx::query_scalar!(
        "INSERT INTO reply_receipt AS r (office_id, source, message_id, reply_id, attempt, at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (office_id, source, message_id)
         DO UPDATE SET reply_id = excluded.reply_id, attempt = excluded.attempt
         RETURNING delivery",
        due.office.0,
        source,
        message_id,
        due.id.0,
        due.attempt,
        now
    )
    .fetch_one(db)
    .await?;
    Ok(delivery.as_deref().and_then(Delivery::parse))
}

/// A receipt, as it is kept.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply_receipt")]
pub struct NewReceipt<'a> {
    pub source: &'a str,
    pub message_id: &'a str,
    pub template_id: Option<&'a str>,
    pub correspondent: &'a Correspondent,
    pub delivery: Delivery,
    pub at: DateTime<Utc>,
}

/// Keeps a receipt by its message's id; returns the attempt that it belongs to, if that is known
/// already. The first receipt of a message stands.
///
/// # Errors
/// [`StoreError`].
pub async fn receipt(
    db: &mut PgConnection,
    office: OfficeId,
    receipt: &NewReceipt<'_>,
) -> Result<Option<Matched>, StoreError> {
    let row = sqlx::query!(
        r#"INSERT INTO reply_receipt AS r
              (office_id, source, message_id, delivery, template_id, correspondent, at)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT (office_id, source, message_id)
           DO UPDATE SET delivery = coalesce(r.delivery, excluded.delivery),
               template_id = excluded.template_id, correspondent = excluded.correspondent
           RETURNING reply_id, attempt, delivery AS "delivery!""#,
        office.0,
        receipt.source,
        receipt.message_id,
        receipt.delivery.as_str(),
        receipt.template_id,
        receipt.correspondent.as_str(),
        receipt.at
    )
    .fetch_one(db)
    .await?;
    let (Some(reply), Some(attempt)) = (row.reply_id, row.attempt) else { return Ok(None) };
    let delivery = Delivery::parse(&row.delivery).ok_or(bad("reply_receipt", "delivery"))?;
    Ok(Some(Matched { reply: ReplyId(reply), attempt, delivery }))
}

/// Joins receipts to a recipient's attempts that have no message id: the sending call was not
/// answered, or the platform named none. By template and order, since `since`: nothing else is told.
/// While an attempt is under way to the same recipient, the receipt may be that one's: its answer
/// will say.
///
/// # Errors
/// [`StoreError`].
pub async fn adopt(
    db: &mut PgConnection,
    office: OfficeId,
    source: &str,
    recipient: &str,
    since: DateTime<Utc>,
) -> Result<Option<Matched>, StoreError> {
    let row = sqlx::query!(
        r#"WITH pair AS MATERIALIZED (
             SELECT r.message_id, r.delivery, a.reply_id, a.attempt
             FROM reply_receipt r CROSS JOIN LATERAL (
                 SELECT reply_id, attempt FROM reply_attempt a
                 WHERE a.office_id = $1 AND a.source = $2 AND a.recipient = r.correspondent
                   AND a.outcome IN ('under_way', 'taken', 'uncertain') AND a.message_id IS NULL
                   AND a.outcome <> 'under_way' AND a.delivery IS NULL AND a.began_at >= $4
                   AND (a.path = 'template' AND r.template_id IS NULL
                        OR a.path = 'notice' AND r.template_id = a.template_id)
                 ORDER BY a.began_at LIMIT 1) a
             WHERE r.office_id = $1 AND r.source = $2 AND r.correspondent = $3
               AND r.reply_id IS NULL AND r.delivery IS NOT NULL AND r.at >= $4
               AND NOT EXISTS (SELECT FROM reply_attempt w
                   WHERE w.office_id = $1 AND w.source = $2 AND w.recipient = $3
                     AND w.outcome IN ('under_way', 'taken', 'uncertain')
                     AND w.message_id IS NULL AND w.outcome = 'under_way')
             ORDER BY r.at LIMIT 1
         )
         UPDATE reply_receipt r SET reply_id = pair.reply_id, attempt = pair.attempt
         FROM pair WHERE r.office_id = $1 AND r.source = $2 AND r.message_id = pair.message_id
         RETURNING r.reply_id AS "reply_id!", r.attempt AS "attempt!", r.delivery AS "delivery!""#,
        office.0,
        source,
        recipient,
        since
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let delivery = Delivery::parse(&row.delivery).ok_or(bad("reply_receipt", "delivery"))?;
        Ok(Matched { reply: ReplyId(row.reply_id), attempt: row.attempt, delivery })
    })
    .transpose()
}

/// Brings a receipt to its attempt and its reply: what arrived is sent, though the call that sent it
/// was not answered; what did not arrive goes on by the next path at once.
///
/// # Errors
/// [`StoreError`].
pub async fn delivered(
    db: &mut PgConnection,
    office: OfficeId,
    matched: Matched,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE reply_attempt SET delivery = $4,
            outcome = CASE WHEN outcome = 'uncertain' THEN 'taken' ELSE outcome END
         WHERE office_id = $1 AND reply_id = $2 AND attempt = $3 AND delivery IS NULL",
        office.0,
        matched.reply.0,
        matched.attempt,
        matched.delivery.as_str()
    )
    .execute(&mut *db)
    .await?;
    let arrived = matched.delivery == Delivery::Arrived;
    // What did not arrive counts only while nothing was tried after it.
    sqlx::query!(
        "UPDATE reply SET state = CASE WHEN $4 THEN 'sent' ELSE 'pending' END,
            next_try_at = $5::timestamptz, ended_at = CASE WHEN $4 THEN $5::timestamptz END
         WHERE office_id = $1 AND reply_id = $2
           AND ($4 AND state IN ('pending', 'failed', 'call')
                OR NOT $4 AND state IN ('pending', 'sent') AND NOT EXISTS (
                    SELECT FROM reply_attempt a
                    WHERE a.office_id = $1 AND a.reply_id = $2 AND a.attempt > $3))",
        office.0,
        matched.reply.0,
        matched.attempt,
        arrived,
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Brings what waits for a way that is not configured any more to the lane of text messages, where
/// its next path is looked for.
///
/// # Errors
/// [`StoreError`].
pub async fn rehome(
    db: &mut PgConnection,
    office: OfficeId,
    lanes: &[String],
    to: &str,
) -> Result<u64, StoreError> {
    let done = sqlx::query!(
        "UPDATE reply SET lane = $3
         WHERE office_id = $1 AND state = 'pending' AND lane <> ALL($2)",
        office.0,
        lanes,
        to
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}

/// A reply as staff see it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply")]
pub struct ReplyRow {
    pub id: ReplyId,
    pub kind: Telling,
    pub facts: Value,
    pub state: String,
    pub next_try_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub called_by: Option<String>,
    pub attempts: Vec<AttemptRow>,
}

/// An attempt as staff see it.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the columns of reply_attempt")]
pub struct AttemptRow {
    pub path: String,
    pub began_at: DateTime<Utc>,
    pub outcome: String,
    pub code: Option<i64>,
    pub says: Option<String>,
    pub delivery: Option<Delivery>,
}

/// The replies of a ticket, oldest first.
///
/// # Errors
/// [`StoreError`].
pub async fn of_ticket(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
) -> Result<Vec<ReplyRow>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT reply_id, kind, facts, state, next_try_at, created_at, ended_at,
                  (SELECT name FROM staff s WHERE s.office_id = r.office_id
                   AND s.staff_id = r.called_by) AS called_by
           FROM reply r WHERE office_id = $1 AND ticket = $2 ORDER BY reply_id"#,
        office.0,
        ticket.as_i64()
    )
    .fetch_all(&mut *db)
    .await?;
    let mut replies = rows
        .into_iter()
        .map(|row| {
            Ok(ReplyRow {
                id: ReplyId(row.reply_id),
                kind: Telling::parse(&row.kind).ok_or(bad("reply", "kind"))?,
                facts: row.facts,
                state: row.state,
                next_try_at: row.next_try_at,
                created_at: row.created_at,
                ended_at: row.ended_at,
                called_by: row.called_by,
                attempts: Vec::new(),
            })
        })
        .collect::<Result<Vec<_>, StoreError>>()?;
    let ids: Vec<i64> = replies.iter().map(|reply| reply.id.0).collect();
    let attempts = sqlx::query!(
        r#"SELECT a.reply_id, path, began_at, outcome, code, says, delivery
           FROM unnest($2::bigint[]) AS i(reply_id)
           JOIN reply_attempt a ON a.office_id = $1 AND a.reply_id = i.reply_id
           ORDER BY a.reply_id, attempt"#,
        office.0,
        &ids
    )
    .fetch_all(db)
    .await?;
    for row in attempts {
        let Some(reply) = replies.iter_mut().find(|reply| reply.id.0 == row.reply_id) else {
            continue;
        };
        reply.attempts.push(AttemptRow {
            path: row.path,
            began_at: row.began_at,
            outcome: row.outcome,
            code: row.code,
            says: row.says,
            delivery: row.delivery.as_deref().and_then(Delivery::parse),
        });
    }
    Ok(replies)
}

/// Puts down that somebody has telephoned; false when there is nothing to telephone for any more.
///
/// # Errors
/// [`StoreError`].
pub async fn called(
    db: &mut PgConnection,
    office: OfficeId,
    ticket: RegisterNumber,
    reply: ReplyId,
    by: StaffId,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let done = sqlx::query!(
        "UPDATE reply SET state = 'called', called_by = $4, ended_at = $5
         WHERE office_id = $1 AND reply_id = $2 AND ticket = $3 AND state = 'call'",
        office.0,
        reply.0,
        ticket.as_i64(),
        by.0,
        now
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
