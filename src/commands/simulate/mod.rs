pub mod hotline;
pub mod wechat_platform;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use intake_contract::china;
use intake_gateway::{clock::Clock, gateway::StartError, secret};
use intake_wechat::sender::Sender as WechatSender;
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// What the demo writes for whoever scripts against it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Access {
    pub base: String,
    pub ops: String,
    pub database_url: String,
    pub redis_url: String,
    pub api_token: String,
    pub wechat: WechatAccess,
    pub hotline: HotlineAccess,
    /// Every source of calls, as `[[hotline]]` in a configuration; the one above where it is empty.
    #[serde(default)]
    pub telephone: String,
    pub staff: Vec<StaffAccess>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WechatAccess {
    pub account: String,
    pub token: String,
    pub encoding_aes_key: String,
    pub app_id: String,
    pub original_id: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HotlineAccess {
    pub source: String,
    pub key_id: String,
    pub secret: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StaffAccess {
    pub login: String,
    pub password: String,
    pub role: String,
}

#[derive(clap::Args)]
pub struct Where {
    /// The file with addresses and keys that the demo writes; write one of the same form for
    /// another gateway.
    #[arg(long, value_name = "FILE", default_value = "target/demo/access.json")]
    access: PathBuf,
}

#[derive(clap::Subcommand)]
pub enum Command {
    /// A citizen writes to the official account; prints the reply, decrypted.
    Wechat {
        #[command(flatten)]
        at: Where,
        /// Who writes.
        #[arg(long, default_value = "oDemoCitizen0000000000000001")]
        openid: String,
        /// What they write.
        #[arg(long, default_value = "你好，我的社保卡补办一直没有办成，去了两次都说材料不全。")]
        text: String,
        /// The message's id; a new one when missing. The same one again is a redelivery.
        #[arg(long)]
        msg_id: Option<String>,
        /// Deliver it so many times, as the platform does when it gets no answer.
        #[arg(long, default_value_t = 1)]
        times: u32,
    },
    /// The WeChat platform itself, for a gateway that runs: on its page one is the citizen.
    WechatPlatform(wechat_platform::Arguments),
    /// Somebody calls, as each source tells of it; prints the answer and the ticket. With --config it
    /// is the gateway of that file, else the demo.
    Hotline(hotline::Arguments),
    /// An officer's program enters what was said at the counter; prints the ticket.
    Counter {
        #[command(flatten)]
        at: Where,
        /// Who came.
        #[arg(long, default_value = "李春梅")]
        name: String,
        /// Their telephone.
        #[arg(long, default_value = "13800008000")]
        phone: String,
        /// What could not be done.
        #[arg(long, default_value = "失业登记在窗口被退回三次，每次说的材料都不一样。")]
        problem: String,
        /// By the window's telephone instead.
        #[arg(long)]
        window_phone: bool,
        /// An emergency.
        #[arg(long)]
        urgent: bool,
        /// The same key again is a repeat; a new one when missing.
        #[arg(long)]
        idempotency_key: Option<String>,
    },
    /// An officer logs in and looks at the queue; prints how many wait and whether a number shows.
    Desk {
        #[command(flatten)]
        at: Where,
        /// A number that must be there.
        #[arg(long)]
        expect: Option<String>,
    },
}

pub async fn run(command: Command, file: Option<&Path>) -> Result<ExitCode, StartError> {
    let now = Clock::system().now();
    match command {
        Command::Wechat { at, openid, text, msg_id, times } => {
            let outside = Outside::new(read(&at)?)?;
            let msg_id = msg_id.unwrap_or_else(new_msg_id);
            for _ in 0..times.max(1) {
                println!("{}", outside.wechat_text(&openid, &text, &msg_id, now).await?);
            }
        }
        Command::WechatPlatform(arguments) => return wechat_platform::run(arguments).await,
        Command::Hotline(arguments) => return hotline::run(arguments, file).await,
        Command::Counter { at, name, phone, problem, window_phone, urgent, idempotency_key } => {
            let outside = Outside::new(read(&at)?)?;
            let key = idempotency_key.unwrap_or_else(|| hex::encode(secret::random::<16>()));
            let channel = if window_phone { "window_phone" } else { "counter" };
            let entry = serde_json::json!({
                "channel": channel,
                "citizen": { "name": name, "phone": phone },
                "problem": problem,
                "urgent": urgent,
            });
            println!("{}", outside.entry(&key, &entry).await?);
        }
        Command::Desk { at, expect } => {
            let outside = Outside::new(read(&at)?)?;
            let page = outside.queue_page().await?;
            let rows = page.matches("data-ticket=").count();
            if let Some(number) = expect
                && !page.contains(&number)
            {
                return Err(StartError::new(format!(
                    "{number} is not in the queue, which shows {rows} tickets"
                )));
            }
            println!("the queue shows {rows} tickets");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(at: &Where) -> Result<Access, StartError> {
    let path = at.access.display();
    let text = std::fs::read_to_string(&at.access).map_err(|error| {
        StartError::caused(
            format!("{path} cannot be read; is the demo running (`make demo`)? --access names another file"),
            error,
        )
    })?;
    serde_json::from_str(&text)
        .map_err(|error| StartError::caused(format!("{path} is not of the right form"), error))
}

/// A 64-bit id as the platform makes them.
pub fn new_msg_id() -> String {
    let id = u64::from_be_bytes(secret::random::<8>());
    (24_000_000_000_000_000 + id % 1_000_000_000_000_000).to_string()
}

pub fn local(at: DateTime<Utc>) -> String {
    at.with_timezone(&china()).to_rfc3339_opts(chrono::SecondsFormat::Secs, false)
}

fn client() -> Result<reqwest::Client, StartError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .redirect(reqwest::redirect::Policy::none())
        .build();
    client.map_err(|error| {
        StartError::caused("no HTTP client; is the package ca-certificates installed?", error)
    })
}

/// Status and body of the answer from `base`.
async fn send(request: reqwest::RequestBuilder, base: &str) -> Result<(u16, String), StartError> {
    let answered = async {
        let response = request.send().await?;
        Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
    };
    answered.await.map_err(|error| {
        StartError::caused(
            format!("no answer from {base}; is the gateway running?"),
            error.without_url(),
        )
    })
}

/// Everything outside the gateway, for one set of keys.
pub struct Outside {
    client: reqwest::Client,
    access: Access,
    wechat: WechatSender,
}

impl Outside {
    pub fn new(access: Access) -> Result<Self, StartError> {
        let client = client()?;
        let WechatAccess { token, encoding_aes_key, app_id, original_id, .. } = &access.wechat;
        let wechat = WechatSender::new(token, Some(encoding_aes_key), app_id, original_id);
        Ok(Self { client, access, wechat })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<(u16, String), StartError> {
        send(request, &self.access.base).await
    }

    /// A text message; returns the passive reply's words.
    pub async fn wechat_text(
        &self,
        openid: &str,
        text: &str,
        msg_id: &str,
        now: DateTime<Utc>,
    ) -> Result<String, StartError> {
        self.wechat(&self.wechat.text(openid, text, msg_id, now.timestamp()), now).await
    }

    /// A photo; returns the passive reply's words.
    pub async fn wechat_photo(
        &self,
        openid: &str,
        msg_id: &str,
        now: DateTime<Utc>,
    ) -> Result<String, StartError> {
        let media_id = BASE64_STANDARD.encode(secret::random::<24>());
        let fields = [("PicUrl", "http://mmbiz.example/photo"), ("MediaId", media_id.as_str())];
        self.wechat(&self.wechat.message(openid, "image", &fields, msg_id, now.timestamp()), now)
            .await
    }

    async fn wechat(&self, xml: &str, now: DateTime<Utc>) -> Result<String, StartError> {
        let nonce = u32::from_be_bytes(secret::random::<4>()).to_string();
        let (query, body) = self.wechat.callback(xml, now.timestamp(), &nonce, secret::random());
        let account = &self.access.wechat.account;
        let url = format!("{}/channels/wechat/{account}?{query}", self.access.base);
        let request = self.client.post(url).header("content-type", "text/xml").body(body);
        let (status, body) = self.send(request).await?;
        if status != 200 {
            return Err(StartError::new(format!("the gateway answered {status}: {}", body.trim())));
        }
        Ok(self.wechat.open(&body).map_or(body, |reply| reply.content))
    }

    /// An entry by the API; returns the ticket.
    pub async fn entry(&self, key: &str, entry: &serde_json::Value) -> Result<String, StartError> {
        let request = self
            .client
            .post(format!("{}/api/v1/tickets", self.access.base))
            .bearer_auth(&self.access.api_token)
            .header("idempotency-key", key)
            .json(entry);
        let (status, answer) = self.send(request).await?;
        if status != 201 {
            return Err(StartError::new(format!(
                "the gateway answered {status}: {}",
                answer.trim()
            )));
        }
        Ok(answer)
    }

    /// Logs in as the first officer and fetches the queue page.
    pub async fn queue_page(&self) -> Result<String, StartError> {
        let officer = self
            .access
            .staff
            .iter()
            .find(|person| person.role == "duty_officer")
            .ok_or_else(|| StartError::new("the access file names no duty officer"))?;
        let login = format!("{}/desk/login", self.access.base);
        let form = [("login", &officer.login), ("password", &officer.password)];
        let encoded =
            form.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&");
        let request = self
            .client
            .post(login)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("origin", &self.access.base)
            .body(encoded);
        let response = request
            .send()
            .await
            .map_err(|error| StartError::caused("no answer from the desk", error.without_url()))?;
        let cookie = response
            .headers()
            .get("set-cookie")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .ok_or_else(|| StartError::new(format!("the login of {} was refused", officer.login)))?
            .to_owned();
        let request =
            self.client.get(format!("{}/desk?view=all", self.access.base)).header("cookie", cookie);
        let (status, page) = self.send(request).await?;
        if status != 200 {
            return Err(StartError::new(format!("the queue page answered {status}")));
        }
        Ok(page)
    }
}
