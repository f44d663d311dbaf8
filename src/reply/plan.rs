//! From effects to replies: what a citizen should know, and when they may be told.
//!
//! Names of effects, as desk actions write them to the outbox, with what stands in `data`:
//! `claimed` (nothing more), `raised` (`level`, `due_at`, `provisional`; `opinion` when an officer
//! handed it up, without its words), `awaiting` (`missing`, `until`), `resolved` (`answer`), `said` (`text`),
//! `reopened` (`level`, `due_at`, `provisional`), `registered` with `"tell_citizen": true`, of what was
//! registered while nobody waited for an answer. An effect of another kind is told when it has that
//! and a `text`; with `"tell_citizen": false` none is. `number_follows` (`asks`, `wrote_at`) tells the number to who
//! was answered from the spool without one.

use super::SMS;
use crate::{
    offices::Office,
    platform::Accounts,
    store::{self, StoreError, reply::NewReplies},
    wording,
};
use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use intake_contract::{Telling, china};
use serde_json::{Value, json};
use sqlx::PgConnection;

/// Effects that are taken at a time.
pub const AT_A_TIME: usize = 2000;

/// Makes replies of an office's effects, in the caller's transaction; returns of how many: with
/// fewer than [`AT_A_TIME`] there are no more.
///
/// # Errors
/// [`StoreError`].
pub async fn plan(
    db: &mut PgConnection,
    office: &Office,
    accounts: &Accounts,
    now: DateTime<Utc>,
) -> Result<usize, StoreError> {
    let effects = store::reply::take_effects(db, office.id, AT_A_TIME as i64).await?;
    let mut new = NewReplies::default();
    for effect in &effects {
        let Some(kind) = telling(&effect.kind, &effect.data) else { continue };
        let mut facts = json!({
            "due_at": effect.due_at,
            "follow_up_at": effect.follow_up_at,
            "provisional": effect.provisional,
            "level": effect.level,
            "who": effect.accountable,
        });
        if let (Some(facts), Some(data)) = (facts.as_object_mut(), effect.data.as_object()) {
            facts.extend(data.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let lane = accounts.of_thread(office.id, effect.thread.as_deref());
        let from = if is_automatic(kind) { now.max(effect.not_before) } else { now };
        new.next_try_at.push(may_be_told_at(office, kind, &facts, from));
        new.ticket.push(effect.ticket.as_i64());
        new.kind.push(kind.as_str());
        new.facts.push(facts);
        new.lane.push(lane.map_or(SMS, |(account, _)| &account.source).to_owned());
    }
    if !new.ticket.is_empty() {
        store::reply::add(db, office.id, &new, now).await?;
    }
    Ok(effects.len())
}

fn telling(kind: &str, data: &Value) -> Option<Telling> {
    let kind = if kind == "number_follows" { "registered" } else { kind };
    match (data.get("tell_citizen").and_then(Value::as_bool), Telling::parse(kind)) {
        (Some(false), _) => None,
        (_, Some(telling)) => Some(telling),
        // An effect of a kind of its own, with words.
        (_, None) => data.get("text").and_then(Value::as_str).map(|_| Telling::Said),
    }
}

/// What nobody of the staff has just done: it keeps polite hours.
fn is_automatic(kind: Telling) -> bool {
    matches!(kind, Telling::Registered | Telling::Raised)
}

/// When a citizen may be told, from `at` on: what an officer wrote or did, at any hour; what
/// happened by itself, between 8 and 21 o'clock, and a rise as staff are told of it, while the
/// office is open. Asked again before each attempt: calendars change.
pub(super) fn may_be_told_at(
    office: &Office,
    kind: Telling,
    facts: &Value,
    at: DateTime<Utc>,
) -> DateTime<Utc> {
    match kind {
        Telling::Registered if just_wrote(facts, at) => at,
        Telling::Registered => politely(at),
        Telling::Raised if office.calendar.is_open(at) => politely(at),
        Telling::Raised => politely(office.calendar.next_open(at).value),
        _ => at,
    }
}

/// Who wrote a moment ago, at whatever hour, is awake and waits for an answer.
fn just_wrote(facts: &Value, at: DateTime<Utc>) -> bool {
    const AWAKE: TimeDelta = TimeDelta::minutes(30);
    let wrote_at = facts.get("wrote_at").and_then(|at| serde_json::from_value(at.clone()).ok());
    wrote_at.is_some_and(|wrote_at: DateTime<Utc>| at - wrote_at <= AWAKE)
}

fn politely(at: DateTime<Utc>) -> DateTime<Utc> {
    const FROM: u32 = 8;
    const TO: u32 = 21;
    let local = at.with_timezone(&china());
    let hour = chrono::Timelike::hour(&local);
    if (FROM..TO).contains(&hour) {
        return at;
    }
    let day = wording::day_of(at);
    let day = if hour >= TO { day.checked_add_days(Days::new(1)).unwrap_or(day) } else { day };
    let eight = NaiveTime::from_hms_opt(FROM, 0, 0).unwrap_or(NaiveTime::MIN);
    day.and_time(eight).and_local_timezone(china()).single().map_or(at, |at| at.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(&format!("{text}:00+08:00")).unwrap().to_utc()
    }

    #[test]
    fn what_happens_by_itself_disturbs_nobody_at_night() {
        for (asked, told) in [
            ("2026-11-24T07:59", "2026-11-24T08:00"),
            ("2026-11-24T08:00", "2026-11-24T08:00"),
            ("2026-11-24T20:59", "2026-11-24T20:59"),
            ("2026-11-24T21:00", "2026-11-25T08:00"),
            ("2026-11-24T23:30", "2026-11-25T08:00"),
        ] {
            assert_eq!(politely(at(asked)), at(told), "{asked}");
        }
    }

    #[test]
    fn who_has_just_written_is_awake_and_who_wrote_an_hour_ago_may_sleep() {
        let facts = json!({ "wrote_at": at("2026-11-24T22:14") });
        assert!(just_wrote(&facts, at("2026-11-24T22:44")));
        assert!(!just_wrote(&facts, at("2026-11-24T22:45")));
        assert!(!just_wrote(&json!({}), at("2026-11-24T22:14")));
    }

    #[test]
    fn an_effect_is_told_by_its_kind_or_because_it_says_so() {
        let told = |kind: &str, data: Value| telling(kind, &data);
        assert_eq!(told("resolved", json!({ "answer": "好了" })), Some(Telling::Resolved));
        assert_eq!(told("registered", json!({ "tell_citizen": true })), Some(Telling::Registered));
        let follows = json!({ "tell_citizen": true, "asks": true });
        assert_eq!(told("number_follows", follows), Some(Telling::Registered));
        assert_eq!(told("raised", json!({ "tell_citizen": false })), None);
        assert_eq!(told("moved", json!({ "tell_citizen": true })), None);
        assert_eq!(
            told("moved", json!({ "tell_citizen": true, "text": "改期" })),
            Some(Telling::Said)
        );
    }
}
