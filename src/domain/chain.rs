//! The hash chain over a ticket's events (RD4.2): each event's hash covers its content and the
//! hash before it, so that a changed, missing or inserted event shows.

use super::{id::OfficeId, register::RegisterNumber};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

/// The hash of an event, or the start of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link(pub [u8; 32]);

/// What stands before a ticket's first event.
pub const START: Link = Link([0; 32]);

/// One event as the hash sees it. `data` is the JSON text exactly as stored.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The ticket's office.
    pub office: OfficeId,
    /// The ticket.
    pub ticket: RegisterNumber,
    /// From 1, without gap.
    pub seq: i32,
    /// When, in UTC, to the microsecond: the database keeps no more.
    pub at: DateTime<Utc>,
    /// Who: `staff:3`, `citizen`, `gateway`.
    pub actor: &'a str,
    /// What.
    pub kind: &'a str,
    /// Its particulars.
    pub data: &'a str,
}

impl Entry<'_> {
    /// The event's hash. Lengths stand before texts, so that no two events share an encoding.
    #[must_use]
    pub fn link(&self, before: Link) -> Link {
        let mut hash = Sha256::new();
        hash.update(before.0);
        hash.update(self.office.0.to_be_bytes());
        hash.update(self.ticket.as_i64().to_be_bytes());
        hash.update(self.seq.to_be_bytes());
        hash.update(self.at.timestamp_micros().to_be_bytes());
        for text in [self.actor, self.kind, self.data] {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        Link(hash.finalize().into())
    }
}
