//! The WeChat official account (公众号): verification, cryptography, messages, passive replies.
//!
//! Written against the platform's documentation as collected in wechat.md; section numbers in the
//! comments are its. No SDK: the known ones choose the mode by the request (and can be downgraded),
//! unpad wrongly, or fail on input that the platform really sends (§10, §11).
//!
//! * `crypto`: signatures, AES, keys (§2).
//! * `xml`: a strict reader of small documents (§10, pitfalls 1, 4, 6, 13).
//! * `message`: what arrives, as typed values (§3).
//! * `meaning`: what a message asks for: a statement, a greeting, a command (§10).
//! * `reply`: passive replies and their envelope (§2, §4).
//! * `channel`: the order of checks, and what each message means to the gateway.
//! * `words`: what the citizen reads.
//! * `heard`: what a callback tells besides, for the gateway (§3, §6).
//! * `receipt`: whether a message arrived, and which consents were given (§3, §6).
//! * `platform`: the platform's API: tokens, messages, media, menu (§5–§8).
//! * `sender`: the platform's side, for the `simulate` command, tests and measurements.

mod channel;
pub mod crypto;
mod heard;
mod meaning;
pub mod message;
pub mod platform;
mod query;
pub mod receipt;
pub mod reply;
pub mod sender;
mod words;
pub mod xml;

pub use channel::{Account, AccountError, Mode, WechatChannel, WordsNow};
pub use words::ServiceWords;
