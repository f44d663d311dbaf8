//! What arrives, as typed values (§3). What is not known is kept as it came.

use crate::xml::{Element, XmlError};
use chrono::{DateTime, Utc};

/// A decrypted callback.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// `ToUserName`: the account, `gh_…`.
    pub to: String,
    /// `FromUserName`: the citizen's openid.
    pub from: String,
    /// `CreateTime`: when the citizen acted, by the platform's clock.
    pub created_at: Option<DateTime<Utc>>,
    /// What it is.
    pub content: Content,
}

/// A message or an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Something that the citizen sent.
    Message {
        /// `MsgId`: 64 bits, kept as text.
        id: String,
        /// What.
        message: Message,
    },
    /// Something that happened.
    Event(Event),
    /// A type that this program does not know.
    Unknown {
        /// `MsgType`.
        msg_type: String,
        /// `MsgId`, where there is one.
        id: String,
    },
}

/// Something that the citizen sent.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as the platform names them")]
pub enum Message {
    /// `menu_id` is `bizmsgmenuid`: an option of a menu message was tapped.
    Text {
        content: String,
        menu_id: Option<String>,
    },
    Image {
        pic_url: String,
        media_id: String,
    },
    /// `media_id_16k` is the better one for recognition; the platform's own is retired.
    Voice {
        media_id: String,
        format: String,
        media_id_16k: Option<String>,
        recognition: Option<String>,
    },
    /// Long or short.
    Video {
        media_id: String,
        thumb_media_id: String,
        short: bool,
    },
    /// `Location_X` is the latitude, `Location_Y` the longitude; GCJ-02 in practice.
    Location {
        latitude: String,
        longitude: String,
        scale: String,
        label: String,
    },
    Link {
        title: String,
        description: String,
        url: String,
    },
    /// Arrives, and cannot be fetched: the platform has no interface for it.
    File {
        title: String,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `EventKey`: what it refers to.
    pub key: String,
    /// `MsgID` of receipts: capital D, 64 bits, kept as text.
    pub msg_id: String,
    /// Which.
    pub kind: EventKind,
    /// `Event` as it came.
    pub name: String,
}

/// The events of §3.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "named as the platform names them")]
pub enum EventKind {
    /// `scene` of the QR code that led here.
    Subscribe {
        scene: Option<String>,
        ticket: String,
    },
    Unsubscribe,
    Scan {
        ticket: String,
    },
    /// A position report, not a statement.
    Location {
        latitude: String,
        longitude: String,
        precision: String,
    },
    Click,
    View {
        menu_id: String,
    },
    ViewMiniProgram {
        menu_id: String,
    },
    /// With or without a waiting message.
    ScanCode {
        scan_type: String,
        result: String,
        waits: bool,
    },
    /// The pictures follow as messages of their own.
    Pictures {
        count: String,
        md5: Vec<String>,
    },
    LocationSelect {
        latitude: String,
        longitude: String,
        scale: String,
        label: String,
        poi: String,
    },
    TemplateSent {
        status: String,
    },
    MassSent {
        status: String,
    },
    /// Consents given or refused: template and status of each.
    SubscribeMessagePopup(Vec<Consent>),
    SubscribeMessageChange(Vec<Consent>),
    SubscribeMessageSent(Vec<Delivery>),
    /// `kf_create_session`, `kf_close_session`, `kf_switch_session`.
    CustomerService {
        account: String,
    },
    /// `user_info_modified`, `user_authorization_revoke`, `user_authorization_cancellation`.
    PrivacyChange {
        /// Whose: the sender is a service of the platform.
        openid: String,
    },
    Unknown,
}

/// One item of a consent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// `TemplateId`.
    pub template_id: String,
    /// `SubscribeStatusString`: `accept` or `reject`.
    pub status: String,
    /// `PopupScene`, where given.
    pub scene: String,
}

/// One item of a delivery event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `TemplateId`.
    pub template_id: String,
    /// `MsgID`.
    pub msg_id: String,
    /// `ErrorCode`: `0` is delivered.
    pub error_code: String,
    /// `ErrorStatus`.
    pub error_status: String,
}

/// Why a callback could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The document.
    #[error("bad_xml")]
    Xml(#[source] XmlError),
    /// A field that every callback has is missing.
    #[error("missing_field")]
    MissingField,
}

impl From<XmlError> for MessageError {
    fn from(error: XmlError) -> Self {
        Self::Xml(error)
    }
}

impl Inbound {
    /// Reads a decrypted callback.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn parse(xml: &str) -> Result<Self, MessageError> {
        let root = Element::parse(xml)?;
        let (to, from) = (root.field("ToUserName")?, root.field("FromUserName")?);
        let msg_type = root.field("MsgType")?;
        if to.is_empty() || from.is_empty() || msg_type.is_empty() {
            return Err(MessageError::MissingField);
        }
        // Nothing was written before 1970 or will be after 2106: no date can be reckoned with there.
        let created_at = root
            .field("CreateTime")?
            .parse::<u32>()
            .ok()
            .and_then(|seconds| DateTime::from_timestamp(seconds.into(), 0));
        let id = root.field("MsgId")?;
        let content = match (msg_type.as_str(), message(&msg_type, &root)?) {
            ("event", _) => Content::Event(event(&root)?),
            // A message without an id cannot be told from its repeat.
            (_, Some(_)) if id.is_empty() => return Err(MessageError::MissingField),
            (_, Some(message)) => Content::Message { id, message },
            (_, None) => Content::Unknown { msg_type, id },
        };
        Ok(Self { to, from, created_at, content })
    }

    /// Its identity (§4): the platform's documentation is too coarse, ids collide across citizens
    /// and events within a second. What grows with time comes first, so that the index of all
    /// identities grows at one end.
    #[must_use]
    pub fn identity(&self) -> String {
        let created = self.created_at.map_or(0, |at| at.timestamp());
        match &self.content {
            Content::Message { id, .. } => format!("{id}/{}", self.from),
            Content::Unknown { id, .. } if !id.is_empty() => format!("{id}/{}", self.from),
            Content::Unknown { msg_type, .. } => format!("{created}/{}/{msg_type}", self.from),
            Content::Event(Event { kind: EventKind::PrivacyChange { openid }, name, .. })
                if !openid.is_empty() =>
            {
                format!("{created}/{openid}/{name}")
            }
            Content::Event(event) => {
                format!("{created}/{}/{}/{}/{}", self.from, event.name, event.key, event.msg_id)
            }
        }
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn message(msg_type: &str, root: &Element) -> Result<Option<Message>, MessageError> {
    let field = |name| root.field(name);
    // Where the picture lies: without it nothing was said.
    let media = || {
        let id = field("MediaId")?;
        if id.is_empty() { Err(MessageError::MissingField) } else { Ok(id) }
    };
    Ok(Some(match msg_type {
        "text" => Message::Text {
            // Not trimmed: what the citizen wrote, as written.
            content: root.child("Content")?.map(|c| c.text.clone()).unwrap_or_default(),
            menu_id: some(field("bizmsgmenuid")?),
        },
        "image" => Message::Image { pic_url: field("PicUrl")?, media_id: media()? },
        "voice" => Message::Voice {
            media_id: media()?,
            format: field("Format")?,
            media_id_16k: some(field("MediaId16K")?),
            recognition: some(field("Recognition")?),
        },
        "video" | "shortvideo" => Message::Video {
            media_id: media()?,
            thumb_media_id: field("ThumbMediaId")?,
            short: msg_type == "shortvideo",
        },
        "location" => Message::Location {
            latitude: field("Location_X")?,
            longitude: field("Location_Y")?,
            scale: field("Scale")?,
            label: field("Label")?,
        },
        "link" => Message::Link {
            title: field("Title")?,
            description: field("Description")?,
            url: field("Url")?,
        },
        "file" => Message::File { title: field("Title")? },
        _ => return Ok(None),
    }))
}

fn event(root: &Element) -> Result<Event, XmlError> {
    let field = |name| root.field(name);
    let name = field("Event")?;
    let key = field("EventKey")?;
    let mut msg_id = field("MsgID")?;
    let inner = |holder: &str, name: &str| -> Result<String, XmlError> {
        root.child(holder)?.map_or_else(|| Ok(String::new()), |inner| inner.field(name))
    };
    let list = |holder: &str| -> Result<Vec<Element>, XmlError> {
        let children = root.child(holder)?.map(|inner| inner.children.clone()).unwrap_or_default();
        Ok(children.into_iter().filter(|child| child.name == "List").collect())
    };
    let consents = |holder: &str| -> Result<Vec<Consent>, XmlError> {
        list(holder)?
            .iter()
            .map(|item| {
                Ok(Consent {
                    template_id: item.field("TemplateId")?,
                    status: item.field("SubscribeStatusString")?,
                    scene: item.field("PopupScene")?,
                })
            })
            .collect()
    };
    let kind = match name.as_str() {
        "subscribe" => EventKind::Subscribe {
            scene: key.strip_prefix("qrscene_").map(str::to_owned),
            ticket: field("Ticket")?,
        },
        "unsubscribe" => EventKind::Unsubscribe,
        "SCAN" => EventKind::Scan { ticket: field("Ticket")? },
        "LOCATION" => EventKind::Location {
            latitude: field("Latitude")?,
            longitude: field("Longitude")?,
            precision: field("Precision")?,
        },
        "CLICK" => EventKind::Click,
        "VIEW" => EventKind::View { menu_id: field("MenuId")? },
        "view_miniprogram" => EventKind::ViewMiniProgram { menu_id: field("MenuId")? },
        "scancode_push" | "scancode_waitmsg" => EventKind::ScanCode {
            scan_type: inner("ScanCodeInfo", "ScanType")?,
            result: inner("ScanCodeInfo", "ScanResult")?,
            waits: name == "scancode_waitmsg",
        },
        "pic_sysphoto" | "pic_photo_or_album" | "pic_weixin" => {
            let info = root.child("SendPicsInfo")?;
            let pictures = info.map(|info| info.child("PicList")).transpose()?.flatten();
            let items = pictures.map(|list| list.children.as_slice()).unwrap_or_default();
            EventKind::Pictures {
                count: inner("SendPicsInfo", "Count")?,
                md5: items.iter().map(|item| item.field("PicMd5Sum")).collect::<Result<_, _>>()?,
            }
        }
        "location_select" => EventKind::LocationSelect {
            latitude: inner("SendLocationInfo", "Location_X")?,
            longitude: inner("SendLocationInfo", "Location_Y")?,
            scale: inner("SendLocationInfo", "Scale")?,
            label: inner("SendLocationInfo", "Label")?,
            poi: inner("SendLocationInfo", "Poiname")?,
        },
        "TEMPLATESENDJOBFINISH" => EventKind::TemplateSent { status: field("Status")? },
        "MASSSENDJOBFINISH" => EventKind::MassSent { status: field("Status")? },
        "subscribe_msg_popup_event" => {
            EventKind::SubscribeMessagePopup(consents("SubscribeMsgPopupEvent")?)
        }
        "subscribe_msg_change_event" => {
            EventKind::SubscribeMessageChange(consents("SubscribeMsgChangeEvent")?)
        }
        "subscribe_msg_sent_event" => {
            let sent = list("SubscribeMsgSentEvent")?
                .iter()
                .map(|item| {
                    Ok(Delivery {
                        template_id: item.field("TemplateId")?,
                        msg_id: item.field("MsgID")?,
                        error_code: item.field("ErrorCode")?,
                        error_status: item.field("ErrorStatus")?,
                    })
                })
                .collect::<Result<Vec<_>, XmlError>>()?;
            if msg_id.is_empty() {
                msg_id = sent.first().map(|one| one.msg_id.clone()).unwrap_or_default();
            }
            EventKind::SubscribeMessageSent(sent)
        }
        "kf_create_session" | "kf_close_session" | "kf_switch_session" => {
            EventKind::CustomerService { account: field("KfAccount")? }
        }
        "user_info_modified" | "user_authorization_revoke" | "user_authorization_cancellation" => {
            EventKind::PrivacyChange { openid: field("OpenID")? }
        }
        _ => EventKind::Unknown,
    };
    Ok(Event { key, msg_id, kind, name })
}
