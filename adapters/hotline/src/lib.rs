//! The telephone: calls and voicemail, as exchanges and vendors tell of them (hotline.md).
//!
//! Two ways in. The signed webhook (§2a, [`HotlineChannel`]) describes one voicemail, and may bring it
//! along ([`parts`]). Everything else
//! speaks its own language: FreeSWITCH's call records, Asterisk's spool and call records, Twilio's
//! callbacks, and the pushes of vendors, which are described by mappings (`config/hotline/*.toml`).
//! Each comes to the same form, the [`CallEvent`]; its parts arrive in any order and any number of
//! times and make one call. A [`PushSource`] verifies a request, reads it and knows the answer that
//! its sender expects.
//!
//! Verification works on the raw bytes and comes before any parsing. Everything here is pure: no
//! network, no file, no clock. A place of a recording is a claim of its source; whoever fetches it
//! holds it against the configured roots and hosts first.

pub mod asterisk;
mod call;
mod channel;
mod event;
pub mod freeswitch;
mod json;
mod mapping;
mod parts;
mod phone;
mod pull;
pub mod sender;
mod signature;
mod source;
mod text;
mod time;
pub mod twilio;
mod verify;

pub use call::{AudioRef, CallEvent, Kind, OtherCall, Outcome, Recording, SHORTEST_MS, Unread};
pub use channel::{HotlineChannel, Key, Source, SourceError};
pub use event::{Voicemail, VoicemailError, recording_key};
pub use mapping::{Mapping, MappingError, SHIPPED, Told};
pub use parts::{Parts, boundary, parts};
pub use phone::{Caller, Number, Numbering, Rewrite};
pub use pull::{Ask, Page, Pull, PullAuth};
pub use source::{Format, PushSource, Received};
pub use text::BODY_LIMIT;
pub use time::{TimeFormat, Unit, Zone};
pub use verify::{Auth, Encoding, HashKind, Verify};
