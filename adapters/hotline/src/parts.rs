//! The webhook's other form (hotline.md §2a): `multipart/form-data` with the description as part
//! `event` and the recording as part `audio`, in either order. What is signed is the part `event`,
//! byte for byte; the recording is vouched for by the SHA-256 that the event holds. So nothing is
//! done here but to tell the parts apart, in one pass over what was read within its limits.

use bytes::Bytes;
use intake_contract::Refusal;
use std::ops::Range;

/// Of a part's head, in bytes.
const HEAD: usize = 4096;
/// More parts come from nobody honest.
const PARTS: usize = 8;

/// The parts that are known; others are left for those who know them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// The signed description.
    pub event: Bytes,
    /// The recording, where one came along.
    pub audio: Option<Bytes>,
}

/// What separates the parts, where a request has any: of its `Content-Type`. Kinds and names are
/// written in any case.
#[must_use]
pub fn boundary(content_type: &str) -> Option<String> {
    let mut fields = content_type.split(';');
    if !fields.next()?.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = fields.find_map(|field| {
        let (name, value) = field.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then_some(value)
    });
    Some(value.unwrap_or_default().trim_matches('"').to_owned())
}

/// Tells the parts of a body apart.
///
/// # Errors
/// A refusal when it is no such form: without a boundary, without an event, with one part twice,
/// broken off, or written in another way than as it is.
pub fn parts(boundary: &str, body: &Bytes) -> Result<Parts, Refusal> {
    split(boundary, body).ok_or(Refusal::new(400, "bad_form"))
}

fn split(boundary: &str, body: &Bytes) -> Option<Parts> {
    if boundary.is_empty() || boundary.len() > 70 || !boundary.bytes().all(|b| b.is_ascii_graphic())
    {
        return None;
    }
    let line = format!("\r\n--{boundary}");
    // The first line begins the body.
    let mut rest = 0..body.len();
    let first = line.trim_start().as_bytes();
    rest.start = if body.starts_with(first) { first.len() } else { 2 + first.len() };
    if !body.starts_with(first) && !body.starts_with(line.as_bytes()) {
        return None;
    }
    let (mut event, mut audio) = (None, None);
    for _ in 0..=PARTS {
        let after = body.get(rest.clone())?;
        if after.starts_with(b"--") {
            return Some(Parts { event: event?, audio });
        }
        let within = after.strip_prefix(b"\r\n")?;
        let begin = rest.start + 2;
        let length = find(within, line.as_bytes())?;
        let (name, content) = part(&within[..length])?;
        let content = begin + content.start..begin + content.end;
        let known = match name.as_str() {
            "event" => Some(&mut event),
            "audio" => Some(&mut audio),
            _ => None,
        };
        if let Some(known) = known
            && known.replace(body.slice(content)).is_some()
        {
            return None;
        }
        rest.start = begin + length + line.len();
    }
    None
}

/// A part's name, and where its content lies in it.
fn part(bytes: &[u8]) -> Option<(String, Range<usize>)> {
    const END: &[u8] = b"\r\n\r\n";
    let end = find(&bytes[..bytes.len().min(HEAD)], END)?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut name = None;
    for line in head.split("\r\n") {
        let (field, value) = line.split_once(':')?;
        if field.eq_ignore_ascii_case("content-transfer-encoding") {
            let as_it_is = ["binary", "8bit", "7bit"];
            as_it_is.iter().find(|known| value.trim().eq_ignore_ascii_case(known))?;
        }
        if field.eq_ignore_ascii_case("content-disposition") {
            let mut fields = value.split(';').map(str::trim);
            fields.next().filter(|kind| kind.eq_ignore_ascii_case("form-data"))?;
            name = fields.find_map(|field| field.strip_prefix("name="));
        }
    }
    Some((name?.trim_matches('"').to_owned(), end + END.len()..bytes.len()))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, others) = wanted.split_first()?;
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| byte == first)?;
        if bytes.get(at + 1..)?.starts_with(others) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(parts: &[(&str, &[u8])]) -> Bytes {
        let mut body = Vec::new();
        for (head, content) in parts {
            body.extend_from_slice(b"--b\r\nContent-Disposition: form-data; ");
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(b"\r\n\r\n");
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--b--\r\n");
        body.into()
    }

    #[test]
    fn parts_are_told_apart_in_any_order_and_byte_for_byte() {
        let audio = b"RIFF\r\n--\0\r\n--a\r\n\r\n";
        let (event, audio) =
            (("name=\"event\"", &b"{}"[..]), ("name=audio; filename=\"a\"", &audio[..]));
        let other = ("name=\"more\"", &b"x"[..]);
        for order in [vec![event, audio], vec![audio, event], vec![other, audio, other, event]] {
            let parts = parts("b", &form(&order)).unwrap();
            assert_eq!((parts.event.as_ref(), parts.audio.as_deref()), (event.1, Some(audio.1)));
        }
        let alone = parts("b", &form(&[event])).unwrap();
        assert_eq!((alone.event.as_ref(), alone.audio), (event.1, None));
        assert_eq!(
            boundary("Multipart/Form-Data; charset=x; Boundary=\"b\"").as_deref(),
            Some("b")
        );
        assert_eq!(boundary("application/json"), None);
    }

    #[test]
    fn what_is_no_such_form_is_refused() {
        let event = ("name=\"event\"", &b"{}"[..]);
        let encoded = "name=\"event\"\r\nContent-Transfer-Encoding: base64";
        let whole = form(&[event]);
        for body in [
            form(&[]),
            form(&[event, event]),
            form(&[("name=\"audio\"", b"")]),
            form(&[(encoded, b"e30=")]),
            form(&[("filename=\"event\"", b"{}")]),
            form(&[event; 20]),
            form(&[(&"x".repeat(5000), b"{}")]),
            whole.slice(..whole.len() - 5),
            whole.slice(1..),
            Bytes::new(),
        ] {
            assert!(parts("b", &body).is_err(), "{body:?}");
        }
        assert!(parts("", &whole).is_err() && parts("other", &whole).is_err());
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_reader(body in proptest::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            let _ = parts("b", &body.clone().into());
            // And something that looks like it.
            let near = form(&[("name=\"event\"", &body), ("name=\"audio\"", &body)]);
            let _ = parts("b", &near.slice(cut.min(near.len())..));
            let _ = parts("b", &near.slice(..near.len() - cut.min(near.len())));
            let _ = boundary(&String::from_utf8_lossy(&body));
        }
    }
}
