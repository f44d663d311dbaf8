use super::{database, redis_url};
use chrono::{DateTime, Utc};
use intake_contract::{ChannelKind, Citizen, Submission};
use intake_gateway::{
    clock::Clock,
    config::Config,
    domain::{id::OfficeId, policy::Policy, role::Role},
    gateway::{Gateway, Role as Process, connect},
    http::Shared,
    secret,
    store::{self, office::NewStaff},
};
use intake_hotline::sender::{Description, Sender as HotlineSender};
use intake_wechat::sender::Sender as WechatSender;
use serde_json::Value;
use sqlx::PgPool;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub const OFFICE: &str = "tieling";
pub const TOKEN: &str = "gov_center_token_2026";
pub const KEY: &str = "Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OUFCQ0RFRkdISUp";
pub const APP_ID: &str = "wx5f1c9e8a7b6d4c3e";
pub const ORIGINAL_ID: &str = "gh_8a1b2c3d4e5f";
const HOTLINE_SECRET: &str = "test-secret";
pub const PASSWORD: &str = "right-horse-battery";

/// What a test's gateway is made of.
pub struct Spec {
    pub now: DateTime<Utc>,
    pub database_url: Option<String>,
    pub redis_url: Option<String>,
    pub settings: String,
    pub role: Process,
    pub prefix: Option<String>,
    /// As in earnest, where TLS is in front; a test's client speaks none.
    pub secure_cookie: bool,
}

impl Spec {
    /// At this moment, everything else as usual.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self {
            now,
            database_url: None,
            redis_url: None,
            settings: String::new(),
            role: Process::Web,
            prefix: None,
            secure_cookie: false,
        }
    }

    pub fn with(mut self, settings: &str) -> Self {
        self.settings.push_str(settings);
        self.settings.push('\n');
        self
    }

    pub fn on(mut self, database_url: &str) -> Self {
        self.database_url = Some(database_url.to_owned());
        self
    }

    pub fn role(mut self, role: Process) -> Self {
        self.role = role;
        self
    }

    pub async fn start(self) -> TestGateway {
        TestGateway::start(self).await
    }
}

/// A gateway on real ports.
pub struct TestGateway {
    pub base: String,
    pub ops: String,
    pub app: Shared,
    pub clock: Clock,
    pub pool: PgPool,
    pub office: OfficeId,
    pub database_url: String,
    pub client: reqwest::Client,
    pub api_token: String,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl TestGateway {
    pub async fn start(spec: Spec) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let database_url = match spec.database_url {
            Some(url) => url,
            None => database().await,
        };
        let direct = PgPool::connect(&database_url).await.unwrap();
        let (office, api_token) = set_up(&direct).await;
        let prefix =
            spec.prefix.unwrap_or_else(|| format!("t{}", hex::encode(secret::random::<6>())));
        let redis = spec.redis_url.unwrap_or_else(redis_url);
        let mut config = config(&database_url, &redis, &prefix, &spec.settings);
        config.desk.insecure_cookie = !spec.secure_cookie;
        let clock = Clock::standing_at(spec.now);
        let pool = connect(&config).await.unwrap();
        let gateway = Gateway::new(&config, pool, clock.clone()).await.unwrap();
        gateway.open_spool(&config.spool);
        let app = gateway.app.clone();
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ops = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let (base, ops_url) = (url(&public), url(&ops));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(gateway.serve(public, ops, spec.role, stop.clone()));
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        Self {
            base,
            ops: ops_url,
            app,
            clock,
            pool: direct,
            office,
            database_url,
            client,
            api_token,
            stop,
            serving,
        }
    }

    /// Stops it in order, as SIGTERM does.
    pub async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }

    /// What a citizen writes on WeChat now, as the platform delivers it.
    pub async fn wechat(&self, openid: &str, text: &str, msg_id: &str) -> Answer {
        let now = self.clock.now().timestamp();
        let xml = wechat_sender().text(openid, text, msg_id, now);
        self.wechat_xml(&xml).await
    }

    pub async fn wechat_xml(&self, xml: &str) -> Answer {
        let (query, body) = self.callback(xml);
        self.post(&format!("/channels/wechat/main?{query}"), &[], body.into_bytes()).await
    }

    /// A signed callback: query and body.
    pub fn callback(&self, xml: &str) -> (String, String) {
        let now = self.clock.now().timestamp();
        wechat_sender().callback(xml, now, "100007919", secret::random())
    }

    /// What the hotline recorded.
    pub async fn voicemail(&self, recording_id: &str, started_at: &str) -> Answer {
        let sender = HotlineSender::new("k1", HOTLINE_SECRET);
        let body = sender.body(&Description {
            recording_id,
            call_id: recording_id,
            caller: "13900001234",
            callee: "12333",
            started_at,
            duration_s: 14,
            audio_url: "file:msg0000.wav",
        });
        self.hotline(&body).await
    }

    /// A signed body, whatever it says.
    pub async fn hotline(&self, body: &str) -> Answer {
        let headers = HotlineSender::new("k1", HOTLINE_SECRET)
            .headers(body.as_bytes(), self.clock.now().timestamp());
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.post("/channels/hotline/pbx1", &headers, body.as_bytes().to_vec()).await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = self.client.post(format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.send().await.unwrap()).await
    }

    /// An entry by the API.
    pub async fn entry(&self, key: &str, entry: &Value) -> Answer {
        let headers = [
            ("authorization", format!("Bearer {}", self.api_token)),
            ("idempotency-key", key.to_owned()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.post("/api/v1/tickets", &headers, entry.to_string().into_bytes()).await
    }

    /// What the API says.
    pub async fn api(&self, path: &str) -> Answer {
        let request =
            self.client.get(format!("{}/api/v1{path}", self.base)).bearer_auth(&self.api_token);
        Answer::of(request.send().await.unwrap()).await
    }

    pub async fn readiness(&self) -> Answer {
        let request = self.client.get(format!("{}/readyz", self.ops));
        Answer::of(request.send().await.unwrap()).await
    }

    pub async fn metrics(&self) -> String {
        let response = self.client.get(format!("{}/metrics", self.ops)).send().await.unwrap();
        response.text().await.unwrap()
    }

    /// Straight through the intake's door.
    pub async fn accept(&self, source_id: &str, text: &str) -> intake_gateway::intake::Accepted {
        self.app.intake.accept(self.office, submission(source_id, text)).await.unwrap()
    }
}

/// Something from a source of its own, without a thread.
pub fn submission(source_id: &str, text: &str) -> Submission {
    Submission {
        channel: ChannelKind::Counter,
        source: "test".to_owned(),
        source_id: source_id.to_owned(),
        thread: None,
        occurred_at: None,
        citizen: Citizen { name: Some("王芳".to_owned()), phone: Some("13900001234".to_owned()) },
        text: text.to_owned(),
        meaning: intake_contract::Meaning::Statement,
        attachments: Vec::new(),
        urgent: false,
        taken_by: None,
        raw: text.as_bytes().to_vec().into(),
    }
}

/// A response, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }

    /// The passive reply's words; what the platform would show to the citizen.
    pub fn reply(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        wechat_sender()
            .open(&self.text())
            .unwrap_or_else(|| panic!("no reply: {}", self.text()))
            .content
    }

    /// The first register number in the text or reply.
    pub fn number(&self) -> String {
        let text = if self.text().contains("<Encrypt>") { self.reply() } else { self.text() };
        number_in(&text)
    }
}

pub fn number_in(text: &str) -> String {
    let from = text.find("BCS-").unwrap_or_else(|| panic!("no number in {text}"));
    text[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

pub fn wechat_sender() -> WechatSender {
    WechatSender::new(TOKEN, Some(KEY), APP_ID, ORIGINAL_ID)
}

/// The account as the gateway's settings name it, without the platform's API.
pub fn account() -> intake_wechat::Account {
    let settings = config("postgres://x", "redis://x", "t", "");
    settings.wechat.into_iter().map(|entry| entry.settings).next().unwrap()
}

/// The official account, as it stands in a configuration.
pub fn account_text() -> String {
    format!(
        "[[wechat]]\noffice = '{OFFICE}'\nid = 'main'\napp_id = '{APP_ID}'\n\
         original_id = '{ORIGINAL_ID}'\ntoken = '{TOKEN}'\nencoding_aes_key = '{KEY}'\n"
    )
}

pub fn config(database_url: &str, redis_url: &str, prefix: &str, settings: &str) -> Config {
    let text = format!(
        r#"
        database_url = "{database_url}"
        redis_url = "{redis_url}"
        {settings}
        {}
        [[hotline]]
        office = "{OFFICE}"
        id = "pbx1"
        keys = [{{ id = "k1", secret = "{HOTLINE_SECRET}" }}]
        "#,
        account_text()
    );
    let mut config = Config::from_toml(&text).unwrap_or_else(|error| panic!("{error}"));
    config.schedule.prefix = prefix.to_owned();
    if config.media.s3_bucket.is_empty() {
        // Of its own, as the keys in Redis.
        config.media.folder = format!("{}/media/{prefix}", env!("CARGO_TARGET_TMPDIR"));
    }
    if !settings.contains("[spool]") {
        config.spool.folder = String::new();
    }
    config.desk.insecure_cookie = true;
    config
}

/// The office with its people, unless it is there.
async fn set_up(pool: &PgPool) -> (OfficeId, String) {
    let mut db = pool.acquire().await.unwrap();
    let token = secret::token();
    let found = store::office::load_all(&mut db).await.unwrap();
    let office = match found.first() {
        Some(office) => office.id,
        None => {
            let policy = serde_json::to_value(Policy::default()).unwrap();
            let office =
                store::office::create(&mut db, OFFICE, "反映窗口", "BCS", &policy).await.unwrap();
            let hash = secret::hash_password(PASSWORD).unwrap();
            let people = [
                ("zhao.min", "赵敏", Role::DutyOfficer),
                ("qian.fang", "钱芳", Role::DutyOfficer),
                ("li.qiang", "李强", Role::LeadOnDuty),
                ("zhou.hong", "周红", Role::Leadership),
                ("wu.gang", "吴刚", Role::PartyGroup),
                ("zheng.yu", "郑瑜", Role::Office),
                ("admin", "管理员", Role::Administrator),
            ];
            for (login, name, role) in people {
                let email = format!("{login}@office.test");
                let staff = NewStaff {
                    login,
                    name,
                    role,
                    unit: None,
                    email: Some(&email),
                    mobile: None,
                    password_hash: &hash,
                };
                store::office::put_staff(&mut db, office, &staff).await.unwrap();
            }
            office
        }
    };
    let scopes = ["tickets:read".to_owned(), "tickets:write".to_owned()];
    let name = format!("t{}", hex::encode(secret::random::<4>()));
    store::access::put_api_token(&mut db, office, &name, &secret::digest(&token), &scopes)
        .await
        .unwrap();
    (office, token)
}
