//! What a channel hears besides what is to be registered: that a correspondent acted, left, allows
//! to be written to, or has got what was sent.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whom a channel writes to, by the channel's own id. Personal data: `Debug` does not show it, and
/// there is no `Display`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Correspondent(String);

impl Correspondent {
    /// As the channel names them.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// For the channel and for the store; never for a log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Correspondent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Correspondent(…)")
    }
}

/// One thing that a channel heard.
#[derive(Clone, PartialEq, Eq)]
pub struct Heard {
    /// Who vouches for it, as in [`crate::Submission::source`].
    pub source: String,
    /// The same in every delivery of this one thing and in no other of the source: a repeat counts
    /// once. Two things that one request brings have two.
    pub identity: String,
    /// Whom it is about.
    pub correspondent: Correspondent,
    /// When it happened, by the source's clock.
    pub at: DateTime<Utc>,
    /// What.
    pub news: News,
}

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// They wrote or spoke.
    Wrote,
    /// They tapped, scanned, or came to the channel.
    Tapped,
    /// They left the channel: nothing may be sent to them there.
    Left,
    /// They took back leave to use something about them: what is remembered of them for later goes.
    TookBack,
    /// What they allow to be sent by a template changed.
    Consent {
        /// By which.
        template_id: String,
        /// How.
        change: ConsentChange,
    },
    /// What became of a message that was sent to them.
    Delivered {
        /// By which the sending named it, where that is said.
        message_id: Option<String>,
        /// By which template, where that is said.
        template_id: Option<String>,
        /// What became of it.
        delivery: Delivery,
    },
}

impl News {
    /// Whether what is remembered of the citizen for later goes.
    #[must_use]
    pub fn forgets(&self) -> bool {
        matches!(self, Self::Left | Self::TookBack)
    }

    /// Whether it is of use only for a while and is told again by what happens next: it may be
    /// noted after the answer, and be lost. All else is kept before the sender is answered.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Wrote | Self::Tapped)
    }
}

/// How a consent changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentChange {
    /// One message more.
    Given,
    /// Nothing: asked and declined, or a setting that says nothing of how many.
    Unchanged,
    /// None is left.
    Revoked,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// They have it.
    Arrived,
    /// They do not want it.
    Refused,
    /// Held back, because they were sent too many.
    TooMany,
    /// It did not arrive, for another reason.
    Failed,
}

impl Delivery {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Refused => "refused",
            Self::TooMany => "too_many",
            Self::Failed => "failed",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Arrived, Self::Refused, Self::TooMany, Self::Failed]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// What a citizen is told of their ticket. The words are the gateway's; channels and their settings
/// name what is told by these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Telling {
    /// It was registered without them being there.
    Registered,
    /// Somebody has taken it up.
    Claimed,
    /// It went up a level.
    Raised,
    /// It waits for what they have to bring.
    Awaiting,
    /// It has a result.
    Resolved,
    /// An officer's own words.
    Said,
    /// It is worked on again.
    Reopened,
}

impl Telling {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Registered,
        Self::Claimed,
        Self::Raised,
        Self::Awaiting,
        Self::Resolved,
        Self::Said,
        Self::Reopened,
    ];

    /// As stored, and as settings name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Claimed => "claimed",
            Self::Raised => "raised",
            Self::Awaiting => "awaiting",
            Self::Resolved => "resolved",
            Self::Said => "said",
            Self::Reopened => "reopened",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }
}
