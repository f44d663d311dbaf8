//! The name and the telephone that the form needs (R7.2), recognised in what a citizen writes.
//!
//! Rather too careful than too clever: what is not recognised stands in the message all the same,
//! and an officer reads it; what is taken for a name and is none would stand on the form.

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

/// What comes before a name.
const LEADS: [&str; 9] =
    ["姓名", "名字", "我叫", "我是", "本人", "联系人", "反映人", "我姓名", "叫我"];

/// What of the form a text gives. `asked`: the citizen has been asked for it, so that a text which
/// is nothing but a name is one.
#[must_use]
pub fn recognise(text: &str, asked: bool) -> Contact {
    // Full-width digits and marks become plain ones.
    let text: String = text.nfkc().collect();
    let found = phone(&text);
    let name = LEADS.iter().find_map(|lead| led_name(&text, lead)).or_else(|| {
        let (from, to) = found.as_ref().map(|found| found.1).unwrap_or((0, 0));
        // `张三 13900001234` is both, whoever asked; a name alone only answers a question.
        let rest = format!("{} {}", &text[..from], &text[to..]);
        (asked || to > from).then(|| only_name(&rest)).flatten()
    });
    Contact { name, phone: found.map(|found| found.0) }
}

/// A telephone number, and where in the text it stands.
fn phone(text: &str) -> Option<(String, (usize, usize))> {
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
            return Some((number, (from, to)));
        }
        at = to.max(from + 1);
    }
    None
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
    let after = after.trim_start_matches(|c: char| c.is_whitespace() || ":是为叫".contains(c));
    let name: String = after.chars().take_while(|c| is_han(*c) || *c == '·').collect();
    as_name(&name)
}

/// A text that is nothing but a name, with marks and words around it that say that it is one.
fn only_name(text: &str) -> Option<String> {
    let mut rest = text.to_owned();
    for word in ["联系电话", "手机号码", "手机号", "手机", "电话", "号码", "姓名", "名字"]
    {
        rest = rest.replace(word, " ");
    }
    let mut words = rest.split(|c: char| !is_han(c) && c != '·').filter(|word| !word.is_empty());
    let name = words.next()?;
    if words.next().is_some() { None } else { as_name(name) }
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
    // 「高工」 has the form of a name; so have a few hundred words. These are the ones that a citizen
    // uses of himself.
    const NONE: [&str; 20] = [
        "农民",
        "农民工",
        "工人",
        "车主",
        "房主",
        "经办人",
        "家属",
        "连长",
        "师傅",
        "和平",
        "时候",
        "老师",
        "马上",
        "明天",
        "谢谢",
        "麻烦",
        "解决",
        "高兴",
        "方便",
        "时间",
    ];
    // Nobody is called so; most other words of this form have one of these.
    let spoken = |c: char| "您你我他它们了没不吗吧么什".contains(c);
    // 「房产证」, 「单位」, 「费用」: things and places, not people.
    let thing =
        name.ends_with(|c: char| "证件位费用局院厂店站卡号表单据税险款处科室部所".contains(c));
    (fits && !thing && !NONE.contains(&name) && !name.contains(spoken)).then(|| name.to_owned())
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
        ] {
            let found = both(text, false);
            assert_eq!(found, (Some(name.to_owned()), Some(phone.to_owned())), "{text}");
        }
        assert_eq!(both("王芳", true).0.as_deref(), Some("王芳"));
        assert_eq!(both("王芳", false).0, None);
    }

    #[test]
    fn what_is_no_name_and_no_telephone_is_left_alone() {
        for text in [
            "身份证号 211221198001011234",
            "订单 2026112512345678",
            "我是农民工，工资没发",
            "我是来问退休的",
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
