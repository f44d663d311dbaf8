//! What citizens read and hear of their ticket. Everything that they are told is here; how to reach
//! a person stands at its end.

use crate::{
    domain::{level::Level, register::RegisterNumber},
    offices::Office,
    wording,
};
use chrono::{DateTime, Utc};
use intake_contract::Telling;
use serde_json::Value;

/// What a citizen is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// What there is to say.
    body: String,
    /// How to judge it, where there is something to judge (R7.d).
    judge: &'static str,
    /// How to reach a person, and the page.
    tail: String,
    /// How the matter stands, in five characters at most: a template's `phrase`.
    pub state: &'static str,
    /// In short, for a template's `thing`.
    pub says: String,
    /// The day that it is about.
    pub date: DateTime<Utc>,
}

/// R7.d, of who reads it and has no page.
const JUDGE_BY_CALL: &str = "办理结果您是否满意，欢迎来电告诉我们。";
/// R7.d, of who is on the telephone.
const JUDGE_NOW: &str =
    "请问您对办理结果满意吗？非常满意、满意、基本满意、不满意，还是非常不满意？";

impl Words {
    /// What the citizen reads, without how to reach a person.
    #[must_use]
    pub fn written(&self) -> String {
        format!("{}{}", self.body, self.judge)
    }

    /// What an officer says on the telephone.
    #[must_use]
    pub fn spoken(&self) -> String {
        let judge = match self.judge {
            JUDGE_BY_CALL => JUDGE_NOW,
            judge => judge,
        };
        format!("{}{judge}", self.body)
    }

    /// All of it in at most `limit` bytes: where it is longer, what there is to say is cut, never
    /// how to reach somebody.
    #[must_use]
    pub fn within(&self, limit: usize) -> String {
        self.cut(limit, &format!("{}{}", self.judge, self.tail))
    }

    /// As [`Self::within`], to stand above the grades that can be tapped.
    #[must_use]
    pub fn above_grades(&self, limit: usize) -> String {
        self.cut(limit, &format!("{}\n您对办理结果满意吗？请点选：", self.tail))
    }

    fn cut(&self, limit: usize, end: &str) -> String {
        const CUT: &str = "……（内容较长，全文请来电询问）";
        if self.body.len() + end.len() <= limit {
            return format!("{}{end}", self.body);
        }
        let room = limit.saturating_sub(end.len() + CUT.len());
        let cut = self.body.floor_char_boundary(room);
        format!("{}{CUT}{end}", &self.body[..cut])
    }
}

/// The words for a reply. `facts` are those of when it was decided; `link` is the citizen's page.
#[must_use]
pub fn words(
    office: &Office,
    ticket: RegisterNumber,
    kind: Telling,
    facts: &Value,
    link: Option<&str>,
    now: DateTime<Utc>,
) -> Words {
    let text =
        |key: &str| facts.get(key).and_then(Value::as_str).map(str::trim).unwrap_or_default();
    let at = |key: &str| -> Option<DateTime<Utc>> {
        facts.get(key).and_then(|at| serde_json::from_value(at.clone()).ok())
    };
    let said = |at: DateTime<Utc>| wording::said(at, now);
    let number = ticket.display(&office.prefix);
    let matter = format!("您反映的事项（编号 {number}）");
    let due = at("due_at");
    let provisional = facts.get("provisional").and_then(Value::as_bool).unwrap_or(false);
    // A date that may still move is never told as a fact, one that is past is no promise (A4).
    let promised = match due {
        Some(due) if !provisional && due > now => format!("最晚{}前答复您", said(due)),
        Some(_) if provisional => {
            "答复日期要等国务院公布放假安排后才能确定，我们会尽快办理".to_owned()
        }
        _ => "我们会尽快答复您".to_owned(),
    };
    let date = due.unwrap_or(now);
    let (state, body, says, date) = match kind {
        Telling::Registered => {
            let starts = match at("follow_up_at").filter(|at| !provisional && *at > now) {
                Some(at) => format!("我们{}开始办理，", said(at)),
                None => String::new(),
            };
            let contact = match facts.get("asks").and_then(Value::as_bool) {
                Some(true) => "方便的话，请回复您的姓名和电话，不影响办理。",
                _ => "",
            };
            let owed = facts.get("owed").and_then(Value::as_bool).unwrap_or(true);
            let body = match owed {
                true => format!(
                    "您好，您发来的内容已登记，编号 {number}。{starts}{promised}。{contact}"
                ),
                false => format!("您好，您发来的内容已登记，编号 {number}。"),
            };
            ("已登记", body, "您发来的内容已登记".to_owned(), date)
        }
        Telling::Claimed => {
            let who = match text("who") {
                "" => "工作人员".to_owned(),
                who => format!("工作人员{who}"),
            };
            let body = format!("您好，{matter}已由{who}受理，负责到底，{promised}。");
            ("已受理", body, format!("已由{who}受理"), date)
        }
        Telling::Raised => {
            let level: Option<Level> =
                facts.get("level").and_then(|level| serde_json::from_value(level.clone()).ok());
            let to = match level {
                Some(Level::PartyGroup) => "局党组",
                Some(Level::Leadership) => "中心领导",
                Some(Level::Duty) | None => "上级领导",
            };
            // Handed up by an officer it is no delay; at the limit it is one, and we say so.
            let why = match facts.get("opinion").is_some_and(|opinion| !opinion.is_null()) {
                true => format!("情况比较复杂，已提请{to}研究"),
                false => format!("在承诺的时间内没有办完，很抱歉。已报请{to}处理"),
            };
            (
                "已升级",
                format!("您好，{matter}{why}，{promised}。"),
                format!("已报{to}，请等候"),
                date,
            )
        }
        Telling::Awaiting => {
            let (missing, until) = (text("missing"), at("until"));
            // A day that is past when this arrives is no date to name.
            let by = match until.filter(|at| *at > now) {
                Some(at) => format!("请在{}前", said(at)),
                None => "请尽快".to_owned(),
            };
            let body = format!(
                "您好，{matter}还需要您补充：{}{by}补齐，我们收到后继续办理。",
                sentence(missing)
            );
            ("待补材料", body, format!("请补充：{missing}"), until.unwrap_or(date))
        }
        Telling::Resolved => {
            let answer = text("answer");
            let body = format!("您好，{matter}已有结果：{}", sentence(answer));
            ("已有结果", body, answer.to_owned(), now)
        }
        Telling::Said => {
            let words = text("text");
            ("有新回复", format!("您好，关于{matter}：{words}"), words.to_owned(), date)
        }
        Telling::Reopened => {
            let body = format!("您好，{matter}已重新办理，编号不变，{promised}。");
            ("重新办理", body, "已重新办理，编号不变".to_owned(), date)
        }
    };
    let judge = match (kind, link) {
        (Telling::Resolved, Some(_)) => "请您在下面的页面上评价办理结果。",
        (Telling::Resolved, None) => JUDGE_BY_CALL,
        _ => "",
    };
    Words { body, judge, tail: tail(office, link, now), state, says, date }
}

/// What an officer wrote, ended as a sentence.
fn sentence(text: &str) -> String {
    let ended = text.ends_with(['。', '！', '？', '…', '.', '!', '?']);
    format!("{text}{}", if ended { "" } else { "。" })
}

fn tail(office: &Office, link: Option<&str>, now: DateTime<Utc>) -> String {
    let mut tail = String::new();
    if let Some(link) = link {
        tail.push_str(&format!("\n查看详情：{link}"));
    }
    if let Some(phone) = &office.policy.phone {
        let hours = office.calendar.hours_said(wording::day_of(now));
        tail.push_str(&format!("\n联系我们：{} {phone}，{hours}", office.name));
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{calendar::WorkingCalendar, id::OfficeId, policy::Policy};
    use serde_json::json;

    fn office() -> Office {
        Office {
            id: OfficeId(1),
            code: "a".to_owned(),
            name: "反映窗口".to_owned(),
            prefix: "BCS".to_owned(),
            policy: Policy { phone: Some("024-7412 3456".to_owned()), ..Policy::default() },
            calendar: WorkingCalendar::national().build(),
            calendar_version: 1,
            link_key: Vec::new().into(),
        }
    }

    fn told(kind: Telling, facts: Value, link: Option<&str>) -> Words {
        let now = DateTime::parse_from_rfc3339("2026-11-25T09:00:00+08:00").unwrap().to_utc();
        words(&office(), RegisterNumber::new(2026, 12).unwrap(), kind, &facts, link, now)
    }

    const DUE: &str = "2026-11-26T16:30:00+08:00";

    #[test]
    fn each_telling_says_number_state_date_and_how_to_reach_a_person() {
        let contact =
            "\n联系我们：反映窗口 024-7412 3456，办公时间：工作日 8:30-11:30、13:00-16:30。";
        for (kind, facts, body, state) in [
            (
                Telling::Claimed,
                json!({ "who": "赵敏", "due_at": DUE }),
                "您好，您反映的事项（编号 BCS-2026-000012）已由工作人员赵敏受理，负责到底，最晚11月26日（周四）16:30前答复您。",
                "已受理",
            ),
            (
                Telling::Raised,
                json!({ "level": 3, "due_at": DUE }),
                "您好，您反映的事项（编号 BCS-2026-000012）在承诺的时间内没有办完，很抱歉。已报请中心领导处理，最晚11月26日（周四）16:30前答复您。",
                "已升级",
            ),
            (
                Telling::Awaiting,
                json!({ "missing": "身份证复印件", "until": DUE }),
                "您好，您反映的事项（编号 BCS-2026-000012）还需要您补充：身份证复印件。请在11月26日（周四）16:30前补齐，我们收到后继续办理。",
                "待补材料",
            ),
            (
                Telling::Resolved,
                json!({ "answer": "社保卡已制好，请来取。" }),
                "您好，您反映的事项（编号 BCS-2026-000012）已有结果：社保卡已制好，请来取。",
                "已有结果",
            ),
        ] {
            let words = told(kind, facts, None);
            let (asked, judged) = match kind {
                Telling::Resolved => (JUDGE_NOW, JUDGE_BY_CALL),
                _ => ("", ""),
            };
            assert_eq!((words.spoken(), words.state), (format!("{body}{asked}"), state));
            assert_eq!(words.within(2048), format!("{body}{judged}{contact}"));
            assert!(state.chars().count() <= 5, "{state}");
        }
    }

    #[test]
    fn a_date_that_may_move_or_is_past_is_not_promised() {
        let may_move = told(Telling::Claimed, json!({ "due_at": DUE, "provisional": true }), None);
        assert!(!may_move.body.contains("11月26日"), "{}", may_move.body);
        let past = told(Telling::Claimed, json!({ "due_at": "2026-11-24T16:30:00+08:00" }), None);
        assert!(past.body.ends_with("我们会尽快答复您。"), "{}", past.body);
    }

    #[test]
    fn what_is_too_long_is_cut_before_the_way_to_a_person() {
        let long = "长".repeat(2000);
        let facts = json!({ "text": long, "answer": long });
        let words = |kind| told(kind, facts.clone(), Some("https://a.test/c/x"));
        let asks = "您对办理结果满意吗？请点选：";
        let above = words(Telling::Resolved).above_grades(2048);
        assert!(above.ends_with(asks) && !above.contains("页面上评价"), "{above}");
        for text in [words(Telling::Said).within(2048), above] {
            assert!(text.len() <= 2048 && text.contains("全文请来电询问"), "{}", text.len());
            assert!(text.contains("https://a.test/c/x") && text.contains("024-7412 3456"));
        }
    }
}
