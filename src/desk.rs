//! What staff do. Each use case is one function and one transaction.

use crate::{
    clock::Clock,
    domain::{
        event::{Actor, Happened},
        id::{OfficeId, StaffId, UnitId},
        register::RegisterNumber,
        ticket::{NotAllowed, Ticket},
    },
    store::{self, StoreError},
};
use sqlx::{Connection, PgConnection, PgPool};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// No ticket of this number.
    #[error("no such ticket")]
    NoTicket,
    /// No unit of this number in the office.
    #[error("no such unit")]
    NoUnit,
    /// The rules do not allow it.
    #[error("not allowed")]
    NotAllowed(#[source] NotAllowed),
    /// The database.
    #[error("not done")]
    Store(#[source] StoreError),
}

impl From<StoreError> for DeskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for DeskError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// R7.e: takes up a ticket; whoever does answers for it to the end.
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
    let mut db = pool.acquire().await?;
    step(&mut db, clock, (office, ticket), Actor::Staff(by), |ticket| ticket.claim(by)).await
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
