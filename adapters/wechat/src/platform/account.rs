//! The account's menu, QR codes for counters and townships, and who opened a page (§8).

use super::{
    Openid, Platform, PlatformError, Trouble,
    http::{Url, below},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::json;

/// An entry of the menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Button {
    /// Tells the gateway that it was tapped.
    Click {
        /// What is read.
        name: String,
        /// What comes as `EventKey`.
        key: String,
    },
    /// Opens a page.
    View {
        /// What is read.
        name: String,
        /// Where.
        url: String,
    },
    /// Opens further entries.
    #[serde(untagged)]
    Group {
        /// What is read.
        name: String,
        /// One to five; no groups among them.
        #[serde(rename = "sub_button")]
        buttons: Vec<Button>,
    },
}

/// The account's menu.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Menu {
    /// One to three.
    #[serde(rename = "button")]
    pub buttons: Vec<Button>,
}

/// A menu that the platform would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the menu's entry {name} {says}")]
pub struct MenuError {
    /// The entry; empty for the menu as a whole.
    pub name: String,
    /// What is wrong.
    pub says: &'static str,
}

impl Menu {
    /// Checks the platform's limits, in bytes of UTF-8.
    ///
    /// # Errors
    /// The first entry that breaks one.
    pub fn check(&self) -> Result<(), MenuError> {
        if !(1..=3).contains(&self.buttons.len()) {
            return Err(MenuError { name: String::new(), says: "must be one of one to three" });
        }
        self.buttons.iter().try_for_each(|button| button.check(16, true))
    }
}

impl Button {
    fn check(&self, longest_name: usize, top: bool) -> Result<(), MenuError> {
        let (Self::Click { name, .. } | Self::View { name, .. } | Self::Group { name, .. }) = self;
        let wrong = |says| Err(MenuError { name: name.clone(), says });
        if name.is_empty() || name.len() > longest_name {
            return wrong(if top {
                "must have a name of 1 to 16 bytes"
            } else {
                "must have a name of 1 to 60 bytes"
            });
        }
        match self {
            Self::Click { key, .. } if key.is_empty() || key.len() > 128 => {
                wrong("must have a key of 1 to 128 bytes")
            }
            Self::View { url, .. } if url.len() > 1024 || Url::parse(url).is_err() => {
                wrong("must have an address of at most 1024 bytes")
            }
            Self::Group { .. } if !top => wrong("is a group inside a group"),
            Self::Group { buttons, .. } if !(1..=5).contains(&buttons.len()) => {
                wrong("must hold one to five")
            }
            Self::Group { buttons, .. } => {
                buttons.iter().try_for_each(|button| button.check(60, false))
            }
            _ => Ok(()),
        }
    }
}

/// How long a QR code is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QrLife {
    /// For so many days, 30 at most.
    Days(u8),
    /// For ever; an account has 100,000 of these and cannot take one back.
    Permanent,
}

/// A QR code that leads to the account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct QrCode {
    /// By which the platform draws the picture: `showqrcode?ticket=…`.
    pub ticket: String,
    /// What the picture says, for who draws it.
    pub url: String,
}

impl Platform {
    /// Puts the account's menu in place of the one before. Citizens' telephones show it within
    /// minutes. The caller has checked it.
    ///
    /// # Errors
    /// [`PlatformError`].
    pub async fn create_menu(&self, menu: &Menu) -> Result<(), PlatformError> {
        let done: Result<IgnoredAny, _> =
            self.post("menu/create", "/cgi-bin/menu/create", menu).await;
        done.map(|_| ())
    }

    /// A QR code whose scan names `scene`: the counter or township where it hangs. 1 to 64
    /// characters.
    ///
    /// # Errors
    /// [`Trouble::Malformed`] without a code for a scene or a life that the platform does not take.
    pub async fn qr_code(&self, scene: &str, life: QrLife) -> Result<QrCode, PlatformError> {
        const CALL: &str = "qrcode/create";
        if scene.is_empty() || scene.len() > 64 || matches!(life, QrLife::Days(0 | 31..)) {
            return Err(PlatformError::new(CALL, Trouble::Malformed));
        }
        let action_info = json!({ "scene": { "scene_str": scene } });
        let body = match life {
            QrLife::Permanent => {
                json!({ "action_name": "QR_LIMIT_STR_SCENE", "action_info": action_info })
            }
            QrLife::Days(days) => json!({
                "action_name": "QR_STR_SCENE",
                "expire_seconds": u32::from(days) * 86_400,
                "action_info": action_info,
            }),
        };
        self.post(CALL, "/cgi-bin/qrcode/create", &body).await
    }

    /// Where a citizen's browser is sent so that it comes back to `redirect` with a code and this
    /// `state`, without a question (`snsapi_base`). `redirect` lies under the account's 网页授权域名;
    /// `state` is at most 128 letters and digits, and the caller compares it.
    #[must_use]
    pub fn visit_url(&self, redirect: &str, state: &str) -> String {
        let query = [
            ("appid", self.app_id.as_str()),
            ("redirect_uri", redirect),
            ("response_type", "code"),
            ("scope", "snsapi_base"),
            ("state", state),
        ];
        let mut url = below(&self.open, "/connect/oauth2/authorize", &query);
        url.set_fragment(Some("wechat_redirect"));
        url.into()
    }

    /// Who came back with this code: the same id as a message's sender. A code is good once and for
    /// five minutes; a page that is loaded twice brings it twice, and the second one fails.
    ///
    /// # Errors
    /// [`Trouble::Code`], [`Trouble::SnapshotUser`], or what any call may meet.
    pub async fn visitor(&self, code: &str) -> Result<Openid, PlatformError> {
        const CALL: &str = "oauth2/access_token";
        #[derive(Deserialize)]
        struct Visitor {
            openid: String,
            #[serde(default)]
            is_snapshotuser: u8,
        }
        let query = [
            ("appid", self.app_id.as_str()),
            ("secret", self.secret.expose_secret()),
            ("code", code),
            ("grant_type", "authorization_code"),
        ];
        let request = self.http.get(self.url("/sns/oauth2/access_token", &query));
        let visitor: Visitor = self.http.json(CALL, request, self.within).await?;
        if visitor.is_snapshotuser == 1 {
            return Err(PlatformError::new(CALL, Trouble::SnapshotUser));
        }
        Ok(Openid::new(visitor.openid))
    }
}
