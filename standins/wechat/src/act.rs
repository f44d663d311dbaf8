//! What citizens do, and the callbacks that come of it (§3).

use super::{
    Shared,
    deliver::{Answered, UNAVAILABLE, deliver},
    state::{Entry, Grant, How},
};
use bytes::Bytes;
use chrono::TimeDelta;
use std::fmt::Write;

/// Something that a citizen does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Writes.
    Text(String),
    /// Sends a photo; without bytes a sample.
    Photo(Option<Bytes>),
    /// Speaks: a second of silence in AMR.
    Voice,
    /// Speaks on a page, by the JS-SDK: nothing is delivered, and the file is fetched by
    /// `media/get/jssdk` alone.
    PageVoice,
    /// Sends a video; it has a place of its own, as at the platform.
    Video,
    /// Sends where they are.
    Location,
    /// Sends a link.
    Link,
    /// Sends a sticker, which the platform does not deliver as what it is.
    Sticker,
    /// Taps the menu's entry with this key.
    Menu(String),
    /// Taps the menu's entry that opens this page.
    View(String),
    /// Taps an option of a menu message: id and words.
    Choose(String, String),
    /// Begins to follow, perhaps by the QR code of this scene.
    Follow(Option<String>),
    /// Stops.
    Unfollow,
    /// Scans the QR code of this scene.
    Scan(String),
    /// Is asked for a consent to this template: given or not.
    Consent(String, Consent),
    /// Refuses template messages from now on, or no longer.
    Block(bool),
}

/// An answer to the question for a consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// 允许.
    Give,
    /// 取消.
    Decline,
    /// Taken back in the settings.
    Revoke,
}

pub(crate) const PHOTO: &[u8] = include_bytes!("../assets/photo.png");

/// A second of silence: fifty frames without data.
fn silence(magic: &str) -> Bytes {
    let mut bytes = magic.as_bytes().to_vec();
    bytes.resize(magic.len() + 50, 0x7c);
    bytes.into()
}

fn element(name: &str, text: &str) -> String {
    format!("<{name}><![CDATA[{}]]></{name}>", text.replace("]]>", "]]]]><![CDATA[>"))
}

/// What is delivered of an act.
struct Delivery {
    /// `MsgType`.
    msg_type: &'static str,
    /// The elements that the type adds.
    fields: String,
    /// Whether it has a `MsgId`.
    message: bool,
}

impl Delivery {
    fn message(msg_type: &'static str, fields: &[(&str, &str)]) -> Self {
        let fields = fields.iter().map(|(name, text)| element(name, text)).collect();
        Self { msg_type, fields, message: true }
    }

    fn event(event: &str, fields: &[(&str, &str)]) -> Self {
        let mut all = element("Event", event);
        all.extend(fields.iter().map(|(name, text)| element(name, text)));
        Self { msg_type: "event", fields: all, message: false }
    }
}

pub(crate) fn document(
    shared: &Shared,
    openid: &str,
    msg_type: &str,
    fields: &str,
    id: Option<u64>,
) -> String {
    let mut xml = format!(
        "<xml>{}{}<CreateTime>{}</CreateTime>{}{fields}",
        element("ToUserName", &shared.settings.original_id),
        element("FromUserName", openid),
        shared.now().timestamp(),
        element("MsgType", msg_type),
    );
    if let Some(id) = id {
        let _ = write!(xml, "<MsgId>{id}</MsgId>");
    }
    xml + "</xml>"
}

/// An event that answers nobody: a receipt, a consent.
pub(crate) async fn report(shared: &Shared, openid: &str, event: &str, fields: &str) {
    let fields = element("Event", event) + fields;
    let xml = document(shared, openid, "event", &fields, None);
    deliver(shared, openid, &xml).await;
}

pub(crate) async fn act(shared: &Shared, openid: &str, act: Act) {
    let Some((delivery, shows)) = prepare(shared, openid, &act) else { return };
    let id = delivery.message.then(|| shared.state().id());
    let xml = document(shared, openid, delivery.msg_type, &delivery.fields, id);
    let answered = deliver(shared, openid, &xml).await;
    let now = shared.now();
    let entry = match answered {
        Answered::Silently => return,
        Answered::With(reply) => {
            let text = match reply.msg_type.as_str() {
                "text" => reply.content,
                other => format!("[{other}]"),
            };
            Entry::new(now, How::Passive, text)
        }
        Answered::Wrongly { why } if shows => {
            Entry::new(now, How::System, format!("{UNAVAILABLE}（{why}）"))
        }
        Answered::Wrongly { .. } => return,
    };
    if let Some(citizen) = shared.state().citizen(openid) {
        citizen.talk.push(entry);
    }
}

/// Notes what the citizen did; returns what is delivered, and whether a fault is shown to them.
fn prepare(shared: &Shared, openid: &str, act: &Act) -> Option<(Delivery, bool)> {
    let now = shared.now();
    let mut state = shared.state();
    state.citizen(openid)?;
    let mut picture = None;
    let (delivery, how, says) = match act {
        Act::Text(text) => {
            (Delivery::message("text", &[("Content", text)]), How::Said, text.clone())
        }
        Act::Photo(bytes) => {
            let bytes = bytes.clone().unwrap_or_else(|| Bytes::from_static(PHOTO));
            let (mime, name) = match bytes.first() {
                Some(0x89) => ("image/png", "photo.png"),
                _ => ("image/jpeg", "photo.jpg"),
            };
            let id = state.keep(mime, name, bytes, now);
            let fields = [("PicUrl", format!("{}/file/{id}", shared.url)), ("MediaId", id.clone())];
            let fields: Vec<(&str, &str)> = fields.iter().map(|(n, t)| (*n, t.as_str())).collect();
            let delivery = Delivery::message("image", &fields);
            picture = Some(id);
            (delivery, How::Said, "[图片]".to_owned())
        }
        Act::Voice => {
            let id = state.keep("voice/amr", "voice.amr", silence("#!AMR\n"), now);
            let wide = state.keep("voice/amr", "voice.amr", silence("#!AMR-WB\n"), now);
            let fields = [("MediaId", id.as_str()), ("Format", "amr"), ("MediaId16K", &wide)];
            (Delivery::message("voice", &fields), How::Said, "[语音 1″]".to_owned())
        }
        Act::PageVoice => {
            state.page_voice =
                Some(state.keep("voice/speex", "voice.speex", silence("speex"), now));
            return None;
        }
        Act::Video => {
            let bytes = Bytes::from_static(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom");
            let id = state.keep("video/mp4", "video.mp4", bytes, now);
            let thumb = state.keep("image/png", "thumb.png", Bytes::from_static(PHOTO), now);
            let fields = [("MediaId", id.as_str()), ("ThumbMediaId", &thumb)];
            (Delivery::message("video", &fields), How::Said, "[视频]".to_owned())
        }
        Act::Location => {
            let fields = [
                ("Location_X", "42.286129"),
                ("Location_Y", "123.844024"),
                ("Scale", "15"),
                ("Label", "辽宁省铁岭市银州区文化街 8 号"),
            ];
            let says = "[位置] 辽宁省铁岭市银州区文化街 8 号".to_owned();
            (Delivery::message("location", &fields), How::Said, says)
        }
        Act::Link => {
            let fields = [
                ("Title", "社保卡补办须知"),
                ("Description", "需要带什么材料"),
                ("Url", "https://mp.weixin.qq.com/s/stand-in"),
            ];
            (Delivery::message("link", &fields), How::Said, "[链接] 社保卡补办须知".to_owned())
        }
        // Seen in practice, not documented: what cannot be delivered comes as this text.
        Act::Sticker => {
            let text = "【收到不支持的消息类型，暂无法显示】";
            (Delivery::message("text", &[("Content", text)]), How::Said, "[表情]".to_owned())
        }
        Act::Menu(key) => {
            let name = crate::page::menu_name(&state.menu, key).unwrap_or_else(|| key.clone());
            let delivery = Delivery::event("CLICK", &[("EventKey", key)]);
            (delivery, How::Did, format!("点了菜单“{name}”"))
        }
        Act::View(url) => {
            let delivery = Delivery::event("VIEW", &[("EventKey", url), ("MenuId", "1")]);
            (delivery, How::Did, "点菜单打开了网页".to_owned())
        }
        Act::Choose(id, words) => {
            let fields = [("Content", words.as_str()), ("bizmsgmenuid", id)];
            (Delivery::message("text", &fields), How::Said, words.clone())
        }
        Act::Follow(scene) => {
            let key = scene.as_ref().map(|scene| format!("qrscene_{scene}")).unwrap_or_default();
            let ticket = if key.is_empty() { "" } else { "stand-in" };
            let delivery = Delivery::event("subscribe", &[("EventKey", &key), ("Ticket", ticket)]);
            (delivery, How::Did, "关注了公众号".to_owned())
        }
        Act::Unfollow => {
            let delivery = Delivery::event("unsubscribe", &[("EventKey", "")]);
            (delivery, How::Did, "取消了关注".to_owned())
        }
        Act::Scan(scene) => {
            let delivery = Delivery::event("SCAN", &[("EventKey", scene), ("Ticket", "stand-in")]);
            (delivery, How::Did, format!("扫了二维码“{scene}”"))
        }
        Act::Consent(template, consent) => {
            let delivery = consented(template, *consent);
            let says = match consent {
                Consent::Give => "同意接收订阅通知",
                Consent::Decline => "不同意接收订阅通知",
                Consent::Revoke => "在设置里关掉了订阅通知",
            };
            (delivery, How::Did, says.to_owned())
        }
        Act::Block(blocks) => {
            state.citizen(openid)?.blocks = *blocks;
            return None;
        }
    };
    let citizen = state.citizen(openid)?;
    let by_message = Some(Grant { until: now + TimeDelta::hours(48), left: 5 });
    let by_tap = Some(Grant { until: now + TimeDelta::minutes(1), left: 3 });
    match act {
        Act::Menu(_) | Act::Scan(_) | Act::Choose(..) => citizen.by_tap = by_tap,
        Act::Follow(_) => {
            citizen.follows = true;
            citizen.by_tap = by_tap;
        }
        Act::Unfollow => {
            citizen.follows = false;
            citizen.by_message = None;
            citizen.by_tap = None;
            citizen.consents.clear();
        }
        Act::View(_) => {}
        Act::Consent(template, consent) => {
            let left = citizen.consents.entry(template.clone()).or_default();
            match consent {
                Consent::Give => *left += 1,
                Consent::Decline => {}
                Consent::Revoke => *left = 0,
            }
        }
        _ => citizen.by_message = by_message,
    }
    let entry = Entry { picture, ..Entry::new(now, how, says) };
    citizen.talk.push(entry);
    let shows = !matches!(act, Act::View(_) | Act::Unfollow | Act::Consent(..));
    Some((delivery, shows))
}

fn consented(template: &str, consent: Consent) -> Delivery {
    let item = |status: &str, more: &str| {
        format!(
            "<List>{}{}{more}</List>",
            element("TemplateId", template),
            element("SubscribeStatusString", status)
        )
    };
    let scene = element("PopupScene", "2");
    let (event, holder, list) = match consent {
        Consent::Give => {
            ("subscribe_msg_popup_event", "SubscribeMsgPopupEvent", item("accept", &scene))
        }
        Consent::Decline => {
            ("subscribe_msg_popup_event", "SubscribeMsgPopupEvent", item("reject", &scene))
        }
        Consent::Revoke => {
            ("subscribe_msg_change_event", "SubscribeMsgChangeEvent", item("reject", ""))
        }
    };
    let mut delivery = Delivery::event(event, &[]);
    let _ = write!(delivery.fields, "<{holder}>{list}</{holder}>");
    delivery
}

/// The receipt of a template message.
pub(crate) fn template_receipt(msg_id: u64, status: &str) -> String {
    format!("<MsgID>{msg_id}</MsgID>{}", element("Status", status))
}

/// The receipt of a subscription notice.
pub(crate) fn notice_receipt(msg_id: u64, template: &str, code: i64, status: &str) -> String {
    format!(
        "<SubscribeMsgSentEvent><List>{}{}{}{}</List></SubscribeMsgSentEvent>",
        element("TemplateId", template),
        element("MsgID", &msg_id.to_string()),
        element("ErrorCode", &code.to_string()),
        element("ErrorStatus", status)
    )
}
