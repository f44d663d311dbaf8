use crate::{
    crypto::{Key, Keys, signature_fits},
    meaning,
    message::{Content, EventKind, Inbound, Message, MessageError},
    platform::Api,
    query,
    reply::{Reply, envelope},
    words::ServiceWords,
    xml::{Element, XmlError},
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use intake_contract::{
    Answer, Attachment, AttachmentKind, Channel, ChannelKind, Citizen, Heard, LIMITS, Meaning,
    Method, Outcome, Quarantine, Refusal, Request, Submission, Verified, clean_text,
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::sync::Arc;

/// How the platform is set to deliver. Ours to say: a request that comes in another mode is
/// refused, or it could be downgraded (§10, pitfall 2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// 安全模式: encrypted. The only one for real accounts.
    #[default]
    Safe,
    /// 兼容模式: the encrypted part is used, the plain one beside it ignored.
    Compatible,
    /// 明文模式: for test accounts; the signature does not cover the message.
    Plain,
}

fn window() -> i64 {
    600
}

/// An account's settings, from the platform's developer pages.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its name in the callback's address.
    pub id: String,
    /// AppID, `wx…`.
    pub app_id: String,
    /// 原始 ID, `gh_…`.
    pub original_id: String,
    /// The Token.
    pub token: SecretString,
    /// The Token before, while it is being changed.
    #[serde(default)]
    pub token_previous: Option<SecretString>,
    /// The EncodingAESKey, 43 characters; not needed in plain mode.
    #[serde(default)]
    pub encoding_aes_key: Option<SecretString>,
    /// The key before, while it is being changed.
    #[serde(default)]
    pub encoding_aes_key_previous: Option<SecretString>,
    /// How the platform delivers.
    #[serde(default)]
    pub mode: Mode,
    /// How far a callback's timestamp may be from now, in seconds.
    #[serde(default = "window")]
    pub timestamp_window_s: i64,
    /// The platform's API, for what is sent of the account's own accord.
    #[serde(default)]
    pub api: Option<Api>,
}

/// A setting is wrong; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {says}")]
pub struct AccountError {
    /// Which.
    pub key: &'static str,
    /// What is wrong with it.
    pub says: &'static str,
}

impl Account {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), AccountError> {
        let wrong = |key, says| Err(AccountError { key, says });
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.id.is_empty() || self.id.len() > 32 || !self.id.chars().all(plain) {
            return wrong("id", "must be 1 to 32 letters, digits, hyphens");
        }
        if !self.app_id.starts_with("wx") {
            return wrong("app_id", "must begin with wx");
        }
        if !self.original_id.starts_with("gh_") {
            return wrong("original_id", "must begin with gh_");
        }
        // The one before as well: an empty one would be a key that everybody knows.
        for (key, token) in
            [("token", Some(&self.token)), ("token_previous", self.token_previous.as_ref())]
        {
            let Some(token) = token.map(ExposeSecret::expose_secret) else { continue };
            if !(3..=32).contains(&token.len()) || !token.chars().all(plain) {
                return wrong(key, "must be 3 to 32 letters, digits or underscores");
            }
        }
        if self.mode != Mode::Plain && self.encoding_aes_key.is_none() {
            return wrong("encoding_aes_key", "is missing; copy it from the platform's settings");
        }
        for (key, secret) in [
            ("encoding_aes_key", &self.encoding_aes_key),
            ("encoding_aes_key_previous", &self.encoding_aes_key_previous),
        ] {
            if secret.as_ref().is_some_and(|s| Key::parse(s.expose_secret()).is_none()) {
                return wrong(key, "is not the 43 characters of a key");
            }
        }
        if !(30..=86_400).contains(&self.timestamp_window_s) {
            return wrong("timestamp_window_s", "must be 30 to 86400");
        }
        if let Some(api) = &self.api {
            api.check().map_err(|(key, says)| AccountError { key, says })?;
        }
        Ok(())
    }

    /// Whether it takes unencrypted messages.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.mode == Mode::Plain
    }
}

/// What the account says of the window, as it is at the moment: hours and telephone change.
pub type WordsNow = Arc<dyn Fn() -> Arc<ServiceWords> + Send + Sync>;

/// An official account as a way in.
pub struct WechatChannel {
    account: Account,
    keys: Option<Keys>,
    words: WordsNow,
}

/// How to answer: with which key and nonce, and to whom.
struct Correspondent {
    key: Option<Key>,
    token: String,
    app_id: String,
    nonce: String,
    citizen: String,
    original_id: String,
}

impl Correspondent {
    fn answer(&self, content: String, now: DateTime<Utc>) -> Answer {
        let content = within(content);
        let xml = Reply::Text { content }.xml(&self.citizen, &self.original_id, now.timestamp());
        let body = match &self.key {
            None => xml,
            Some(key) => {
                let timestamp = now.timestamp().to_string();
                let random = rand::random();
                envelope(&xml, key, &self.token, &self.app_id, &timestamp, &self.nonce, random)
            }
        };
        Answer { status: 200, content_type: "text/xml; charset=utf-8", body: body.into_bytes() }
    }
}

/// In bytes, as of a message that is sent later: of a longer answer the platform may show nothing.
const ANSWER_LIMIT: usize = 2048;

/// What is longer ends after a whole line or sentence, so that no link is torn.
fn within(content: String) -> String {
    const CUT: &str = "\n……（内容较长，其余请点菜单“查进度”，或来电询问）";
    if content.len() <= ANSWER_LIMIT {
        return content;
    }
    let head = &content[..content.floor_char_boundary(ANSWER_LIMIT - CUT.len())];
    let end = head
        .rfind(['\n', '。'])
        .map_or(head.len(), |at| at + head[at..].chars().next().map_or(0, char::len_utf8));
    format!("{}{CUT}", head[..end].trim_end())
}

const BODY_LIMIT: usize = 64 * 1024;
const FORBIDDEN: u16 = 403;

impl WechatChannel {
    /// A way in for this account. The settings have been checked; `words` are asked for with every
    /// message.
    ///
    /// # Errors
    /// As [`Account::check`].
    pub fn new(account: Account, words: WordsNow) -> Result<Self, AccountError> {
        account.check()?;
        let key = |secret: &Option<SecretString>| {
            secret.as_ref().and_then(|secret| Key::parse(secret.expose_secret()))
        };
        let keys = key(&account.encoding_aes_key)
            .map(|current| Keys { current, previous: key(&account.encoding_aes_key_previous) });
        Ok(Self { account, keys, words })
    }

    fn source(&self) -> String {
        format!("wechat:{}", self.account.id)
    }

    fn tokens(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.account.token)
            .chain(&self.account.token_previous)
            .map(ExposeSecret::expose_secret)
    }

    /// The token with which a signature over these parts fits.
    fn signed_with(&self, given: &str, parts: &[&str]) -> Option<&str> {
        self.tokens().find(|token| {
            let mut all = vec![*token];
            all.extend_from_slice(parts);
            signature_fits(given, &all)
        })
    }

    /// What is signed and old was overheard.
    fn check_time(&self, timestamp: &str, now: DateTime<Utc>) -> Result<(), Refusal> {
        let window = self.account.timestamp_window_s.unsigned_abs();
        let sent: Option<i64> = timestamp.parse().ok();
        match sent.filter(|sent| now.timestamp().abs_diff(*sent) <= window) {
            Some(_) => Ok(()),
            None => Err(Refusal::new(FORBIDDEN, "stale")),
        }
    }

    /// §1: the platform checks the address.
    fn check_address(&self, query: &str, now: DateTime<Utc>) -> Result<Verified, Refusal> {
        let refused = Refusal::new(FORBIDDEN, "bad_signature");
        let only = |name| query::only(query, name).ok_or(refused);
        let (given, timestamp, nonce) = (only("signature")?, only("timestamp")?, only("nonce")?);
        let echo = only("echostr")?;
        self.check_time(&timestamp, now)?;
        self.signed_with(&given, &[&timestamp, &nonce]).ok_or(refused)?;
        Ok(Verified::Answer(Answer::text(200, echo)))
    }

    /// §2: verifies, decrypts, and says how to answer.
    fn open(
        &self,
        request: Request<'_>,
        now: DateTime<Utc>,
    ) -> Result<(String, Correspondent), Refusal> {
        let refuse = |reason| Refusal::new(FORBIDDEN, reason);
        let only = |name| query::only(request.query, name);
        let missing = refuse("bad_signature");
        let (timestamp, nonce) = (only("timestamp").ok_or(missing)?, only("nonce").ok_or(missing)?);
        self.check_time(&timestamp, now)?;
        let correspondent = |key: Option<&Key>, token: &str| Correspondent {
            key: key.cloned(),
            token: token.to_owned(),
            app_id: self.account.app_id.clone(),
            nonce: nonce.clone(),
            citizen: String::new(),
            original_id: self.account.original_id.clone(),
        };
        let body =
            std::str::from_utf8(request.body).map_err(|_| Refusal::new(400, "bad_encoding"))?;

        if self.account.mode == Mode::Plain {
            let given = only("signature").ok_or(missing)?;
            let token = self.signed_with(&given, &[&timestamp, &nonce]).ok_or(missing)?;
            return Ok((body.to_owned(), correspondent(None, token)));
        }
        let Some(keys) = &self.keys else { return Err(refuse("encryption_required")) };
        if only("encrypt_type").as_deref() != Some("aes") {
            return Err(refuse("encryption_required"));
        }
        let given = only("msg_signature").ok_or(missing)?;
        let root = Element::parse(body).map_err(|_| Refusal::new(400, "bad_xml"))?;
        let encrypted = root.child("Encrypt").map_err(|_| Refusal::new(400, "bad_xml"))?;
        let encrypted = &encrypted.ok_or(refuse("encryption_required"))?.text;
        let token = self.signed_with(&given, &[&timestamp, &nonce, encrypted]).ok_or(missing)?;
        let (message, key) = keys
            .decrypt(encrypted, &self.account.app_id)
            .map_err(|error| refuse(error.reason()))?;
        Ok((message, correspondent(Some(key), token)))
    }

    fn understand(
        &self,
        xml: &str,
        mut to: Correspondent,
        now: DateTime<Utc>,
        heard: &mut Vec<Heard>,
    ) -> Result<Verified, Refusal> {
        let inbound = match Inbound::parse(xml) {
            Ok(inbound) => inbound,
            Err(MessageError::Xml(XmlError::Forbidden)) => {
                return Err(Refusal::new(400, "bad_xml"));
            }
            Err(MessageError::Xml(XmlError::Malformed)) => {
                return Ok(self.quarantined(digest(xml), "bad_xml", xml));
            }
            Err(MessageError::MissingField) => {
                return Ok(self.quarantined(digest(xml), "missing_field", xml));
            }
        };
        if inbound.to != self.account.original_id {
            return Err(Refusal::new(FORBIDDEN, "wrong_account"));
        }
        to.citizen = inbound.from.clone();
        heard.extend(inbound.heard(&self.source(), now));
        let success = || Ok(Verified::Answer(Answer::text(200, "success")));
        let says = |words: String| Ok(Verified::Answer(to.answer(words, now)));
        match &inbound.content {
            Content::Message { .. } => match self.submission(&inbound, xml) {
                Some(submission) => Ok(self.submit(submission, to)),
                // A message that says nothing: an empty text.
                None => says((self.words)().how_to_report()),
            },
            Content::Event(event) => match event.kind {
                EventKind::Click | EventKind::Subscribe { .. } | EventKind::Scan { .. } => {
                    match meaning::of_event(event) {
                        Some(command) => {
                            let meaning = Meaning::Command(command);
                            let (text, none) = (String::new(), Vec::new());
                            let submission = self.submission_of(&inbound, xml, meaning, text, none);
                            Ok(self.submit(submission, to))
                        }
                        None if matches!(event.kind, EventKind::Subscribe { .. }) => {
                            says((self.words)().welcome())
                        }
                        None => says((self.words)().how_to_report()),
                    }
                }
                EventKind::Unknown => {
                    Ok(self.quarantined(inbound.identity(), "unknown_event", xml))
                }
                _ => success(),
            },
            Content::Unknown { .. } => {
                // Somebody said something, and reads that a person will look at it.
                let kept = self.quarantined(inbound.identity(), "unknown_type", xml);
                Ok(match kept {
                    Verified::Quarantine(item, _) => {
                        Verified::Quarantine(item, to.answer((self.words)().kept_for_staff(), now))
                    }
                    other => other,
                })
            }
        }
    }

    fn submit(&self, submission: Submission, to: Correspondent) -> Verified {
        let words = (self.words)();
        let meaning = submission.meaning.clone();
        let respond = Box::new(move |outcome: &Outcome, now: DateTime<Utc>| match outcome {
            Outcome::Durable { kept, receipt, .. } => to.answer(words.receipt(*kept, receipt), now),
            Outcome::Said(said) => to.answer(words.said(said), now),
            Outcome::Quarantined => to.answer(words.kept_for_staff(), now),
            Outcome::Spooled { alarms } => to.answer(words.spooled(&meaning, *alarms), now),
            // The platform would only ask again, and the citizen read that the account is broken.
            Outcome::Busy(_) if meaning.is_for_now() => to.answer(words.ask_again(&meaning), now),
            Outcome::Busy(_) => Answer::text(503, ""),
        });
        Verified::Submit { submission: Box::new(submission), respond }
    }

    fn quarantined(&self, source_id: String, reason: &'static str, xml: &str) -> Verified {
        let item = Quarantine {
            source: self.source(),
            source_id: clean_text(&source_id).chars().take(LIMITS.source_id / 4).collect(),
            reason,
            raw: xml.as_bytes().to_vec(),
        };
        Verified::Quarantine(item, Answer::text(200, "success"))
    }

    /// What the citizen said; `None` when it states nothing.
    fn submission(&self, inbound: &Inbound, xml: &str) -> Option<Submission> {
        let Content::Message { message, .. } = &inbound.content else { return None };
        let one = |kind, reference: &str, label: Option<String>| {
            vec![Attachment {
                kind,
                reference: bounded(reference),
                label: label.map(|l| bounded(&l)),
            }]
        };
        let (text, attachments) = match message {
            Message::Text { content, .. } => (content.clone(), Vec::new()),
            Message::Image { media_id, .. } => {
                (String::new(), one(AttachmentKind::Image, media_id, None))
            }
            Message::Voice { media_id, media_id_16k, recognition, .. } => (
                recognition.clone().unwrap_or_default(),
                one(AttachmentKind::Voice, media_id_16k.as_ref().unwrap_or(media_id), None),
            ),
            Message::Video { media_id, .. } => {
                (String::new(), one(AttachmentKind::Video, media_id, None))
            }
            Message::Location { latitude, longitude, label, .. } => {
                let label = Some(label.clone()).filter(|label| !label.is_empty());
                let place = format!("{latitude},{longitude}");
                (String::new(), one(AttachmentKind::Location, &place, label))
            }
            Message::Link { title, description, url } => {
                let label = [title.as_str(), description].join(" ").trim().to_owned();
                (
                    String::new(),
                    one(AttachmentKind::Link, url, Some(label).filter(|label| !label.is_empty())),
                )
            }
            Message::File { .. } => (String::new(), Vec::new()),
        };
        let meaning = meaning::of(message);
        let says_nothing = clean_text(&text).trim().is_empty() && attachments.is_empty();
        if says_nothing && !matches!(meaning, Meaning::Command(_)) {
            return None;
        }
        Some(self.submission_of(inbound, xml, meaning, text, attachments))
    }

    fn submission_of(
        &self,
        inbound: &Inbound,
        xml: &str,
        meaning: Meaning,
        text: String,
        attachments: Vec<Attachment>,
    ) -> Submission {
        let source = self.source();
        Submission {
            channel: ChannelKind::Wechat,
            thread: Some(format!("{source}:{}", inbound.from)),
            source,
            source_id: inbound.identity(),
            occurred_at: inbound.created_at,
            citizen: Citizen::default(),
            text,
            meaning,
            attachments,
            urgent: false,
            taken_by: None,
            raw: Bytes::copy_from_slice(xml.as_bytes()),
        }
    }
}

fn bounded(text: &str) -> String {
    text[..text.floor_char_boundary(LIMITS.attachment)].to_owned()
}

/// An identity for what has none: a digest of the content.
fn digest(xml: &str) -> String {
    format!("sha1:{}", crate::crypto::signature(&[xml]))
}

impl Channel for WechatChannel {
    fn kind(&self) -> ChannelKind {
        ChannelKind::Wechat
    }

    fn body_limit(&self) -> usize {
        BODY_LIMIT
    }

    fn verify(&self, request: Request<'_>, now: DateTime<Utc>) -> Result<Verified, Refusal> {
        self.hear(request, now).map(|(verified, _)| verified)
    }

    fn hear(
        &self,
        request: Request<'_>,
        now: DateTime<Utc>,
    ) -> Result<(Verified, Vec<Heard>), Refusal> {
        let mut heard = Vec::new();
        if request.method == Method::Get {
            return Ok((self.check_address(request.query, now)?, heard));
        }
        if request.body.len() > BODY_LIMIT {
            return Err(Refusal::new(413, "too_large"));
        }
        let (xml, correspondent) = self.open(request, now)?;
        let verified = self.understand(&xml, correspondent, now, &mut heard)?;
        Ok((verified, heard))
    }

    fn reread(&self, raw: &[u8], _now: DateTime<Utc>) -> Result<Submission, Refusal> {
        let not_yet = Refusal::new(422, "not_understood");
        let xml = std::str::from_utf8(raw).map_err(|_| not_yet)?;
        let inbound = Inbound::parse(xml).map_err(|_| not_yet)?;
        self.submission(&inbound, xml).ok_or(not_yet)
    }
}
