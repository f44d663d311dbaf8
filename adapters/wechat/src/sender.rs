//! The platform's side: builds callbacks as it sends them and opens the replies. For the
//! `simulate` command, tests and measurements; the gateway itself never uses it.

use crate::{
    crypto::{Key, signature, signature_fits},
    xml::Element,
};

/// Sends as the platform does for one account.
#[derive(Debug, Clone)]
pub struct Sender {
    token: String,
    key: Option<Key>,
    app_id: String,
    original_id: String,
}

/// A passive reply, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// To whom.
    pub to: String,
    /// Of which type.
    pub msg_type: String,
    /// Its words.
    pub content: String,
}

impl Sender {
    /// A sender with the account's settings; without a key it sends in plain mode.
    #[must_use]
    pub fn new(token: &str, key: Option<&str>, app_id: &str, original_id: &str) -> Self {
        Self {
            token: token.to_owned(),
            key: key.and_then(Key::parse),
            app_id: app_id.to_owned(),
            original_id: original_id.to_owned(),
        }
    }

    /// A message's document; `fields` are what its type adds, raw text each. `created_at` in
    /// seconds since 1970.
    #[must_use]
    pub fn message(
        &self,
        openid: &str,
        msg_type: &str,
        fields: &[(&str, &str)],
        msg_id: &str,
        created_at: i64,
    ) -> String {
        let mut xml = format!(
            "<xml><ToUserName><![CDATA[{}]]></ToUserName>\n<FromUserName><![CDATA[{openid}]]></FromUserName>\n<CreateTime>{created_at}</CreateTime>\n<MsgType><![CDATA[{msg_type}]]></MsgType>\n",
            self.original_id
        );
        for (name, text) in fields {
            let text = text.replace("]]>", "]]]]><![CDATA[>");
            xml.push_str(&format!("<{name}><![CDATA[{text}]]></{name}>\n"));
        }
        if !msg_id.is_empty() {
            xml.push_str(&format!("<MsgId>{msg_id}</MsgId>\n"));
        }
        xml.push_str("</xml>");
        xml
    }

    /// A text message's document.
    #[must_use]
    pub fn text(&self, openid: &str, content: &str, msg_id: &str, created_at: i64) -> String {
        self.message(openid, "text", &[("Content", content)], msg_id, created_at)
    }

    /// Query and body of a callback that carries this document. `timestamp` in seconds since 1970.
    #[must_use]
    pub fn callback(
        &self,
        xml: &str,
        timestamp: i64,
        nonce: &str,
        random: [u8; 16],
    ) -> (String, String) {
        let timestamp = timestamp.to_string();
        let plain = signature(&[&self.token, &timestamp, nonce]);
        let query = format!("signature={plain}&timestamp={timestamp}&nonce={nonce}");
        let Some(key) = &self.key else { return (query, xml.to_owned()) };
        let encrypted = key.encrypt(xml.as_bytes(), &self.app_id, random);
        let signed = signature(&[&self.token, &timestamp, nonce, &encrypted]);
        let body = format!(
            "<xml>\n    <ToUserName><![CDATA[{}]]></ToUserName>\n    <Encrypt><![CDATA[{encrypted}]]></Encrypt>\n</xml>\n",
            self.original_id
        );
        (format!("{query}&encrypt_type=aes&msg_signature={signed}"), body)
    }

    /// The query of an address check.
    #[must_use]
    pub fn address_check(&self, timestamp: i64, nonce: &str, echo: &str) -> String {
        let timestamp = timestamp.to_string();
        let signed = signature(&[&self.token, &timestamp, nonce]);
        format!("signature={signed}&echostr={echo}&timestamp={timestamp}&nonce={nonce}")
    }

    /// Verifies and opens a passive reply; `None` for `success`, an empty body, and anything that
    /// the platform would show as a fault.
    #[must_use]
    pub fn open(&self, body: &str) -> Option<Opened> {
        let outer = Element::parse(body).ok()?;
        let inner = match &self.key {
            None => outer,
            Some(key) => {
                let field = |name| outer.field(name).ok().filter(|text| !text.is_empty());
                let (encrypted, signed) = (field("Encrypt")?, field("MsgSignature")?);
                let (timestamp, nonce) = (field("TimeStamp")?, field("Nonce")?);
                let parts = [self.token.as_str(), &timestamp, &nonce, &encrypted];
                if !signature_fits(&signed, &parts) {
                    return None;
                }
                Element::parse(&key.decrypt(&encrypted, &self.app_id).ok()?).ok()?
            }
        };
        Some(Opened {
            to: inner.field("ToUserName").ok()?,
            msg_type: inner.field("MsgType").ok()?,
            content: inner.child("Content").ok()?.map(|c| c.text.clone()).unwrap_or_default(),
        })
    }
}
