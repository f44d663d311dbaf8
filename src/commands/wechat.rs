//! What is set up once at WeChat's platform for an official account: its menu, its QR codes.

use super::pool;
use intake_gateway::{
    config::Config,
    gateway::StartError,
    offices::Offices,
    platform::{self, RedisTokens},
};
use intake_wechat::platform::{Button, Menu, Platform, QrLife};
use secrecy::ExposeSecret;
use std::{process::ExitCode, sync::Arc};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Put the window's menu in place of the account's: 我要反映, 查进度, 服务.
    Menu {
        /// The account's id in the configuration; may be left out where there is one.
        #[arg(long)]
        account: Option<String>,
        /// Print it and send nothing.
        #[arg(long)]
        show: bool,
    },
    /// A QR code for a counter or a township: who scans it is known to have come from there.
    Qr {
        /// The account's id in the configuration; may be left out where there is one.
        #[arg(long)]
        account: Option<String>,
        /// What is shown on the ticket: 县政务大厅3号窗口. At most 64 bytes, 21 Chinese characters.
        scene: String,
        /// Good for so many days, 30 at most; without it for ever (an account has 100,000 of these).
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=30))]
        days: Option<u8>,
    },
}

pub async fn run(command: Command, config: &Config) -> Result<ExitCode, StartError> {
    match command {
        Command::Menu { account, show } => {
            let id = account_id(config, account.as_deref())?;
            let menu = menu(config.citizen_url(), id);
            menu.check().map_err(|error| StartError::new(error.to_string()))?;
            if show {
                let text = serde_json::to_string_pretty(&menu);
                println!("{}", text.map_err(|error| StartError::caused("the menu", error))?);
                return Ok(ExitCode::SUCCESS);
            }
            open(config, id).await?.create_menu(&menu).await.map_err(refused)?;
            println!("公众号 {id} 的菜单已发布，几分钟内在手机上生效。");
        }
        Command::Qr { account, scene, days } => {
            let scene = scene.trim();
            if scene.is_empty() || scene.len() > 64 {
                return Err(StartError::new(
                    "the scene must be 1 to 64 bytes long, which is 21 Chinese characters",
                ));
            }
            let id = account_id(config, account.as_deref())?;
            let life = days.map_or(QrLife::Permanent, QrLife::Days);
            let code = open(config, id).await?.qr_code(scene, life).await.map_err(refused)?;
            println!("“{scene}”的二维码：");
            println!("  内容（可自行制图）：{}", code.url);
            println!("  图片：https://mp.weixin.qq.com/cgi-bin/showqrcode?ticket={}", code.ticket);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(error: intake_wechat::platform::PlatformError) -> StartError {
    let says = error.for_the_administrator();
    StartError::caused(
        says.unwrap_or_else(|| "WeChat's platform did not do it; try again".to_owned()),
        error,
    )
}

/// The account that is meant.
fn account_id<'a>(config: &'a Config, given: Option<&str>) -> Result<&'a str, StartError> {
    let known = || {
        let ids: Vec<&str> = config.wechat.iter().map(|one| one.settings.id.as_str()).collect();
        if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
    };
    match (given, config.wechat.as_slice()) {
        (None, [one]) => Ok(&one.settings.id),
        (None, _) => Err(StartError::new(format!(
            "which account? Say --account with its id; configured are: {}",
            known()
        ))),
        (Some(id), all) => {
            let found = all.iter().find(|one| one.settings.id == id);
            found.map(|one| one.settings.id.as_str()).ok_or_else(|| {
                StartError::new(format!("there is no account {id}; configured are: {}", known()))
            })
        }
    }
}

async fn open(config: &Config, id: &str) -> Result<Platform, StartError> {
    let Some(entry) = config.wechat.iter().find(|one| one.settings.id == id) else {
        return Err(StartError::new(format!("there is no account {id}")));
    };
    let pool = pool(config).await?;
    let offices = Offices::default();
    let mut db = pool.acquire().await.map_err(super::sql)?;
    offices.reload(&mut db).await.map_err(super::store)?;
    drop(db);
    let office = offices.by_code(&entry.office).ok_or_else(|| {
        StartError::new(format!("there is no office with the code {}", entry.office))
    })?;
    let tokens = RedisTokens::new(config.redis_url.expose_secret(), &config.schedule.prefix)
        .map_err(|_| StartError::new("redis_url cannot be understood"))?;
    platform::platform(&entry.settings, office.id, pool, Arc::new(tokens))
        .map_err(|(key, says)| StartError::new(format!("wechat.{key} {says}")))?
        .ok_or_else(|| {
            StartError::new(format!(
                "account {id} has no [wechat.api]: without its AppSecret nothing can be asked of the platform"
            ))
        })
}

/// 我要反映, 查进度, 服务 (wechat.md §8). With a public address the citizen's pages are opened, else
/// the answer comes as a message.
pub fn menu(public_url: &str, account: &str) -> Menu {
    let click = |name: &str, key: &str| Button::Click { name: name.into(), key: key.into() };
    // Telephones open what is encrypted; the demo is on this machine.
    let opens = public_url.starts_with("https://") || public_url.starts_with("http://127.0.0.1");
    let progress = if opens {
        let url = format!("{}/c/wechat/{account}", public_url.trim_end_matches('/'));
        Button::View { name: "查进度".into(), url }
    } else {
        click("查进度", "PROGRESS")
    };
    let services = vec![
        click("另反映一件事", "NEW"),
        click("评价办理结果", "EVALUATE"),
        click("撤回反映", "WITHDRAW"),
        click("人工服务", "PERSON"),
        click("帮助", "HELP"),
    ];
    Menu {
        buttons: vec![
            click("我要反映", "REPORT"),
            progress,
            Button::Group { name: "服务".into(), buttons: services },
        ],
    }
}
