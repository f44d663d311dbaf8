//! Custom messages (客服消息): to who has written or tapped recently (§6.1).

use super::{Act, Change, Openid, Platform, PlatformError, Trouble, token::Unavailable};
use chrono::{DateTime, Utc};
use intake_contract::clean_text;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::fmt;

/// Of the five after a citizen's message so many are kept for questions that staff ask (§6.4):
/// what the program sends of its own accord passes this as `reserve`, staff's own words pass 0.
pub const RESERVED_FOR_STAFF: u8 = 2;

/// The platform's limit on a text, in bytes of UTF-8.
const TEXT_LIMIT: usize = 2048;

/// A custom message. `Debug` shows its kind only.
#[derive(Clone, PartialEq, Eq)]
pub enum CustomMessage {
    /// Words. Cut at 2,048 bytes.
    Text(String),
    /// A picture that was given with [`Platform::upload_image`].
    Image {
        /// Its id.
        media_id: String,
    },
    /// A question with options to tap; what is tapped comes back as a text with the option's id,
    /// for ever: the id must say for whom and what it is.
    Choice {
        /// Above the options.
        head: String,
        /// Id and words of each.
        options: Vec<(String, String)>,
    },
}

impl fmt::Debug for CustomMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(…)",
            Self::Image { .. } => "Image(…)",
            Self::Choice { .. } => "Choice(…)",
        })
    }
}

impl CustomMessage {
    fn json(&self, to: &Openid) -> Value {
        let to = to.as_str();
        match self {
            Self::Text(text) => json!({
                "touser": to,
                "msgtype": "text",
                "text": { "content": cut(&clean_text(text), TEXT_LIMIT) },
            }),
            Self::Image { media_id } => json!({
                "touser": to,
                "msgtype": "image",
                "image": { "media_id": media_id },
            }),
            Self::Choice { head, options } => {
                let list: Vec<Value> = options
                    .iter()
                    .map(|(id, words)| json!({ "id": id, "content": clean_text(words) }))
                    .collect();
                json!({
                    "touser": to,
                    "msgtype": "msgmenu",
                    "msgmenu": { "head_content": clean_text(head), "list": list, "tail_content": "" },
                })
            }
        }
    }
}

/// At most `limit` bytes, whole characters, with a mark where something is missing.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(limit - '…'.len_utf8());
    format!("{}…", &text[..end])
}

impl Platform {
    /// Notes what a verified callback means for what its sender may be sent.
    ///
    /// # Errors
    /// [`Trouble::Store`]: to be tried again.
    pub async fn note(
        &self,
        citizen: &Openid,
        change: Change,
        now: DateTime<Utc>,
    ) -> Result<(), PlatformError> {
        self.allowance(citizen, change, now).await.map(|_| ())
    }

    /// Sends a custom message, if the citizen's acts allow more than `reserve` of them. It has no
    /// identity: a repeat after an error that [`PlatformError::may_have_been_done`] may arrive
    /// twice.
    ///
    /// # Errors
    /// [`PlatformError`]; [`Trouble::OutsideWindow`] and [`Trouble::CountExhausted`] without a code
    /// were found here, and the platform was not asked.
    pub async fn send_custom(
        &self,
        to: &Openid,
        message: &CustomMessage,
        reserve: u8,
        now: DateTime<Utc>,
    ) -> Result<(), PlatformError> {
        const CALL: &str = "custom/send";
        let taken = self.allowance(to, Change::Take { reserve }, now).await?;
        let (_, Some(act)) = taken else {
            let open = taken.0.is_open(now);
            let trouble = if open { Trouble::CountExhausted } else { Trouble::OutsideWindow };
            return Err(PlatformError::new(CALL, trouble));
        };
        let sent: Result<IgnoredAny, _> =
            self.post(CALL, "/cgi-bin/message/custom/send", &message.json(to)).await;
        let Err(error) = sent else { return Ok(()) };
        let change = match error.trouble() {
            Trouble::OutsideWindow | Trouble::NotFollowing | Trouble::Openid => Change::Closed,
            Trouble::CountExhausted => Change::Exhausted,
            _ if error.may_have_been_done() => return Err(error),
            _ => Change::GiveBack(act),
        };
        // If the store is away now, one too many is counted: the safe side.
        let _ = self.allowance(to, change, now).await;
        Err(error)
    }

    async fn allowance(
        &self,
        citizen: &Openid,
        change: Change,
        now: DateTime<Utc>,
    ) -> Result<(super::Allowance, Option<Act>), PlatformError> {
        self.allowances
            .change(&self.app_id, citizen, change, now)
            .await
            .map_err(|Unavailable| PlatformError::new("allowance", Trouble::Store))
    }
}
