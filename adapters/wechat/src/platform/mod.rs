//! The platform's API: what the gateway asks of WeChat (§5–§8).
//!
//! Every call has a time limit, follows no redirect and reads a bounded answer. Failures come back
//! as a [`PlatformError`] that says whether another try makes sense, and when. Tokens, secrets,
//! openids and words are in no error and in no `Debug`: the platform wants the token in the URL, and
//! HTTP libraries quote URLs.
//!
//! * `http`: one bounded request; errors that come with HTTP 200.
//! * `error`: the platform's codes, and what follows from each.
//! * `token`: one access token for all replicas.
//! * `allowance`: how many custom messages a citizen may still be sent, counted here.
//! * `custom`, `template`: what is sent to a citizen; `templates`: which template tells what.
//! * `media`: what citizens sent, fetched; pictures, given.
//! * `account`: the menu, QR codes, and who opened a page.

mod account;
mod allowance;
mod custom;
mod error;
mod http;
mod media;
mod template;
mod templates;
mod token;

pub use account::{Button, Menu, MenuError, QrCode, QrLife};
pub use allowance::{Act, Allowance, AllowanceStore, Change, Grant, MemoryAllowances};
pub use custom::{CustomMessage, RESERVED_FOR_STAFF};
pub use error::{Again, PlatformError, Trouble};
pub use media::{Download, MEDIA_KEPT, MEDIA_LIMIT, Media};
pub use template::{Field, FieldError, Template, TemplateSent};
pub use templates::{By, Fill, Filling, TemplateSettings};
pub use token::{MemoryTokens, StoreFuture, Token, TokenStore, Unavailable};

use http::{Http, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{fmt, sync::Arc, time::Duration};
use token::Tokens;

fn base_url() -> String {
    "https://api.weixin.qq.com".to_owned()
}

fn open_url() -> String {
    "https://open.weixin.qq.com".to_owned()
}

fn answer_timeout() -> u64 {
    10
}

/// How to reach the platform's API for one account; without it the account receives and answers
/// and does nothing of its own accord.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// The AppSecret, from the platform's developer pages.
    pub secret: SecretString,
    /// Where the API is. Another one than the platform's is a proxy or a stand-in.
    #[serde(default = "base_url")]
    pub base_url: String,
    /// Where citizens' browsers are asked who they are (§8).
    #[serde(default = "open_url")]
    pub open_url: String,
    /// For a call and its answer, in seconds; media have a limit of their own.
    #[serde(default = "answer_timeout")]
    pub answer_timeout_s: u64,
    /// What is told by which template, the first that fits; without any, only who has written
    /// recently can be told something on WeChat.
    #[serde(default)]
    pub templates: Vec<TemplateSettings>,
}

impl Api {
    /// Checks the settings; the error names the key and says what is wrong with it.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let secret = self.secret.expose_secret();
        if secret.len() < 16 || secret.len() > 128 || !secret.is_ascii() {
            return Err(("api.secret", "is not an AppSecret: 16 to 128 letters and digits"));
        }
        for (key, url) in [("api.base_url", &self.base_url), ("api.open_url", &self.open_url)] {
            let Ok(url) = Url::parse(url) else { return Err((key, "is no URL")) };
            // The AppSecret and every token travel there.
            let inside = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
            if url.scheme() != "https" && !(url.scheme() == "http" && inside) {
                return Err((key, "must begin with https://, or be on this machine"));
            }
            if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
                return Err((key, "must be an address without a query, a fragment or a name"));
            }
        }
        if !(1..=60).contains(&self.answer_timeout_s) {
            return Err(("api.answer_timeout_s", "must be 1 to 60"));
        }
        self.templates.iter().try_for_each(TemplateSettings::check)
    }
}

/// A citizen's id at this account. Personal data: `Debug` does not show it, and there is no
/// `Display`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Openid(String);

impl Openid {
    /// As the platform gives it.
    #[must_use]
    pub fn new(openid: impl Into<String>) -> Self {
        Self(openid.into())
    }

    /// For the platform and for the store; never for a log.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Openid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Openid(…)")
    }
}

/// The platform's API for one account. One for a process; shared by reference.
pub struct Platform {
    http: Http,
    app_id: String,
    secret: SecretString,
    base: Url,
    open: Url,
    within: Duration,
    tokens: Tokens,
    allowances: Arc<dyn AllowanceStore>,
}

impl fmt::Debug for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platform").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

impl Platform {
    /// The API for the account `app_id`; the settings have been checked.
    ///
    /// # Errors
    /// The key that is wrong and what is wrong with it.
    pub fn new(
        app_id: &str,
        api: &Api,
        tokens: Arc<dyn TokenStore>,
        allowances: Arc<dyn AllowanceStore>,
    ) -> Result<Self, (&'static str, &'static str)> {
        api.check()?;
        let url = |url: &str| Url::parse(url).map_err(|_| ("api.base_url", "is no URL"));
        Ok(Self {
            http: Http::new().map_err(|says| ("api", says))?,
            app_id: app_id.to_owned(),
            secret: api.secret.clone(),
            base: url(&api.base_url)?,
            open: url(&api.open_url)?,
            within: Duration::from_secs(api.answer_timeout_s),
            tokens: Tokens::new(app_id, tokens),
            allowances,
        })
    }

    /// `path` below the base, with these parameters.
    fn url(&self, path: &str, query: &[(&str, &str)]) -> Url {
        http::below(&self.base, path, query)
    }

    async fn token(&self) -> Result<Token, PlatformError> {
        self.tokens.current(|| self.fetch_token()).await
    }

    /// §5: never with `force_refresh`, of which there are twenty a day and which kills the token
    /// that other systems of the account use.
    async fn fetch_token(&self) -> Result<(Token, Duration), PlatformError> {
        #[derive(Deserialize)]
        struct Issued {
            access_token: SecretString,
            expires_in: u64,
        }
        let ask = serde_json::json!({
            "grant_type": "client_credential",
            "appid": self.app_id,
            "secret": self.secret.expose_secret(),
            "force_refresh": false,
        });
        let request = self.http.post(self.url("/cgi-bin/stable_token", &[])).json(&ask);
        let issued: Issued = self.http.json(error::TOKEN_CALL, request, self.within).await?;
        Ok((Token::new(issued.access_token), Duration::from_secs(issued.expires_in)))
    }

    /// A call with a token. A token that the platform refuses is taken out of the shared store,
    /// unless somebody has renewed it, and the call is made once more.
    async fn authorised<T, F>(&self, mut call: impl FnMut(Token) -> F) -> Result<T, PlatformError>
    where
        F: Future<Output = Result<T, PlatformError>>,
    {
        let token = self.token().await?;
        match call(token.clone()).await {
            Err(error) if error.trouble() == Trouble::Token => {
                self.tokens.expire(&token).await;
                call(self.token().await?).await
            }
            answered => answered,
        }
    }

    /// Posts a JSON document and reads the answer's.
    async fn post<T: DeserializeOwned>(
        &self,
        call: &'static str,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, PlatformError> {
        self.authorised(async |token| {
            let url = self.url(path, &[("access_token", token.expose())]);
            self.http.json(call, self.http.post(url).json(body), self.within).await
        })
        .await
    }
}
