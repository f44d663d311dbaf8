use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Where a submission came in (R5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// The WeChat official account.
    Wechat,
    /// The 12333 hotline: a recording.
    Hotline,
    /// The window's own telephone, entered by the officer who took the call.
    WindowPhone,
    /// The counter, entered by the officer who sat there.
    Counter,
}

impl ChannelKind {
    /// All channels, in the order in which pages list them.
    pub const ALL: [Self; 4] = [Self::Wechat, Self::Hotline, Self::WindowPhone, Self::Counter];

    /// The value in the API and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wechat => "wechat",
            Self::Hotline => "hotline",
            Self::WindowPhone => "window_phone",
            Self::Counter => "counter",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The name that people read.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Wechat => "微信",
            Self::Hotline => "热线录音",
            Self::WindowPhone => "窗口电话",
            Self::Counter => "现场窗口",
        }
    }
}

/// The person who reports, as far as the channel knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Citizen {
    /// As given; not verified.
    pub name: Option<String>,
    /// As given or as the exchange saw it; not normalised, not verified.
    pub phone: Option<String>,
}

/// What an attachment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentKind {
    /// A photo.
    Image,
    /// A spoken WeChat message or a voicemail.
    Voice,
    /// A video, short or long.
    Video,
    /// A place on the map.
    Location,
    /// A link to a page.
    Link,
    /// A document.
    File,
}

/// Something that came with the words; its content is fetched later, its reference is kept now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// What it is.
    pub kind: AttachmentKind,
    /// How the source names it: a media id, a file name, a URL, coordinates.
    pub reference: String,
    /// What a person can read about it: a place's name, a link's title, a recording's length.
    pub label: Option<String>,
}

/// What a submission asks for, as far as its form tells; what it becomes also depends on what the
/// citizen said before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meaning {
    /// States something: it registers, or grows an open ticket.
    #[default]
    Statement,
    /// A photo, a place, a link alone: kept until words come that say what it is about.
    Bare,
    /// A greeting, a sticker: opens nothing.
    Greeting,
    /// Asks for something other than to be registered.
    Command(Command),
}

impl Meaning {
    /// Whether it only asks, and is of no use unless it is answered now: it is not kept for later.
    #[must_use]
    pub fn is_for_now(&self) -> bool {
        use Command::{Evaluate, Help, Progress, Withdraw};
        matches!(self, Self::Command(Progress | Evaluate | Withdraw | Help))
    }
}

/// What a citizen can ask for by a whole text or by the menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// 新诉求: what comes next is another matter than the open one.
    NewMatter,
    /// 我要反映: I want to report something; which matter it is shows from what follows.
    Report,
    /// 进度: where do my matters stand.
    Progress,
    /// 评价: I want to judge the result (R7.d).
    Evaluate,
    /// 撤回: I no longer want this.
    Withdraw,
    /// 人工: I want to talk to a person.
    Person,
    /// 帮助: what can I do here.
    Help,
    /// A file was sent, of which the platform brings the name only.
    File,
    /// Came by the QR code of a counter or a township, named so; the account is new to them or not.
    Arrived {
        /// The code's scene.
        scene: String,
        /// Has just begun to follow.
        follows: bool,
    },
    /// An option of a question that was sent earlier was tapped; what the option was named.
    Choice(String),
}

/// One thing that a citizen said through one channel, verified and parsed, not yet registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Where it came in.
    pub channel: ChannelKind,
    /// Who vouches for it: `wechat:main`, `hotline:pbx1`, `counter:api`. Part of the identity.
    pub source: String,
    /// Its identity within the source: the same id again is the same submission (invariant 2).
    pub source_id: String,
    /// Submissions with the same thread belong to one citizen in this channel and grow one open
    /// ticket; `None` always opens a ticket of its own.
    pub thread: Option<String>,
    /// When the citizen acted, by the source's clock; `None` means on receipt.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Who, as far as known.
    pub citizen: Citizen,
    /// The words; may be empty where there are attachments, and in a command.
    pub text: String,
    /// What it asks for.
    #[serde(default)]
    pub meaning: Meaning,
    /// What came with the words.
    pub attachments: Vec<Attachment>,
    /// Marked as an emergency by hand (RD3.2); the office's word list may mark more.
    pub urgent: bool,
    /// The officer who took it, by login, where one did (R7.e).
    pub taken_by: Option<String>,
    /// The original as received and verified (decrypted), kept as evidence.
    #[serde(with = "raw_bytes")]
    pub raw: Bytes,
}

/// Upper bounds, checked before a submission enters the queue. In bytes of UTF-8.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of [`Submission::source`].
    pub source: usize,
    /// Of [`Submission::source_id`].
    pub source_id: usize,
    /// Of [`Submission::thread`].
    pub thread: usize,
    /// Of a name.
    pub name: usize,
    /// Of a telephone number with its extension.
    pub phone: usize,
    /// Of the words.
    pub text: usize,
    /// Number of attachments.
    pub attachments: usize,
    /// Of each attachment's reference and label.
    pub attachment: usize,
    /// Of the original.
    pub raw: usize,
}

/// The bounds in force.
pub const LIMITS: Limits = Limits {
    source: 64,
    source_id: 256,
    thread: 192,
    name: 120,
    phone: 64,
    text: 64 * 1024,
    attachments: 16,
    attachment: 2048,
    raw: 128 * 1024,
};

/// Which bound or rule a submission breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmissionError {
    /// Longer than [`LIMITS`] allows.
    #[error("{field} is longer than {limit}")]
    TooLong {
        /// The field's name.
        field: &'static str,
        /// The bound.
        limit: usize,
    },
    /// Empty where something is needed.
    #[error("{field} is empty")]
    Empty {
        /// The field's name.
        field: &'static str,
    },
}

impl Submission {
    /// Cleans every text of what PostgreSQL cannot hold and people cannot read, and checks the
    /// bounds. The original bytes stay as they are.
    ///
    /// # Errors
    /// Names the first field that breaks a bound, or that states nothing.
    pub fn normalise(mut self) -> Result<Self, SubmissionError> {
        self.text = clean_text(&self.text).trim().to_owned();
        for field in [&mut self.citizen.name, &mut self.citizen.phone] {
            *field = field
                .take()
                .map(|text| clean_text(&text).trim().to_owned())
                .filter(|text| !text.is_empty());
        }
        for attachment in &mut self.attachments {
            attachment.reference = clean_text(&attachment.reference);
            attachment.label = attachment.label.take().map(|label| clean_text(&label));
        }
        self.source = clean_text(&self.source);
        self.source_id = clean_text(&self.source_id);
        self.thread = self.thread.take().map(|thread| clean_text(&thread));

        let length = |text: &Option<String>| text.as_deref().map_or(0, str::len);
        let bounds = [
            ("source", self.source.len(), LIMITS.source),
            ("source_id", self.source_id.len(), LIMITS.source_id),
            ("thread", length(&self.thread), LIMITS.thread),
            ("citizen.name", length(&self.citizen.name), LIMITS.name),
            ("citizen.phone", length(&self.citizen.phone), LIMITS.phone),
            ("text", self.text.len(), LIMITS.text),
            ("attachments", self.attachments.len(), LIMITS.attachments),
            ("raw", self.raw.len(), LIMITS.raw),
        ];
        for (field, actual, limit) in bounds {
            if actual > limit {
                return Err(SubmissionError::TooLong { field, limit });
            }
        }
        let longest = self.attachments.iter().map(|a| a.reference.len().max(length(&a.label)));
        if longest.max().unwrap_or(0) > LIMITS.attachment {
            return Err(SubmissionError::TooLong { field: "attachment", limit: LIMITS.attachment });
        }
        for (field, text) in [("source", &self.source), ("source_id", &self.source_id)] {
            if text.is_empty() {
                return Err(SubmissionError::Empty { field });
            }
        }
        let says_something = matches!(self.meaning, Meaning::Command(_));
        if self.text.is_empty() && self.attachments.is_empty() && !says_something {
            return Err(SubmissionError::Empty { field: "text" });
        }
        Ok(self)
    }
}

/// Removes NUL and the other control characters except line feed and tab; `\r\n` becomes `\n`.
///
/// PostgreSQL's text refuses NUL, and WeChat has been seen to deliver raw C0 characters
/// (wechat.md §10, pitfall 1; security.md R28).
#[must_use]
pub fn clean_text(text: &str) -> String {
    // Almost all texts are clean already. In UTF-8 control characters are single bytes, or begin with
    // 0xC2.
    let suspicious = |b: u8| matches!(b, 0..=8 | 11..=31 | 0x7f | 0xc2);
    if !text.bytes().any(suspicious) {
        return text.to_owned();
    }
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

mod raw_bytes {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(raw: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_bytes(raw)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(input).map(Bytes::from)
    }
}
