//! How many custom messages a citizen may still be sent (§6.1), counted here so that none is
//! wasted on a refusal, and some are kept for what staff ask.
//!
//! The platform does not say how its two allowances add up. They are kept apart here, and the one
//! that ends first is used first; where the platform counts otherwise, its refusal is the truth.

use super::{
    Openid,
    token::{StoreFuture, Unavailable},
};
use crate::message::{Content, EventKind, Inbound, Message};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// What a citizen did that allows messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// They wrote: 5 messages in 48 hours.
    Message,
    /// They tapped a menu, an option of a menu message, followed, or scanned: 3 in a minute.
    Tap,
}

impl Act {
    /// For how long it allows messages.
    #[must_use]
    pub fn lasts(self) -> TimeDelta {
        match self {
            Self::Message => TimeDelta::hours(48),
            Self::Tap => TimeDelta::minutes(1),
        }
    }

    /// How many it allows.
    #[must_use]
    pub fn count(self) -> u8 {
        match self {
            Self::Message => 5,
            Self::Tap => 3,
        }
    }
}

/// What one act still allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Until when, exclusively.
    pub until: DateTime<Utc>,
    /// How many.
    pub left: u8,
}

/// What one citizen's acts still allow. Kept durably by the gateway, one for each citizen of an
/// account; `Default` for one that was never heard of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// By [`Act::Message`].
    pub message: Option<Grant>,
    /// By [`Act::Tap`].
    pub tap: Option<Grant>,
}

/// What changes an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The citizen acted, by the platform's clock. The same act again, as in a redelivery, changes
    /// nothing.
    Acted(Act, DateTime<Utc>),
    /// One message is about to be sent; so many of those that [`Act::Message`] allows are left
    /// untouched.
    Take {
        /// How many.
        reserve: u8,
    },
    /// The one taken was certainly not sent.
    GiveBack(Act),
    /// The platform says that the time is over, or the citizen has left.
    Closed,
    /// The platform says that the count is used up.
    Exhausted,
}

impl Change {
    /// What a verified callback means for its sender's allowance; `None`: nothing. Views, position
    /// reports and receipts allow nothing (§10, pitfall 11).
    #[must_use]
    pub fn of(inbound: &Inbound) -> Option<Self> {
        let at = inbound.created_at?;
        match &inbound.content {
            Content::Message { message: Message::Text { menu_id: Some(_), .. }, .. } => {
                Some(Self::Acted(Act::Tap, at))
            }
            Content::Message { .. } => Some(Self::Acted(Act::Message, at)),
            Content::Event(event) => match event.kind {
                EventKind::Click
                | EventKind::ScanCode { .. }
                | EventKind::Subscribe { .. }
                | EventKind::Scan { .. } => Some(Self::Acted(Act::Tap, at)),
                EventKind::Unsubscribe => Some(Self::Closed),
                _ => None,
            },
            Content::Unknown { .. } => None,
        }
    }
}

impl Allowance {
    /// The allowance after a change, and for [`Change::Take`] which act's was taken; `None` when
    /// there was none.
    #[must_use]
    pub fn changed(mut self, change: Change, now: DateTime<Utc>) -> (Self, Option<Act>) {
        let mut taken = None;
        match change {
            Change::Acted(act, at) => {
                let fresh = Grant { until: at + act.lasts(), left: act.count() };
                let slot = self.slot(act);
                // Only by something newer: callbacks are repeated, and overtake each other.
                if slot.is_none_or(|grant| fresh.until > grant.until) {
                    *slot = Some(fresh);
                }
            }
            Change::Take { reserve } => {
                for (act, keep) in [(Act::Tap, 0), (Act::Message, reserve)] {
                    if let Some(grant) = self.slot(act)
                        && grant.until > now
                        && grant.left > keep
                    {
                        grant.left -= 1;
                        taken = Some(act);
                        break;
                    }
                }
            }
            Change::GiveBack(act) => {
                if let Some(grant) = self.slot(act) {
                    grant.left = (grant.left + 1).min(act.count());
                }
            }
            Change::Closed => self = Self::default(),
            Change::Exhausted => {
                for act in [Act::Message, Act::Tap] {
                    if let Some(grant) = self.slot(act) {
                        grant.left = 0;
                    }
                }
            }
        }
        (self, taken)
    }

    fn slot(&mut self, act: Act) -> &mut Option<Grant> {
        match act {
            Act::Message => &mut self.message,
            Act::Tap => &mut self.tap,
        }
    }

    /// How many messages may be sent now.
    #[must_use]
    pub fn left(&self, now: DateTime<Utc>) -> u8 {
        let of = |grant: Option<Grant>| grant.filter(|g| g.until > now).map_or(0, |g| g.left);
        of(self.message) + of(self.tap)
    }

    /// Whether any act is recent enough, whatever the count.
    #[must_use]
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        [self.message, self.tap].into_iter().flatten().any(|grant| grant.until > now)
    }
}

/// Where allowances are kept: in the database, because they must outlive a restart.
pub trait AllowanceStore: Send + Sync {
    /// Reads the citizen's allowance, applies [`Allowance::changed`] and writes what comes of it,
    /// in one transaction that locks it; returns what was taken and what is left.
    fn change<'a>(
        &'a self,
        app_id: &'a str,
        citizen: &'a Openid,
        change: Change,
        now: DateTime<Utc>,
    ) -> StoreFuture<'a, (Allowance, Option<Act>)>;
}

/// For one process that may forget: tests.
#[derive(Debug, Default)]
pub struct MemoryAllowances(
    std::sync::Mutex<std::collections::HashMap<(String, Openid), Allowance>>,
);

impl AllowanceStore for MemoryAllowances {
    fn change<'a>(
        &'a self,
        app_id: &'a str,
        citizen: &'a Openid,
        change: Change,
        now: DateTime<Utc>,
    ) -> StoreFuture<'a, (Allowance, Option<Act>)> {
        Box::pin(std::future::ready(self.0.lock().map_err(|_| Unavailable).map(|mut all| {
            let allowance = all.entry((app_id.to_owned(), citizen.clone())).or_default();
            let (changed, taken) = allowance.changed(change, now);
            *allowance = changed;
            (changed, taken)
        })))
    }
}
