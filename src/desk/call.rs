//! Calling citizens back (R5.2, R7.d).

use super::{Deed, DeskError, Done, Found};
use crate::{
    domain::{
        call_back::{Answer, State},
        event::{Actor, Happened},
        ticket::{NotAllowed, State as TicketState},
    },
    store,
};

/// Notes a try to call back, or that the last one was noted by mistake. Whoever speaks with a citizen
/// whom nobody has received yet is the first receiver (R7.e).
///
/// # Errors
/// [`DeskError`]; [`NotAllowed::NobodyToCall`] when there is nothing to call back.
pub async fn call_back(deed: Deed<'_>, answer: Answer) -> Result<Done, DeskError> {
    let same = |h: &Happened| matches!(h, Happened::CalledBack { answer: a, .. } if *a == answer);
    let Found::New(mut work) = deed.begin(same).await? else { return Ok(Done::default()) };
    let (office, number) = (deed.office, deed.ticket);
    let before = store::call_back::read(&mut work.transaction, office.id, number).await?;
    let after = before.and_then(|before| before.after(answer, work.now, &office.calendar));
    let after = after.ok_or(NotAllowed::NobodyToCall)?;
    if let (Answer::Reached, TicketState::Registered, Actor::Staff(by)) =
        (answer, &work.locked.ticket.state, deed.by)
    {
        let happened = work.locked.ticket.claim(*by)?;
        work.write(&happened).await?;
        work.tell_citizen("claimed", &serde_json::json!({})).await?;
    }
    let next_try_at = (after.state == State::Waiting).then_some(after.next_try_at);
    work.write(&Happened::CalledBack { answer, tries: after.tries, next_try_at }).await?;
    store::call_back::write(&mut work.transaction, office.id, number, &after).await?;
    let gave_up = after.state == State::Unreachable;
    Ok(Done { gave_up, ..work.commit().await? })
}
