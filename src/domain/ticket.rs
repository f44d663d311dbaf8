//! A ticket's states and what may follow what (DESIGN.md §4). The database repeats the rules as
//! constraints.

use super::{
    event::Happened,
    id::{StaffId, UnitId},
    level::Level,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Why something could not be done (article 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// R7.a: unclear request, incomplete material.
    Citizen,
    /// R7.b: attitude, inflexible, poor command of policy.
    Staff,
    /// R7.c: policy limits, legacy problems.
    Objective,
}

/// How a matter ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Solved,
    /// R7.a: guided to the right counter.
    Guided,
    /// R7.a 容缺受理: accepted with material missing.
    ConditionallyAccepted {
        /// What.
        missing: String,
        /// By when.
        until: DateTime<Utc>,
    },
    /// R7.a 否定备案: refused, with its legal basis.
    Refused {
        /// The basis.
        basis: String,
    },
    /// RD3.3: out of scope, explained.
    OutOfScope,
    /// By the citizen.
    Withdrawn,
    /// Tried and not reached.
    Unreachable,
    /// The same matter as another ticket.
    Duplicate {
        /// That ticket's number, as displayed.
        of: String,
    },
}

/// R7.d: the citizen's judgement, in five grades.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evaluation {
    /// 非常满意
    VerySatisfied,
    /// 满意
    Satisfied,
    /// 基本满意
    FairlySatisfied,
    /// 不满意
    Dissatisfied,
    /// 非常不满意
    VeryDissatisfied,
}

/// What a closing rests on: an evaluation, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closing {
    /// R7.d.
    Evaluated(Evaluation),
    /// The recorded reason why there is none.
    WithoutEvaluation(String),
}

/// Where a ticket stands, with what that state needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// In the register; nobody has taken it up.
    Registered,
    /// Somebody answers for it (R7.e).
    Accepted,
    /// Being handled, with referral to units.
    InProgress {
        /// Where it was referred to, in order.
        units: Vec<UnitId>,
    },
    /// Paused: something is missing from the citizen.
    AwaitingCitizen {
        /// What is missing.
        missing: String,
        /// By when.
        until: DateTime<Utc>,
        /// Where it had been referred to.
        units: Vec<UnitId>,
    },
    /// There is a result, and it was told.
    Resolved {
        /// Which.
        outcome: Outcome,
        /// R7.2: the handling opinion.
        opinion: String,
    },
    /// The citizen judged it.
    Evaluated {
        /// The result.
        outcome: Outcome,
        /// R7.2.
        opinion: String,
        /// R7.d.
        evaluation: Evaluation,
    },
    /// Struck off.
    Closed {
        /// The result.
        outcome: Outcome,
        /// R7.2.
        opinion: String,
        /// R7.d.
        closing: Closing,
    },
}

impl Evaluation {
    /// From the best to the worst, as they are offered.
    pub const ALL: [Self; 5] = [
        Self::VerySatisfied,
        Self::Satisfied,
        Self::FairlySatisfied,
        Self::Dissatisfied,
        Self::VeryDissatisfied,
    ];

    /// The value in forms.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerySatisfied => "very_satisfied",
            Self::Satisfied => "satisfied",
            Self::FairlySatisfied => "fairly_satisfied",
            Self::Dissatisfied => "dissatisfied",
            Self::VeryDissatisfied => "very_dissatisfied",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|evaluation| evaluation.as_str() == text)
    }

    /// The Chinese name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::VerySatisfied => "非常满意",
            Self::Satisfied => "满意",
            Self::FairlySatisfied => "基本满意",
            Self::Dissatisfied => "不满意",
            Self::VeryDissatisfied => "非常不满意",
        }
    }

    /// Whether somebody should look into it.
    #[must_use]
    pub fn is_dissatisfied(self) -> bool {
        matches!(self, Self::Dissatisfied | Self::VeryDissatisfied)
    }
}

impl State {
    /// The names of all states.
    pub const NAMES: [&str; 7] = [
        "registered",
        "accepted",
        "in_progress",
        "awaiting_citizen",
        "resolved",
        "evaluated",
        "closed",
    ];

    /// The name in the API and the database.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Accepted => "accepted",
            Self::InProgress { .. } => "in_progress",
            Self::AwaitingCitizen { .. } => "awaiting_citizen",
            Self::Resolved { .. } => "resolved",
            Self::Evaluated { .. } => "evaluated",
            Self::Closed { .. } => "closed",
        }
    }

    /// Whether limits still run: the matter is unsolved and not waiting for the citizen.
    #[must_use]
    pub fn is_pressing(&self) -> bool {
        matches!(self, Self::Registered | Self::Accepted | Self::InProgress { .. })
    }
}

/// A transition that the rules do not allow, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// R7.e: the first receiver is fixed.
    #[error("already claimed")]
    AlreadyClaimed,
    /// Nobody answers for it yet.
    #[error("not claimed yet")]
    NotClaimed,
    /// There is a result already.
    #[error("already resolved")]
    AlreadyResolved,
    /// There is no result yet.
    #[error("not resolved yet")]
    NotResolved,
    /// It waits for the citizen.
    #[error("waiting for the citizen")]
    Waiting,
    /// It does not wait for the citizen.
    #[error("not waiting for the citizen")]
    NotWaiting,
    /// Struck off.
    #[error("already closed")]
    AlreadyClosed,
    /// The unit has it already.
    #[error("already referred to this unit")]
    AlreadyReferred,
    /// Level 5 is the top.
    #[error("already at the highest level")]
    AtTheTop,
    /// Nobody called, or whoever did was called back.
    #[error("nobody to call back")]
    NobodyToCall,
    /// A text that the rule asks for is empty.
    #[error("a text is missing")]
    TextMissing,
}

/// What transitions read and change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Where it stands.
    pub state: State,
    /// The ladder's rung.
    pub level: Level,
    /// Which limit it has.
    pub due_at: DateTime<Utc>,
    /// Whether that date rests on an unannounced calendar.
    pub provisional: bool,
    /// R7.e.
    pub accountable: Option<StaffId>,
    /// R7.b, R7.c: where it was referred to last.
    pub unit: Option<UnitId>,
    /// What triage found.
    pub cause: Option<Cause>,
    /// Past the last limit.
    pub overdue: bool,
    /// From when its limits run, where that is no longer acceptance: after a pause, after reopening.
    pub runs_from: Option<DateTime<Utc>>,
}

/// A limit that begins to run: after a pause, at a reopening, when an officer hands a matter up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLimit {
    /// From when the limits run; no part of a hand-up.
    pub runs_from: DateTime<Utc>,
    /// The limit.
    pub due_at: DateTime<Utc>,
    /// Whether it rests on an unannounced calendar.
    pub provisional: bool,
}

type Step = Result<Happened, NotAllowed>;

fn needed(text: &str) -> Result<String, NotAllowed> {
    let text = text.trim();
    if text.is_empty() { Err(NotAllowed::TextMissing) } else { Ok(text.to_owned()) }
}

impl Ticket {
    /// R7.e: the first receiver takes it up and answers for it to the end.
    ///
    /// # Errors
    /// When somebody has.
    pub fn claim(&mut self, by: StaffId) -> Step {
        match (&self.state, self.accountable) {
            (State::Registered, None) => {
                self.accountable = Some(by);
                self.state = State::Accepted;
                Ok(Happened::Claimed { by })
            }
            _ => Err(NotAllowed::AlreadyClaimed),
        }
    }

    /// Article 7: which of the three causes.
    ///
    /// # Errors
    /// Before it is claimed and after it is resolved.
    pub fn triage(&mut self, cause: Cause) -> Step {
        self.must_be_in_hand()?;
        self.cause = Some(cause);
        Ok(Happened::Triaged { cause })
    }

    /// R7.b, R7.c: dispatches it to a unit; the accountable person stays (R7.e).
    ///
    /// # Errors
    /// Before it is claimed, after it is resolved, and when that unit has it.
    pub fn refer(&mut self, unit: UnitId) -> Step {
        self.must_be_in_hand()?;
        match &mut self.state {
            State::InProgress { units } if units.last() == Some(&unit) => {
                return Err(NotAllowed::AlreadyReferred);
            }
            State::InProgress { units } => units.push(unit),
            _ => self.state = State::InProgress { units: vec![unit] },
        }
        self.unit = Some(unit);
        Ok(Happened::Referred { unit })
    }

    /// R7.a: tells the person once what is missing, and waits.
    ///
    /// # Errors
    /// Before it is claimed, after it is resolved, and without saying what is missing.
    pub fn await_citizen(&mut self, missing: &str, until: DateTime<Utc>) -> Step {
        self.must_be_in_hand()?;
        let missing = needed(missing)?;
        let units = match &self.state {
            State::InProgress { units } => units.clone(),
            _ => Vec::new(),
        };
        self.state = State::AwaitingCitizen { missing: missing.clone(), until, units };
        Ok(Happened::AwaitingCitizen { missing, until })
    }

    /// The material came; work goes on, and the limit runs on from where it stood
    /// ([`super::promise::resumed`]). What is past its last limit has none that could run.
    ///
    /// # Errors
    /// When it was not waiting.
    pub fn resume(&mut self, limit: NewLimit) -> Step {
        let State::AwaitingCitizen { units, .. } = &self.state else {
            return Err(NotAllowed::NotWaiting);
        };
        self.state = State::InProgress { units: units.clone() };
        if self.overdue {
            return Ok(Happened::Resumed { due_at: None, runs_from: None, provisional: false });
        }
        let (due_at, runs_from) = (Some(limit.due_at), Some(limit.runs_from));
        let provisional = self.take(limit);
        Ok(Happened::Resumed { due_at, runs_from, provisional })
    }

    /// An officer writes to the citizen.
    ///
    /// # Errors
    /// Before it is claimed, after it is closed, and without words.
    pub fn tell_citizen(&mut self, text: &str) -> Step {
        match self.state {
            State::Registered => Err(NotAllowed::NotClaimed),
            State::Closed { .. } => Err(NotAllowed::AlreadyClosed),
            _ => Ok(Happened::ToldCitizen { text: needed(text)? }),
        }
    }

    /// There is a result, and the citizen is told it in the words of `answer`.
    ///
    /// # Errors
    /// Before it is claimed, when it has one, and without an opinion (R7.2) or an answer.
    pub fn resolve(&mut self, outcome: Outcome, opinion: &str, answer: &str) -> Step {
        match self.state {
            State::Registered => return Err(NotAllowed::NotClaimed),
            State::Accepted | State::InProgress { .. } | State::AwaitingCitizen { .. } => {}
            State::Closed { .. } => return Err(NotAllowed::AlreadyClosed),
            _ => return Err(NotAllowed::AlreadyResolved),
        }
        let (opinion, answer) = (needed(opinion)?, Some(needed(answer)?));
        self.state = State::Resolved { outcome: outcome.clone(), opinion: opinion.clone() };
        Ok(Happened::Resolved { outcome, opinion, answer })
    }

    /// The citizen takes the matter back, whoever has it in hand; `reason` in the citizen's words.
    ///
    /// # Errors
    /// When there is a result already.
    pub fn withdraw(&mut self, reason: Option<&str>) -> Step {
        match self.state {
            State::Registered
            | State::Accepted
            | State::InProgress { .. }
            | State::AwaitingCitizen { .. } => {}
            State::Closed { .. } => return Err(NotAllowed::AlreadyClosed),
            State::Resolved { .. } | State::Evaluated { .. } => {
                return Err(NotAllowed::AlreadyResolved);
            }
        }
        let opinion = match reason.map(str::trim).filter(|reason| !reason.is_empty()) {
            Some(reason) => format!("群众撤回：{reason}"),
            None => "群众撤回".to_owned(),
        };
        let outcome = Outcome::Withdrawn;
        self.state = State::Resolved { outcome: outcome.clone(), opinion: opinion.clone() };
        Ok(Happened::Resolved { outcome, opinion, answer: None })
    }

    /// R7.d: the citizen judges the result, once, with a text where they want to say more.
    ///
    /// # Errors
    /// Unless it is resolved and not judged.
    pub fn evaluate(&mut self, evaluation: Evaluation, text: Option<&str>) -> Step {
        let State::Resolved { outcome, opinion } = &self.state else {
            return Err(self.no_result_to_judge());
        };
        self.state =
            State::Evaluated { outcome: outcome.clone(), opinion: opinion.clone(), evaluation };
        let text = text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Happened::Evaluated { evaluation, text })
    }

    /// RS2.1: strikes the number off. Needs an opinion, an answer given, and an evaluation or
    /// the reason why there is none.
    ///
    /// # Errors
    /// When one of these is missing, or it is closed.
    pub fn close(&mut self, without_evaluation: Option<&str>) -> Step {
        let (outcome, opinion, closing) = match &self.state {
            State::Evaluated { outcome, opinion, evaluation } => {
                (outcome.clone(), opinion.clone(), Closing::Evaluated(*evaluation))
            }
            State::Resolved { outcome, opinion } => {
                let reason = needed(without_evaluation.unwrap_or_default())?;
                (outcome.clone(), opinion.clone(), Closing::WithoutEvaluation(reason))
            }
            _ => return Err(self.no_result_to_judge()),
        };
        self.state = State::Closed { outcome, opinion, closing: closing.clone() };
        Ok(Happened::Closed { closing })
    }

    /// Takes a matter that has a result up again, with a new limit and the same number.
    ///
    /// # Errors
    /// When it has no result, or without a reason.
    pub fn reopen(&mut self, reason: &str, limit: NewLimit) -> Step {
        match self.state {
            State::Resolved { .. } | State::Evaluated { .. } | State::Closed { .. } => {}
            _ => return Err(NotAllowed::NotResolved),
        }
        let reason = needed(reason)?;
        self.state = State::InProgress { units: Vec::new() };
        self.overdue = false;
        let (due_at, runs_from) = (limit.due_at, Some(limit.runs_from));
        let provisional = self.take(limit);
        Ok(Happened::Reopened { reason, due_at, runs_from, provisional })
    }

    /// R6: an officer hands it up, with a written opinion, before its limit does.
    ///
    /// # Errors
    /// As [`Self::raise`]; before it is claimed, and while it waits for the citizen.
    pub fn hand_up(&mut self, opinion: &str, now: DateTime<Utc>, limit: NewLimit) -> Step {
        self.must_be_in_hand()?;
        self.raise(Some(opinion), now, limit.due_at, limit.provisional)
    }

    /// Some of its messages are registered as a matter of their own.
    ///
    /// # Errors
    /// Before it is claimed and after it is closed.
    pub fn spin_off(&mut self, into: &str, messages: Vec<i32>) -> Step {
        match self.state {
            State::Registered => Err(NotAllowed::NotClaimed),
            State::Closed { .. } => Err(NotAllowed::AlreadyClosed),
            _ => Ok(Happened::SpunOff { into: into.to_owned(), messages }),
        }
    }

    /// Another ticket ended in favour of this one.
    ///
    /// # Errors
    /// When this one has a result.
    pub fn take_in(&mut self, from: &str) -> Step {
        match self.state {
            State::Resolved { .. } | State::Evaluated { .. } => Err(NotAllowed::AlreadyResolved),
            State::Closed { .. } => Err(NotAllowed::AlreadyClosed),
            _ => Ok(Happened::TookIn { from: from.to_owned() }),
        }
    }

    fn take(&mut self, limit: NewLimit) -> bool {
        self.due_at = limit.due_at;
        self.provisional = limit.provisional;
        self.runs_from = Some(limit.runs_from);
        limit.provisional
    }

    /// R6: up one level, by its limit or by hand with a written opinion. It enters that level at
    /// `entered_at`: when the limit fell, however late somebody noticed.
    ///
    /// # Errors
    /// At the top, when it is solved, or by hand without an opinion.
    pub fn raise(
        &mut self,
        opinion: Option<&str>,
        entered_at: DateTime<Utc>,
        due_at: DateTime<Utc>,
        provisional: bool,
    ) -> Step {
        if !self.state.is_pressing() {
            return Err(NotAllowed::AlreadyResolved);
        }
        let from = self.level;
        let to = from.next().ok_or(NotAllowed::AtTheTop)?;
        let opinion = opinion.map(needed).transpose()?;
        self.level = to;
        self.due_at = due_at;
        self.provisional = provisional;
        let entered_at = Some(entered_at);
        Ok(Happened::Raised { from, to, due_at, provisional, opinion, entered_at })
    }

    /// R6.5: past the last limit; stays with level 5 and shows.
    ///
    /// # Errors
    /// Below level 5, or when it is solved or marked already.
    pub fn fall_overdue(&mut self, generation: i32) -> Step {
        if !self.state.is_pressing() || self.overdue {
            return Err(NotAllowed::AlreadyResolved);
        }
        if self.level != Level::PartyGroup {
            return Err(NotAllowed::NotResolved);
        }
        self.overdue = true;
        Ok(Happened::Overdue { generation })
    }

    fn must_be_in_hand(&self) -> Result<(), NotAllowed> {
        match self.state {
            State::Accepted | State::InProgress { .. } => Ok(()),
            State::Registered => Err(NotAllowed::NotClaimed),
            State::AwaitingCitizen { .. } => Err(NotAllowed::Waiting),
            State::Resolved { .. } | State::Evaluated { .. } => Err(NotAllowed::AlreadyResolved),
            State::Closed { .. } => Err(NotAllowed::AlreadyClosed),
        }
    }

    fn no_result_to_judge(&self) -> NotAllowed {
        match self.state {
            State::Closed { .. } => NotAllowed::AlreadyClosed,
            State::Evaluated { .. } => NotAllowed::AlreadyResolved,
            _ => NotAllowed::NotResolved,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> Ticket {
        Ticket {
            state: State::Registered,
            level: Level::Duty,
            due_at: DateTime::UNIX_EPOCH,
            provisional: false,
            accountable: None,
            unit: None,
            cause: None,
            overdue: false,
            runs_from: None,
        }
    }

    fn limit() -> NewLimit {
        NewLimit {
            runs_from: DateTime::UNIX_EPOCH,
            due_at: DateTime::UNIX_EPOCH,
            provisional: false,
        }
    }

    #[test]
    fn r7_e_the_first_receiver_stays_accountable_through_every_referral() {
        let mut ticket = fresh();
        ticket.claim(StaffId(1)).unwrap();
        assert_eq!(ticket.claim(StaffId(2)), Err(NotAllowed::AlreadyClaimed));
        ticket.refer(UnitId(1)).unwrap();
        ticket.refer(UnitId(2)).unwrap();
        assert_eq!(ticket.refer(UnitId(2)), Err(NotAllowed::AlreadyReferred));
        assert_eq!(ticket.unit, Some(UnitId(2)));
        assert_eq!(ticket.accountable, Some(StaffId(1)));
        assert_eq!(ticket.state, State::InProgress { units: vec![UnitId(1), UnitId(2)] });
    }

    #[test]
    fn r7_d_a_number_is_struck_off_only_with_an_opinion_and_an_evaluation_or_a_reason() {
        let mut ticket = fresh();
        assert_eq!(ticket.close(None), Err(NotAllowed::NotResolved));
        assert_eq!(ticket.resolve(Outcome::Solved, "x", "x"), Err(NotAllowed::NotClaimed));
        ticket.claim(StaffId(1)).unwrap();
        assert_eq!(ticket.resolve(Outcome::Solved, "  ", "已补办"), Err(NotAllowed::TextMissing));
        assert_eq!(ticket.resolve(Outcome::Solved, "已补办", " "), Err(NotAllowed::TextMissing));
        ticket.resolve(Outcome::Solved, "已补办", "已补办").unwrap();
        assert_eq!(ticket.close(None), Err(NotAllowed::TextMissing));
        ticket.evaluate(Evaluation::Satisfied, None).unwrap();
        assert_eq!(ticket.evaluate(Evaluation::Satisfied, None), Err(NotAllowed::AlreadyResolved));
        ticket.close(None).unwrap();
        assert_eq!(ticket.close(None), Err(NotAllowed::AlreadyClosed));
        assert_eq!(ticket.refer(UnitId(1)), Err(NotAllowed::AlreadyClosed));
        ticket.reopen("没有解决", limit()).unwrap();
        assert_eq!(ticket.state.name(), "in_progress");
    }

    #[test]
    fn r6_the_ladder_ends_at_level_5_where_the_matter_falls_overdue_once() {
        let mut ticket = fresh();
        assert!(ticket.fall_overdue(1).is_err());
        ticket.raise(None, DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH, false).unwrap();
        assert_eq!(
            ticket.raise(Some(" "), ticket.due_at, ticket.due_at, false),
            Err(NotAllowed::TextMissing)
        );
        ticket
            .raise(Some("需党组研究"), DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH, false)
            .unwrap();
        assert_eq!(
            ticket.raise(None, ticket.due_at, ticket.due_at, false),
            Err(NotAllowed::AtTheTop)
        );
        ticket.fall_overdue(1).unwrap();
        assert!(ticket.fall_overdue(1).is_err());
    }

    #[test]
    fn r7_a_what_waits_for_the_citizen_does_not_rise() {
        let mut ticket = fresh();
        ticket.claim(StaffId(1)).unwrap();
        ticket.refer(UnitId(7)).unwrap();
        ticket.await_citizen("身份证复印件", DateTime::UNIX_EPOCH).unwrap();
        assert!(ticket.raise(None, ticket.due_at, ticket.due_at, false).is_err());
        assert_eq!(
            ticket.hand_up("请研究", DateTime::UNIX_EPOCH, limit()),
            Err(NotAllowed::Waiting)
        );
        ticket.resume(limit()).unwrap();
        assert_eq!(ticket.state, State::InProgress { units: vec![UnitId(7)] });
        assert_eq!(ticket.resume(limit()), Err(NotAllowed::NotWaiting));
    }

    #[test]
    fn events_are_read_as_they_were_stored() {
        for happened in [
            Happened::Resumed { due_at: None, runs_from: None, provisional: false },
            Happened::Resumed {
                due_at: Some(DateTime::UNIX_EPOCH),
                runs_from: Some(DateTime::UNIX_EPOCH),
                provisional: true,
            },
            Happened::Claimed { by: StaffId(3) },
            Happened::Resolved {
                outcome: Outcome::Solved,
                opinion: "好".into(),
                answer: Some("好了".into()),
            },
            Happened::SpunOff { into: "BCS-2026-000002".into(), messages: vec![2, 3] },
            Happened::Closed { closing: Closing::WithoutEvaluation("联系不上".into()) },
        ] {
            let (kind, data) = happened.stored();
            assert_eq!(Happened::read(&kind, &data), Some(happened));
        }
        assert_eq!(Happened::read("from_the_future", "{\"a\":1}"), None);
        // As it was stored before the entry into the level was.
        let old = r#"{"from":1,"to":3,"due_at":"2026-11-27T08:30:00Z","provisional":false,"opinion":null}"#;
        let Some(Happened::Raised { entered_at, .. }) = Happened::read("raised", old) else {
            panic!("an old event cannot be read")
        };
        assert_eq!(entered_at, None);
    }
}
