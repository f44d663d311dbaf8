//! Passive replies: what a callback is answered with (§2, §4).

use crate::crypto::{Key, signature};
use intake_contract::clean_text;
use std::fmt::Write;

/// A reply's content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the platform names them")]
pub enum Reply {
    Text {
        content: String,
    },
    Image {
        media_id: String,
    },
    Voice {
        media_id: String,
    },
    Video {
        media_id: String,
        title: String,
        description: String,
    },
    Music {
        title: String,
        description: String,
        url: String,
        hq_url: String,
        thumb_media_id: String,
    },
    /// One article: more are not allowed in answer to a citizen's message.
    News {
        title: String,
        description: String,
        pic_url: String,
        url: String,
    },
    TransferCustomerService {
        account: Option<String>,
    },
}

/// Text as CDATA that cannot be left: `]]>` is split, control characters are gone. SDKs forget
/// this, and a citizen's words can then add elements to the reply.
fn cdata(text: &str) -> String {
    format!("<![CDATA[{}]]>", clean_text(text).replace("]]>", "]]]]><![CDATA[>"))
}

impl Reply {
    /// The reply's document, unencrypted. `created_at` in seconds since 1970.
    #[must_use]
    pub fn xml(&self, to: &str, from: &str, created_at: i64) -> String {
        let mut xml = format!(
            "<xml><ToUserName>{}</ToUserName>\n<FromUserName>{}</FromUserName>\n<CreateTime>{created_at}</CreateTime>\n",
            cdata(to),
            cdata(from)
        );
        let kind = match self {
            Self::Text { .. } => "text",
            Self::Image { .. } => "image",
            Self::Voice { .. } => "voice",
            Self::Video { .. } => "video",
            Self::Music { .. } => "music",
            Self::News { .. } => "news",
            Self::TransferCustomerService { .. } => "transfer_customer_service",
        };
        // Writing to a String does not fail.
        let mut put = |parts: &[(&str, &str)], holder: &str| {
            if !holder.is_empty() {
                let _ = write!(xml, "<{holder}>");
            }
            for (name, text) in parts {
                let _ = writeln!(xml, "<{name}>{}</{name}>", cdata(text));
            }
            if !holder.is_empty() {
                let _ = write!(xml, "</{holder}>");
            }
        };
        put(&[("MsgType", kind)], "");
        match self {
            Self::Text { content } => put(&[("Content", content)], ""),
            Self::Image { media_id } => put(&[("MediaId", media_id)], "Image"),
            Self::Voice { media_id } => put(&[("MediaId", media_id)], "Voice"),
            Self::Video { media_id, title, description } => put(
                &[("MediaId", media_id), ("Title", title), ("Description", description)],
                "Video",
            ),
            Self::Music { title, description, url, hq_url, thumb_media_id } => put(
                &[
                    ("Title", title),
                    ("Description", description),
                    ("MusicUrl", url),
                    ("HQMusicUrl", hq_url),
                    ("ThumbMediaId", thumb_media_id),
                ],
                "Music",
            ),
            Self::News { title, description, pic_url, url } => {
                xml.push_str("<ArticleCount>1</ArticleCount>\n<Articles><item>");
                for (name, text) in [
                    ("Title", title),
                    ("Description", description),
                    ("PicUrl", pic_url),
                    ("Url", url),
                ] {
                    let _ = writeln!(xml, "<{name}>{}</{name}>", cdata(text));
                }
                xml.push_str("</item></Articles>");
            }
            Self::TransferCustomerService { account: Some(account) } => {
                put(&[("KfAccount", account)], "TransInfo");
            }
            Self::TransferCustomerService { account: None } => {}
        }
        xml.push_str("</xml>");
        xml
    }
}

/// The encrypted envelope of a reply. `timestamp` in seconds since 1970; `key` is the one that
/// decrypted the callback.
#[must_use]
pub fn envelope(
    xml: &str,
    key: &Key,
    token: &str,
    app_id: &str,
    timestamp: &str,
    nonce: &str,
    random: [u8; 16],
) -> String {
    let encrypted = key.encrypt(xml.as_bytes(), app_id, random);
    let signature = signature(&[token, timestamp, nonce, &encrypted]);
    format!(
        "<xml>\n<Encrypt><![CDATA[{encrypted}]]></Encrypt>\n<MsgSignature><![CDATA[{signature}]]></MsgSignature>\n<TimeStamp>{timestamp}</TimeStamp>\n<Nonce>{}</Nonce>\n</xml>",
        cdata(nonce)
    )
}
