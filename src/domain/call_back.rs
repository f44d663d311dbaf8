//! Calling back whoever left a message or hung up (R5.2): what a try comes to, and when the next one
//! is. Who does not answer three times, at three different times, could not be reached (R7.d).

use super::calendar::WorkingCalendar;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// So many tries that nobody answers, each in another session, and the citizen could not be reached.
pub const TRIES: i32 = 3;
/// A line that is busy is free soon.
const BUSY: TimeDelta = TimeDelta::minutes(15);

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The citizen was spoken with.
    Reached,
    /// The line is busy.
    Busy,
    /// Nobody answers.
    NoAnswer,
    /// The number does not exist, or is somebody else's.
    WrongNumber,
    /// What was noted last was a mistake: it waits again.
    Again,
}

/// Where calling back is with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Somebody has to call.
    Waiting,
    /// Nobody can call: the number is withheld, or not known yet.
    Withheld,
    /// The citizen was spoken with.
    Reached,
    /// Not answered [`TRIES`] times.
    Unreachable,
    /// The number leads to nobody.
    WrongNumber,
    /// The ticket has a result without it.
    Over,
}

/// A ticket's call back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallBack {
    /// Where it is with.
    pub state: State,
    /// Tries that nobody answered, at different times.
    pub tries: i32,
    /// Not before then.
    pub next_try_at: DateTime<Utc>,
    /// From when a further try is one at another time.
    pub counts_from: Option<DateTime<Utc>>,
    /// Whether the last try is among `tries`.
    pub last_counted: bool,
}

impl Answer {
    /// All, in the order of their keys.
    pub const ALL: [Self; 5] =
        [Self::Reached, Self::Busy, Self::NoAnswer, Self::WrongNumber, Self::Again];

    /// The value in forms.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Busy => "busy",
            Self::NoAnswer => "no_answer",
            Self::WrongNumber => "wrong_number",
            Self::Again => "again",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|answer| answer.as_str() == text)
    }
}

impl State {
    const ALL: [Self; 6] = [
        Self::Waiting,
        Self::Withheld,
        Self::Reached,
        Self::Unreachable,
        Self::WrongNumber,
        Self::Over,
    ];

    /// The database's form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Withheld => "withheld",
            Self::Reached => "reached",
            Self::Unreachable => "unreachable",
            Self::WrongNumber => "wrong_number",
            Self::Over => "over",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl CallBack {
    /// After a try; `None` where there is nothing to call back, or nothing to take back.
    #[must_use]
    pub fn after(
        self,
        answer: Answer,
        now: DateTime<Utc>,
        calendar: &WorkingCalendar,
    ) -> Option<Self> {
        let waits = self.state == State::Waiting;
        let last_counted = false;
        match answer {
            Answer::Again => {
                let tries = self.tries - i32::from(self.last_counted);
                let tried = self.next_try_at > now || !waits;
                let counts_from = self.counts_from.filter(|_| !self.last_counted);
                let again = Self {
                    state: State::Waiting,
                    tries,
                    next_try_at: now,
                    counts_from,
                    last_counted,
                };
                (tried && !matches!(self.state, State::Withheld | State::Over)).then_some(again)
            }
            _ if !waits => None,
            Answer::Reached => Some(Self { state: State::Reached, last_counted, ..self }),
            Answer::WrongNumber => Some(Self { state: State::WrongNumber, last_counted, ..self }),
            Answer::Busy => {
                let next_try_at = calendar.next_open(now + BUSY).value;
                Some(Self { next_try_at, last_counted, ..self })
            }
            Answer::NoAnswer => {
                // Before the office opens nobody expects to be called.
                let counts =
                    calendar.is_open(now) && self.counts_from.is_none_or(|from| from <= now);
                let tries = self.tries + i32::from(counts);
                let later = calendar.next_session(now);
                let next_try_at = match self.counts_from.filter(|from| *from > now) {
                    Some(from) => from,
                    None => later,
                };
                let state = if tries >= TRIES { State::Unreachable } else { State::Waiting };
                let counts_from = Some(next_try_at);
                Some(Self { state, tries, next_try_at, counts_from, last_counted: counts })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        let text = format!("{}:00+08:00", text.replace(' ', "T"));
        DateTime::parse_from_rfc3339(&text).unwrap().to_utc()
    }

    fn waiting() -> CallBack {
        CallBack {
            state: State::Waiting,
            tries: 0,
            next_try_at: at("2026-11-23 23:46"),
            counts_from: None,
            last_counted: false,
        }
    }

    fn after(before: CallBack, answer: Answer, when: &str) -> CallBack {
        before.after(answer, at(when), &WorkingCalendar::national().build()).unwrap()
    }

    #[test]
    fn r7_d_three_unanswered_tries_count_when_they_are_at_three_different_times() {
        let first = after(waiting(), Answer::NoAnswer, "2026-11-24 08:40");
        assert_eq!((first.tries, first.next_try_at), (1, at("2026-11-24 13:00")));
        let at_once = after(first, Answer::NoAnswer, "2026-11-24 08:45");
        assert_eq!((at_once.tries, at_once.next_try_at), (1, at("2026-11-24 13:00")));
        let second = after(at_once, Answer::NoAnswer, "2026-11-24 16:20");
        assert_eq!((second.tries, second.next_try_at), (2, at("2026-11-25 08:30")));
        assert_eq!(second.state, State::Waiting);
        let early = after(second, Answer::NoAnswer, "2026-11-25 08:20");
        assert_eq!((early.tries, early.next_try_at), (2, at("2026-11-25 08:30")));
        let third = after(early, Answer::NoAnswer, "2026-11-25 08:31");
        assert_eq!((third.tries, third.state), (3, State::Unreachable));
    }

    #[test]
    fn the_next_try_of_a_friday_afternoon_is_on_monday() {
        let tried = after(waiting(), Answer::NoAnswer, "2026-11-27 16:00");
        assert_eq!(tried.next_try_at, at("2026-11-30 08:30"));
        let busy = after(waiting(), Answer::Busy, "2026-11-27 16:20");
        assert_eq!(busy.next_try_at, at("2026-11-30 08:30"));
        let soon = after(waiting(), Answer::Busy, "2026-11-27 16:00");
        assert_eq!((soon.tries, soon.next_try_at), (0, at("2026-11-27 16:15")));
    }

    #[test]
    fn a_mistake_is_taken_back_with_the_try_that_it_counted() {
        let calendar = WorkingCalendar::national().build();
        let tried = after(waiting(), Answer::NoAnswer, "2026-11-24 08:40");
        let back = after(tried, Answer::Again, "2026-11-24 08:41");
        assert_eq!((back.tries, back.next_try_at), (0, at("2026-11-24 08:41")));
        assert_eq!(back.after(Answer::Again, at("2026-11-24 08:42"), &calendar), None);
        let reached = after(back, Answer::Reached, "2026-11-24 08:43");
        assert_eq!(reached.after(Answer::Busy, at("2026-11-24 08:44"), &calendar), None);
        assert_eq!(after(reached, Answer::Again, "2026-11-24 08:44").state, State::Waiting);
        let withheld = CallBack { state: State::Withheld, ..waiting() };
        assert_eq!(withheld.after(Answer::Reached, at("2026-11-24 08:44"), &calendar), None);
    }
}
