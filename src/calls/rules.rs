//! What a call is to become, by what is known of it, and whom it shares a ticket with (R5.2). Nothing
//! here asks anybody.

use super::{LEASE, MissedCalls, Source, SourceKind, words};
use crate::{
    domain::calendar::WorkingCalendar,
    offices::Office,
    store::call::{Call, Columns, Told},
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::china;
use intake_hotline::{CallEvent, Caller, Kind, Outcome, Recording};

/// What a call is to become, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A message was left, here or on its way.
    Message,
    /// Nobody spoke with the caller and nothing was left.
    Missed,
    /// Somebody spoke with the caller, or it cannot be known yet.
    Nothing,
}

pub(super) fn verdict(
    facts: &CallEvent,
    calendar: &WorkingCalendar,
    spoken_at: DateTime<Utc>,
) -> Verdict {
    let left =
        facts.recordings.is_empty() || facts.recordings.values().any(Recording::says_something);
    if facts.kind == Kind::Voicemail && left {
        return Verdict::Message;
    }
    // An officer's own telephone: nobody has to call it back, and what it records is no message.
    if facts.caller.as_ref().is_some_and(is_inside) {
        return Verdict::Nothing;
    }
    // Recorded while nobody was there, by a source that does not say of its recordings what they are
    // (R5.2).
    let recorded = facts.kind == Kind::RecordingReady && left && !facts.recordings.is_empty();
    let spoken_with = matches!(facts.outcome, Some(Outcome::Answered | Outcome::Blocked));
    if recorded && !spoken_with && !calendar.is_open(spoken_at) {
        return Verdict::Message;
    }
    match facts.outcome {
        Some(Outcome::Answered | Outcome::Blocked) => Verdict::Nothing,
        Some(_) => Verdict::Missed,
        None if facts.kind == Kind::RecordingAbsent || facts.kind == Kind::Voicemail => {
            Verdict::Missed
        }
        // It is over, and nobody says how: out of hours there was nobody to answer.
        None if facts.recordings.is_empty()
            && (facts.kind == Kind::CallEnded || facts.ended_at.is_some()) =>
        {
            if calendar.is_open(spoken_at) { Verdict::Nothing } else { Verdict::Missed }
        }
        None => Verdict::Nothing,
    }
}

/// Whether a recording is all that is known: that it was of a conversation may be said in a moment.
pub(super) fn is_unsaid(facts: &CallEvent) -> bool {
    facts.kind == Kind::RecordingReady && facts.outcome.is_none()
}

/// Whether it is an extension of the office: three or four digits. No caller from outside has those.
fn is_inside(caller: &Caller) -> bool {
    matches!(caller, Caller::Raw(number)
        if (3..=4).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit()))
}

/// What is looked for of a call, by its facts.
pub(super) fn columns(
    source: &Source,
    office: &Office,
    facts: &CallEvent,
    told_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Columns {
    let plausible = facts.time_is_plausible(told_at);
    let spoken_at = facts.spoken_at().filter(|_| plausible).unwrap_or(told_at);
    let settle_at = match verdict(facts, &office.calendar, spoken_at) {
        // The webhook's own request makes the ticket, and answers with its number.
        Verdict::Message if source.settings.kind == SourceKind::Webhook => Some(now + LEASE),
        Verdict::Message if !is_unsaid(facts) => Some(now),
        Verdict::Missed if source.settings.missed_calls == MissedCalls::Off => None,
        Verdict::Message | Verdict::Missed => {
            let wait = i64::try_from(source.settings.missed_after_s).unwrap_or(0);
            Some(now + TimeDelta::seconds(wait))
        }
        Verdict::Nothing => None,
    };
    let line = match source.settings.line.as_str() {
        "" => facts.callee.as_deref().unwrap_or_default().to_owned(),
        line => line.to_owned(),
    };
    let caller = facts.caller.as_ref().and_then(Caller::identity).map(str::to_owned);
    Columns { spoken_at, line, caller, outcome: facts.outcome.map(words::outcome), settle_at }
}

pub(super) fn told(facts: &CallEvent) -> Vec<(String, Told)> {
    let state = |recording: &Recording| match facts.kind {
        _ if !recording.says_something() => Told::TooShort,
        Kind::RecordingAbsent => Told::Absent,
        _ => Told::Announced,
    };
    facts.recordings.iter().map(|(key, one)| (key.clone(), state(one))).collect()
}

/// The thread of a group's round.
pub(super) fn thread_name(group: &str, round: i32) -> String {
    if round == 1 { group.to_owned() } else { format!("{group}#{round}") }
}

/// Whom a call shares a ticket with: the same number on the same line in the same closed period, or
/// the same day's sessions. A withheld number shares with nobody.
pub(super) fn group(source: &Source, office: &Office, call: &Call) -> String {
    let facts = &call.facts;
    let alone = format!("{}:call:{}", source.name, facts.call_key);
    let missed = verdict(facts, &office.calendar, call.spoken_at) == Verdict::Missed;
    let each = missed && source.settings.missed_calls == MissedCalls::Always;
    let Some(caller) = facts.caller.as_ref().and_then(Caller::identity).filter(|_| !each) else {
        return alone;
    };
    let period = if office.calendar.is_open(call.spoken_at) {
        call.spoken_at.with_timezone(&china()).format("day%Y%m%d").to_string()
    } else {
        format!("until{}", office.calendar.next_open(call.spoken_at).value.timestamp())
    };
    let line = match source.settings.kind {
        // Their messages may come before the number that was called: who shares a ticket must not
        // hang on which part came first.
        SourceKind::Vendor | SourceKind::Twilio => source.settings.line.clone(),
        _ => columns(source, office, facts, call.told_at, call.told_at).line,
    };
    // What is set to be one line is one, whichever of its exchanges tells of the call.
    let of = if source.settings.line.is_empty() { source.name.as_str() } else { "hotline" };
    let group = format!("{of}:{line}:{caller}:{period}");
    // Room for the round.
    if group.len() <= intake_contract::LIMITS.thread - 8 { group } else { alone }
}
