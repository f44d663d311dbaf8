//! The one door for all channels.
//!
//! Submissions wait in a bounded queue. A writer takes whatever has gathered while the previous
//! commit was under way and commits it as one transaction; nobody waits for a batch to fill. So one
//! submission alone costs one commit, and a thousand at once cost a few, and each sender is
//! answered only after the COMMIT that holds its own (invariant 2).
//!
//! A full queue refuses at once: memory stays bounded, and the sender tries again. A submission that
//! the database refuses is found by falling back to one by one; it goes to the quarantine and its
//! neighbours go through.

mod batch;
mod builder;
mod conversation;
pub mod held;
mod incoming;
mod writer;

pub(crate) use incoming::first_words;

use self::incoming::Incoming;
use crate::{
    clock::Clock,
    domain::{id::OfficeId, register::RegisterNumber},
    offices::Offices,
    store::intake::{Made, Stood},
};
use chrono::{DateTime, Utc};
use intake_contract::{Busy, Kept, Outcome, Receipt, Said, Submission, SubmissionError};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How the intake works; see `intake` in config/default.toml.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Submissions that may wait.
    pub queue: usize,
    /// Transactions under way at a time.
    pub writers: usize,
    /// Submissions in one transaction at most.
    pub batch: usize,
    /// How long a sender waits for its answer. WeChat gives up after 5 s.
    pub answer_within: Duration,
    /// How long a growing ticket's handler is spared a second notice.
    pub quiet: Duration,
    /// How long what came without words waits for them before it is registered by itself.
    pub wait_for_words: Duration,
}

/// What became of a submission.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// It is in the register.
    Ticket {
        /// Its facts, as the sender is told them.
        made: Made,
        /// When it first came.
        received_at: DateTime<Utc>,
        /// An earlier delivery made it.
        repeated: bool,
        /// The repeat had another content than the first delivery, which was kept.
        differs: bool,
    },
    /// Kept until more is known, or a question, or a command: no ticket of its own.
    Said {
        /// What the sender is answered.
        said: Said,
        /// When it first came.
        received_at: DateTime<Utc>,
        /// An earlier delivery was answered so.
        repeated: bool,
        /// The repeat had another content than the first delivery, which was kept.
        differs: bool,
    },
    /// The database would not take it; staff will look at it.
    Quarantined,
}

/// Why a submission was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The queue is full, or the database is away: not kept, try again.
    #[error("busy")]
    Busy(Busy),
    /// It breaks a bound; not kept.
    #[error("not acceptable")]
    Invalid(#[source] SubmissionError),
    /// No such office.
    #[error("no such office")]
    NoOffice,
}

/// Wakes what waits for commits: the desk's live pages, the relay, the schedule.
pub type OnCommit = Arc<dyn Fn(&Committed) + Send + Sync>;

/// What a commit made, for those who want to know at once; all of it can be read again.
#[derive(Debug, Default)]
pub struct Committed {
    /// Offices that have something new.
    pub offices: Vec<OfficeId>,
    /// Timers that were armed: office, ticket, kind, generation, due.
    pub timers: Vec<crate::schedule::TimerKey>,
    /// Whether the relay has something to do now.
    pub effects: bool,
    /// Something that cannot wait (RD3.2).
    pub urgent: bool,
    /// Whether something came beside the words, to be fetched.
    pub attachments: bool,
}

impl Committed {
    fn add(&mut self, other: Self) {
        for office in other.offices {
            if !self.offices.contains(&office) {
                self.offices.push(office);
            }
        }
        self.timers.extend(other.timers);
        self.effects |= other.effects;
        self.urgent |= other.urgent;
    }
}

struct Waiting {
    incoming: Incoming,
    answer: oneshot::Sender<Result<Accepted, Busy>>,
}

/// The door.
pub struct Intake {
    queue: mpsc::Sender<Waiting>,
    closing: CancellationToken,
    offices: Arc<Offices>,
    clock: Clock,
    settings: Settings,
}

const RETRY_AFTER_S: u32 = 5;

impl Intake {
    /// Opens the door: starts the writers, each on a thread of its own, which `tasks` knows. They
    /// end after [`Self::close`], when everything that waits has been answered.
    ///
    /// # Errors
    /// When the system gives no more.
    pub fn open(
        pool: PgPool,
        offices: Arc<Offices>,
        clock: Clock,
        settings: Settings,
        on_commit: OnCommit,
        tasks: &TaskTracker,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::channel(settings.queue);
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        let closing = CancellationToken::new();
        for _ in 0..settings.writers.max(1) {
            let writer = writer::Writer {
                pool: pool.clone(),
                waiting: Arc::clone(&waiting),
                settings,
                on_commit: Arc::clone(&on_commit),
                closing: closing.clone(),
                own: None,
                careful: 0,
                known: batch::Known::default(),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // Not a blocking task: a runtime that is dropped without closing would wait for it.
            let token = tasks.token();
            std::thread::Builder::new().name("intake-writer".to_owned()).spawn(move || {
                writer.run_alone(runtime);
                drop(token);
            })?;
        }
        Ok(Self { queue, closing, offices, clock, settings })
    }

    /// Registers a submission, or appends it to the citizen's open ticket, or recognises a repeat;
    /// returns after COMMIT.
    ///
    /// # Errors
    /// [`AcceptError`]. After [`AcceptError::Busy`] it may have been kept all the same; the same
    /// submission again finds that out.
    pub async fn accept(
        &self,
        office: OfficeId,
        submission: Submission,
    ) -> Result<Accepted, AcceptError> {
        self.accept_at(office, submission, self.clock.now()).await
    }

    /// As [`Self::accept`], of what was received at that moment.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn accept_at(
        &self,
        office: OfficeId,
        submission: Submission,
        received_at: DateTime<Utc>,
    ) -> Result<Accepted, AcceptError> {
        let office = self.offices.get(office).ok_or(AcceptError::NoOffice)?;
        let submission = submission.normalise().map_err(AcceptError::Invalid)?;
        let busy = AcceptError::Busy(Busy { retry_after_s: RETRY_AFTER_S });
        let (answer, answered) = oneshot::channel();
        let channel = submission.channel.as_str();
        match self.queue.try_reserve() {
            Ok(place) if !self.closing.is_cancelled() => {
                let incoming = Incoming::new(office, submission, received_at);
                place.send(Waiting { incoming, answer });
            }
            _ => {
                metrics::counter!(crate::telemetry::SUBMISSIONS, "channel" => channel, "outcome" => "queue_full")
                    .increment(1);
                return Err(busy);
            }
        }
        match tokio::time::timeout(self.settings.answer_within, answered).await {
            Ok(Ok(Ok(accepted))) => {
                let outcome = match &accepted {
                    Accepted::Quarantined => "quarantined",
                    Accepted::Said { .. } => "conversed",
                    Accepted::Ticket { repeated: true, .. } => "repeated",
                    Accepted::Ticket { made, .. } if made.appended => "appended",
                    Accepted::Ticket { .. } => "registered",
                };
                metrics::counter!(crate::telemetry::SUBMISSIONS, "channel" => channel, "outcome" => outcome)
                    .increment(1);
                Ok(accepted)
            }
            Ok(Ok(Err(busy))) => {
                metrics::counter!(crate::telemetry::SUBMISSIONS, "channel" => channel, "outcome" => "unavailable")
                    .increment(1);
                Err(AcceptError::Busy(busy))
            }
            Ok(Err(_)) | Err(_) => {
                metrics::counter!(crate::telemetry::SUBMISSIONS, "channel" => channel, "outcome" => "timeout")
                    .increment(1);
                Err(busy)
            }
        }
    }

    /// Closes the door: what comes from now on is refused, what waits is committed and answered.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// How many submissions wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

impl Accepted {
    /// As adapters are told it.
    #[must_use]
    pub fn outcome(&self, prefix: &str) -> Outcome {
        match self {
            Self::Quarantined => Outcome::Quarantined,
            Self::Said { said, .. } => Outcome::Said(said.clone()),
            Self::Ticket { made, received_at, repeated, .. } => Outcome::Durable {
                kept: match (made.appended, made.stood) {
                    (false, _) => Kept::Registered,
                    (true, Stood::InHand) => Kept::Appended,
                    (true, Stood::ContactNoted) => Kept::AppendedContact,
                    (true, Stood::AwaitingCitizen) => Kept::AppendedWhileWaiting,
                    (true, Stood::Answered) => Kept::AppendedAfterAnswer,
                },
                repeated: *repeated,
                receipt: Receipt {
                    number: made.ticket.display(prefix),
                    received_at: *received_at,
                    follow_up_at: made.follow_up_at,
                    due_at: made.due_at,
                    provisional: made.provisional,
                    asks_contact: made.asks,
                    page: None,
                    alarms: false,
                    alarm_reaches: false,
                },
            },
        }
    }

    /// The ticket, where there is one.
    #[must_use]
    pub fn ticket(&self) -> Option<RegisterNumber> {
        match self {
            Self::Quarantined | Self::Said { .. } => None,
            Self::Ticket { made, .. } => Some(made.ticket),
        }
    }
}
