//! What the platform reports later: whether a message arrived, and which consents were given (§3,
//! §6.2, §6.3).
//!
//! A receipt may come before the call that sent the message is answered, and may come twice: who
//! keeps it puts it in by its id, whether the message is known by that id yet or not.

use crate::{
    message::{Consent, Event, EventKind},
    platform::Trouble,
};

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// The citizen has it.
    Yes,
    /// The citizen has blocked the account, or taken the consent back: another path.
    Refused,
    /// The platform held it back because there were too many.
    TooFrequent,
    /// The platform failed; another try may arrive.
    Failed,
    /// What else it says, for the record; at most 64 characters.
    Otherwise(String),
}

/// The platform reports on a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// As the answer of the sending call named it: 64 bits, as text. `None` where the platform
    /// sends none or 0, as has been seen with `client_msg_id`: then only template, citizen and
    /// time tell which message it was.
    pub msg_id: Option<String>,
    /// The template, where it is said: for subscription notices.
    pub template_id: Option<String>,
    /// What became of it.
    pub delivered: Delivered,
}

/// A consent to be sent notices by a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consented {
    /// One more (for a long-term template: from now on).
    Given,
    /// Asked, and not given; what was given before stands.
    Declined,
    /// Taken back in the settings: none is left.
    Revoked,
    /// Allowed again in the settings; says nothing of how many.
    Restored,
}

impl Consented {
    /// How many notices a one-time template allows after this, where it allowed `left`. Besides,
    /// a notice that was sent takes one, and [`Trouble::NoConsent`] says that none is left. A
    /// long-term template is counted in the same way, and none is taken.
    #[must_use]
    pub fn left_after(self, left: u32) -> u32 {
        match self {
            Self::Given => left.saturating_add(1),
            Self::Declined | Self::Restored => left,
            Self::Revoked => 0,
        }
    }
}

/// A citizen's consent changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsentChange {
    /// For which template.
    pub template_id: String,
    /// How.
    pub consented: Consented,
}

fn some_id(id: &str) -> Option<String> {
    (!id.is_empty() && id != "0").then(|| id.to_owned())
}

fn template_status(status: &str) -> Delivered {
    // Seen with and without the space after the colon.
    let plain = status.replace([' ', '_'], "").to_lowercase();
    match plain.as_str() {
        "success" => Delivered::Yes,
        "failed:userblock" => Delivered::Refused,
        "failed:freqlimit" => Delivered::TooFrequent,
        "failed:systemfailed" => Delivered::Failed,
        _ => Delivered::Otherwise(status.chars().take(64).collect()),
    }
}

fn notice_status(code: &str, status: &str) -> Delivered {
    match code.parse().map(|code: i64| (code, Trouble::of(code, None))) {
        Ok((0, _)) => Delivered::Yes,
        Ok((_, Trouble::NoConsent | Trouble::NotFollowing | Trouble::BlackListed)) => {
            Delivered::Refused
        }
        Ok((_, Trouble::TooFrequent)) => Delivered::TooFrequent,
        Ok((_, Trouble::Busy)) => Delivered::Failed,
        _ => Delivered::Otherwise(format!("{code} {status}").trim().chars().take(64).collect()),
    }
}

impl Event {
    /// The receipts that this event brings; none for other events.
    #[must_use]
    pub fn receipts(&self) -> Vec<Receipt> {
        match &self.kind {
            EventKind::TemplateSent { status } => vec![Receipt {
                msg_id: some_id(&self.msg_id),
                template_id: None,
                delivered: template_status(status),
            }],
            EventKind::SubscribeMessageSent(items) => items
                .iter()
                .map(|item| Receipt {
                    msg_id: some_id(&item.msg_id),
                    template_id: some_id(&item.template_id),
                    delivered: notice_status(&item.error_code, &item.error_status),
                })
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The consents that this event changes, in order; none for other events. To be counted once
    /// for each event: it may be delivered again.
    #[must_use]
    pub fn consents(&self) -> Vec<ConsentChange> {
        let (items, accepted, refused) = match &self.kind {
            EventKind::SubscribeMessagePopup(items) => {
                (items, Consented::Given, Consented::Declined)
            }
            EventKind::SubscribeMessageChange(items) => {
                (items, Consented::Restored, Consented::Revoked)
            }
            _ => return Vec::new(),
        };
        let change = |item: &Consent| {
            let consented = match item.status.as_str() {
                "accept" => accepted,
                "reject" => refused,
                // `ban`, `filter` and what may come: no consent.
                _ => Consented::Declined,
            };
            Some(ConsentChange { template_id: some_id(&item.template_id)?, consented })
        };
        items.iter().filter_map(change).collect()
    }
}
