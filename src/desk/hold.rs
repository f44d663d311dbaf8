//! 保留录音: a ticket's recordings go by no rule, whatever their age, until somebody says that they
//! may. In any state, also after closure: that is when the rule begins to count.

use super::{Deed, DeskError, Done, Found, text};
use crate::{
    domain::{event::Happened, ticket::NotAllowed},
    store,
};

/// Holds the ticket's recordings, or lets them go by the rule again; either with a reason. What
/// stands so already stays.
///
/// # Errors
/// [`DeskError`].
pub async fn hold(deed: Deed<'_>, held: bool, reason: &str) -> Result<Done, DeskError> {
    let reason = text(reason)?;
    if reason.is_empty() {
        return Err(NotAllowed::TextMissing.into());
    }
    let happened = match held {
        true => Happened::RecordingsHeld { reason },
        false => Happened::RecordingsReleased { reason },
    };
    let Found::New(mut work) = deed.begin(|h| *h == happened).await? else {
        return Ok(Done::default());
    };
    let (office, ticket) = (deed.office.id, deed.ticket);
    if store::recording::held(&mut work.transaction, office, ticket).await? == held {
        return Ok(Done::default());
    }
    store::recording::hold(&mut work.transaction, office, ticket, held).await?;
    work.write(&happened).await?;
    work.commit().await
}
