//! While a matter is being handled: words to the citizen, material asked for, the level above.

use super::{Deed, DeskError, Done, Found, text, until};
use crate::{
    domain::{
        event::Happened,
        policy::LimitsRunFrom,
        promise::{Waited, limit, resumed},
        ticket::{Cause, NewLimit, NotAllowed},
        timer::TimerKind,
    },
    store::{self, StoreError},
    wording,
};
use chrono::NaiveDate;
use intake_contract::LIMITS;

/// Writes to the citizen, by whatever way reaches them.
///
/// # Errors
/// [`DeskError`].
pub async fn say(deed: Deed<'_>, words: &str) -> Result<Done, DeskError> {
    let words = text(words)?;
    let same = |h: &Happened| matches!(h, Happened::ToldCitizen { text } if *text == words);
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let happened = work.locked.ticket.tell_citizen(&words)?;
    work.write(&happened).await?;
    work.tell_citizen("said", &serde_json::json!({ "text": words })).await?;
    work.commit().await
}

/// R7.a: tells the citizen once, all of it, what is missing and by which day to bring it. Until then
/// no limit runs; at the end of that day whoever answers for it is told that it still waits.
///
/// # Errors
/// [`DeskError`].
pub async fn ask(
    deed: Deed<'_>,
    missing: &str,
    by_day: Option<NaiveDate>,
) -> Result<Done, DeskError> {
    let missing = text(missing)?;
    let same = |h: &Happened| match h {
        Happened::AwaitingCitizen { missing: m, until } => {
            *m == missing && by_day.is_none_or(|day| wording::day_of(*until) == day)
        }
        _ => false,
    };
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let until = until(deed.office, by_day, work.now)?;
    let happened = work.locked.ticket.await_citizen(&missing, until)?;
    work.write(&happened).await?;
    work.stop_timers().await?;
    work.arm(&[(TimerKind::FollowUp, until)]).await?;
    let data = serde_json::json!({ "missing": missing, "until": until });
    work.tell_citizen("awaiting", &data).await?;
    work.commit().await
}

/// The material is there: work goes on, and so does the limit ([`resumed`]).
///
/// # Errors
/// [`DeskError`].
pub async fn resume(deed: Deed<'_>) -> Result<Done, DeskError> {
    let same = |h: &Happened| matches!(h, Happened::Resumed { .. });
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let (office, number) = (deed.office, deed.ticket);
    let (paused_at, resumed_before) =
        store::ticket::last_pause(&mut work.transaction, office.id, number).await?;
    let start = work.locked.ticket.runs_from.unwrap_or(work.locked.accepted_at);
    let ran_from = match office.policy.limits_run_from {
        LimitsRunFrom::Registration => start,
        LimitsRunFrom::HandUp => {
            let key = [number.as_i64()];
            let entered =
                store::ticket::entered_level_at(&mut work.transaction, office.id, &key).await?;
            entered.get(&number.as_i64()).map_or(start, |entered| start.max(*entered))
        }
    };
    let paused_at = paused_at.unwrap_or(work.now);
    let waited = Waited { ran_from, paused_at, resumed_before, resumed_at: work.now };
    let limit = resumed(&office.calendar, work.locked.ticket.level, waited);
    let happened = work.locked.ticket.resume(limit)?;
    work.locked.calendar_version = office.calendar_version;
    work.write(&happened).await?;
    if work.locked.ticket.overdue {
        work.stop_timers().await?;
    } else {
        work.run_limit().await?;
    }
    let due_at = work.locked.ticket.due_at;
    let due = match work.locked.ticket.overdue || work.locked.ticket.provisional {
        true => "会尽快答复您".to_owned(),
        false => format!("最晚{}前给您答复", wording::said(due_at, work.now)),
    };
    let said = format!("材料收到了，继续办理，{due}。");
    let data = serde_json::json!({ "tell_citizen": true, "text": said });
    work.tell_citizen("resumed", &data).await?;
    work.commit().await
}

/// Ends every link to the citizen's page that was given out: somebody else has got hold of one. What
/// the citizen is told next brings a new one.
///
/// # Errors
/// [`DeskError`].
pub async fn revoke_links(deed: Deed<'_>) -> Result<Done, DeskError> {
    let same = |h: &Happened| matches!(h, Happened::LinksRevoked);
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    work.write(&Happened::LinksRevoked).await?;
    let (office, number, now) = (work.locked.office, work.locked.number, work.now);
    crate::citizen::revoke_links(&mut work.transaction, office, number, now).await?;
    work.commit().await
}

/// R7.2: name and telephone as the citizen gives them to an officer, in place of what was on the form.
/// The trail says that they were corrected, and by whom; not what they are.
///
/// # Errors
/// [`DeskError`].
pub async fn correct_contact(deed: Deed<'_>, name: &str, phone: &str) -> Result<Done, DeskError> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let (name, phone) = (given(name), given(phone));
    if name.as_ref().is_some_and(|name| name.len() > LIMITS.name) {
        return Err(DeskError::TooLong);
    }
    if phone.as_deref().is_some_and(|phone| !intake_counter::is_phone(phone)) {
        return Err(DeskError::NoPhone);
    }
    let of = (name.as_deref(), phone.as_deref());
    let (pool, office, number) = (deed.pool, deed.office.id, deed.ticket);
    let same = |h: &Happened| matches!(h, Happened::ContactCorrected);
    let Found::New(mut work) = deed.begin(same).await? else {
        // The trail does not repeat what was written: the row says whether it was the same.
        let mut db = pool.acquire().await.map_err(StoreError::from)?;
        let there = store::ticket::has_contact(&mut db, office, number, of).await?;
        return if there { Ok(Done::default()) } else { Err(DeskError::Changed) };
    };
    work.write(&Happened::ContactCorrected).await?;
    store::ticket::correct_contact(&mut work.transaction, office, number, of).await?;
    work.commit().await
}

/// R6: hands a matter up to the next level with a written opinion, before its limit does.
///
/// # Errors
/// [`DeskError`].
pub async fn hand_up(deed: Deed<'_>, opinion: &str) -> Result<Done, DeskError> {
    let opinion = text(opinion)?;
    let same =
        |h: &Happened| matches!(h, Happened::Raised { opinion: Some(o), .. } if *o == opinion);
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let office = deed.office;
    let ticket = &mut work.locked.ticket;
    let to = ticket.level.next().ok_or(NotAllowed::AtTheTop)?;
    let start = ticket.runs_from.unwrap_or(work.locked.accepted_at);
    let due = limit(&office.calendar, office.policy.limits_run_from, to, start, work.now);
    let new = NewLimit { runs_from: start, due_at: due.at, provisional: due.provisional };
    let happened = ticket.hand_up(&opinion, work.now, new)?;
    let accountable = ticket.accountable.map(|id| id.0);
    work.locked.calendar_version = office.calendar_version;
    work.write(&happened).await?;
    work.run_limit().await?;
    let data = serde_json::json!({
        "level": to, "due_at": due.at, "provisional": due.provisional, "accountable": accountable,
        // Not its words, which are for the house: a citizen is told that it is no delay.
        "opinion": true,
    });
    let urgent = work.locked.urgent;
    work.tell_staff("raised", urgent, &data).await?;
    work.commit().await
}

/// Article 7: which of the three causes; may be corrected until there is a result.
///
/// # Errors
/// [`DeskError`].
pub async fn triage(deed: Deed<'_>, cause: Cause) -> Result<Done, DeskError> {
    let same = |h: &Happened| matches!(h, Happened::Triaged { cause: c } if *c == cause);
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    if work.locked.ticket.cause == Some(cause) {
        return Ok(Done::default());
    }
    let happened = work.locked.ticket.triage(cause)?;
    work.write(&happened).await?;
    work.commit().await
}
