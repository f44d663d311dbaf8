//! The stand-in for the WeChat platform: where one is the citizen.

use super::{WechatAccess, Where, read};
use chrono::{DateTime, Utc};
use intake_contract::Telling;
use intake_gateway::{clock::Clock, gateway::StartError, lifecycle, secret};
use intake_standin_wechat::{NOTICE, PATIENCE, Settings, StandIn, TEMPLATE_PROGRESS};
use std::{net::SocketAddr, process::ExitCode, sync::Arc};
use tokio::net::TcpListener;

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    at: Where,
    /// Where it listens; by default on a free port of this machine.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Allow others than this machine to reach it: it has no logins.
    #[arg(long)]
    reachable: bool,
    /// The AppSecret that the gateway has to know; a new one when missing.
    #[arg(long)]
    secret: Option<String>,
}

/// Runs until Ctrl-C.
pub async fn run(arguments: Arguments) -> Result<ExitCode, StartError> {
    let Arguments { at, listen, reachable, secret: given } = arguments;
    if !listen.ip().is_loopback() && !reachable {
        return Err(StartError::new(format!(
            "{listen} can be reached from other machines, and the stand-in has no logins; if that is meant, add --reachable"
        )));
    }
    let access = read(&at)?;
    let listener = bind(listen).await?;
    let app_secret = given.unwrap_or_else(new_secret);
    let standin = stand_in(&access.base, &access.wechat, &app_secret, &listener)?;
    println!("微信替身：{}", standin.url());
    println!("它把消息投到 {}", callback(&access.base, &access.wechat.account));
    println!("网关要调用它，请在 [[wechat]] 里写：");
    println!("  {}", api(standin.url(), &app_secret));
    println!("按 Ctrl-C 停止。");
    tokio::select! {
        served = standin.serve(listener) => served.map_err(|error| StartError::caused("the stand-in stopped", error))?,
        () = lifecycle::signalled() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// What a gateway's settings say of this platform: where it is, and which of its templates tell what.
pub fn api(url: &str, secret: &str) -> String {
    let kinds = Telling::ALL.map(|kind| format!("\"{}\"", kind.as_str())).join(", ");
    let two = "character_string1 = \"number\", thing2 = \"says\"";
    let four = format!("{two}, phrase3 = \"state\", time4 = \"date\"");
    let template = |id: &str, by: &str, fields: &str| {
        format!("{{ id = \"{id}\", by = \"{by}\", kinds = [{kinds}], fields = {{ {fields} }} }}")
    };
    format!(
        "api = {{ base_url = \"{url}\", open_url = \"{url}\", secret = \"{secret}\", templates = [{}, {}] }}",
        template(NOTICE, "notice", two),
        template(TEMPLATE_PROGRESS, "template", &four)
    )
}

pub async fn bind(listen: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(listen).await.map_err(|error| {
        StartError::caused(
            format!("{listen} cannot be listened on; is another program there?"),
            error,
        )
    })
}

/// An AppSecret of the platform's form.
pub fn new_secret() -> String {
    hex::encode(secret::random::<16>())
}

fn callback(base: &str, account: &str) -> String {
    format!("{base}/channels/wechat/{account}")
}

/// The platform for the gateway at `base` with this account.
pub fn stand_in(
    base: &str,
    account: &WechatAccess,
    app_secret: &str,
    listener: &TcpListener,
) -> Result<StandIn, StartError> {
    let settings = Settings {
        app_id: account.app_id.clone(),
        secret: app_secret.to_owned(),
        original_id: account.original_id.clone(),
        token: account.token.clone(),
        encoding_aes_key: Some(account.encoding_aes_key.clone()),
        callback: callback(base, &account.account),
        patience: PATIENCE,
    };
    let clock = Clock::system();
    let now = Arc::new(move || -> DateTime<Utc> { clock.now() });
    StandIn::new(settings, now, listener)
        .map_err(|error| StartError::caused("the stand-in cannot be set up", error))
}
