//! What is due when.
//!
//! The rows of `timer` are the truth. Redis holds only their ids, ordered by time, so that a replica
//! learns within milliseconds what falls due without asking PostgreSQL all the time. Nothing is
//! lost with Redis: a claimed id is carried out by a statement that checks state, generation and
//! time in PostgreSQL (`store::timer::fire`), so that a repeat, a stale id, a lost lease or a cancel
//! that races a claim change nothing; and a sweep finds what is late straight from PostgreSQL. With
//! Redis away, empty or evicted, timers fire late by seconds, never not at all.
//!
//! * `index`: the Redis keys and the three scripts on them.
//! * `fire`: the effect of a batch of claimed timers, one transaction.
//! * `runner`: each replica's loops: claim when due, reconcile when in doubt.

pub mod fire;
pub mod index;
pub mod runner;

use crate::domain::{id::OfficeId, register::RegisterNumber, timer::TimerKind};
use chrono::{DateTime, Utc};

/// One timer in one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TimerKey {
    /// The ticket's office.
    pub office: OfficeId,
    /// The ticket.
    pub ticket: RegisterNumber,
    /// What it does.
    pub kind: TimerKind,
    /// Grows with every change; an older one is stale.
    pub generation: i32,
    /// When, in UTC.
    pub due_at: DateTime<Utc>,
}

impl TimerKey {
    /// The id in Redis: `office:ticket:kind:generation`. No content, no person.
    #[must_use]
    pub fn member(&self) -> String {
        let Self { office, ticket, kind, generation, .. } = self;
        format!("{office}:{}:{}:{generation}", ticket.as_i64(), kind.number())
    }

    /// Reads [`Self::member`]; `None` for anything else that may stand in Redis.
    #[must_use]
    pub fn parse(member: &str, due_ms: i64) -> Option<Self> {
        let mut parts = member.split(':');
        let key = Self {
            office: OfficeId(parts.next()?.parse().ok()?),
            ticket: RegisterNumber::from_i64(parts.next()?.parse().ok()?).ok()?,
            kind: TimerKind::from_number(parts.next()?.parse().ok()?)?,
            generation: parts.next()?.parse().ok()?,
            due_at: DateTime::from_timestamp_millis(due_ms)?,
        };
        parts.next().is_none().then_some(key)
    }
}
