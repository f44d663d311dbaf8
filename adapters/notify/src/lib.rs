//! Notices to the staff: group robots of WeCom, DingTalk and Feishu, e-mail, a signed webhook; and
//! text messages to citizens by a gateway of the office's.
//!
//! Each way makes one attempt when asked and says whether another one may help; retries, back-off
//! and dead letters are the relay's. What the other side answers is bounded, never followed
//! elsewhere (DingTalk is said to answer floods with a redirect: security.md §0, 13), and never quoted
//! in an error. Notices are plain text, kept literal.

mod http;
mod robots;
mod sms;
mod smtp;
mod target;
mod webhook;

pub use sms::{Sms, SmsGateway, is_mobile, mobile};
pub use target::{Target, TargetError, notifier};
pub use webhook::signature as webhook_signature;
