use crate::{ChannelKind, Heard, Submission};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What may be asked of a channel's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A platform's check of the address.
    Get,
    /// A delivery.
    Post,
}

/// A request from outside: within the size limit, otherwise unverified and hostile.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// GET or POST.
    pub method: Method,
    /// The raw query string, without `?`; empty where there is none.
    pub query: &'a str,
    /// Header names in lower case with their raw values, in order of arrival.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The raw body.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The value of a header that must occur once; `None` when it is absent, doubled, or no UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut found = self.headers.iter().filter(|(key, _)| *key == name);
        let (_, value) = found.next()?;
        if found.next().is_some() {
            return None;
        }
        std::str::from_utf8(value).ok()
    }
}

/// Why a request was refused. The sender learns the status and nothing else; the reason is for
/// metrics and logs, and never holds content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// 400, 401, 403, 413 or 422.
    pub status: u16,
    /// A short fixed word for the metric's label: `bad_signature`, `stale`, `bad_padding`.
    pub reason: &'static str,
}

impl Refusal {
    /// A refusal with this status for this reason.
    #[must_use]
    pub const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}

/// A body with its status and type, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// MIME type.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A plain text answer.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: body.into().into_bytes() }
    }
}

/// A verified sender's content that could not be understood: kept, shown to staff, replayable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantine {
    /// Who vouches for it, as in [`Submission::source`].
    pub source: String,
    /// Its identity where one could be read; else a digest of the content.
    pub source_id: String,
    /// A short fixed word: `unknown_type`, `bad_xml`.
    pub reason: &'static str,
    /// The verified (decrypted) original.
    pub raw: Vec<u8>,
}

/// Renders the sender's answer once the gateway knows the outcome.
pub type Respond = Box<dyn FnOnce(&Outcome, DateTime<Utc>) -> Answer + Send>;

/// What a verified request means.
pub enum Verified {
    /// To be registered; `respond` is called after COMMIT.
    Submit {
        /// What the citizen said.
        submission: Box<Submission>,
        /// Renders the answer.
        respond: Respond,
    },
    /// Nothing to keep: an address check, an event that needs no ticket.
    Answer(Answer),
    /// To be kept for staff; the answer is sent once it is durable.
    Quarantine(Quarantine, Answer),
}

/// What the citizen may be told about a ticket: facts, not words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The register number as people write it: `BCS-2026-000123` (R7.1).
    pub number: String,
    /// When the gateway received it.
    pub received_at: DateTime<Utc>,
    /// When work starts: the next opening; `None` when it came in during a session (R5.2).
    pub follow_up_at: Option<DateTime<Utc>>,
    /// By when it is answered (R6).
    pub due_at: DateTime<Utc>,
    /// True when a date rests on a calendar that has not been announced; such a date is never
    /// told to a citizen as a fact (scheduling.md A4).
    pub provisional: bool,
    /// True when the form still needs the citizen's name or telephone (R7.2): to be asked for once.
    pub asks_contact: bool,
    /// The citizen's page of this ticket, where there is one.
    pub page: Option<String>,
    /// RD3.2: the words made it an emergency, of which the lead on duty is told at any hour.
    pub alarms: bool,
    /// Whether somebody is reached then: there are robots or mailboxes, not only the desk's pages.
    pub alarm_reaches: bool,
}

/// Where one of a citizen's matters stands: facts, not words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// As people write it.
    pub number: String,
    /// The ticket's state: `registered`, `accepted`, `in_progress`, `awaiting_citizen`, `resolved`,
    /// `evaluated` or `closed`.
    pub state: String,
    /// When it was registered.
    pub registered_at: DateTime<Utc>,
    /// By when it is answered.
    pub due_at: DateTime<Utc>,
    /// Whether that date may not be told.
    pub provisional: bool,
    /// Whether that date, or the one by which the citizen is to bring something, was past when it
    /// was asked.
    #[serde(default)]
    pub late: bool,
    /// What the citizen is asked for, and by when.
    pub missing: Option<(String, DateTime<Utc>)>,
    /// Whether something came since.
    #[serde(default)]
    pub came: bool,
    /// The citizen's page of it, where there is one.
    pub page: Option<String>,
}

/// What a citizen is answered when nothing was registered: facts, not words. Stored with the
/// submission's identity, so that a repeat is answered in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Nothing was stated: how to report.
    HowToReport,
    /// Has just begun to follow the account.
    Welcome,
    /// It is kept; in words, what is it about? Without them it is registered by itself then.
    WordsWanted {
        /// When it is registered without words.
        by_itself_at: DateTime<Utc>,
        /// It was asked before.
        again: bool,
    },
    /// It is kept; does it belong to the matter that was closed, or is it a new one?
    OldOrNew {
        /// The closed matter.
        number: String,
        /// Another one that is open: it may be about that one.
        #[serde(default)]
        open: Option<String>,
        /// When it is registered as a new one without an answer.
        by_itself_at: DateTime<Utc>,
        /// It was asked before.
        again: bool,
    },
    /// What comes next is added to this matter, unless they say that it is another one.
    AddOrNew {
        /// The one that is open.
        number: String,
    },
    /// What comes next is registered as another matter.
    NextIsNew {
        /// The one that is open.
        number: String,
    },
    /// Where the citizen's matters stand, the newest first; none when there are none.
    Progress(Vec<Standing>),
    /// How satisfied with the result?
    GradeWanted {
        /// Of which matter.
        number: String,
        /// Where to judge it with words.
        page: Option<String>,
    },
    /// R7.d: it was judged.
    Evaluated {
        /// Which matter.
        number: String,
        /// Whether the grade is one of the two bad ones.
        dissatisfied: bool,
    },
    /// There is no result to judge yet, or it has been judged.
    NothingToEvaluate {
        /// An open matter.
        number: Option<String>,
        /// It has been judged.
        done: bool,
    },
    /// It was struck off before it was judged.
    ClosedUnjudged {
        /// Which matter.
        number: String,
    },
    /// Really?
    ConfirmWithdrawal {
        /// Which matter.
        number: String,
    },
    /// It was withdrawn.
    Withdrawn {
        /// Which matter.
        number: String,
    },
    /// It was not withdrawn after all.
    NotWithdrawn {
        /// Which matter.
        number: String,
    },
    /// There is nothing open that could be withdrawn.
    NothingToWithdraw,
    /// What was registered by itself is about a closed matter: the handler was told.
    SameMatter {
        /// What was registered.
        number: String,
        /// The closed matter.
        of: String,
    },
    /// The platform brings no files: how to send one all the same.
    NoFiles {
        /// The open matter.
        number: Option<String>,
        /// Where it can be sent.
        page: Option<String>,
    },
    /// How to reach a person.
    Person {
        /// The open matter whose handler was told.
        number: Option<String>,
    },
    /// What can be done here.
    Help,
    /// The closed matter was taken up again, under its number.
    Reopened {
        /// Which.
        number: String,
        /// The new limit.
        due_at: DateTime<Utc>,
        /// Whether that date may not be told.
        provisional: bool,
    },
}

/// What a durable submission became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A new ticket.
    Registered,
    /// One more message on the citizen's open ticket.
    Appended,
    /// The same, while the ticket waits for something from the citizen: its limit stands still.
    AppendedWhileWaiting,
    /// The same, after the matter was answered: there is no date to promise any more.
    AppendedAfterAnswer,
    /// The same, and it gave the name or the telephone that the form needs (R7.2).
    AppendedContact,
}

/// Why nothing could be kept just now. The sender should try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// For the `Retry-After` header, in seconds.
    pub retry_after_s: u32,
}

/// What the gateway did with a submission. Only [`Outcome::Durable`], [`Outcome::Said`],
/// [`Outcome::Quarantined`] and [`Outcome::Spooled`] may be answered as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, now or by an earlier delivery of the same submission.
    Durable {
        /// New ticket or growth of one; for a repeat, what the first delivery did.
        kept: Kept,
        /// True when an earlier delivery made it; the answer's text must be the same as then.
        repeated: bool,
        /// The ticket's facts as told the first time.
        receipt: Receipt,
    },
    /// Answered without a ticket: what was said is kept, or asked for nothing to be kept.
    Said(Said),
    /// Committed to the quarantine, because the database would not take it as a ticket.
    Quarantined,
    /// Safely in the gateway's spool while the database is away: it has no number yet.
    Spooled {
        /// RD3.2: the words make it an emergency, and nobody can be told of it yet.
        alarms: bool,
    },
    /// Not kept.
    Busy(Busy),
}

/// A way in.
pub trait Channel: Send + Sync {
    /// Which channel this is.
    fn kind(&self) -> ChannelKind;

    /// The greatest body that is read, in bytes; more is refused with 413 before anything else.
    fn body_limit(&self) -> usize;

    /// Verifies, then parses. Must not block and must not panic on any input.
    ///
    /// # Errors
    /// [`Refusal`] for everything that is not provably from the configured sender.
    fn verify(&self, request: Request<'_>, now: DateTime<Utc>) -> Result<Verified, Refusal>;

    /// As [`Self::verify`], with what the request tells besides. A channel that hears nothing but
    /// submissions leaves it as it is.
    ///
    /// # Errors
    /// As [`Self::verify`].
    fn hear(
        &self,
        request: Request<'_>,
        now: DateTime<Utc>,
    ) -> Result<(Verified, Vec<Heard>), Refusal> {
        self.verify(request, now).map(|verified| (verified, Vec::new()))
    }

    /// Reads a quarantined original again, after the program has learned more; its signature was
    /// verified when it came.
    ///
    /// # Errors
    /// [`Refusal`] when it still cannot be understood.
    fn reread(&self, raw: &[u8], now: DateTime<Utc>) -> Result<Submission, Refusal>;
}
