//! The end of a matter: its answer, the number struck off, and taken up again.

use super::{Deed, DeskError, Done, Found, text, until};
use crate::{
    domain::{
        event::Happened,
        promise::reopened,
        register::RegisterNumber,
        ticket::{NotAllowed, Outcome, State},
    },
    store, wording,
};
use chrono::NaiveDate;
use serde::Deserialize;

/// A result as it is written down, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ending {
    /// Done.
    Solved,
    /// R7.a.
    Guided,
    /// R7.a 容缺受理, to which the lead on duty has consented.
    ConditionallyAccepted {
        /// What is missing.
        missing: String,
        /// By which day; [`super::DAYS_TO_BRING`] when none is named.
        until: Option<NaiveDate>,
    },
    /// R7.a 否定备案.
    Refused {
        /// Its legal basis.
        basis: String,
    },
    /// RD3.3.
    OutOfScope,
    /// By the citizen.
    Withdrawn,
    /// Tried and not reached.
    Unreachable,
    /// The same matter as another ticket.
    Duplicate {
        /// That one's number.
        of: String,
    },
}

impl Ending {
    /// Whether this outcome is what was asked for; a day that was not named is any.
    fn is(&self, outcome: &Outcome, prefix: &str) -> bool {
        let same = |given: &str, kept: &String| text(given).is_ok_and(|given| given == *kept);
        match (self, outcome) {
            (Self::Solved, Outcome::Solved)
            | (Self::Guided, Outcome::Guided)
            | (Self::OutOfScope, Outcome::OutOfScope)
            | (Self::Withdrawn, Outcome::Withdrawn)
            | (Self::Unreachable, Outcome::Unreachable) => true,
            (
                Self::ConditionallyAccepted { missing, until: day },
                Outcome::ConditionallyAccepted { missing: asked, until },
            ) => same(missing, asked) && day.is_none_or(|day| wording::day_of(*until) == day),
            (Self::Refused { basis }, Outcome::Refused { basis: written }) => same(basis, written),
            (Self::Duplicate { of }, Outcome::Duplicate { of: other }) => {
                RegisterNumber::parse(of, prefix).is_ok_and(|of| of.display(prefix) == *other)
            }
            _ => false,
        }
    }
}

/// R7.2: answers a matter. The opinion is for the register, the answer for the citizen, who is told
/// it; without words of its own it is the opinion.
///
/// # Errors
/// [`DeskError`].
pub async fn resolve(
    deed: Deed<'_>,
    ending: &Ending,
    opinion: &str,
    answer: Option<&str>,
) -> Result<Done, DeskError> {
    let opinion = text(opinion)?;
    let answer = text(answer.unwrap_or_default())?;
    let answer = if answer.is_empty() { opinion.clone() } else { answer };
    let same = |h: &Happened| match h {
        Happened::Resolved { opinion: o, answer: a, outcome } => {
            *o == opinion && a.as_ref() == Some(&answer) && ending.is(outcome, &deed.office.prefix)
        }
        _ => false,
    };
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let some = |written: &str| match text(written)? {
        none if none.is_empty() => Err(DeskError::NotAllowed(NotAllowed::TextMissing)),
        written => Ok(written),
    };
    let outcome = match ending {
        Ending::Solved => Outcome::Solved,
        Ending::Guided => Outcome::Guided,
        Ending::ConditionallyAccepted { missing, until: day } => Outcome::ConditionallyAccepted {
            missing: some(missing)?,
            until: until(deed.office, *day, work.now)?,
        },
        Ending::Refused { basis } => Outcome::Refused { basis: some(basis)? },
        Ending::OutOfScope => Outcome::OutOfScope,
        Ending::Withdrawn => Outcome::Withdrawn,
        Ending::Unreachable => Outcome::Unreachable,
        Ending::Duplicate { of } => {
            let prefix = &deed.office.prefix;
            let other = RegisterNumber::parse(of, prefix).map_err(|_| DeskError::NoOther)?;
            if other == deed.ticket {
                return Err(DeskError::SameTicket);
            }
            let there =
                store::queue::by_number(&mut work.transaction, deed.office.id, other).await?;
            there.ok_or(DeskError::NoOther)?;
            Outcome::Duplicate { of: other.display(prefix) }
        }
    };
    let happened = work.locked.ticket.resolve(outcome.clone(), &opinion, &answer)?;
    work.write(&happened).await?;
    work.stop_timers().await?;
    let mut data = serde_json::to_value(outcome).unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.insert("answer".to_owned(), answer.into());
    }
    work.tell_citizen("resolved", &data).await?;
    work.commit().await
}

/// R7.d, RS2.1: strikes the number off, after the citizen's evaluation or with the reason why there
/// is none.
///
/// # Errors
/// [`DeskError`].
pub async fn close(deed: Deed<'_>, reason: Option<&str>) -> Result<Done, DeskError> {
    let reason = reason.map(text).transpose()?;
    let same = |h: &Happened| matches!(h, Happened::Closed { .. });
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let happened = work.locked.ticket.close(reason.as_deref())?;
    work.write(&happened).await?;
    work.commit().await
}

/// Takes a matter that has a result up again, under its number and at its level, with that level's
/// limit from now. Who answers for it stays (R7.e). Where the citizen has another open ticket by now,
/// it stands beside that one, to which their messages go.
///
/// # Errors
/// [`DeskError`].
pub async fn reopen(deed: Deed<'_>, reason: &str) -> Result<Done, DeskError> {
    let reason = text(reason)?;
    let same = |h: &Happened| matches!(h, Happened::Reopened { reason: r, .. } if *r == reason);
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let office = deed.office;
    let was_closed = matches!(work.locked.ticket.state, State::Closed { .. });
    let limit = reopened(&office.calendar, work.locked.ticket.level, work.now);
    let happened = work.locked.ticket.reopen(&reason, limit)?;
    if was_closed {
        store::search::follow_again(&mut work.transaction, office.id, deed.ticket).await?;
    }
    work.locked.calendar_version = office.calendar_version;
    work.write(&happened).await?;
    work.run_limit().await?;
    let ticket = &work.locked.ticket;
    let data = serde_json::json!({
        "level": ticket.level, "due_at": limit.due_at, "provisional": limit.provisional,
        "accountable": ticket.accountable.map(|id| id.0),
    });
    let urgent = work.locked.urgent;
    work.tell_staff("reopened", urgent, &data).await?;
    work.commit().await
}
