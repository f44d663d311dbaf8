//! What an adapter may say to the gateway.
//!
//! A **channel** verifies a request from outside and turns it into a [`Submission`]; the gateway
//! makes it durable and hands back an [`Outcome`]; the channel renders that as the sender's answer.
//! A **notifier** carries a [`Notice`] to the staff. Adapters see neither the database nor the
//! clock: the time is an argument, in UTC, and what they know of the office comes in at construction.

mod channel;
#[cfg(feature = "conformance")]
pub mod conformance;
mod heard;
mod notice;
mod submission;

pub use channel::{
    Answer, Busy, Channel, Kept, Method, Outcome, Quarantine, Receipt, Refusal, Request, Respond,
    Said, Standing, Verified,
};
pub use heard::{ConsentChange, Correspondent, Delivery, Heard, News, Telling};
pub use notice::{Notice, Notifier, Recipient, SendError, SendFuture, Sent};
pub use submission::{
    Attachment, AttachmentKind, ChannelKind, Citizen, Command, LIMITS, Limits, Meaning, Submission,
    SubmissionError, clean_text,
};

/// China Standard Time, +08:00; no daylight saving since 1991 (scheduling.md A7).
#[must_use]
pub fn china() -> chrono::FixedOffset {
    const EAST_8_HOURS_S: i32 = 8 * 3600;
    match chrono::FixedOffset::east_opt(EAST_8_HOURS_S) {
        Some(offset) => offset,
        None => unreachable!(), // eight hours are within a day
    }
}
