//! A stand-in for the WeChat platform, for tests and the demo.
//!
//! It behaves as wechat.md says that the platform behaves, and as badly: tokens end, errors come
//! with HTTP 200 and as plain text, citizens can be sent five messages and no more, receipts
//! overtake the answers that they belong to, whoever does not answer within five seconds is asked
//! twice more, and files are gone after three days. It is written from the specification and shares
//! nothing with the client that it tests but the cryptography (`intake_wechat::sender`).
//!
//! On its page one is a citizen: writes, sends a photo, taps the menu, and sees every reply with
//! the way that it came. It is a tool: it keeps everything in memory, has no logins, and belongs on
//! this machine only. The gateway's library does not depend on it (`tests/it/platform.rs` looks).
//!
//! * `api`: what the gateway calls.
//! * `deliver`: callbacks, the five seconds, three deliveries.
//! * `act`: what citizens do.
//! * `state`: what the platform remembers.
//! * `page`: being the citizen.

mod act;
mod api;
mod deliver;
mod multipart;
mod page;
mod state;

pub use act::{Act, Consent};
pub use state::{
    Entry, How, NOTICE, NOTICE_LONG_TERM, Switches, TEMPLATE_EVALUATE, TEMPLATE_PROGRESS,
};

use chrono::{DateTime, Utc};
use intake_wechat::sender::Sender;
use state::State;
use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch};

/// The account, as it is set up at the platform.
#[derive(Clone)]
pub struct Settings {
    /// AppID.
    pub app_id: String,
    /// AppSecret.
    pub secret: String,
    /// 原始 ID.
    pub original_id: String,
    /// The Token.
    pub token: String,
    /// The EncodingAESKey; without it messages go out in plain mode.
    pub encoding_aes_key: Option<String>,
    /// Where messages and events are delivered: the gateway's `/channels/wechat/{account}`.
    pub callback: String,
    /// How long a delivery may take. The platform's patience is [`PATIENCE`].
    pub patience: Duration,
}

/// The platform waits so long for an answer to a delivery (§4).
pub const PATIENCE: Duration = Duration::from_secs(5);

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("app_id", &self.app_id).finish_non_exhaustive()
    }
}

/// What time it is; tests set it by hand.
pub type Now = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// The stand-in. Cheap to clone.
#[derive(Clone)]
pub struct StandIn(Arc<Shared>);

struct Shared {
    settings: Settings,
    sender: Sender,
    client: reqwest::Client,
    now: Now,
    url: String,
    state: Mutex<State>,
    /// Whether calls hang, for those that do.
    hangs: watch::Sender<bool>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> DateTime<Utc> {
        (self.now)()
    }
}

impl StandIn {
    /// A platform with one account, some citizens who follow it, and nothing said yet; it will be
    /// reached at `listener`.
    ///
    /// # Errors
    /// When the listener has no address or HTTP cannot be set up.
    pub fn new(settings: Settings, now: Now, listener: &TcpListener) -> io::Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| io::Error::other(error.without_url()))?;
        let url = format!("http://{}", listener.local_addr()?);
        let key = settings.encoding_aes_key.as_deref();
        let sender = Sender::new(&settings.token, key, &settings.app_id, &settings.original_id);
        let state = Mutex::new(State::new());
        let hangs = watch::Sender::new(false);
        Ok(Self(Arc::new(Shared { settings, sender, client, now, url, state, hangs })))
    }

    /// Where it is: the gateway's `api.base_url` and `api.open_url`, and the page.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Serves until dropped.
    ///
    /// # Errors
    /// As `axum::serve`.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        let router = api::router().merge(page::router()).with_state(self.0);
        axum::serve(listener, router).await
    }

    /// A citizen does something; returns when the gateway has answered or was given up.
    pub async fn act(&self, openid: &str, act: Act) {
        act::act(&self.0, openid, act).await;
    }

    /// Changes how the platform behaves.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) {
        state::switch(&self.0, change);
    }

    /// Ends every token now.
    pub fn expire_tokens(&self) {
        let now = self.0.now();
        self.0.state().expire_tokens(now);
    }

    /// The openids of the citizens, in the order of the page.
    #[must_use]
    pub fn citizens(&self) -> Vec<String> {
        self.0.state().citizens.iter().map(|citizen| citizen.openid.clone()).collect()
    }

    /// What was said to and by a citizen, in order.
    #[must_use]
    pub fn talk(&self, openid: &str) -> Vec<Entry> {
        let mut state = self.0.state();
        state.citizen(openid).map(|citizen| citizen.talk.clone()).unwrap_or_default()
    }

    /// A photo that a citizen has sent, to be fetched under the id that is returned.
    #[must_use]
    pub fn photo(&self, jpeg: bytes::Bytes) -> String {
        let now = self.0.now();
        self.0.state().keep("image/jpeg", "photo.jpg", jpeg, now)
    }

    /// The server id of the last [`Act::PageVoice`].
    #[must_use]
    pub fn page_voice(&self) -> Option<String> {
        self.0.state().page_voice.clone()
    }

    /// How many calls hang; a caller that gave up is none of them, once that is noticed.
    #[must_use]
    pub fn hanging(&self) -> usize {
        self.0.hangs.receiver_count()
    }

    /// How often a path of the API was called, answered or not.
    #[must_use]
    pub fn calls(&self, path: &str) -> usize {
        self.0.state().calls.get(path).copied().unwrap_or(0)
    }
}

impl fmt::Debug for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StandIn({})", self.0.url)
    }
}
