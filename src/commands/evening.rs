//! What the demo shows: an office that has been at work for a week, and an evening.

use super::simulate::{
    Outside,
    hotline::{Call, Exchange, Kind},
    new_msg_id,
};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc};
use intake_contract::{Attachment, AttachmentKind, ChannelKind, Citizen, Submission, china};
use intake_gateway::{
    clock::Clock, domain::calendar::WorkingCalendar, gateway::StartError, intake::Intake,
    offices::Office, secret, wording,
};

/// Something that happened before: working days ago, the time, and what.
struct Before {
    working_days: usize,
    time: (u32, u32),
    channel: ChannelKind,
    name: Option<&'static str>,
    phone: Option<&'static str>,
    text: &'static str,
    taken_by: Option<&'static str>,
}

const PAST: [Before; 8] = [
    Before {
        working_days: 5,
        time: (9, 20),
        channel: ChannelKind::Counter,
        name: Some("刘桂兰"),
        phone: Some("13904100017"),
        text: "退休审批时说2003年至2006年的社保记录找不到，原单位已经注销，跑了四次没有结果。",
        taken_by: Some("zhao.min"),
    },
    Before {
        working_days: 3,
        time: (22, 41),
        channel: ChannelKind::Wechat,
        name: None,
        phone: None,
        text: "工伤认定申请交上去四十多天了，窗口一直说在走流程，没有人告诉我到底缺什么。",
        taken_by: None,
    },
    Before {
        working_days: 2,
        time: (10, 30),
        channel: ChannelKind::WindowPhone,
        name: Some("孙立新"),
        phone: Some("13504106620"),
        text: "养老保险从沈阳转到县里，两边都说对方没有发函。",
        taken_by: Some("qian.fang"),
    },
    Before {
        working_days: 1,
        time: (8, 50),
        channel: ChannelKind::Counter,
        name: Some("马玉芬"),
        phone: Some("15841002233"),
        text: "灵活就业社保补贴申请被退回，说收入证明格式不对，但是没有给样本。",
        taken_by: Some("zhao.min"),
    },
    Before {
        working_days: 1,
        time: (14, 5),
        channel: ChannelKind::Counter,
        name: Some("高振国"),
        phone: Some("13941055781"),
        text: "创业担保贷款担保人资格审核没有通过，窗口没有说明理由。",
        taken_by: None,
    },
    Before {
        working_days: 1,
        time: (19, 12),
        channel: ChannelKind::Wechat,
        name: None,
        phone: None,
        text: "手机上认证养老金领取资格一直失败，老人八十多岁，走不动路，能不能上门？",
        taken_by: None,
    },
    Before {
        working_days: 1,
        time: (20, 3),
        channel: ChannelKind::Hotline,
        name: None,
        phone: Some("02472845512"),
        text: "电话录音，时长 37 秒。",
        taken_by: None,
    },
    Before {
        working_days: 1,
        time: (21, 55),
        channel: ChannelKind::Wechat,
        name: None,
        phone: None,
        text: "孩子的技能培训补贴，去年十月申请的，现在还没有到账，打电话没人接。",
        taken_by: None,
    },
];

/// The day so many working days before today.
fn working_day_before(calendar: &WorkingCalendar, today: NaiveDate, count: usize) -> NaiveDate {
    today
        .pred_opt()
        .into_iter()
        .flat_map(|day| std::iter::successors(Some(day), NaiveDate::pred_opt))
        .filter(|day| calendar.day(*day).working)
        .nth(count.saturating_sub(1))
        .unwrap_or(today)
}

fn at(day: NaiveDate, (hour, minute): (u32, u32)) -> Option<DateTime<Utc>> {
    let time = NaiveTime::from_hms_opt(hour, minute, 0)?;
    china().from_local_datetime(&day.and_time(time)).single().map(|at| at.to_utc())
}

/// Enters the past through the same door as everything else, with a clock that stands where it
/// then stood. What fell due since then fires as soon as the workers start.
pub async fn enter_past(intake: &Intake, clock: &Clock, office: &Office) -> Result<(), StartError> {
    let today = wording::day_of(Clock::system().now());
    for (index, before) in PAST.iter().enumerate() {
        let day = working_day_before(&office.calendar, today, before.working_days);
        let Some(at) = at(day, before.time) else { continue };
        clock.set(at);
        let spoken = before.channel == ChannelKind::Hotline;
        let submission = Submission {
            channel: before.channel,
            source: "demo:past".to_owned(),
            source_id: format!("{at}/{index}"),
            thread: (before.channel == ChannelKind::Wechat).then(|| format!("demo:past:{index}")),
            occurred_at: Some(at),
            citizen: Citizen {
                name: before.name.map(str::to_owned),
                phone: before.phone.map(str::to_owned),
            },
            text: before.text.to_owned(),
            meaning: intake_contract::Meaning::Statement,
            attachments: if spoken {
                vec![Attachment {
                    kind: AttachmentKind::Voice,
                    reference: "file:msg0001.wav".to_owned(),
                    label: Some("拨打 12333，录音 37 秒".to_owned()),
                }]
            } else {
                Vec::new()
            },
            urgent: false,
            taken_by: before.taken_by.map(str::to_owned),
            raw: before.text.as_bytes().into(),
        };
        intake
            .accept(office.id, submission)
            .await
            .map_err(|error| StartError::caused("the demo's past could not be entered", error))?;
    }
    Ok(())
}

/// When the evening begins: yesterday, when nobody is there any more.
pub fn begins_at() -> DateTime<Utc> {
    let now = Clock::system().now();
    at(wording::day_of(now) - TimeDelta::days(1), (22, 14)).unwrap_or(now)
}

/// The evening, over real HTTP, against a gateway whose clock stands where it then stood. Says what
/// it does, line by line.
pub async fn play(outside: &Outside, exchange: &Exchange, clock: &Clock) -> Result<(), StartError> {
    let now = || clock.now();
    let later = |minutes| clock.set(clock.now() + TimeDelta::minutes(minutes));
    let openid = |name: &str| format!("oDemo{name}{}", &hex::encode(secret::random::<9>()));
    let (wang, chen, he) = (openid("Wang"), openid("Chen"), openid("He"));

    let first = new_msg_id();
    let words =
        "我的失业金这个月没有到账，去窗口问，说系统里查不到我的申请，可是我三月份就交了材料。";
    let reply = outside.wechat_text(&wang, words, &first, now()).await?;
    println!("  微信 ─ 王女士：{words}\n       回复：{reply}");

    let again = outside.wechat_text(&wang, words, &first, now()).await?;
    println!(
        "  微信 ─ 平台重复投递同一条消息：回复{}",
        if again == reply { "完全相同，没有第二个编号" } else { "不同！" }
    );

    later(1);
    let reply = outside.wechat_photo(&wang, &new_msg_id(), now()).await?;
    println!("  微信 ─ 王女士补发一张照片\n       回复：{reply}");

    later(7);
    let words = "社保卡丢了补办，窗口说要到市里，市里说县里就能办，到底在哪办？";
    let reply = outside.wechat_text(&chen, words, &new_msg_id(), now()).await?;
    println!("  微信 ─ 陈先生：{words}\n       回复：{reply}");

    later(12);
    let words = "工资被拖欠半年，劳动监察不受理，我父亲在工地上晕倒了，没有钱看病。";
    let reply = outside.wechat_text(&he, words, &new_msg_id(), now()).await?;
    println!("  微信 ─ 何先生（含紧急词）：{words}\n       回复：{reply}");

    // As recordings come in: when the exchange gets round to it.
    let calls = [
        (Kind::Webhook, "签名推送", "13841077654", Some(51)),
        (Kind::Webhook, "签名推送", "", Some(18)),
        (Kind::Freeswitch, "FreeSWITCH 话单", "13704105523", Some(23)),
        (Kind::Asterisk, "Asterisk 语音信箱", "02472849916", Some(34)),
        (Kind::Tccc, "腾讯云联络中心", "15904103308", None),
    ];
    for (kind, source, caller, spoke_s) in calls {
        later(6);
        let call = Call { id: None, caller: caller.to_owned(), spoke_s, started_at: now() };
        later(2);
        exchange.tell(exchange.source(kind, None)?, &call, now()).await?;
        let who = match caller {
            "" => "未显示号码".to_owned(),
            number => format!("{}****{}", &number[..3], &number[number.len() - 4..]),
        };
        let what = spoke_s.map_or("没有留言就挂断".to_owned(), |s| format!("留言 {s} 秒"));
        println!("  电话 ─ {who}，{what}（{source}）");
    }
    Ok(())
}

/// Somebody comes to the counter, now.
pub async fn come_to_the_counter(outside: &Outside) -> Result<(), StartError> {
    let entry = serde_json::json!({
        "channel": "counter",
        "citizen": { "name": "李春梅", "phone": "13800008000" },
        "problem": "失业登记在窗口被退回三次，每次说的材料都不一样。",
    });
    let ticket = outside.entry(&hex::encode(secret::random::<16>()), &entry).await?;
    let number = serde_json::from_str::<serde_json::Value>(&ticket)
        .ok()
        .and_then(|ticket| Some(ticket.get("number")?.as_str()?.to_owned()))
        .unwrap_or_default();
    println!("  窗口 ─ 今天，李春梅到现场反映：已登记 {number}");
    Ok(())
}
