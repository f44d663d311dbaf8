use super::{
    evening,
    serve::listen,
    simulate::{
        Access, HotlineAccess, Outside, StaffAccess, WechatAccess, hotline::Exchange,
        wechat_platform,
    },
    sql, store as failed,
    wechat::menu,
};
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use chrono::{Datelike, Days, NaiveTime, TimeZone};
use intake_contract::china;
use intake_gateway::{
    clock::Clock,
    config::Config,
    domain::{id::OfficeId, policy::Policy, role::Role},
    gateway::{self, Gateway, Role as Process, StartError},
    lifecycle,
    offices::Office,
    platform::{RedisTokens, platform},
    secret,
    store::{
        self,
        office::{Duty, NewStaff},
    },
    telemetry, wording,
};
use intake_wechat::platform::{PlatformError, QrLife};
use secrecy::ExposeSecret;
use sqlx::{PgConnection, PgPool};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const CODE: &str = "demo";
const NAME: &str = "“办不成事”反映窗口（演示）";

/// Login, name, role, unit.
const STAFF: [(&str, &str, Role, Option<&str>); 8] = [
    ("zhao.min", "赵敏", Role::DutyOfficer, Some("社会保险股")),
    ("qian.fang", "钱芳", Role::DutyOfficer, Some("就业服务股")),
    ("sun.wei", "孙伟", Role::UnitHead, Some("社会保险股")),
    ("li.qiang", "李强", Role::LeadOnDuty, None),
    ("zhou.hong", "周红", Role::Leadership, None),
    ("wu.gang", "吴刚", Role::PartyGroup, None),
    ("zheng.yu", "郑瑜", Role::Office, None),
    ("admin", "管理员", Role::Administrator, None),
];

/// Where the stand-in for the WeChat platform is, unless another program is there.
const PLATFORM: ([u8; 4], u16) = ([127, 0, 0, 1], 8081);

/// New secrets at each start: nothing of the demo opens anything else.
struct Secrets {
    wechat: WechatAccess,
    app_secret: String,
    hotline: HotlineAccess,
    /// Of the sources that push.
    password: String,
}

impl Secrets {
    fn new() -> Self {
        let token = hex::encode(secret::random::<16>());
        let app_id = format!("wx{}", hex::encode(secret::random::<8>()));
        let original_id = format!("gh_{}", hex::encode(secret::random::<6>()));
        Self {
            wechat: WechatAccess {
                account: "main".to_owned(),
                token,
                encoding_aes_key: BASE64_STANDARD_NO_PAD.encode(secret::random::<32>()),
                app_id,
                original_id,
            },
            app_secret: wechat_platform::new_secret(),
            hotline: HotlineAccess {
                source: "pbx1".to_owned(),
                key_id: "k1".to_owned(),
                secret: secret::token(),
            },
            password: secret::token(),
        }
    }

    /// As a configuration: the channels belong to the demo's office, the platform is at `platform`.
    fn config(&self, platform: &str, telephone: &str) -> String {
        let Self { wechat: w, app_secret, .. } = self;
        format!(
            "{}\n[[wechat]]\noffice = \"{CODE}\"\nid = \"{}\"\ntoken = \"{}\"\nencoding_aes_key = \"{}\"\napp_id = \"{}\"\noriginal_id = \"{}\"\n{}\n{telephone}",
            include_str!("../../config/demo.toml"),
            w.account,
            w.token,
            w.encoding_aes_key,
            w.app_id,
            w.original_id,
            wechat_platform::api(platform, app_secret),
        )
    }

    /// The telephone's sources: the webhook, two exchanges and a vendor, as the office would have one
    /// of them. What exchanges write lies below `folder`.
    fn telephone(&self, folder: &Path) -> String {
        let Self { hotline: h, password, .. } = self;
        let path = |name: &str| toml::Value::from(folder.join(name).display().to_string());
        let source = |id: &str, kind: &str| {
            format!("[[hotline]]\noffice = \"{CODE}\"\nid = \"{id}\"\n{kind}\nmissed_after_s = 5\n")
        };
        let basic = format!(
            "verify.auth = {{ kind = \"basic\", user = \"demo\", password = \"{password}\" }}\n"
        );
        let (recordings, spool, errors) = (path("recordings"), path("spool"), path("cdr-errors"));
        [
            source(&h.source, &format!("keys = [{{ id = \"{}\", secret = \"{}\" }}]\naudio.roots = [{recordings}]", h.key_id, h.secret)),
            source("fs", &format!("kind = \"freeswitch\"\n{basic}audio.roots = [{recordings}]\nerr_log_dir = {errors}")),
            source("ast", &format!("kind = \"asterisk\"\nspools = [{spool}]\ncdr_csv = {}\nzone = \"Asia/Shanghai\"\nscan_every_s = 5", path("Master.csv"))),
            source("tccc", &format!("kind = \"vendor\"\nmapping = \"tencent-tccc\"\n{basic}")),
            source("yeastar", &format!("kind = \"vendor\"\nmapping = \"yeastar-p\"\n{basic}")),
        ]
        .concat()
    }
}

/// The folders into which exchanges write.
fn telephone_folder(access: &Path) -> Result<PathBuf, StartError> {
    let said = |error: std::io::Error| {
        StartError::caused("the folders of the demo's exchanges cannot be made", error)
    };
    let folder = access.parent().unwrap_or(Path::new(".")).join("telephone");
    for name in ["recordings", "spool", "cdr-errors"] {
        std::fs::create_dir_all(folder.join(name)).map_err(said)?;
    }
    let csv = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("Master.csv"));
    csv.map_err(said)?;
    folder.canonicalize().map_err(said)
}

/// Migrates, creates the demo's office, starts the gateway, plays the evening, and goes on until
/// Ctrl-C.
pub async fn run(file: Option<&Path>, access: &Path) -> Result<ExitCode, StartError> {
    let secrets = Secrets::new();
    let platform = match wechat_platform::bind(PLATFORM.into()).await {
        Ok(listener) => listener,
        Err(_) => wechat_platform::bind((PLATFORM.0, 0).into()).await?,
    };
    let telephone = secrets.telephone(&telephone_folder(access)?);
    let mut config = Config::load_over(&secrets.config(&address(&platform), &telephone), file)
        .map_err(|error| StartError::new(error.to_string()))?;
    telemetry::logs(config.log.json, &config.log.filter);
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        lifecycle::signalled().await;
        signalled.cancel();
    });
    // Ports first: a second demo should say so before it touches anything.
    let (public, ops) = listen(&config).await?;
    if config.http.public_url.is_empty() {
        config.http.public_url = address(&public);
    }
    let pool = gateway::connect(&config).await?;
    gateway::migrate(&pool).await?;
    let (office, staff, api_token) = set_up(&pool).await?;
    let fresh = is_fresh(&pool, office).await?;
    if fresh {
        past(&config, pool.clone(), office).await?;
    }

    let written = Access {
        base: address(&public),
        ops: address(&ops),
        database_url: config.database_url.expose_secret().to_owned(),
        redis_url: config.redis_url.expose_secret().to_owned(),
        api_token,
        wechat: secrets.wechat,
        hotline: secrets.hotline,
        telephone,
        staff,
    };
    let outside = Outside::new(written.clone())?;
    let (public, public_tonight) = twice(public)?;
    let (ops, ops_tonight) = twice(ops)?;
    if fresh {
        // A gateway that lives yesterday, on the same ports: what it answers at night is what
        // citizens read at night, whenever the demo is started.
        let clock = Clock::standing_at(evening::begins_at());
        let gateway = Gateway::new(&config, pool.clone(), clock.clone()).await?;
        let over = stop.child_token();
        let serving = gateway.serve(public_tonight, ops_tonight, Process::Web, over.clone());
        let serving = tokio::spawn(serving);
        println!("昨晚 22:14 以后（真实的签名、加密和 HTTP）：");
        let exchange = Exchange::of(&written)?;
        let evening = evening::play(&outside, &exchange, &clock);
        tokio::select! {
            played = evening => played?,
            () = stop.cancelled() => {}
        }
        over.cancel();
        let _ = serving.await;
    }
    let gateway_pool = pool.clone();
    let gateway = Gateway::new(&config, pool, Clock::system()).await?;
    let serving = tokio::spawn(gateway.serve(public, ops, Process::All, stop.clone()));
    if fresh {
        if !stop.is_cancelled() {
            evening::come_to_the_counter(&outside).await?;
        }
    } else {
        println!("演示数据已在，不再重复演示当晚的反映；重新开始请用 make demo-clean。");
    }
    let standin =
        wechat_platform::stand_in(&written.base, &written.wechat, &secrets.app_secret, &platform)?;
    let citizens = standin.url().to_owned();
    tokio::spawn(standin.serve(platform));
    put_up(&config, &gateway_pool, office).await?;
    if !stop.is_cancelled() {
        // Last: whoever waits for this file finds everything ready.
        write(access, &written)?;
        say(&written, &citizens, access);
    }
    let _ = serving.await;
    let _ = std::fs::remove_file(access);
    Ok(ExitCode::SUCCESS)
}

/// The account's menu and a code for a counter, given to the platform by the gateway's own client.
async fn put_up(config: &Config, pool: &PgPool, office: OfficeId) -> Result<(), StartError> {
    let refused = |error: PlatformError| StartError::caused("the stand-in refused", error);
    let tokens = RedisTokens::new(config.redis_url.expose_secret(), &config.schedule.prefix)
        .map_err(|_| StartError::new("redis_url cannot be understood"))?;
    let Some(account) = config.wechat.first() else { return Ok(()) };
    let platform = platform(&account.settings, office, pool.clone(), Arc::new(tokens))
        .map_err(|(key, says)| StartError::new(format!("wechat[0].{key} {says}")))?;
    let Some(platform) = platform else { return Ok(()) };
    let menu = menu(config.citizen_url(), &account.settings.id);
    platform.create_menu(&menu).await.map_err(refused)?;
    platform.qr_code("反映窗口", QrLife::Permanent).await.map_err(refused)?;
    Ok(())
}

fn address(listener: &TcpListener) -> String {
    listener.local_addr().map(|at| format!("http://{at}")).unwrap_or_default()
}

/// The same port for two gateways, one after the other.
fn twice(listener: TcpListener) -> Result<(TcpListener, TcpListener), StartError> {
    let both = || -> std::io::Result<_> {
        let listener = listener.into_std()?;
        let again = listener.try_clone()?;
        Ok((TcpListener::from_std(listener)?, TcpListener::from_std(again)?))
    };
    both().map_err(|error| StartError::caused("the ports cannot be shared", error))
}

async fn is_fresh(pool: &PgPool, office: OfficeId) -> Result<bool, StartError> {
    let mut db = pool.acquire().await.map_err(sql)?;
    let (last, _) = store::queue::pulse(&mut db, office).await.map_err(failed)?;
    Ok(last == 0)
}

/// The office with units, staff, roster for this week and next, and a token for programs.
async fn set_up(pool: &PgPool) -> Result<(OfficeId, Vec<StaffAccess>, String), StartError> {
    let mut db = pool.acquire().await.map_err(sql)?;
    let offices = store::office::load_all(&mut db).await.map_err(failed)?;
    let office = match offices.iter().find(|office| office.code == CODE) {
        Some(office) => office.id,
        None => {
            let policy = Policy { phone: Some("024-7412 3456".to_owned()), ..Policy::default() };
            let policy = serde_json::to_value(policy).unwrap_or_default();
            store::office::create(&mut db, CODE, NAME, "BCS", &policy).await.map_err(failed)?
        }
    };
    let mut access = Vec::new();
    let mut ids = Vec::new();
    for (login, name, role, unit) in STAFF {
        let password = secret::readable_password();
        let hash = secret::hash_password(&password)
            .ok_or_else(|| StartError::new("a password could not be hashed"))?;
        let unit = match unit {
            Some(name) => {
                Some(store::office::put_unit(&mut db, office, name).await.map_err(failed)?)
            }
            None => None,
        };
        let staff =
            NewStaff { login, name, role, unit, email: None, mobile: None, password_hash: &hash };
        ids.push((store::office::put_staff(&mut db, office, &staff).await.map_err(failed)?, role));
        access.push(StaffAccess {
            login: login.to_owned(),
            password,
            role: role.as_str().to_owned(),
        });
    }
    roster(&mut db, office, &ids).await?;
    let token = secret::token();
    let scopes = ["tickets:read".to_owned(), "tickets:write".to_owned()];
    store::access::put_api_token(&mut db, office, "demo", &secret::digest(&token), &scopes)
        .await
        .map_err(failed)?;
    Ok((office, access, token))
}

/// RD1.1: officers take turns by the day, one lead for the week.
async fn roster(
    db: &mut PgConnection,
    office: OfficeId,
    staff: &[(intake_gateway::domain::id::StaffId, Role)],
) -> Result<(), StartError> {
    let today = wording::day_of(Clock::system().now());
    let monday = today - Days::new(u64::from(today.weekday().num_days_from_monday()));
    let of =
        |wanted: Role| staff.iter().filter(move |(_, role)| *role == wanted).map(|(id, _)| *id);
    let officers: Vec<_> = of(Role::DutyOfficer).collect();
    let midnight = |offset: u64| {
        china()
            .from_local_datetime(&(monday + Days::new(offset)).and_time(NaiveTime::MIN))
            .single()
            .map(|at| at.to_utc())
            .ok_or_else(|| StartError::new("the day is out of range"))
    };
    for (offset, officer) in (0..14_u64).zip(officers.iter().cycle()) {
        let (from, to) = (midnight(offset)?, midnight(offset + 1)?);
        store::office::put_shift(db, office, Duty::Officer, *officer, from, to)
            .await
            .map_err(failed)?;
    }
    for lead in of(Role::LeadOnDuty) {
        for week in [0, 7] {
            let (from, to) = (midnight(week)?, midnight(week + 7)?);
            store::office::put_shift(db, office, Duty::Lead, lead, from, to)
                .await
                .map_err(failed)?;
        }
    }
    Ok(())
}

/// A gateway that does not serve, with a clock in the past.
async fn past(config: &Config, pool: PgPool, office: OfficeId) -> Result<(), StartError> {
    let clock = Clock::standing_at(Clock::system().now());
    let gateway = Gateway::new(config, pool, clock.clone()).await?;
    let office = gateway
        .app
        .offices
        .get(office)
        .ok_or_else(|| StartError::new("the demo's office is gone"))?;
    let office: &Office = &office;
    evening::enter_past(&gateway.app.intake, &clock, office).await?;
    gateway.close().await;
    Ok(())
}

fn write(path: &Path, access: &Access) -> Result<(), StartError> {
    let said = |error: std::io::Error| {
        StartError::caused(format!("{} cannot be written", path.display()), error)
    };
    let text = serde_json::to_string_pretty(access).unwrap_or_default();
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(said)?;
    }
    // Whole or not at all, and for nobody else: it holds passwords.
    let draft = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft).map_err(said)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(said)?;
    std::fs::rename(&draft, path).map_err(said)
}

fn say(access: &Access, citizens: &str, path: &Path) {
    println!("\n当一回市民：{citizens}    （微信替身：在这里写，在队列里看）");
    println!("反映队列：  {}/desk", access.base);
    println!("健康检查：  {}/readyz    指标：{}/metrics", access.ops, access.ops);
    println!("可用的登录：");
    for person in &access.staff {
        let role = Role::parse(&person.role).map_or("", Role::label);
        println!("  {:<10} {}  {role}", person.login, person.password);
    }
    println!("地址、密钥和登录也写在 {} 里。再来一条反映，另开一个终端：", path.display());
    println!("  target/release/intake simulate wechat --text '我要反映一个问题'");
    println!(
        "  target/release/intake simulate hotline --as freeswitch      （也可 webhook、asterisk、tccc、yeastar；加 --missed 只挂断）"
    );
    println!("按 Ctrl-C 全部停止。");
}
