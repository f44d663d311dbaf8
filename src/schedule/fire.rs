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
        StoreError, ticket as tickets,
        timer::{self as store, Effects, Fired},
    },
};
use chrono::TimeDelta;
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
/// each timer takes effect once.
///
/// # Errors
/// [`StoreError`]; nothing happened.
pub async fn fire(
    db: &mut PgConnection,
    offices: &Offices,
    keys: &[TimerKey],
) -> Result<Done, StoreError> {
    let mut transaction = db.begin().await?;
    let (now, fired) = store::fire(&mut transaction, keys).await?;
    let mut done = Done::default();
    let mut effects = Effects::default();
    let emergencies = tickets::emergencies(&mut transaction, keys).await?;
    // One ticket's timers may fall due together; they act on it one after the other.
    let mut by_ticket: BTreeMap<_, Vec<Fired>> = BTreeMap::new();
    for one in fired {
        done.fired.push(one.key);
        by_ticket.entry((one.key.office, one.key.ticket)).or_default().push(one);
    }
    for ((office_id, number), fired) in by_ticket {
        let office = offices
            .get(office_id)
            .ok_or(StoreError::BadRow { table: "timer", column: "office_id" })?;
        let mut fired = fired.into_iter();
        let Some(first) = fired.next() else { continue };
        let Fired { accepted_at, mut ticket, mut events, mut chain, .. } = first;
        let before = events;
        let terms = Terms { calendar: &office.calendar, policy: &office.policy, accepted_at };
        for key in std::iter::once(first.key).chain(fired.map(|one| one.key)) {
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
            effects.hash.push(chain.0.to_vec());
            effects.tell.push(effect.tell.to_owned());
            effects.tell_data.push(told(&effect.happened, &ticket));
            // RD3.2: an emergency that rises or waits is told at any hour.
            let urgent = effect.tell != "limit_near" && emergencies.contains(&(office_id, number));
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
        if events > before {
            let changed = &mut effects.tickets;
            changed.office.push(office_id.0);
            changed.ticket.push(number.as_i64());
            changed.level.push(ticket.level.number());
            changed.due_at.push(ticket.due_at);
            changed.provisional.push(ticket.provisional);
            changed.overdue.push(ticket.overdue);
            changed.events.push(events);
            changed.chain.push(chain.0.to_vec());
        }
    }
    if !effects.office.is_empty() {
        done.armed = store::write_effects(&mut transaction, &effects).await?;
    }
    transaction.commit().await?;
    Ok(done)
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
