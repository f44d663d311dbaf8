//! The effect of timers that fell due: one transaction for a batch.

use super::TimerKey;
use crate::{
    domain::{
        chain::Entry,
        event::{Actor, Happened},
        id::OfficeId,
        ladder::{Fell, Terms, fall_due},
        ticket::Ticket,
    },
    offices::Offices,
    store::{
        StoreError,
        timer::{self as store, Due, Effects},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection, PgConnection};
use std::collections::BTreeMap;

/// What a batch did.
#[derive(Debug, Default)]
pub struct Done {
    /// Timers that were fired by this batch: those among the claimed that were armed and due.
    pub fired: Vec<TimerKey>,
    /// Timers that the effects armed anew.
    pub armed: Vec<TimerKey>,
}

/// Carries out a batch of timers. Whatever else has been claimed, by whomever, however often:
/// each timer takes effect once. Decided without locks and written if nothing has changed; where
/// something has, once more under the locks of those tickets that nobody else holds. A timer that
/// is left out stays armed.
///
/// # Errors
/// [`StoreError`]; nothing happened.
pub async fn fire(
    db: &mut PgConnection,
    offices: &Offices,
    keys: &[TimerKey],
) -> Result<Done, StoreError> {
    let (now, due) = store::look(db, keys).await?;
    let effects = decide(offices, now, due)?;
    let carried_out = if effects.arm.office.is_empty() {
        carry_out(db, &effects).await
    } else {
        let mut transaction = db.begin().await?;
        match carry_out(&mut transaction, &effects).await {
            Ok(done) => transaction.commit().await.map(|()| done).map_err(StoreError::from),
            Err(error) => {
                transaction.rollback().await?;
                Err(error)
            }
        }
    };
    match carried_out {
        Err(error) if error.is_overtaken() => {}
        other => return other,
    }
    let mut transaction = db.begin().await?;
    let locked = store::lock_tickets(&mut transaction, keys).await?;
    let mut keys = keys.to_vec();
    keys.retain(|key| locked.contains(&(key.office, key.ticket)));
    let (now, due) = store::look(&mut transaction, &keys).await?;
    let done = carry_out(&mut transaction, &decide(offices, now, due)?).await?;
    transaction.commit().await?;
    Ok(done)
}

async fn carry_out(db: &mut PgConnection, effects: &Effects) -> Result<Done, StoreError> {
    if effects.fired.is_empty() {
        return Ok(Done::default());
    }
    store::write(db, effects).await?;
    let armed = match effects.arm.office.is_empty() {
        true => Vec::new(),
        false => store::arm_anew(db, &effects.arm).await?,
    };
    Ok(Done { fired: effects.fired.clone(), armed })
}

fn decide(offices: &Offices, now: DateTime<Utc>, due: Vec<Due>) -> Result<Effects, StoreError> {
    let mut effects = Effects::default();
    // One ticket's timers may fall due together; they act on it one after the other.
    let mut by_ticket: BTreeMap<_, Vec<Due>> = BTreeMap::new();
    for one in due {
        by_ticket.entry((one.key.office, one.key.ticket)).or_default().push(one);
    }
    for ((office_id, number), mut due) in by_ticket {
        let office = offices
            .get(office_id)
            .ok_or(StoreError::BadRow { table: "timer", column: "office_id" })?;
        due.sort_unstable_by_key(|one| (one.key.due_at, one.key.kind));
        let keys: Vec<TimerKey> = due.iter().map(|one| one.key).collect();
        effects.fired.extend(&keys);
        let Some(Due { accepted_at, mut ticket, urgent, mut events, mut chain, .. }) = due.pop()
        else {
            continue;
        };
        let was = events;
        let terms = Terms { calendar: &office.calendar, policy: &office.policy, accepted_at };
        for key in keys {
            let fell = Fell { kind: key.kind, generation: key.generation, due_at: key.due_at };
            let Some(effect) = fall_due(fell, &mut ticket, terms, now) else { continue };
            let (kind, data) = effect.happened.stored();
            let actor = Actor::Gateway.stored();
            events += 1;
            let entry = Entry {
                office: office_id,
                ticket: number,
                seq: events,
                at: now,
                actor: &actor,
                kind: &kind,
                data: &data,
            };
            chain = entry.link(chain);
            effects.office.push(office_id.0);
            effects.ticket.push(number.as_i64());
            effects.seq.push(events);
            effects.at.push(now);
            effects.actor.push(actor);
            effects.kind.push(kind);
            effects.data.push(data);
            effects.hash.push(chain.0);
            effects.tell.push(effect.tell);
            effects.tell_data.push(told(&effect.happened, &ticket));
            // RD3.2: an emergency that rises or waits is told at any hour.
            let urgent = urgent && !matches!(effect.tell, "limit_near" | "material_due");
            effects.urgent.push(urgent);
            // By the timer's own time, not by when it fired: what belongs to one opening is one
            // digest, with what came in overnight.
            let opens = office.calendar.next_open(key.due_at).value;
            let gathered = opens + TimeDelta::seconds(crate::relay::GATHER_S);
            effects.not_before.push(if urgent { now } else { gathered });
            for (kind, due_at) in effect.arm {
                effects.arm.office.push(office_id.0);
                effects.arm.ticket.push(number.as_i64());
                effects.arm.kind.push(kind.number());
                effects.arm.due_at.push(due_at);
            }
        }
        if events > was {
            let changed = &mut effects.tickets;
            changed.office.push(office_id.0);
            changed.ticket.push(number.as_i64());
            changed.level.push(ticket.level.number());
            changed.due_at.push(ticket.due_at);
            changed.provisional.push(ticket.provisional);
            changed.overdue.push(ticket.overdue);
            changed.calendar_version.push(office.calendar_version);
            changed.was.push(was);
            changed.events.push(events);
            changed.chain.push(chain.0);
        }
    }
    Ok(effects)
}

/// What the relay needs to know to tell the right people.
fn told(happened: &Happened, ticket: &Ticket) -> serde_json::Value {
    let (level, accountable) = (ticket.level, ticket.accountable.map(|id| id.0));
    match happened {
        Happened::Raised { to, due_at, provisional, .. } => serde_json::json!({
            "level": to, "due_at": due_at, "provisional": provisional, "accountable": accountable,
        }),
        Happened::LimitNear { due_at, .. } => {
            serde_json::json!({ "level": level, "due_at": due_at, "accountable": accountable })
        }
        _ => serde_json::json!({ "level": level, "accountable": accountable }),
    }
}

/// The offices among these timers.
#[must_use]
pub fn offices_of(keys: &[TimerKey]) -> Vec<OfficeId> {
    let mut offices: Vec<OfficeId> = keys.iter().map(|key| key.office).collect();
    offices.sort_unstable();
    offices.dedup();
    offices
}
