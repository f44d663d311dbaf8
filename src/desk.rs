//! What staff do. Each use case is one function and one transaction.
//!
//! Who acts says which event was the newest they saw. What has happened since by other hands or by
//! the citizen is a reason to look again; what it was by the same hand and the same is the form sent
//! twice, which is answered as the first time and does nothing.

mod call;
mod finish;
mod handle;
mod hold;
mod relate;

pub use call::call_back;
pub use finish::{Ending, close, reopen, resolve};
pub use handle::{ask, correct_contact, hand_up, resume, revoke_links, say, triage};
pub use hold::hold;
pub use relate::{join, split};

use crate::{
    clock::Clock,
    domain::{
        call_back::Answer,
        event::{Actor, Happened},
        id::{OfficeId, StaffId, UnitId},
        ladder::timers_ahead,
        register::RegisterNumber,
        ticket::{Cause, NotAllowed, Ticket},
        timer::TimerKind,
    },
    offices::Office,
    schedule::TimerKey,
    store::{self, StoreError, ticket::Locked},
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use intake_contract::clean_text;
use serde::Deserialize;
use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};

/// The longest text that an officer writes, in characters.
pub const LONGEST_TEXT: usize = 2000;
/// R7.a [policy]: working days that a citizen has to bring what is missing, unless the officer names
/// another day.
pub const DAYS_TO_BRING: u8 = 5;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// No ticket of this number.
    #[error("no such ticket")]
    NoTicket,
    /// No unit of this number in the office.
    #[error("no such unit")]
    NoUnit,
    /// The other ticket that was named is not there.
    #[error("no such other ticket")]
    NoOther,
    /// The other ticket is this one.
    #[error("the other ticket is this one")]
    SameTicket,
    /// The other ticket has a result.
    #[error("the other ticket has a result")]
    OtherEnded,
    /// The day is no working day after today.
    #[error("not a working day to come")]
    NoWorkingDay,
    /// It is no telephone number.
    #[error("not a telephone number")]
    NoPhone,
    /// A text is longer than [`LONGEST_TEXT`].
    #[error("a text is too long")]
    TooLong,
    /// None of the ticket's messages was named, or one that it does not have.
    #[error("no such message")]
    NoMessage,
    /// Not one message would stay.
    #[error("no message would stay")]
    NothingStays,
    /// One of the messages is a matter of its own already.
    #[error("already registered on its own")]
    AlreadySplit,
    /// Somebody else, or the citizen, was faster: look again.
    #[error("the ticket has changed")]
    Changed,
    /// The rules do not allow it.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// The database.
    #[error("not done")]
    Store(#[source] StoreError),
}

impl From<StoreError> for DeskError {
    fn from(error: StoreError) -> Self {
        if error.is_conflict() { Self::Changed } else { Self::Store(error) }
    }
}

impl From<sqlx::Error> for DeskError {
    fn from(error: sqlx::Error) -> Self {
        StoreError::from(error).into()
    }
}

impl From<NotAllowed> for DeskError {
    fn from(reason: NotAllowed) -> Self {
        Self::NotAllowed(reason)
    }
}

/// Something to be done to a ticket.
#[derive(Debug, Clone, Copy)]
pub struct Deed<'a> {
    /// The database.
    pub pool: &'a PgPool,
    /// The time.
    pub clock: &'a Clock,
    /// The office, as known.
    pub office: &'a Office,
    /// To which ticket.
    pub ticket: RegisterNumber,
    /// By whom.
    pub by: &'a Actor,
    /// The number of the newest event that they had before them; `None` when they do not say.
    pub seen: Option<i32>,
}

/// What is to be done, as forms and programs say it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Act {
    /// Writes to the citizen.
    Say {
        /// The words.
        text: String,
    },
    /// R7.a 一次性告知.
    Await {
        /// Everything that is missing.
        missing: String,
        /// By which day; [`DAYS_TO_BRING`] when none is named.
        until: Option<NaiveDate>,
    },
    /// The material is there.
    Resume {},
    /// R6: hands it up.
    Raise {
        /// Why.
        opinion: String,
    },
    /// Tried to call the citizen back.
    CallBack {
        /// What came of it.
        answer: Answer,
    },
    /// Article 7.
    Triage {
        /// Which of the three causes.
        cause: Cause,
    },
    /// Answers it.
    Resolve {
        /// With which result.
        outcome: Ending,
        /// R7.2: for the register.
        opinion: String,
        /// For the citizen; the opinion when there are no other words.
        answer: Option<String>,
    },
    /// RS2.1 销号.
    Close {
        /// Why there is no evaluation, where there is none.
        reason: Option<String>,
    },
    /// Takes it up again.
    Reopen {
        /// Why.
        reason: String,
    },
    /// Registers some of its messages as a matter of its own.
    Split {
        /// Which, by the numbers of their events.
        messages: Vec<i32>,
    },
    /// Ends it in favour of another one, the same matter.
    Join {
        /// That one's number, as displayed.
        into: String,
    },
}

impl Act {
    /// The names, as paths call them.
    pub const NAMES: [&str; 11] = [
        "call_back",
        "say",
        "await",
        "resume",
        "raise",
        "triage",
        "resolve",
        "close",
        "reopen",
        "split",
        "join",
    ];
}

/// What was done, for those who want to know at once; all of it can be read again.
#[derive(Debug, Default)]
pub struct Done {
    /// Timers that were armed.
    pub timers: Vec<TimerKey>,
    /// Whether there is something to tell that cannot wait (RD3.2).
    pub urgent: bool,
    /// The ticket that was made.
    pub made: Option<RegisterNumber>,
    /// Whether that was the last try to call somebody: it is given up.
    pub gave_up: bool,
}

/// Does it.
///
/// # Errors
/// [`DeskError`].
pub async fn perform(deed: Deed<'_>, act: &Act) -> Result<Done, DeskError> {
    match act {
        Act::Say { text } => say(deed, text).await,
        Act::Await { missing, until } => ask(deed, missing, *until).await,
        Act::Resume {} => resume(deed).await,
        Act::Raise { opinion } => hand_up(deed, opinion).await,
        Act::CallBack { answer } => call_back(deed, *answer).await,
        Act::Triage { cause } => triage(deed, *cause).await,
        Act::Resolve { outcome, opinion, answer } => {
            resolve(deed, outcome, opinion, answer.as_deref()).await
        }
        Act::Close { reason } => close(deed, reason.as_deref()).await,
        Act::Reopen { reason } => reopen(deed, reason).await,
        Act::Split { messages } => split(deed, messages).await,
        Act::Join { into } => join(deed, into).await,
    }
}

/// R7.e: takes up a ticket; whoever does answers for it to the end. The citizen is told. Once more
/// by the same hand changes nothing.
///
/// # Errors
/// [`DeskError`]; [`NotAllowed::AlreadyClaimed`] when somebody was faster.
pub async fn claim(
    pool: &PgPool,
    clock: &Clock,
    office: OfficeId,
    ticket: RegisterNumber,
    by: StaffId,
) -> Result<(), DeskError> {
    let mut transaction = pool.begin().await?;
    let mut locked =
        store::ticket::lock(&mut transaction, office, ticket).await?.ok_or(DeskError::NoTicket)?;
    if locked.ticket.accountable == Some(by) {
        return Ok(());
    }
    let now = clock.now();
    let happened = locked.ticket.claim(by)?;
    store::ticket::write(&mut transaction, &mut locked, Actor::Staff(by), &happened, now).await?;
    let data = serde_json::json!({});
    let at = (now, now);
    store::ticket::tell(&mut transaction, (office, ticket), "claimed", false, &data, at).await?;
    transaction.commit().await?;
    Ok(())
}

/// R7.b, R7.c: dispatches a ticket to one of the office's units. Where it is already, it stays:
/// a form that is sent twice does no harm.
///
/// # Errors
/// [`DeskError`].
pub async fn refer(
    pool: &PgPool,
    clock: &Clock,
    office: OfficeId,
    ticket: RegisterNumber,
    unit: UnitId,
    by: Actor,
) -> Result<(), DeskError> {
    let mut db = pool.acquire().await?;
    let units = store::office::units(&mut db, office).await?;
    if !units.iter().any(|known| known.id == unit) {
        return Err(DeskError::NoUnit);
    }
    match step(&mut db, clock, (office, ticket), by, |ticket| ticket.refer(unit)).await {
        Err(DeskError::NotAllowed(NotAllowed::AlreadyReferred)) => Ok(()),
        done => done,
    }
}

/// One transition of one ticket, with its event.
async fn step(
    db: &mut PgConnection,
    clock: &Clock,
    (office, ticket): (OfficeId, RegisterNumber),
    by: Actor,
    transition: impl FnOnce(&mut Ticket) -> Result<Happened, NotAllowed>,
) -> Result<(), DeskError> {
    let mut transaction = db.begin().await?;
    let mut locked =
        store::ticket::lock(&mut transaction, office, ticket).await?.ok_or(DeskError::NoTicket)?;
    let happened = transition(&mut locked.ticket).map_err(DeskError::NotAllowed)?;
    store::ticket::write(&mut transaction, &mut locked, by, &happened, clock.now()).await?;
    transaction.commit().await?;
    Ok(())
}

/// A ticket under lock while something is done to it.
struct Work<'a> {
    deed: Deed<'a>,
    transaction: Transaction<'static, Postgres>,
    locked: Locked,
    now: DateTime<Utc>,
    done: Done,
}

/// Whether there is something to do.
enum Found<'a> {
    /// There is.
    New(Box<Work<'a>>),
    /// The same form came before, and this came of it.
    Again(Happened),
}

impl<'a> Deed<'a> {
    /// Locks the ticket and compares it with what was seen; `same` knows the event that this form
    /// has made if it was sent before.
    async fn begin(self, same: impl Fn(&Happened) -> bool) -> Result<Found<'a>, DeskError> {
        let mut transaction = self.pool.begin().await?;
        let locked = self.lock(&mut transaction).await?;
        self.go_on(transaction, locked, same).await
    }

    async fn lock(&self, db: &mut PgConnection) -> Result<Locked, DeskError> {
        let locked = store::ticket::lock(db, self.office.id, self.ticket).await?;
        locked.ok_or(DeskError::NoTicket)
    }

    async fn go_on(
        self,
        mut transaction: Transaction<'static, Postgres>,
        locked: Locked,
        same: impl Fn(&Happened) -> bool,
    ) -> Result<Found<'a>, DeskError> {
        if let Some(seen) = self.seen
            && seen != locked.events()
        {
            let (office, ticket) = (self.office.id, self.ticket);
            let later =
                store::ticket::happened_after(&mut transaction, office, ticket, seen).await?;
            let by = self.by.stored();
            let again = later
                .iter()
                .find(|(actor, happened)| *actor == by && happened.as_ref().is_some_and(&same));
            if let Some((_, Some(happened))) = again {
                return Ok(Found::Again(happened.clone()));
            }
            // A reminder between the look and the deed changes nothing that was judged; a rise does.
            let matters = later.iter().any(|(actor, happened)| {
                *actor != Actor::Gateway.stored()
                    || matches!(happened, Some(Happened::Raised { .. }))
            });
            if matters {
                return Err(DeskError::Changed);
            }
        }
        let (deed, now, done) = (self, self.clock.now(), Done::default());
        Ok(Found::New(Box::new(Work { deed, transaction, locked, now, done })))
    }
}

impl Work<'_> {
    async fn write(&mut self, happened: &Happened) -> Result<(), DeskError> {
        let by = self.deed.by.clone();
        let Self { transaction, locked, now, .. } = self;
        Ok(store::ticket::write(transaction, locked, by, happened, *now).await?)
    }

    /// For the citizen: at once.
    async fn tell_citizen(
        &mut self,
        kind: &str,
        data: &serde_json::Value,
    ) -> Result<(), DeskError> {
        let of = (self.locked.office, self.locked.number);
        let at = (self.now, self.now);
        Ok(store::ticket::tell(&mut self.transaction, of, kind, false, data, at).await?)
    }

    /// For the staff: when the office is open, an emergency at once (RD3.2).
    async fn tell_staff(
        &mut self,
        kind: &str,
        urgent: bool,
        data: &serde_json::Value,
    ) -> Result<(), DeskError> {
        let of = (self.locked.office, self.locked.number);
        let not_before = if urgent { self.now } else { self.opens() };
        self.done.urgent |= urgent;
        let at = (self.now, not_before);
        Ok(store::ticket::tell(&mut self.transaction, of, kind, urgent, data, at).await?)
    }

    /// From when staff are told what can wait: now, or the next opening.
    fn opens(&self) -> DateTime<Utc> {
        self.deed.office.staff_told_from(self.now)
    }

    /// No limit runs any more.
    async fn stop_timers(&mut self) -> Result<(), DeskError> {
        let (office, ticket) = (self.locked.office, self.locked.number);
        store::timer::cancel_all(&mut self.transaction, office, ticket).await?;
        Ok(())
    }

    async fn arm(&mut self, timers: &[(TimerKind, DateTime<Utc>)]) -> Result<(), DeskError> {
        let (office, ticket) = (self.locked.office, self.locked.number);
        let armed = store::timer::arm(&mut self.transaction, office, ticket, timers).await?;
        self.done.timers.extend(armed);
        Ok(())
    }

    /// The limit that was computed just now runs, and no other.
    async fn run_limit(&mut self) -> Result<(), DeskError> {
        self.stop_timers().await?;
        let ticket = &self.locked.ticket;
        let timers =
            timers_ahead(&self.deed.office.calendar, ticket.level, ticket.due_at, self.now);
        self.arm(&timers).await
    }

    async fn commit(self) -> Result<Done, DeskError> {
        self.transaction.commit().await?;
        Ok(self.done)
    }
}

/// A text as it is kept: without control characters, within its bound.
fn text(written: &str) -> Result<String, DeskError> {
    let text = clean_text(written).trim().to_owned();
    if text.chars().count() > LONGEST_TEXT { Err(DeskError::TooLong) } else { Ok(text) }
}

/// The end of a working day to come: the named one, else that of [`DAYS_TO_BRING`].
fn until(
    office: &Office,
    named: Option<NaiveDate>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, DeskError> {
    let Some(day) = named else { return Ok(office.calendar.deadline(now, DAYS_TO_BRING).at) };
    let end = office.calendar.end_of(day).filter(|end| *end > now);
    // Further than anybody waits: a slip of the hand.
    let slip = end.is_some_and(|end| end - now > TimeDelta::days(366));
    end.filter(|_| !slip).ok_or(DeskError::NoWorkingDay)
}
