//! Bytes of exchanges as text: carriers and vendors keep to no encoding.

use intake_contract::clean_text;
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// The greatest body that is read, in bytes. A call detail record comes to 8 to 15 KB, encoded twice
/// to 12; the original is kept as evidence, and that is as much as is kept.
pub const BODY_LIMIT: usize = intake_contract::LIMITS.raw;

/// Of a key, in bytes: two of them still fit into one identity.
pub(crate) const KEY: usize = 120;
/// Of a name.
pub(crate) const NAME: usize = intake_contract::LIMITS.name;
/// Of a file's path or an address.
pub(crate) const REFERENCE: usize = 1024;

/// UTF-8; what is none is taken for GB18030, as domestic carriers send names, and what is not that
/// either keeps its readable parts. Without NUL, which PostgreSQL refuses (hotline.md §5-4).
pub(crate) fn decode(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => match encoding_rs::GB18030.decode_without_bom_handling(bytes) {
            (text, false) => text,
            (_, true) => String::from_utf8_lossy(bytes),
        },
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    text.chars().filter(|c| *c != '\0').collect()
}

/// `%E5%BC%A0` as text; `+` stands for itself.
pub(crate) fn percent(text: &str) -> String {
    if text.contains('%') {
        decode(&Cow::from(percent_decode(text.as_bytes())))
    } else {
        text.to_owned()
    }
}

/// The fields of a form or query, in their order.
pub(crate) fn form(text: &str) -> Vec<(String, String)> {
    let decoded = |part: &str| percent(&part.replace('+', " "));
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

/// The first value of this name that is not empty.
pub(crate) fn field<'a>(form: &'a [(String, String)], name: &str) -> Option<&'a str> {
    form.iter()
        .find(|(key, value)| key == name && !value.is_empty())
        .map(|(_, value)| value.as_str())
}

/// A fact as it can be kept and shown: clean, not empty, cut where it is longer than any honest one.
pub(crate) fn fact(text: &str, limit: usize) -> Option<String> {
    let clean = clean_text(text).replace(['\n', '\t'], " ");
    let clean = clean.trim();
    let cut = clean.floor_char_boundary(limit);
    let clean = clean.get(..cut).unwrap_or(clean).trim_end();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// An identity; one that is longer than any honest one is none, because cut ones would meet.
pub(crate) fn key(text: &str) -> Option<String> {
    fact(text, usize::MAX).filter(|key| key.len() <= KEY)
}
