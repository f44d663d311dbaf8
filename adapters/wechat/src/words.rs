use chrono::{DateTime, Datelike, Timelike, Utc, Weekday};
use intake_contract::{Command, Kept, Meaning, Receipt, Said, Standing, china};

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

    pub(crate) fn kept_for_staff(&self) -> String {
        "已收到您的消息，工作人员会查看并处理。".to_owned()
    }

    /// For what is in the spool: it is safe, and nothing that the database knows can be said. No time
    /// is promised, for nobody knows how long it takes.
    pub(crate) fn spooled(&self, meaning: &Meaning, alarms: bool) -> String {
        const TELL: &str = "请说明：办什么事、在哪里办、卡在哪一步。";
        let alarm = match alarms {
            true => "您说的情况紧急：有生命危险时，请立即拨打 110 或 120，不要等我们回复。",
            false => "",
        };
        let told = match meaning {
            Meaning::Statement | Meaning::Bare => format!(
                "您发来的内容已安全收到，不会丢失，不用重发。登记系统暂时连不上，恢复后马上登记，编号和答复时间随后告诉您。着急的话，{}{}",
                self.person(),
                self.opening_hours
            ),
            Meaning::Greeting => {
                format!("收到了。登记系统暂时连不上，您照常在这里留言，我们不会漏掉。{TELL}")
            }
            Meaning::Command(Command::NewMatter) => {
                format!("好的。您接下来发的内容会另登记一件。{TELL}")
            }
            Meaning::Command(Command::Arrived { follows: true, .. }) => self.welcome(),
            Meaning::Command(Command::Arrived { .. } | Command::Report) => self.how_to_report(),
            Meaning::Command(Command::File) => {
                self.said(&Said::NoFiles { number: None, page: None })
            }
            Meaning::Command(Command::Choice(_)) => {
                "已收到您的选择，系统恢复后马上记录，不用再点。".to_owned()
            }
            Meaning::Command(_) => format!(
                "收到了。登记系统暂时连不上，恢复后转告工作人员。着急的话，{}{}",
                self.person(),
                self.opening_hours
            ),
        };
        format!("{alarm}{told}")
    }

    /// For who asks while nothing can be looked up, and nothing is kept.
    pub(crate) fn ask_again(&self, meaning: &Meaning) -> String {
        match meaning {
            Meaning::Command(Command::Help) => self.said(&Said::Help),
            _ => "登记系统暂时连不上，暂时查不到，请过一会儿再发一次。已经登记的事项照常办理，不受影响。"
                .to_owned(),
        }
    }

    fn person(&self) -> String {
        match &self.phone {
            Some(phone) => format!("请拨打窗口电话 {phone}，也可以直接到窗口来。"),
            None => "您可以直接到窗口来，也可以拨打 12333。".to_owned(),
        }
    }

    /// What is answered where nothing was registered. Depends on the facts only, so that a repeat
    /// reads the same.
    pub(crate) fn said(&self, answer: &Said) -> String {
        match answer {
            Said::HowToReport => self.how_to_report(),
            Said::Welcome => self.welcome(),
            Said::WordsWanted { again: true, .. } => {
                "收到了，和刚才的一起留着。请再用文字说一说是什么事。".to_owned()
            }
            Said::WordsWanted { by_itself_at, .. } => format!(
                "收到了，已经留好。请再用文字说一说是什么事，我们马上登记。没有文字的话，{}也会登记。",
                clock(*by_itself_at)
            ),
            Said::OldOrNew { number, open, again: true, .. } => format!(
                "已经留好。请告诉我们：是 {number} 那件事，回复 1；是新的事，回复 2{}。",
                open.as_ref()
                    .map(|open| format!("；是正在办的 {open}，回复 3"))
                    .unwrap_or_default()
            ),
            Said::OldOrNew { number, open, by_itself_at, .. } => {
                let (third, else_to) = match open {
                    Some(open) => {
                        (format!("；是正在办的 {open}，请回复 3"), format!("补充到 {open}"))
                    }
                    None => (String::new(), "按新的反映登记".to_owned()),
                };
                format!(
                    "收到了，已经留好。您的反映 {number} 已办结。您说的还是那件事，请回复 1，我们接着办；是新的事，请回复 2{third}。不回复的话，{}{else_to}。",
                    clock(*by_itself_at)
                )
            }
            Said::AddOrNew { number } => format!(
                "您的反映 {number} 正在办理。要补充，直接在这里发给我们；要反映另一件事，请先回复“新诉求”。"
            ),
            Said::NextIsNew { number } => format!(
                "好的。您接下来发的内容会另登记一件，和 {number} 分开办理。请说明：办什么事、在哪里办、卡在哪一步。"
            ),
            Said::Progress(standings) if standings.is_empty() => {
                format!("您在这里没有正在办理的反映。{}", self.how_to_report())
            }
            Said::Progress(standings) => {
                let lines = standings.iter().map(|one| {
                    let link = page("详情", one.page.as_deref());
                    format!("{}：{}。{link}", one.number, stands(one))
                });
                lines.collect::<Vec<_>>().join("\n")
            }
            Said::GradeWanted { number, page: link } => format!(
                "{number} 已经答复。请问您对办理结果满意吗？回复数字：1 非常满意，2 满意，3 基本满意，4 不满意，5 非常不满意。{}",
                page("想多说几句，请点", link.as_deref())
            ),
            Said::Evaluated { number, dissatisfied: false } => {
                format!("谢谢您的评价，{number} 已记录。")
            }
            Said::Evaluated { number, dissatisfied: true } => format!(
                "谢谢您如实评价，{number} 已记录，带班领导会看到。还有没解决的，请直接在这里告诉我们。"
            ),
            Said::NothingToEvaluate { done: true, .. } => {
                "您已经评价过了，谢谢。还有没解决的，请直接在这里告诉我们。".to_owned()
            }
            Said::NothingToEvaluate { number: Some(number), .. } => {
                format!("{number} 还在办理，答复以后请您再评价。")
            }
            Said::NothingToEvaluate { number: None, .. } => {
                format!("您在这里没有等待评价的反映。{}", self.how_to_report())
            }
            Said::ClosedUnjudged { number } => {
                format!("{number} 已经办结，没有来得及记下您的评价。您的意见请直接在这里写给我们。")
            }
            Said::ConfirmWithdrawal { number } => format!(
                "您要撤回 {number} 吗？撤回后我们就不再办理这件事。确定撤回请回复“确认”，不撤回请回复“不”。"
            ),
            Said::Withdrawn { number } => {
                format!("{number} 已按您的意思撤回。以后还有困难，随时在这里告诉我们。")
            }
            Said::NotWithdrawn { number } => format!("好的，{number} 继续办理。"),
            Said::SameMatter { number, of } => {
                format!("已记下：{number} 说的就是 {of} 那件事，工作人员会放在一起办理。")
            }
            Said::NoFiles { number, page: link } => {
                let then = match (number, link) {
                    (Some(number), Some(link)) => {
                        format!(
                            "，或者打开下面的页面，把文件上传到 {number}。\n上传材料：{link}/more"
                        )
                    }
                    (Some(number), None) => {
                        format!("，或者用文字说明，都会补充到 {number}。")
                    }
                    (None, _) => "，或者用文字说明。".to_owned(),
                };
                format!("抱歉，公众号收不到文件。请把材料拍成照片发来{then}")
            }
            Said::NothingToWithdraw => "您在这里没有可以撤回的反映。".to_owned(),
            Said::Person { number: Some(number) } => format!(
                "已记在 {number} 上，工作人员上班时会看到并联系您。着急的话，{}{}",
                self.person(),
                self.opening_hours
            ),
            Said::Person { number: None } => format!(
                "{}{}也可以在这里留下您的电话和要办的事，我们联系您。",
                self.person(),
                self.opening_hours
            ),
            Said::Help => format!(
                "在这里您可以：直接用文字、语音或照片反映困难；回复“进度”查办理情况；回复“新诉求”另反映一件事；回复“评价”评价办理结果；回复“撤回”撤回反映；回复“人工”联系工作人员。{}",
                self.opening_hours
            ),
            Said::Reopened { number, due_at, provisional } => {
                let due = if *provisional {
                    "会尽快答复您".to_owned()
                } else {
                    format!("最晚{}前给您答复", said(*due_at))
                };
                format!("好的，{number} 重新办理，编号不变，{due}。您刚才发的都已补充进去。")
            }
        }
    }

    /// The receipt. Depends on the facts only, so that a repeat reads the same.
    pub(crate) fn receipt(&self, kept: Kept, receipt: &Receipt) -> String {
        let late = !receipt.provisional && receipt.due_at <= receipt.received_at;
        let due = if late {
            // A date in the past is no promise, and to repeat it is an insult.
            "您的反映已超过承诺日期，我们已报告上级领导，会尽快答复".to_owned()
        } else if receipt.provisional {
            "答复日期要等国务院公布放假安排后才能确定，我们会尽快办理".to_owned()
        } else {
            format!("最晚{}前给您答复", said(receipt.due_at))
        };
        let number = &receipt.number;
        // The relay tells them as soon as this is answered; a promise of Monday would be cruel here.
        let alarm = match (receipt.alarms, receipt.alarm_reaches) {
            (true, true) => {
                "您说的情况紧急，我们马上通知带班领导。有生命危险时，请立即拨打 110 或 120。"
            }
            (true, false) => {
                "您说的情况紧急，请不要只在这里等：有生命危险时，请立即拨打 110 或 120。"
            }
            _ => "",
        };
        let told = match kept {
            Kept::AppendedContact => {
                format!("已记下您的联系方式，补充到您的反映 {number}。{due}。")
            }
            Kept::Registered => {
                let starts = match receipt.follow_up_at {
                    Some(_) if receipt.provisional => "我们上班后开始办理".to_owned(),
                    Some(at) => format!("我们{}开始办理", said(at)),
                    None => "工作人员现在开始办理".to_owned(),
                };
                let contact = if receipt.asks_contact {
                    "方便的话，请回复您的姓名和电话，工作人员好联系您，不影响办理。"
                } else {
                    ""
                };
                format!(
                    "您的反映已登记，编号 {number}。{starts}，{due}。周末和法定节假日不计入。如有补充，直接在这里发给我们。{contact}{}",
                    page("查看办理情况", receipt.page.as_deref())
                )
            }
            Kept::AppendedWhileWaiting => {
                format!("已收到，补充到您的反映 {number}。工作人员查看后接着办理。")
            }
            Kept::AppendedAfterAnswer => format!(
                "已收到，补充到您的反映 {number}，工作人员会看到。这件事已经答复过，还没评价的，请回复“评价”告诉我们是否满意。"
            ),
            Kept::Appended => format!("已收到，补充到您的反映 {number}。{due}。"),
        };
        format!("{alarm}{told}")
    }
}

/// A list of what is missing may be long; the rest of it stands on the page.
fn briefly(text: &str) -> String {
    const CHARS: usize = 150;
    match text.char_indices().nth(CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}……", &text[..end]),
    }
}

/// A link on a line of its own.
fn page(what: &str, link: Option<&str>) -> String {
    link.map(|link| format!("\n{what}：{link}")).unwrap_or_default()
}

/// Where a matter stands, in one sentence.
fn stands(standing: &Standing) -> String {
    let due = if standing.late {
        "已超过承诺日期，我们已报告上级领导，会尽快答复".to_owned()
    } else if standing.provisional {
        "答复日期要等国务院公布放假安排后才能确定".to_owned()
    } else {
        format!("最晚{}前答复", said(standing.due_at))
    };
    match standing.state.as_str() {
        "registered" => format!("已登记，等待办理，{due}"),
        "awaiting_citizen" => match &standing.missing {
            Some(_) if standing.came => "您补充的已经收到，等工作人员查看".to_owned(),
            Some((missing, until)) if standing.late => {
                let missing = briefly(missing);
                format!("等您补充：{missing}，原定{}前，已经过了，还能补，请尽快", said(*until))
            }
            Some((missing, until)) => {
                let missing = briefly(missing);
                format!("等您补充：{missing}，请在{}前补来", said(*until))
            }
            None => "等您补充材料".to_owned(),
        },
        "resolved" => "已答复，请您评价（回复“评价”）".to_owned(),
        "evaluated" => "已答复，您已评价".to_owned(),
        "closed" => "已办结".to_owned(),
        _ => format!("正在办理，{due}"),
    }
}

/// `22:24`.
fn clock(at: DateTime<Utc>) -> String {
    let local = at.with_timezone(&china());
    format!("{}:{:02}", local.hour(), local.minute())
}

/// `11月30日（周一）8:30`: a date is always told with its weekday.
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
