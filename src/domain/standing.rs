//! A ticket as its trail says that it stands (RD4.2): what is in its row and not in the trail was
//! changed without a record.

use super::{
    event::Happened,
    id::{StaffId, UnitId},
    level::Level,
    ticket::{Cause, State},
    timer::TimerKind,
};
use chrono::{DateTime, Utc};

/// What the events of a ticket amount to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub state: State,
    /// The ladder's rung.
    pub level: Level,
    /// Which limit it has.
    pub due_at: DateTime<Utc>,
    /// R5.2.
    pub follow_up_at: Option<DateTime<Utc>>,
    /// R7.e.
    pub accountable: Option<StaffId>,
    /// R7.b, R7.c: where it was referred to last.
    pub unit: Option<UnitId>,
    /// What triage found.
    pub cause: Option<Cause>,
    /// Past the last limit.
    pub overdue: bool,
    /// From when its limits run, where that is no longer acceptance.
    pub runs_from: Option<DateTime<Utc>>,
    /// Its recordings go by no rule.
    pub recordings_held: bool,
}

impl Standing {
    /// After the first event; `None` unless that is the registration.
    #[must_use]
    pub fn after(first: &Happened) -> Option<Self> {
        let Happened::Registered { follow_up_at, due_at, .. } = first else { return None };
        Some(Self {
            state: State::Registered,
            level: Level::Duty,
            due_at: *due_at,
            follow_up_at: *follow_up_at,
            accountable: None,
            unit: None,
            cause: None,
            overdue: false,
            runs_from: None,
            recordings_held: false,
        })
    }

    /// After one more event.
    pub fn then(&mut self, happened: &Happened) {
        match happened {
            Happened::Registered { .. }
            | Happened::MessageReceived { .. }
            | Happened::FollowUpDue { .. }
            | Happened::LimitNear { .. }
            | Happened::MaterialDue { .. }
            | Happened::ToldCitizen { .. }
            | Happened::SpunOff { .. }
            | Happened::SpunOffFrom { .. }
            | Happened::TookIn { .. }
            | Happened::RecordingsRemoved { .. }
            | Happened::DateKept { .. }
            | Happened::PersonWanted
            | Happened::SameMatter { .. }
            | Happened::FileNotTaken
            | Happened::ContactCorrected
            | Happened::LinksRevoked
            | Happened::CalledBack { .. } => {}
            Happened::RecordingsHeld { .. } => self.recordings_held = true,
            Happened::RecordingsReleased { .. } => self.recordings_held = false,
            Happened::Claimed { by } => {
                self.accountable = Some(*by);
                self.state = State::Accepted;
            }
            Happened::Triaged { cause } => self.cause = Some(*cause),
            Happened::Referred { unit } => {
                let mut units = self.units();
                units.push(*unit);
                self.unit = Some(*unit);
                self.state = State::InProgress { units };
            }
            Happened::Raised { to, due_at, .. } => {
                self.level = *to;
                self.due_at = *due_at;
            }
            Happened::Overdue { .. } => self.overdue = true,
            Happened::DateMoved { timer, to, .. } if timer == TimerKind::FollowUp.as_str() => {
                self.follow_up_at = Some(*to);
            }
            Happened::DateMoved { to, .. } => self.due_at = *to,
            Happened::AwaitingCitizen { missing, until } => {
                let units = self.units();
                self.state =
                    State::AwaitingCitizen { missing: missing.clone(), until: *until, units };
            }
            Happened::Resumed { due_at, runs_from, .. } => {
                self.state = State::InProgress { units: self.units() };
                self.due_at = due_at.unwrap_or(self.due_at);
                self.runs_from = runs_from.or(self.runs_from);
            }
            Happened::Resolved { outcome, opinion, .. } => {
                self.state = State::Resolved { outcome: outcome.clone(), opinion: opinion.clone() };
            }
            Happened::Evaluated { evaluation, .. } => {
                if let State::Resolved { outcome, opinion } = &self.state {
                    let (outcome, opinion) = (outcome.clone(), opinion.clone());
                    self.state = State::Evaluated { outcome, opinion, evaluation: *evaluation };
                }
            }
            Happened::Closed { closing } => {
                if let State::Resolved { outcome, opinion }
                | State::Evaluated { outcome, opinion, .. } = &self.state
                {
                    let (outcome, opinion) = (outcome.clone(), opinion.clone());
                    self.state = State::Closed { outcome, opinion, closing: closing.clone() };
                }
            }
            Happened::Reopened { due_at, runs_from, .. } => {
                self.state = State::InProgress { units: Vec::new() };
                self.due_at = *due_at;
                self.runs_from = runs_from.or(self.runs_from);
                self.overdue = false;
            }
        }
    }

    fn units(&self) -> Vec<UnitId> {
        match &self.state {
            State::InProgress { units } | State::AwaitingCitizen { units, .. } => units.clone(),
            _ => Vec::new(),
        }
    }

    /// What differs, in the words of the ticket's columns.
    #[must_use]
    pub fn differs_from(&self, row: &Self) -> Vec<&'static str> {
        let compared = [
            ("state", self.state == row.state),
            ("level", self.level == row.level),
            ("due_at", self.due_at == row.due_at),
            ("follow_up_at", self.follow_up_at == row.follow_up_at),
            ("accountable", self.accountable == row.accountable),
            ("unit", self.unit == row.unit),
            ("cause", self.cause == row.cause),
            ("overdue", self.overdue == row.overdue),
            ("runs_from", self.runs_from == row.runs_from),
            ("recordings_held", self.recordings_held == row.recordings_held),
        ];
        compared.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ticket::{Evaluation, NewLimit, Outcome, Ticket};
    use intake_contract::ChannelKind;

    fn limit(at: DateTime<Utc>) -> NewLimit {
        NewLimit { runs_from: at, due_at: at, provisional: false }
    }

    #[test]
    fn rd4_2_whatever_a_ticket_goes_through_its_trail_says_where_it_stands() {
        let at = DateTime::UNIX_EPOCH;
        let registered = Happened::Registered {
            channel: ChannelKind::Counter,
            digest: String::new(),
            accepted_at: at,
            follow_up_at: None,
            due_at: at,
            provisional: false,
            urgent: false,
            scene: None,
        };
        let mut ticket = Ticket {
            state: State::Registered,
            level: Level::Duty,
            due_at: at,
            provisional: false,
            accountable: None,
            unit: None,
            cause: None,
            overdue: false,
            runs_from: None,
        };
        let mut standing = Standing::after(&registered).unwrap();
        let later = at + chrono::TimeDelta::days(1);
        type Step = fn(&mut Ticket, DateTime<Utc>) -> Option<Happened>;
        let steps: [Step; 18] = [
            |t, _| t.claim(StaffId(3)).ok(),
            |t, _| t.triage(Cause::Objective).ok(),
            |t, _| t.refer(UnitId(1)).ok(),
            |t, _| t.refer(UnitId(2)).ok(),
            |t, at| t.await_citizen("户口本", at).ok(),
            |t, at| t.resume(limit(at)).ok(),
            |t, _| t.tell_citizen("已收到").ok(),
            |t, at| t.hand_up("请研究", at, limit(at)).ok(),
            |t, at| t.raise(None, at, at, false).ok(),
            |t, _| t.fall_overdue(1).ok(),
            |t, _| t.resolve(Outcome::Solved, "已补办", "已补办").ok(),
            |t, _| t.evaluate(Evaluation::Satisfied, Some("很快")).ok(),
            |t, _| t.close(None).ok(),
            |t, at| t.reopen("没有解决", limit(at)).ok(),
            |t, _| t.resolve(Outcome::Guided, "已引导", "请到三号窗口").ok(),
            |t, at| t.reopen("走错窗口", limit(at)).ok(),
            |t, _| t.withdraw(None).ok(),
            |t, _| t.close(Some("群众撤回")).ok(),
        ];
        for step in steps {
            standing.then(&step(&mut ticket, later).unwrap());
            let now = ticket.clone();
            let stands = Standing {
                state: now.state,
                level: now.level,
                due_at: now.due_at,
                follow_up_at: None,
                accountable: now.accountable,
                unit: now.unit,
                cause: now.cause,
                overdue: now.overdue,
                runs_from: now.runs_from,
                recordings_held: false,
            };
            assert_eq!(standing.differs_from(&stands), [""; 0], "{standing:?} {stands:?}");
        }
    }
}
