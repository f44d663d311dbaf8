//! What staff do. Each use case is one function and one transaction.

use crate::{
    clock::Clock,
    domain::{
        event::Actor,
        id::{OfficeId, StaffId},
        register::RegisterNumber,
        ticket::NotAllowed,
    },
    store::{self, StoreError},
};
use sqlx::{Connection, PgPool};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// No ticket of this number.
    #[error("no such ticket")]
    NoTicket,
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
    let mut transaction = db.begin().await?;
    let mut locked =
        store::ticket::lock(&mut transaction, office, ticket).await?.ok_or(DeskError::NoTicket)?;
    let happened = locked.ticket.claim(by).map_err(DeskError::NotAllowed)?;
    let at = clock.now();
    store::ticket::write(&mut transaction, &mut locked, Actor::Staff(by), &happened, at).await?;
    transaction.commit().await?;
    Ok(())
}
