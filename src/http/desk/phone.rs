//! The calls of a ticket, beside its story.

use crate::{calls, store::call::Call, wording};
use chrono::{DateTime, Utc};
use intake_hotline::{Caller, Kind};

/// The calls of a ticket.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Each, as it was made.
    pub(super) calls: Vec<Line>,
    /// What an officer dials; `None` where it is withheld or was not told.
    pub(super) number: Option<String>,
    /// The same for a telephone: without its extension, which somebody has to say or to type.
    pub(super) dials: String,
    /// Nobody can be called back.
    pub(super) withheld: bool,
}

/// A call.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) at: String,
    pub(super) number: Option<String>,
    pub(super) words: String,
}

/// The calls of a ticket as they are shown.
pub(super) fn show(calls: &[Call], now: DateTime<Utc>) -> Calls {
    let callers = || calls.iter().filter_map(|call| call.facts.caller.as_ref());
    // The newest: who called last is there.
    let number = callers().rev().find_map(Caller::dialled);
    let withheld = number.is_none() && callers().next().is_some();
    let mut numbers: Vec<String> = callers().filter_map(Caller::dialled).collect();
    numbers.sort();
    numbers.dedup();
    let line = |call: &Call| {
        let mut words = match call.facts.kind {
            Kind::Voicemail if call.facts.recordings.values().any(|one| one.says_something()) => {
                "留言".to_owned()
            }
            _ => calls::ended(call).to_owned(),
        };
        if let Some(callee) = &call.facts.callee {
            words = format!("拨打 {callee}，{words}");
        }
        // Said where it is not the one above: two matters became one.
        let several = numbers.len() > 1;
        let number = call.facts.caller.as_ref().and_then(Caller::dialled).filter(|_| several);
        Line { at: wording::moment(call.spoken_at, now), number, words }
    };
    let dials = number.as_deref().and_then(|number| number.split(' ').next());
    let dials = dials.unwrap_or_default().to_owned();
    Calls { calls: calls.iter().map(line).collect(), number, dials, withheld }
}
