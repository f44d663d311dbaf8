//! The telephone: metadata of voicemails, pushed as a signed JSON webhook (hotline.md §2a).
//!
//! The sender signs `"<timestamp>." + raw body` with HMAC-SHA256. Several signatures may stand in
//! one header while a secret is being changed. Verification works on the raw bytes and comes before
//! any parsing; a repeat within the time window is recognised by the recording's identity and is
//! answered with what the first delivery made.

mod channel;
mod event;
pub mod sender;
mod signature;

pub use channel::{HotlineChannel, Key, Source, SourceError};
pub use event::{Voicemail, VoicemailError};
