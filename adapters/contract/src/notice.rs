use chrono::{DateTime, Utc};
use std::{pin::Pin, time::Duration};

/// A person to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// As on the roster.
    pub name: String,
    /// For e-mail.
    pub email: Option<String>,
    /// For the mention in a group robot's message.
    pub mobile: Option<String>,
}

/// Something to tell the staff. Holds no citizen's name, telephone or full text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The same for every attempt of one notice, so that a repeat does no harm (invariant 4).
    pub idempotency_key: String,
    /// One line.
    pub title: String,
    /// What happened, one fact a line; plain text, to be kept literal by the adapter.
    pub lines: Vec<String>,
    /// Where to look on the desk.
    pub link: Option<String>,
    /// Who is told; never empty.
    pub recipients: Vec<Recipient>,
    /// An emergency (RD3.2).
    pub urgent: bool,
}

/// The other side took it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sent {
    /// Its own id for the message, where it gives one.
    pub remote_id: Option<String>,
    /// Names of recipients whom it will not reach, where others were reached.
    pub missed: Vec<String>,
}

/// Why a notice was not taken. Texts hold no address, no token and no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Worth another try, not before `after` where the other side named a time.
    #[error("{reason}")]
    Retry {
        /// What went wrong.
        reason: String,
        /// What the other side asked for.
        after: Option<Duration>,
    },
    /// Another try would fail in the same way.
    #[error("{reason}")]
    Permanent {
        /// What went wrong.
        reason: String,
    },
}

/// The attempt, under way.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Result<Sent, SendError>> + Send + 'a>>;

/// A way to tell the staff.
pub trait Notifier: Send + Sync {
    /// A short fixed word for metrics and the list of notices: `wecom`, `smtp`.
    fn kind(&self) -> &'static str;

    /// One attempt, with a time limit of its own. Safe to repeat with the same notice. `now` goes
    /// into signatures.
    fn send<'a>(&'a self, notice: &'a Notice, now: DateTime<Utc>) -> SendFuture<'a>;
}
