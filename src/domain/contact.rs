//! The name and the telephone that the form needs (R7.2), recognised in what a citizen writes.
//!
//! Rather too careful than too clever: what is not recognised stands in the message all the same,
//! and an officer reads it; what is taken for a name and is none would stand on the form.

use super::word_list::WordList;
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;

/// What of the form a text gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contact {
    /// As written.
    pub name: Option<String>,
    /// Digits, with a hyphen after a landline's area code.
    pub phone: Option<String>,
}

impl Contact {
    /// Whether it gives nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.name.is_none() && self.phone.is_none()
    }
}

/// Family names that most people in China bear; of two characters, then of one.
const DOUBLE: &str =
    "欧阳 上官 司马 诸葛 东方 皇甫 尉迟 公孙 慕容 长孙 宇文 司徒 令狐 端木 夏侯 南宫";
const SINGLE: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳管柴蒙鲍华喻祁房滕屈饶解牟艾尤阳时穆农司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵苟邬边卞姬师和仇栾隋商刁沙荣巫寇桑郎甄丛仲虞敖巩明佘池查麻苑迟邝";

/// Words of everyday speech that have the form of a name.
const WORDS: &str = "农民 农民工 工人 车主 房主 房东 经办人 家属 连长 师傅 和平 时候 老师 马上 明天 谢谢 麻烦 解决 高兴 方便 时间 \
    司机 党员 应届生 高中生 单身 单亲 单独 文员 程序员 包工头 商户 商贩 施工方 施工队 牧民 成年人 常住 党代表 安置户 \
    温州人 安徽人 方案 余额 金额 路灯 路口 路边 温度 白天 包括 包含 严重 成功 成立 应该 项目 路过 简单 连续 连接 何时 何必 \
    祝好 关于 关闭 关系 全部 毕竟 平时 平台 游客 管道 阳台 万分 万一 任何 夏天 周末 周一 周二 周三 周四 周五 周六 周日 \
    曾经 常年 常常 房租 房屋 门口 文化 文件 成交 严格 武装 古代 司法 和解 商量 全家 官司 安全 安静 齐全 高中 高楼 高温 \
    水管 水电 石头 冷水 车辆 车间 年底 年初 月底 丁字路 左边 右边 井盖 施工 祁连 甘肃 江苏 江西 陕西 山西 易经 计划 计算 \
    支持 习惯 季度 凌晨 雷雨 毛病 孔洞 顾客 孟婆 龙头 史上 陶瓷 钱包 汤药 樊笼 童年 成人 何况 何处 都行 还行 还有 还在 都在 \
    向上 向前 向西 向东 华为 单元 单价 伍拾 元旦 柴油 牛奶 羊肉 鱼塘 农户 农村 农田 党校 党委 政府 尚未 尽快 范围 郑重 许久 许多 \
    沈阳 万元 百元 千元 任务 柳树 蓝天 蓝牙 游泳 辛苦 解释 解答 饶命 宁可 宁愿 江边 安装 安排 乐意 代办 代表 强烈 宗教 危险 危房";
/// What makes 于 a preposition.
const WHEN: [char; 15] =
    ['今', '去', '本', '上', '昨', '前', '当', '后', '同', '此', '是', '年', '月', '日', '二'];

/// What comes before one's own name.
const LEADS: [&str; 6] = ["姓名", "名字", "我叫", "联系人", "反映人", "叫我"];
static LED: LazyLock<WordList> = LazyLock::new(|| WordList::new(LEADS).expect("six short words"));
/// What may come before a name, or before anything else: a name only with a telephone behind it.
const WEAK_LEADS: [&str; 2] = ["我是", "本人"];
/// What comes before one's own number, where a clause begins with it.
const PHONE_LEADS: [&str; 9] =
    ["联系电话", "手机号码", "电话号码", "联系方式", "手机号", "手机", "电话", "号码", "联系我"];
/// What makes a number one's own in the middle of a clause.
const OWN: [&str; 3] = ["我的", "本人", "我"];

/// What of the form a text gives. `asked`: the citizen has been asked for it, so that a text which
/// is nothing but a name is one.
///
/// A number is the citizen's where they say so: it follows 「我的电话」, a clause that begins with
/// 「电话」, or their own name, or it is all that the text says. Other people's numbers stand in a
/// complaint as well, and whoever has the citizen's number is told of the matter.
#[must_use]
pub fn recognise(text: &str, asked: bool) -> Contact {
    // Most messages give neither: without digits and without a lead there is nothing to look for.
    if !asked && !text.contains(is_digit) && !LED.stands_in(text) {
        return Contact::default();
    }
    // Full-width digits and marks become plain ones.
    let text: String = text.nfkc().collect();
    let numbers = phones(&text);
    let named = LEADS.iter().find_map(|lead| led_name(&text, lead));
    let own = numbers.iter().find_map(|(number, span)| {
        let (before, after) = (&text[..span.0], &text[span.1..]);
        // `张三 13900001234` is both, whoever asked.
        if let Some(name) = only_name(&format!("{before} {after}")) {
            return Some((number.clone(), Some(name)));
        }
        if only_labels(before) && only_labels(after) {
            return Some((number.clone(), None));
        }
        if !ends_clause(after) {
            return None;
        }
        let behind = before.trim_end_matches(between);
        let verb = ["换成", "改成", "换为", "改为", "是", "为"];
        let label = verb.iter().find_map(|verb| behind.strip_suffix(verb)).unwrap_or(behind);
        let label = label.trim_end_matches(between);
        let led = PHONE_LEADS.iter().find_map(|lead| label.strip_suffix(lead));
        // `我是李娜，139…`, `我叫王芳，电话139…`
        let unlabelled = led.unwrap_or(behind).trim_end_matches(between);
        let weak = WEAK_LEADS.iter().chain(&LEADS).find_map(|lead| {
            let (_, name) = unlabelled.rsplit_once(lead)?;
            as_name(name.trim_start_matches(between))
        });
        if let Some(name) = weak {
            return Some((number.clone(), Some(name)));
        }
        // Signed with it: `灯坏了三天。王芳，电话139…`
        let last = unlabelled.rsplit(between).next().unwrap_or_default();
        if let Some(name) = as_name(last).filter(|_| !after.contains(char::is_alphanumeric)) {
            return Some((number.clone(), Some(name)));
        }
        let led = led?;
        let begins = led.is_empty() || led.ends_with(|c: char| !c.is_alphanumeric());
        (begins || OWN.iter().any(|own| led.ends_with(own))).then(|| (number.clone(), None))
    });
    let (phone, beside) = own.unzip();
    let alone = || {
        let first = WEAK_LEADS.iter().find_map(|lead| text.trim().strip_prefix(lead));
        (asked && numbers.is_empty()).then(|| only_name(first.unwrap_or(&text))).flatten()
    };
    Contact { name: named.or(beside.flatten()).or_else(alone), phone }
}

/// Whether a text says nothing but how to reach who wrote it (R7.2): no matter of its own.
#[must_use]
pub fn is_only_contact(text: &str) -> bool {
    let text: String = text.nfkc().collect();
    let Some((_, span)) = phones(&text).into_iter().next() else { return false };
    let (before, after) = (&text[..span.0], &text[span.1..]);
    let rest = format!("{before} {after}");
    let rest = LEADS.iter().chain(&WEAK_LEADS).fold(rest, |rest, lead| rest.replace(lead, " "));
    only_labels(&rest) || only_name(&rest).is_some()
}

/// Whether NFKC may make a digit of it. Ideographs are asked for first: a text is full of them, and
/// to look up what they are takes longer than anything else here.
fn is_digit(c: char) -> bool {
    !('\u{4E00}'..='\u{9FFF}').contains(&c) && c.is_numeric()
}

/// Marks between a label and what it labels.
fn between(c: char) -> bool {
    !c.is_alphanumeric() && c != '+' && c != '('
}

fn ends_clause(after: &str) -> bool {
    let after = after.strip_prefix(['了', '啊', '哦', '吧', '哈']).unwrap_or(after);
    after.chars().next().is_none_or(|c| !c.is_alphanumeric())
}

/// Whether nothing is said but what a number is.
fn only_labels(text: &str) -> bool {
    let mut rest = text.to_owned();
    for word in PHONE_LEADS.iter().chain(&["我的", "本人", "是", "为"]) {
        rest = rest.replace(word, "");
    }
    !rest.contains(char::is_alphanumeric)
}

/// The telephone numbers in a text, each with where it stands.
fn phones(text: &str) -> Vec<(String, (usize, usize))> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(from) = text[at..].find(|c: char| c.is_ascii_digit()).map(|from| at + from) {
        // Digits with what people put between them.
        let mut digits = String::new();
        let mut to = from;
        let mut gap = false;
        for (offset, c) in text[from..].char_indices() {
            match c {
                '0'..='9' => {
                    digits.push(c);
                    to = from + offset + 1;
                    gap = false;
                }
                ' ' | '-' if !gap => gap = true,
                _ => break,
            }
        }
        let plain = digits.strip_prefix("86").filter(|rest| rest.len() == 11).unwrap_or(&digits);
        if let Some(number) = as_phone(plain) {
            let plus = text[..from].strip_suffix('+').map_or(from, str::len);
            found.push((number, (plus, to)));
        }
        at = to.max(from + 1);
    }
    found
}

/// A mobile number, or a landline's with its area code.
fn as_phone(digits: &str) -> Option<String> {
    let bytes = digits.as_bytes();
    if digits.len() == 11 && bytes[0] == b'1' && (b'3'..=b'9').contains(&bytes[1]) {
        return Some(digits.to_owned());
    }
    // 010, 02x: three digits of area; all others four.
    let area = match bytes {
        [b'0', b'1' | b'2', ..] => 3,
        [b'0', b'3'..=b'9', ..] => 4,
        _ => return None,
    };
    let local = digits.get(area..)?;
    ((7..=8).contains(&local.len()) && !local.starts_with(['0', '1']))
        .then(|| format!("{}-{local}", &digits[..area]))
}

/// A name after its lead, up to a mark: 「我叫王芳，」, 「姓名：王芳」.
fn led_name(text: &str, lead: &str) -> Option<String> {
    let (_, after) = text.split_once(lead)?;
    let after = after.trim_start_matches(|c: char| c.is_whitespace() || ":是为叫就".contains(c));
    let name: String = after.chars().take_while(|c| is_han(*c) || *c == '·').collect();
    as_name(&name)
}

/// A text that is nothing but a name, with marks and words around it that say that it is one.
fn only_name(text: &str) -> Option<String> {
    let labels = PHONE_LEADS.iter().chain(&LEADS).chain(&WEAK_LEADS);
    let rest = labels.fold(text.to_owned(), |rest, word| rest.replace(word, " "));
    let mut words = rest.split(|c: char| !is_han(c) && c != '·').filter(|word| !word.is_empty());
    let name = words.next()?;
    if words.next().is_some() || rest.contains(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    as_name(name)
}

/// 王芳, 欧阳修远, 阿依古丽·买买提.
fn as_name(name: &str) -> Option<String> {
    let length = name.chars().count();
    if name.contains('·') {
        return ((3..=20).contains(&length) && !name.starts_with('·') && !name.ends_with('·'))
            .then(|| name.to_owned());
    }
    let double = DOUBLE.split(' ').any(|family| name.starts_with(family));
    let single = name.chars().next().is_some_and(|family| SINGLE.contains(family));
    let fits = if double { (3..=4).contains(&length) } else { single && (2..=3).contains(&length) };
    // 「高工」 has the form of a name; so have some hundred words.
    let word = WORDS.split(' ').any(|word| word == name);
    // 「于今年」, 「于上月」: when, not who.
    let when = name.strip_prefix('于').is_some_and(|rest| rest.starts_with(WHEN));
    // Nobody is called so; most other words of this form have one of these.
    let spoken = |c: char| "您你我他它们了没不吗吧么什的这那哪".contains(c);
    // 「房产证」, 「单位」, 「费用」: things and places, not people.
    let thing =
        name.ends_with(|c: char| "证件位费用局院厂店站卡号表单据税险款处科室部所".contains(c));
    (fits && !thing && !word && !when && !name.contains(spoken)).then(|| name.to_owned())
}

fn is_han(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c) || ('\u{3400}'..='\u{4dbf}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(text: &str, asked: bool) -> (Option<String>, Option<String>) {
        let Contact { name, phone } = recognise(text, asked);
        (name, phone)
    }

    #[test]
    fn r7_2_name_and_telephone_are_recognised_in_free_text() {
        for (text, name, phone) in [
            ("我叫王芳，电话13900001234，社保卡办不下来", "王芳", "13900001234"),
            ("姓名：欧阳修远 手机：139 0000 1234", "欧阳修远", "13900001234"),
            ("张三 13900001234", "张三", "13900001234"),
            ("13900001234张三", "张三", "13900001234"),
            ("我是李娜，+86 139-0000-1234", "李娜", "13900001234"),
            ("王芳，０２４－２３４５６７８９", "王芳", "024-23456789"),
            ("阿依古丽·买买提 0410-7654321", "阿依古丽·买买提", "0410-7654321"),
            ("路灯坏了三天了。王芳，电话：13900001234", "王芳", "13900001234"),
            ("本人王芳，手机13900001234，申请补贴被退", "王芳", "13900001234"),
        ] {
            let found = both(text, false);
            assert_eq!(found, (Some(name.to_owned()), Some(phone.to_owned())), "{text}");
        }
        assert_eq!(both("王芳", true).0.as_deref(), Some("王芳"));
        assert_eq!(both("王芳", false).0, None);
        assert_eq!(both("我是王芳", true).0.as_deref(), Some("王芳"));
        for own in [
            "我的电话是13900001234，补贴没发",
            "补贴没发，电话13900001234",
            "手机换成13900001234",
            "有事打我电话13900001234。",
            "13900001234",
        ] {
            assert_eq!(both(own, false), (None, Some("13900001234".to_owned())), "{own}");
        }
    }

    #[test]
    fn r7_2_somebody_elses_number_is_not_the_citizens() {
        for text in [
            "中介电话13812345678，骗了我3000元",
            "你们的024-74123456没人接",
            "打电话13812345678没人接",
            "社保局电话024-74123456，天天占线",
            "包工头13812345678欠我工资",
            "我打了13812345678，说要找你们",
            "王主任让我找13812345678",
        ] {
            assert_eq!(both(text, true).1, None, "{text}");
        }
    }

    #[test]
    fn what_only_says_how_to_reach_somebody_is_no_matter() {
        for text in
            ["王芳 13900001234", "13900001234", "我叫王芳，电话13900001234", "电话：024-74123456"]
        {
            assert!(is_only_contact(text), "{text}");
        }
        for text in ["补贴没发，电话13900001234", "王芳", "灯坏了", "我的电话13900001234打不通"]
        {
            assert!(!is_only_contact(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_and_no_telephone_is_left_alone() {
        for text in [
            "身份证号 211221198001011234",
            "订单 2026112512345678",
            "我是农民工，工资没发",
            "我是来问退休的",
            "本人于今年3月申请失业金",
            "我是应届生，补贴没发",
            "我是司机，罚款有误",
            "我是党员，想反映一件事",
            "我是温州人",
            "从 2026-11-25 等到现在",
            "补贴 1200 元没发",
            "还没解决",
            "谢谢您",
            "麻烦您",
            "解决了",
            "高兴",
            "房产证",
            "许可证",
            "单位",
            "文件",
            "费用",
            "12333 打不通",
        ] {
            assert_eq!(both(text, true), (None, None), "{text}");
        }
    }
}
