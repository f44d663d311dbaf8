//! What can be done next on a ticket: the forms, and what becomes of them.
//!
//! Whoever receives citizens may do all of it (RULES.md, "Who works with it"): what the leadership or
//! the party group decides, and that the lead on duty consents, an officer writes down as opinion.
//! The administrator sees no tickets at all.

use super::{
    Failure, Frame, must_receive,
    session::LoggedIn,
    story::outcome_label,
    ticket::{Shown, named, show},
};
use crate::{
    desk::{self, Act, DAYS_TO_BRING, Deed, DeskError, Done, Ending, LONGEST_TEXT},
    domain::{
        call_back::Answer,
        event::{Actor, Happened},
        id::UnitId,
        promise::reopened,
        ticket::{Cause, NotAllowed, Outcome, State as TicketState},
    },
    http::{Shared, announce},
    offices::Office,
    store::{access::Session, office::Unit, ticket::Whole},
    wording,
};
use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, NaiveDate, Utc};

/// A form as it was filled in: fields of one name may come several times.
#[derive(Debug, Default)]
pub(super) struct Written(Vec<(String, String)>);

impl Written {
    pub(super) fn of(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.all(name).next().unwrap_or_default()
    }

    pub(super) fn has(&self, name: &str, value: &str) -> bool {
        self.all(name).any(|one| one == value)
    }
}

/// Something that can be done next.
pub(super) struct Step {
    pub(super) act: &'static str,
    pub(super) label: &'static str,
    pub(super) key: &'static str,
    /// Whether a button is all that it takes.
    pub(super) at_once: bool,
}

/// Something to choose from.
pub(super) struct Choice {
    pub(super) value: String,
    pub(super) label: String,
}

/// What the forms offer.
#[derive(Default)]
pub(super) struct Offers {
    pub(super) steps: Vec<Step>,
    pub(super) units: Vec<Unit>,
    pub(super) causes: Vec<Choice>,
    pub(super) cause: &'static str,
    pub(super) outcomes: Vec<Choice>,
    /// The result and the opinion that are proposed; empty for none.
    pub(super) outcome: &'static str,
    pub(super) opinion: String,
    pub(super) reasons: Vec<Choice>,
    /// R7.a: the day that is proposed.
    pub(super) until: String,
    pub(super) today: String,
    pub(super) raise_to: String,
    pub(super) reopened_due: String,
    /// Messages that can be a matter of their own.
    pub(super) messages: Vec<Choice>,
}

const CAUSES: [(&str, Cause, &str); 3] = [
    ("citizen", Cause::Citizen, "群众方面：诉求不清、材料不齐"),
    ("staff", Cause::Staff, "工作人员方面：态度、方法、政策不熟"),
    ("objective", Cause::Objective, "客观方面：政策限制、历史遗留"),
];

const REASONS: [&str; 3] = ["三次联系不上", "群众不愿评价", OTHER];
const OTHER: &str = "其他";

/// What this person can do next on the ticket as it stands, the likeliest first.
pub(super) fn offers(
    whole: &Whole,
    office: &Office,
    session: &Session,
    units: &[Unit],
    now: DateTime<Utc>,
) -> Offers {
    let (true, Some(state)) = (session.role.receives_citizens(), &whole.state) else {
        return Offers::default();
    };
    let row = &whole.row;
    let choice =
        |value: &str, label: &str| Choice { value: value.to_owned(), label: label.to_owned() };
    let mut units = units.to_vec();
    units.retain(|unit| row.unit.as_ref() != Some(&unit.name));
    let split = super::story::spun_off(whole);
    let messages: Vec<Choice> = whole
        .messages
        .iter()
        .filter(|message| !split.contains_key(&message.seq))
        .map(|message| {
            let words = crate::intake::first_words(&message.text, &message.attachments);
            let at = wording::moment(message.occurred_at, now);
            choice(&message.seq.to_string(), &format!("{at}　{words}"))
        })
        .collect();
    let endings = [
        Outcome::Solved,
        Outcome::Guided,
        Outcome::ConditionallyAccepted { missing: String::new(), until: now },
        Outcome::Refused { basis: String::new() },
        Outcome::OutOfScope,
        Outcome::Withdrawn,
        Outcome::Unreachable,
        Outcome::Duplicate { of: String::new() },
    ];
    let step = |act, label, key| Step { act, label, key, at_once: false };
    let at_once = |act, label, key| Step { act, label, key, at_once: true };
    let say = step("say", "回复群众", "h");
    let resolve = step("resolve", "答复办结", "d");
    let refer = (!units.is_empty()).then(|| step("refer", "转办", "z"));
    let ask = step("await", "一次性告知", "g");
    let raise = row.level.next().map(|_| step("raise", "提请升级", "s"));
    let triage = step("triage", "判定原因", "y");
    // One message at least stays.
    let split = (messages.len() > 1).then(|| step("split", "拆成两件", "f"));
    let join = step("join", "并入另一件", "b");
    let reopen = step("reopen", "重新办理", "n");
    let steps: Vec<Option<Step>> = match state {
        TicketState::Registered => vec![Some(at_once("claim", "认领", "c")), Some(join)],
        // Who has just taken it up writes to the person, or sends it on; later there is an answer.
        TicketState::Accepted => {
            vec![Some(say), refer, Some(resolve), Some(ask), Some(triage), raise, split, Some(join)]
        }
        TicketState::InProgress { .. } => {
            vec![Some(resolve), Some(say), Some(ask), refer, raise, Some(triage), split, Some(join)]
        }
        TicketState::AwaitingCitizen { .. } => vec![
            Some(at_once("resume", "材料已补，继续办理", "c")),
            Some(say),
            Some(resolve),
            split,
            Some(join),
        ],
        TicketState::Resolved { .. } => {
            vec![Some(step("close", "销号", "x")), Some(say), Some(reopen), split]
        }
        TicketState::Evaluated { .. } => {
            vec![Some(at_once("close", "销号", "x")), Some(reopen), Some(say), split]
        }
        TicketState::Closed { .. } => vec![Some(reopen)],
    };
    let day = |at: DateTime<Utc>| wording::day_of(at).to_string();
    let opinion = unreachable(whole, now).unwrap_or_default();
    Offers {
        steps: steps.into_iter().flatten().collect(),
        units,
        outcome: if opinion.is_empty() { "" } else { "unreachable" },
        opinion,
        causes: CAUSES.map(|(value, _, label)| choice(value, label)).into(),
        cause: CAUSES
            .iter()
            .find(|(_, cause, _)| Some(*cause) == whole.cause)
            .map_or("", |(value, ..)| value),
        outcomes: endings.iter().map(|one| choice(name(one), outcome_label(one))).collect(),
        reasons: REASONS.map(|reason| choice(reason, reason)).into(),
        until: day(office.calendar.deadline(now, DAYS_TO_BRING).at),
        today: day(now),
        raise_to: row
            .level
            .next()
            .map_or_else(String::new, |to| format!("{} 级（{}）", to.number(), to.label())),
        reopened_due: wording::moment(reopened(&office.calendar, row.level, now).due_at, now),
        messages,
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Solved => "solved",
        Outcome::Guided => "guided",
        Outcome::ConditionallyAccepted { .. } => "conditionally_accepted",
        Outcome::Refused { .. } => "refused",
        Outcome::OutOfScope => "out_of_scope",
        Outcome::Withdrawn => "withdrawn",
        Outcome::Unreachable => "unreachable",
        Outcome::Duplicate { .. } => "duplicate",
    }
}

/// R7.d: what is written down of somebody who could not be reached; `None` when that is not so.
fn unreachable(whole: &Whole, now: DateTime<Utc>) -> Option<String> {
    let mut tries = Vec::new();
    let mut given_up = false;
    for event in &whole.events {
        match Happened::read(&event.kind, &event.data) {
            Some(Happened::CalledBack { answer: Answer::NoAnswer, next_try_at, .. }) => {
                tries.push(wording::said(event.at, now));
                given_up = next_try_at.is_none();
            }
            Some(Happened::CalledBack { answer: Answer::Again, .. }) => {
                tries.pop();
                given_up = false;
            }
            Some(Happened::CalledBack { .. } | Happened::MessageReceived { .. }) => {
                given_up = false
            }
            _ => {}
        }
    }
    given_up.then(|| format!("{}回拨，都无人接听。", tries.join("、")))
}

/// Why a form was not carried out.
enum Refused {
    /// Something was not chosen.
    Choose(&'static str),
    /// As the desk says.
    Desk(DeskError),
}

impl From<DeskError> for Refused {
    fn from(error: DeskError) -> Self {
        Self::Desk(error)
    }
}

fn day(written: &str) -> Result<Option<NaiveDate>, Refused> {
    match written.trim() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| DeskError::NoWorkingDay.into()),
    }
}

fn read(name: &str, written: &Written) -> Result<Act, Refused> {
    let text = |field: &str| written.get(field).to_owned();
    let given = |field: &str| Some(text(field)).filter(|text| !text.trim().is_empty());
    Ok(match name {
        "call_back" => {
            let answer = Answer::parse(written.get("answer"));
            Act::CallBack {
                answer: answer.ok_or(Refused::Choose("先选这次电话打得怎么样。"))?
            }
        }
        "say" => Act::Say { text: text("text") },
        "await" => Act::Await { missing: text("missing"), until: day(written.get("until"))? },
        "resume" => Act::Resume {},
        "raise" => Act::Raise { opinion: text("opinion") },
        "triage" => {
            let cause = CAUSES.iter().find(|(value, ..)| *value == written.get("cause"));
            let (_, cause, _) = cause.ok_or(Refused::Choose("先选是哪方面的原因，再点“保存”。"))?;
            Act::Triage { cause: *cause }
        }
        "resolve" => {
            let outcome = match written.get("outcome") {
                "solved" => Ending::Solved,
                "guided" => Ending::Guided,
                "conditionally_accepted" => Ending::ConditionallyAccepted {
                    missing: text("missing"),
                    until: day(written.get("until"))?,
                },
                "refused" => Ending::Refused { basis: text("basis") },
                "out_of_scope" => Ending::OutOfScope,
                "withdrawn" => Ending::Withdrawn,
                "unreachable" => Ending::Unreachable,
                "duplicate" => Ending::Duplicate { of: text("of") },
                _ => return Err(Refused::Choose("先选办理结果，再点“答复办结”。")),
            };
            Act::Resolve { outcome, opinion: text("opinion"), answer: given("answer") }
        }
        "close" => {
            let reason = match written.get("reason") {
                OTHER => given("other"),
                reason => Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
            };
            Act::Close { reason }
        }
        "reopen" => Act::Reopen { reason: text("reason") },
        "split" => {
            let messages = written.all("messages").filter_map(|seq| seq.parse().ok()).collect();
            Act::Split { messages }
        }
        _ => Act::Join { into: text("into") },
    })
}

/// Carries out a form, and answers with the ticket's page: what was done, or why not, with the form
/// as it was filled in.
pub(super) async fn act(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path((number, name)): Path<(String, String)>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Failure> {
    let written = Written(fields);
    session.check_form(written.get("csrf"))?;
    must_receive(session.role)?;
    let names = Act::NAMES.into_iter().chain(["claim", "refer", "revoke_links", "contact"]);
    let act = names.into_iter().find(|one| *one == name).ok_or_else(Failure::gone)?;
    let (office, ticket) = named(&app, &session, &number)?;
    let by = Actor::Staff(session.staff);
    let (pool, clock) = (&app.pool, &app.clock);
    let carried_out = async {
        match act {
            "claim" => {
                desk::claim(pool, clock, office.id, ticket, session.staff).await?;
                Ok(Done::default())
            }
            "refer" => {
                let unit =
                    written.get("unit").parse().map(UnitId).map_err(|_| DeskError::NoUnit)?;
                desk::refer(pool, clock, office.id, ticket, unit, by.clone()).await?;
                Ok(Done::default())
            }
            _ => {
                let seen = written.get("seen").parse().ok();
                let deed = Deed { pool, clock, office: &office, ticket, by: &by, seen };
                if act == "contact" {
                    let (name, phone) = (written.get("name"), written.get("phone"));
                    return Ok(desk::correct_contact(deed, name, phone).await?);
                }
                if act == "revoke_links" {
                    return Ok(desk::revoke_links(deed).await?);
                }
                Ok::<_, Refused>(desk::perform(deed, &read(act, &written)?).await?)
            }
        }
    };
    match carried_out.await {
        Ok(done) => {
            announce(&app, office.id, &done).await;
            let number = ticket.display(&office.prefix);
            // Who speaks with the citizen writes on the ticket; else the next one is called.
            let (became, list) = match (act, written.get("answer")) {
                ("call_back", "reached") => ("reached", false),
                ("call_back", _) if done.gave_up => ("unreachable", written.has("from", "list")),
                ("call_back", answer) => {
                    (Answer::parse(answer).map_or(act, Answer::as_str), written.has("from", "list"))
                }
                _ => (act, false),
            };
            let to = match list {
                true => format!("/desk?view=call_back&done={became}&of={number}"),
                false => format!("/desk/tickets/{number}?done={became}"),
            };
            Ok(Redirect::to(&to).into_response())
        }
        Err(Refused::Desk(DeskError::NoTicket)) => Err(Failure::gone()),
        Err(Refused::Desk(DeskError::Store(error))) => Err(error.into()),
        Err(refused) => {
            let (status, says) = says(act, &refused, &office);
            let frame = Frame::new(&app, session).await?;
            let shown = Shown { act, written, says: Some(says), done: None };
            let mut response = show(&app, frame, ticket, shown).await?;
            *response.status_mut() = status;
            Ok(response)
        }
    }
}

/// What was not done, why, and what to do.
fn says(act: &str, refused: &Refused, office: &Office) -> (StatusCode, String) {
    let (conflict, wrong) = (StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY);
    let error = match refused {
        Refused::Choose(says) => return (wrong, (*says).to_owned()),
        Refused::Desk(error) => error,
    };
    let first = match act {
        "refer" => "先认领，再转办",
        "resolve" => "先认领，再答复",
        _ => "先认领，再办理",
    };
    let (status, says) = match error {
        DeskError::NoUnit => (wrong, "先选好要转给哪个股室，再点“转办”。".to_owned()),
        DeskError::NoOther => (
            wrong,
            "没有这个编号的反映。请核对编号，例如 BCS-2026-000123。".replace("BCS", &office.prefix),
        ),
        DeskError::SameTicket => (wrong, "这是它自己的编号。请填另一件的编号。".to_owned()),
        DeskError::OtherEnded => (
            conflict,
            "那一件已经有结果，不能再并入。请先打开那一件点“重新办理”，或者在这里单独答复。"
                .to_owned(),
        ),
        DeskError::NoWorkingDay => {
            (wrong, "日期要选今天以后的一个工作日，不能是周末或放假的日子。".to_owned())
        }
        DeskError::NoPhone => (wrong, "电话号码不对，请填手机号或带区号的座机号。".to_owned()),
        DeskError::TooLong => {
            (wrong, format!("写得太长了，每一栏最多 {LONGEST_TEXT} 个字，请精简。"))
        }
        DeskError::NoMessage => (wrong, "先勾选要另立一件的消息。".to_owned()),
        DeskError::NothingStays => (wrong, "至少要留一条消息在这一件里，请少勾选一条。".to_owned()),
        DeskError::AlreadySplit => {
            (conflict, "勾选的消息里有的已经另立一件了，见下面的记录。".to_owned())
        }
        DeskError::Changed => (
            conflict,
            "这件反映刚刚有变化（群众补充了，或者同事办了一步）。请先看下面最新的记录，再点一次。"
                .to_owned(),
        ),
        DeskError::NotAllowed(NotAllowed::AlreadyClaimed) => {
            (conflict, "已经有人认领：这件反映刚刚由别人认领了。请返回队列，选下一件。".to_owned())
        }
        DeskError::NotAllowed(NotAllowed::NotClaimed) => {
            (conflict, format!("首次接待负责制：{first}。"))
        }
        DeskError::NotAllowed(NotAllowed::Waiting) => {
            (conflict, "正在等群众补充材料。材料齐了请先点“材料已补，继续办理”。".to_owned())
        }
        DeskError::NotAllowed(NotAllowed::TextMissing) => (wrong, missing(act).to_owned()),
        DeskError::NotAllowed(NotAllowed::NobodyToCall) => (
            conflict,
            "这一件现在不用回拨：可能同事刚刚打过，或者已经有结果。经过见下面的记录。".to_owned(),
        ),
        DeskError::NotAllowed(NotAllowed::AtTheTop) => {
            (conflict, "已经在 5 级（局党组），不能再往上提请。".to_owned())
        }
        DeskError::NotAllowed(NotAllowed::NotResolved) => {
            (conflict, "还没有答复。请先“答复办结”。".to_owned())
        }
        DeskError::NotAllowed(NotAllowed::AlreadyClosed) => {
            (conflict, "已经销号。需要再办，请点“重新办理”。".to_owned())
        }
        DeskError::NotAllowed(_) | DeskError::NoTicket | DeskError::Store(_) => {
            (conflict, "这件反映已经有结果，或者已经往下办了一步。请看下面最新的记录。".to_owned())
        }
    };
    (status, format!("没有执行：{says}"))
}

fn missing(act: &str) -> &'static str {
    match act {
        "say" => "先写要告诉群众的话。",
        "await" => "先写清楚缺什么材料，一次说全。",
        "raise" => "先写提请升级的意见。",
        "resolve" => "办理意见要写；容缺受理要写缺什么，否定备案要写依据。",
        "close" => "群众还没有评价。请选一个没有评价的原因，选“其他”时写明原因。",
        "reopen" => "先写为什么要重新办理。",
        _ => "有一栏还没有填。",
    }
}

/// What the page says after it was done, and how it is undone.
pub(super) fn done(name: &str) -> Option<&'static str> {
    Some(match name {
        "registered" => "已登记。请把编号告诉群众。",
        "registered_before" => {
            "之前已登记，内容以第一次为准。如果是另一件事，请再登记一次，写过的内容还在表单里。"
        }
        "called" => "已记下：打过电话了。",
        "reached" => "已记下：接通了。请把谈的内容和结果写在这里；记错了可以“重新放回待回拨”。",
        "busy" => "已记下：占线。过一会儿再打，时间见“稍后再打”。",
        "no_answer" => {
            "已记下：无人接听。下一次在下一个办公时段再打；三次不同时间都没有人接，就可以按“多次联系不上”办结。"
        }
        "unreachable" => {
            "已记下：三次不同时间都没有人接，不再列入待回拨。请打开这一件，按“多次联系不上”办结；记错了可以在那里放回。"
        }
        "wrong_number" => "已记下：空号，或者不是本人，不再列入待回拨。记错了可以在这一件上放回。",
        "contact" => "已更正姓名、电话。以后的短信和回拨用新的号码。",
        "revoke_links" => "以前发给群众的查询链接已作废。下一次给群众发消息时会带上新链接。",
        "again" => "已放回待回拨，上一次的记录作废，经过里都留着。",
        "claim" | "claimed" => "已认领，由您负责到底。群众会收到已受理的消息。",
        "refer" | "referred" => "已转办。负责人不变，经过见下面的记录。",
        "say" => "已记下并发给群众。发出的话不能撤回，写错了请再发一条更正。",
        "await" => "已一次性告知群众。期限暂停，材料齐了请点“材料已补，继续办理”。",
        "resume" => "已继续办理，期限接着算。还缺材料时可以再告知一次。",
        "raise" => "已提请升级，上一级已得到通知。升级不能退回，负责人不变。",
        "triage" => "已记下原因。办结以前可以改。",
        "resolve" => "已答复群众，等群众评价后销号。答错了请点“重新办理”。",
        "close" => "已销号。需要再办请点“重新办理”。",
        "reopen" => "已重新办理，编号不变，期限重新算。",
        "split" => "已另立一件，编号见下面的记录。拆错了，可以把那一件并入这一件。",
        "hold" => "录音已保留，不按规定删除。不再需要时请取消保留。",
        "release" => "已取消保留，录音按规定的天数删除。",
        "join" => "已并入另一件并销号，编号见下面的记录。并错了可以重新办理。",
        _ => return None,
    })
}
