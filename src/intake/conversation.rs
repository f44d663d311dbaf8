//! A turn of a citizen's conversation: what cannot be understood by itself (a photo without words,
//! a command, an answer, a message soon after closing) and needs what was said before.
//!
//! Taken one after the other under the register's lock, so that of a burst over several gateways
//! each turn sees the one before; many turns share one COMMIT. What a turn means is decided in
//! `domain::conversation`; here it is read, carried out and recorded with what its sender is
//! answered, so that a repeat reads the same.

use super::{
    Committed, Settings,
    batch::Became,
    builder::Builder,
    incoming::{Incoming, year},
};
use crate::{
    citizen::{self, CitizenError},
    domain::{
        conversation::{Question, Talk, Turn},
        event::{Actor, Happened},
        ladder::timers_ahead,
        promise::reopened,
        register::RegisterNumber,
        ticket::{Evaluation, NotAllowed, State},
    },
    offices::Office,
    store::{
        self, StoreError,
        conversation::{Held, Matter},
        intake::{Basis, Made, Seen, Told},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{Command, Meaning, Said, Standing};
use sqlx::PgConnection;
use std::sync::Arc;

/// What a turn became.
pub(super) struct Taken {
    pub(super) became: Became,
    pub(super) committed: Committed,
}

/// Takes the turn of a submission that has a thread. The caller's transaction holds the register's
/// lock and commits.
pub(super) async fn take(
    db: &mut PgConnection,
    incoming: &Incoming,
    settings: &Settings,
) -> Result<Taken, StoreError> {
    let Incoming { office, submission, digest, received_at, alarms, .. } = incoming;
    let now = *received_at;
    let mut seen = look(db, incoming).await?;
    if let Some(before) = &seen.before {
        return Ok(Taken { became: Became::before(before), committed: Committed::default() });
    }
    let thread = submission.thread.as_deref().unwrap_or_default();
    let before = seen.talk.clone().unwrap_or_default();
    let mut talk = before.clone();
    if seen.open_ticket.is_none() && talk.beside {
        // The matter that grew last is over: the one that was set aside before it grows again.
        let matters = store::conversation::open_matters(db, office.id, thread).await?;
        match matters.iter().find(|matter| !matter.is_withdrawn()) {
            None => talk.beside = !matters.is_empty(),
            Some(matter) => {
                store::conversation::set_grows(db, office.id, matter.ticket, true).await?;
                seen = look(db, incoming).await?;
            }
        }
    }
    let message = seen.message(submission, *alarms);
    let turn = talk.turn(message, seen.open_ticket.is_some(), now);
    let mut scene = Scene { db, office, thread, now, seen, before, talk, settings };
    let mut committed = Committed::default();
    let told = match turn {
        Turn::Append | Turn::AppendQuietly => {
            let (closed, next_is_new) = (scene.talk.closed, scene.talk.next_is_new);
            let (made, _) = scene.register(Some(incoming), &mut committed).await?;
            // What only says how to reach them is not the new matter yet.
            scene.talk.next_is_new = next_is_new;
            if turn == Turn::AppendQuietly {
                scene.talk.closed = closed;
            }
            Told::Made(made)
        }
        Turn::Open => {
            scene.set_open_aside().await?;
            Told::Made(scene.register(Some(incoming), &mut committed).await?.0)
        }
        Turn::OpenHeld | Turn::AppendHeld => {
            // The old matter may have been taken up again since it was asked.
            if turn == Turn::OpenHeld {
                scene.set_open_aside().await?;
            }
            let (made, seq) = scene.register(None, &mut committed).await?;
            let identity = (submission, digest, now);
            store::conversation::record_made(scene.db, office.id, identity, &made, seq).await?;
            Told::Made(made)
        }
        other => {
            let said = scene.converse(other, incoming, &mut committed).await?;
            store::conversation::record(scene.db, office.id, submission, digest, now, &said)
                .await?;
            Told::Said(said)
        }
    };
    scene.remember().await?;
    Ok(Taken { became: Became::now(incoming, told), committed })
}

/// Registers by itself what is kept in a conversation and got no words in time; returns what was
/// made, `None` when somebody was faster. In a transaction of its own.
pub(super) async fn by_itself(
    db: &mut PgConnection,
    office: &Arc<Office>,
    thread: &str,
    now: DateTime<Utc>,
    settings: &Settings,
) -> Result<Option<Committed>, StoreError> {
    let arrival = store::intake::Arrival {
        office: office.id,
        source: "held",
        source_id: thread,
        thread: Some(thread),
        year: year(now),
        taken_by: None,
    };
    let arrivals = std::slice::from_ref(&arrival);
    store::intake::begin_years(db, &[(office.id, arrival.year)]).await?;
    store::intake::lock(db, arrivals).await?;
    let seen = only(store::intake::look(db, arrivals).await?)?;
    let Some(talk) = seen.talk.clone() else { return Ok(None) };
    if talk.held == 0 || talk.by_itself_at.is_some_and(|at| at > now) {
        return Ok(None);
    }
    let before = talk.clone();
    let mut scene = Scene { db, office, thread, now, seen, before, talk, settings };
    if scene.talk.next_is_new.is_some() {
        scene.set_open_aside().await?;
    }
    let asked = scene.talk.question;
    let mut committed = Committed::default();
    scene.register(None, &mut committed).await?;
    if let Some((Question::OldOrNew(ticket), at)) = asked {
        scene.talk.question = Some((Question::SameAs(ticket), at));
    }
    scene.remember().await?;
    Ok(Some(committed))
}

async fn look(db: &mut PgConnection, incoming: &Incoming) -> Result<Seen, StoreError> {
    only(store::intake::look(db, &[incoming.arrival()]).await?)
}

fn only(seen: Vec<Seen>) -> Result<Seen, StoreError> {
    let none = StoreError::RowCount { table: "inbound", changed: 0, wanted: 1 };
    seen.into_iter().next().ok_or(none)
}

/// A conversation during one turn.
struct Scene<'a> {
    db: &'a mut PgConnection,
    office: &'a Arc<Office>,
    thread: &'a str,
    now: DateTime<Utc>,
    seen: Seen,
    /// As it was remembered when the turn began.
    before: Talk,
    talk: Talk,
    settings: &'a Settings,
}

impl Scene<'_> {
    /// The citizen's next words are another matter than the one that grows.
    async fn set_open_aside(&mut self) -> Result<(), StoreError> {
        if let Some(growing) = self.seen.open_ticket.take() {
            let (office, ticket) = (self.office.id, growing.ticket);
            store::conversation::set_grows(self.db, office, ticket, false).await?;
            self.talk.beside = true;
        }
        Ok(())
    }

    /// Grows the open ticket or makes a new one, of what came (recording what its sender is told)
    /// and of what was kept. With the place of the first of it in the ticket's trail where nothing
    /// came.
    async fn register(
        &mut self,
        incoming: Option<&Incoming>,
        committed: &mut Committed,
    ) -> Result<(Made, i32), StoreError> {
        let kept = match self.talk.held {
            0 => Vec::new(),
            _ => store::conversation::held(self.db, self.office.id, self.thread).await?,
        };
        let mut kept: Vec<(Incoming, Held)> =
            kept.into_iter().map(|held| (self.as_incoming(&held), held)).collect();
        // Words name the matter; without them the first photo does.
        kept.sort_by_key(|(incoming, _)| incoming.submission.text.is_empty());
        let mut builder = Builder::new(self.settings.quiet);
        let mut made = match incoming {
            Some(incoming) => Some((builder.add(incoming, &self.seen)?, 1)),
            None => None,
        };
        let mut joined = Vec::new();
        for (incoming, held) in &kept {
            let (joins, seq) = builder.join(incoming, &self.seen)?;
            made.get_or_insert((joins, seq));
            joined.push((held, joins.ticket, seq));
        }
        let nothing = StoreError::RowCount { table: "held", changed: 0, wanted: 1 };
        let made = made.ok_or(nothing)?;
        if incoming.is_none() {
            // Nobody waits for an answer, or it was kept long ago: told by the way that arrives.
            builder.tell_citizen();
        }
        let (writes, done) = builder.finish();
        store::intake::write(self.db, &writes, Basis::Seen).await?;
        if !joined.is_empty() {
            store::conversation::joined(self.db, self.office.id, self.thread, &joined).await?;
            (self.talk.held, self.talk.by_itself_at) = (0, None);
        }
        // Who goes on writing has not said yes.
        if matches!(self.talk.question, Some((Question::OldOrNew(_) | Question::Withdraw(_), _))) {
            self.talk.question = None;
        }
        self.talk.next_is_new = None;
        // What comes from now on belongs where this went: about the closed one it was asked.
        self.talk.closed = None;
        committed.add(done);
        Ok(made)
    }

    /// What was kept, as it enters the register now; said when the citizen sent it.
    fn as_incoming(&self, held: &Held) -> Incoming {
        let mut submission = held.submission.clone();
        submission.occurred_at.get_or_insert(held.received_at);
        let incoming = Incoming::new(Arc::clone(self.office), submission, self.now);
        Incoming { digest: held.digest, ..incoming }
    }

    /// Everything that is answered without a ticket of its own.
    async fn converse(
        &mut self,
        turn: Turn,
        incoming: &Incoming,
        committed: &mut Committed,
    ) -> Result<Said, StoreError> {
        if let Meaning::Command(Command::Arrived { scene, .. }) = &incoming.submission.meaning {
            self.talk.scene = Some(scene.clone());
        }
        let said = match turn {
            Turn::Append | Turn::AppendQuietly | Turn::Open | Turn::OpenHeld | Turn::AppendHeld => {
                Said::HowToReport
            }
            Turn::AskChoice(ticket) => {
                let by_itself_at = self.talk.by_itself_at.unwrap_or(self.now);
                Said::OldOrNew {
                    number: self.number(ticket),
                    open: self.open(),
                    by_itself_at,
                    again: true,
                }
            }
            Turn::HoldForWords => {
                let again = self.talk.held > 0;
                Said::WordsWanted { by_itself_at: self.hold(incoming).await?, again }
            }
            Turn::HoldForChoice(ticket) => {
                let asked = self.talk.question.map(|(question, _)| question);
                let again = self.talk.held > 0 && asked == Some(Question::OldOrNew(ticket));
                let by_itself_at = self.hold(incoming).await?;
                self.ask(Question::OldOrNew(ticket));
                Said::OldOrNew {
                    number: self.number(ticket),
                    open: self.open(),
                    by_itself_at,
                    again,
                }
            }
            Turn::Reopen(ticket) => self.reopen(ticket, committed).await?,
            Turn::SameMatter(ticket) => self.same_matter(ticket, committed).await?,
            Turn::TellNoFiles => self.sent_file(committed).await?,
            Turn::TellProgress => {
                let standings = self.standings().await?;
                match self.talk.by_itself_at.filter(|_| standings.is_empty()) {
                    Some(by_itself_at) => Said::WordsWanted { by_itself_at, again: false },
                    None => Said::Progress(standings),
                }
            }
            Turn::AskGrade => self.ask_grade().await?,
            Turn::Grade(ticket, grade) => self.grade(ticket, grade, committed).await?,
            Turn::AskWithdrawal => match self.withdrawable().await? {
                Some(ticket) => {
                    self.ask(Question::Withdraw(ticket));
                    Said::ConfirmWithdrawal { number: self.number(ticket) }
                }
                None => Said::NothingToWithdraw,
            },
            Turn::Withdraw(ticket) => self.withdraw(ticket, committed).await?,
            Turn::KeepOpen(ticket) => {
                self.talk.question = None;
                Said::NotWithdrawn { number: self.number(ticket) }
            }
            Turn::AskWhatIsNew => match self.seen.open_ticket {
                Some(open) => {
                    self.talk.next_is_new = Some(self.now);
                    Said::NextIsNew { number: self.number(open.ticket) }
                }
                None => Said::HowToReport,
            },
            Turn::TellHowToAdd => match self.open() {
                Some(number) => Said::AddOrNew { number },
                None => Said::HowToReport,
            },
            Turn::TellPerson => self.call_person(committed).await?,
            Turn::TellHelp => Said::Help,
            Turn::TellWelcome => Said::Welcome,
            Turn::TellHowToReport => Said::HowToReport,
        };
        Ok(said)
    }

    fn number(&self, ticket: RegisterNumber) -> String {
        ticket.display(&self.office.prefix)
    }

    /// The number of the matter that grows.
    fn open(&self) -> Option<String> {
        self.seen.open_ticket.map(|open| self.number(open.ticket))
    }

    fn ask(&mut self, question: Question) {
        self.talk.question = Some((question, self.now));
    }

    /// Keeps it; returns when it is registered by itself.
    async fn hold(&mut self, incoming: &Incoming) -> Result<DateTime<Utc>, StoreError> {
        let Incoming { office, submission, digest, received_at, .. } = incoming;
        store::conversation::hold(
            self.db,
            office.id,
            self.thread,
            submission,
            digest,
            *received_at,
        )
        .await?;
        self.talk.held += 1;
        let wait = TimeDelta::from_std(self.settings.wait_for_words).unwrap_or_default();
        Ok(*self.talk.by_itself_at.get_or_insert(self.now + wait))
    }

    /// What is still to be done or judged, the newest first.
    async fn matters(&mut self) -> Result<Vec<Matter>, StoreError> {
        let office = self.office.id;
        let mut matters = store::conversation::open_matters(self.db, office, self.thread).await?;
        matters.retain(|matter| !matter.is_withdrawn());
        Ok(matters)
    }

    async fn standings(&mut self) -> Result<Vec<Standing>, StoreError> {
        let (matters, now) = (self.matters().await?, self.now);
        let standing = |matter: Matter| Standing {
            number: self.number(matter.ticket),
            state: matter.state.name().to_owned(),
            registered_at: matter.registered_at,
            due_at: matter.due_at,
            provisional: matter.provisional,
            late: match &matter.state {
                State::AwaitingCitizen { until, .. } => *until <= now,
                _ => matter.due_at <= now,
            },
            missing: match matter.state {
                State::AwaitingCitizen { missing, until, .. } => Some((missing, until)),
                _ => None,
            },
            came: matter.material_came,
            page: None,
        };
        Ok(matters.into_iter().map(standing).collect())
    }

    async fn ask_grade(&mut self) -> Result<Said, StoreError> {
        let matters = self.matters().await?;
        let resolved = matters.iter().find(|m| matches!(m.state, State::Resolved { .. }));
        if let Some(matter) = resolved {
            self.ask(Question::Grade(matter.ticket));
            return Ok(Said::GradeWanted { number: self.number(matter.ticket), page: None });
        }
        let done = matters.iter().any(|m| matches!(m.state, State::Evaluated { .. }));
        let number = matters.first().map(|matter| self.number(matter.ticket));
        Ok(Said::NothingToEvaluate { number, done })
    }

    /// R7.d. An old option may be tapped at any time: whose ticket it is and whether it waits to be
    /// judged is looked up now.
    async fn grade(
        &mut self,
        ticket: RegisterNumber,
        evaluation: Evaluation,
        committed: &mut Committed,
    ) -> Result<Said, StoreError> {
        self.talk.question = None;
        let number = self.number(ticket);
        if !self.is_theirs(ticket).await? {
            return Ok(Said::NothingToEvaluate { number: None, done: false });
        }
        let done = citizen::evaluate(self.db, self.office, ticket, evaluation, "", self.now).await;
        match done {
            Ok(()) => {}
            Err(CitizenError::NotAllowed(NotAllowed::AlreadyClosed)) => {
                return Ok(Said::ClosedUnjudged { number });
            }
            Err(CitizenError::NotAllowed(why)) => {
                let done = matches!(why, NotAllowed::AlreadyResolved);
                return Ok(Said::NothingToEvaluate { number: Some(number), done });
            }
            Err(CitizenError::Store(error)) => return Err(error),
            Err(CitizenError::NoTicket | CitizenError::TooLong) => {
                return Ok(Said::NothingToEvaluate { number: None, done: false });
            }
        }
        self.changed(committed);
        let dissatisfied = evaluation.is_dissatisfied();
        Ok(Said::Evaluated { number, dissatisfied })
    }

    async fn is_theirs(&mut self, ticket: RegisterNumber) -> Result<bool, StoreError> {
        let thread = store::conversation::thread_of(self.db, self.office.id, ticket).await?;
        Ok(thread.as_deref() == Some(self.thread))
    }

    /// The matter that 撤回 means: the one that the citizen talks about, else the newest.
    async fn withdrawable(&mut self) -> Result<Option<RegisterNumber>, StoreError> {
        let unsolved = |matter: &&Matter| {
            matter.state.is_pressing() || matches!(matter.state, State::AwaitingCitizen { .. })
        };
        let matters = self.matters().await?;
        let mut candidates = matters.iter().filter(unsolved);
        let grows = candidates.clone().find(|matter| matter.grows);
        Ok(grows.or_else(|| candidates.next()).map(|matter| matter.ticket))
    }

    async fn withdraw(
        &mut self,
        ticket: RegisterNumber,
        committed: &mut Committed,
    ) -> Result<Said, StoreError> {
        self.talk.question = None;
        let number = self.number(ticket);
        match citizen::withdraw(self.db, self.office, ticket, "", self.now).await {
            Ok(()) => {}
            Err(CitizenError::Store(error)) => return Err(error),
            Err(_) => return Ok(Said::NothingToWithdraw),
        }
        store::timer::cancel_all(self.db, self.office.id, ticket).await?;
        // Should it be taken up again, their words grow it again.
        self.talk.beside = true;
        self.changed(committed);
        Ok(Said::Withdrawn { number })
    }

    /// Takes the closed matter up again, with a new limit, and adds what was kept.
    async fn reopen(
        &mut self,
        ticket: RegisterNumber,
        committed: &mut Committed,
    ) -> Result<Said, StoreError> {
        // What was kept belongs to this one, whatever else is open.
        self.set_open_aside().await?;
        let Some(mut locked) = store::ticket::lock(self.db, self.office.id, ticket).await? else {
            return Ok(Said::HowToReport);
        };
        let calendar = &self.office.calendar;
        let limit = reopened(calendar, locked.ticket.level, self.now);
        let reopened = locked.ticket.reopen("群众补充后重新办理", limit);
        let again = reopened.is_ok();
        if let Ok(happened) = reopened {
            locked.calendar_version = self.office.calendar_version;
            store::search::follow_again(self.db, self.office.id, ticket).await?;
            store::ticket::write(self.db, &mut locked, Actor::Citizen, &happened, self.now).await?;
            store::timer::cancel_all(self.db, self.office.id, ticket).await?;
            let timers = timers_ahead(calendar, locked.ticket.level, limit.due_at, self.now);
            let armed = store::timer::arm(self.db, self.office.id, ticket, &timers).await?;
            committed.timers.extend(armed);
        } else {
            // Somebody was faster: it is open, beside the one that was set aside now.
            store::conversation::set_grows(self.db, self.office.id, ticket, true).await?;
        }
        // Open again, so that what was kept finds it.
        let arrival = store::intake::Arrival {
            office: self.office.id,
            source: "held",
            source_id: self.thread,
            thread: Some(self.thread),
            year: year(self.now),
            taken_by: None,
        };
        self.seen = only(store::intake::look(self.db, &[arrival]).await?)?;
        self.talk.closed = None;
        // As when it is done on the desk, but for the citizen, who is answered.
        let (level, accountable) = (locked.ticket.level, locked.ticket.accountable);
        let (due_at, provisional) = (locked.ticket.due_at, locked.ticket.provisional);
        // While the citizen is waited for no limit runs, and none is told.
        let provisional =
            provisional || matches!(locked.ticket.state, State::AwaitingCitizen { .. });
        if again {
            let data = serde_json::json!({
                "level": level, "due_at": due_at, "provisional": provisional,
                "accountable": accountable.map(|id| id.0), "tell_citizen": false,
            });
            self.tell_staff(ticket, "reopened", &data, committed).await?;
        }
        self.register(None, committed).await?;
        Ok(Said::Reopened { number: self.number(ticket), due_at, provisional })
    }

    /// The handler of the open matter is told that the citizen wants to talk to a person.
    async fn call_person(&mut self, committed: &mut Committed) -> Result<Said, StoreError> {
        let Some(open) = self.seen.open_ticket else { return Ok(Said::Person { number: None }) };
        let ticket = open.ticket;
        let Some(mut locked) = store::ticket::lock(self.db, self.office.id, ticket).await? else {
            return Ok(Said::Person { number: None });
        };
        // Asked for again while nobody has done anything yet: the handler knows.
        let (of, last) = (self.office.id, locked.events() - 1);
        let newest = store::ticket::happened_after(self.db, of, ticket, last).await?;
        if matches!(newest.last(), Some((_, Some(Happened::PersonWanted)))) {
            return Ok(Said::Person { number: Some(self.number(ticket)) });
        }
        let happened = Happened::PersonWanted;
        store::ticket::write(self.db, &mut locked, Actor::Citizen, &happened, self.now).await?;
        self.tell_staff(ticket, "person_wanted", &serde_json::json!({}), committed).await?;
        Ok(Said::Person { number: Some(self.number(ticket)) })
    }

    /// What was registered by itself, for want of an answer, is about the closed matter after all: its
    /// handler decides how they go together.
    async fn same_matter(
        &mut self,
        of: RegisterNumber,
        committed: &mut Committed,
    ) -> Result<Said, StoreError> {
        self.talk.question = None;
        let Some(open) = self.seen.open_ticket else { return Ok(Said::HowToReport) };
        let (ticket, of) = (open.ticket, self.number(of));
        let number = self.number(ticket);
        if let Some(mut locked) = store::ticket::lock(self.db, self.office.id, ticket).await? {
            let happened = Happened::SameMatter { of: of.clone() };
            store::ticket::write(self.db, &mut locked, Actor::Citizen, &happened, self.now).await?;
            self.tell_staff(ticket, "same_matter", &serde_json::json!({}), committed).await?;
        }
        Ok(Said::SameMatter { number, of })
    }

    /// A file, of which the platform brings the name only: the handler of the open matter knows that
    /// one was sent, and the citizen how to send it.
    async fn sent_file(&mut self, committed: &mut Committed) -> Result<Said, StoreError> {
        let Some(open) = self.seen.open_ticket else {
            return Ok(Said::NoFiles { number: None, page: None });
        };
        let ticket = open.ticket;
        if let Some(mut locked) = store::ticket::lock(self.db, self.office.id, ticket).await? {
            let happened = Happened::FileNotTaken;
            store::ticket::write(self.db, &mut locked, Actor::Citizen, &happened, self.now).await?;
            self.changed(committed);
        }
        Ok(Said::NoFiles { number: Some(self.number(ticket)), page: None })
    }

    async fn tell_staff(
        &mut self,
        ticket: RegisterNumber,
        kind: &'static str,
        data: &serde_json::Value,
        committed: &mut Committed,
    ) -> Result<(), StoreError> {
        let of = (self.office.id, ticket);
        let at = (self.now, self.office.staff_told_from(self.now));
        store::ticket::tell(self.db, of, kind, false, data, at).await?;
        self.changed(committed);
        Ok(())
    }

    /// There is something new, perhaps to be told now.
    fn changed(&self, committed: &mut Committed) {
        committed.offices.push(self.office.id);
        committed.effects |= self.office.calendar.is_open(self.now);
    }

    async fn remember(self) -> Result<(), StoreError> {
        let key = (self.office.id, year(self.now));
        store::conversation::put(self.db, key, self.thread, &self.before, &self.talk).await
    }
}
