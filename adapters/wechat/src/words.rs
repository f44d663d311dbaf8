use chrono::{DateTime, Datelike, Timelike, Utc, Weekday};
use intake_contract::{Kept, Receipt, china};

/// What the account says of the window.
#[derive(Debug, Clone, Default)]
pub struct ServiceWords {
    /// The window's name.
    pub office_name: String,
    /// When somebody is there, as a sentence.
    pub opening_hours: String,
    /// The window's telephone.
    pub phone: Option<String>,
}

impl ServiceWords {
    /// For who has just begun to follow.
    pub(crate) fn welcome(&self) -> String {
        format!("您好，欢迎关注{}。{}", self.office_name, self.how_to_report())
    }

    /// How to report.
    pub(crate) fn how_to_report(&self) -> String {
        let phone = self.phone.as_ref().map(|phone| format!("也可以拨打窗口电话 {phone}。"));
        format!(
            "办事遇到困难，请直接在这里用文字说明：办什么事、在哪里办、卡在哪一步。我们收到后马上给您登记编号，并告诉您最晚什么时候答复。{}{}",
            self.opening_hours,
            phone.unwrap_or_default()
        )
    }

    pub(crate) fn no_files(&self) -> String {
        "抱歉，公众号收不到文件。请把材料拍成照片发来，或者用文字说明。".to_owned()
    }

    pub(crate) fn kept_for_staff(&self) -> String {
        "已收到您的消息，工作人员会查看并处理。".to_owned()
    }

    /// The receipt. Depends on the facts only, so that a repeat reads the same.
    pub(crate) fn receipt(&self, kept: Kept, receipt: &Receipt) -> String {
        let late = !receipt.provisional && receipt.due_at <= receipt.received_at;
        let due = if late {
            // A date in the past is no promise, and to repeat it is an insult.
            "您的反映已超过承诺日期，我们已报上级督办，会尽快答复".to_owned()
        } else if receipt.provisional {
            "答复日期要等国务院公布放假安排后才能确定，我们会尽快办理".to_owned()
        } else {
            format!("最晚{}前给您答复", said(receipt.due_at))
        };
        let number = &receipt.number;
        match kept {
            Kept::Registered => {
                let starts = match receipt.follow_up_at {
                    Some(_) if receipt.provisional => "我们上班后开始办理".to_owned(),
                    Some(at) => format!("我们{}开始办理", said(at)),
                    None => "工作人员现在开始办理".to_owned(),
                };
                format!(
                    "您的反映已登记，编号 {number}。{starts}，{due}。周末和法定节假日不计入。如有补充，直接在这里发给我们。"
                )
            }
            Kept::Appended => format!("已收到，补充到您的反映 {number}。{due}。"),
        }
    }
}

/// `11月30日(周一)8:30`: a date is always told with its weekday.
fn said(at: DateTime<Utc>) -> String {
    let local = at.with_timezone(&china());
    let weekday = match local.weekday() {
        Weekday::Mon => "周一",
        Weekday::Tue => "周二",
        Weekday::Wed => "周三",
        Weekday::Thu => "周四",
        Weekday::Fri => "周五",
        Weekday::Sat => "周六",
        Weekday::Sun => "周日",
    };
    let (month, day, hour, minute) = (local.month(), local.day(), local.hour(), local.minute());
    format!("{month}月{day}日（{weekday}）{hour}:{minute:02}")
}
