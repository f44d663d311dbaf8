//! Reads single values out of JSON without building it: by RFC 6901 pointers, numbers digit by digit
//! as written. A telephone number that came as a number keeps all its digits.
//!
//! What is stepped over is only scanned, without recursion, so depth costs nothing; each step of a
//! pointer reads one level.

use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// More steps are in no mapping.
const STEPS: usize = 16;

/// The text at a pointer: a string's content, a number or `true` as written. `None` when there is
/// nothing, `null`, an empty text, an object or a list.
///
/// A value at one of the pointers `strings` is a string that holds JSON, and is stepped into.
pub(crate) fn at(document: &str, pointer: &str, strings: &[String]) -> Option<String> {
    let found = find(document, pointer, strings)?;
    let text = match found.as_bytes().first()? {
        b'"' => serde_json::from_str(&found).ok()?,
        b'{' | b'[' => return None,
        _ if found == "null" => return None,
        _ => found,
    };
    Some(text).filter(|text: &String| !text.trim().is_empty())
}

/// The elements of the list at a pointer, as written; `None` when there is no list.
pub(crate) fn list(document: &str, pointer: &str, strings: &[String]) -> Option<Vec<String>> {
    let found = find(document, pointer, strings)?;
    let elements: Vec<&RawValue> = serde_json::from_str(&found).ok()?;
    Some(elements.into_iter().map(|raw| raw.get().to_owned()).collect())
}

/// Whether it is JSON at all.
pub(crate) fn is_sound(document: &str) -> bool {
    serde_json::from_str::<&RawValue>(document).is_ok()
}

/// A pointer as RFC 6901 has it, and not longer than is needed.
pub(crate) fn is_pointer(pointer: &str) -> bool {
    (pointer.is_empty() || pointer.starts_with('/')) && pointer.split('/').count() <= STEPS
}

fn find(document: &str, pointer: &str, strings: &[String]) -> Option<String> {
    if !is_pointer(pointer) {
        return None;
    }
    let root: &RawValue = serde_json::from_str(document).ok()?;
    let mut here = root.get().to_owned();
    let mut path = String::new();
    for step in pointer.split('/').skip(1) {
        open(&mut here, strings.contains(&path))?;
        let name = step.replace("~1", "/").replace("~0", "~");
        here = match here.trim_start().as_bytes().first()? {
            b'{' => {
                let fields: BTreeMap<String, &RawValue> = serde_json::from_str(&here).ok()?;
                fields.get(&name)?.get().to_owned()
            }
            b'[' => {
                let elements: Vec<&RawValue> = serde_json::from_str(&here).ok()?;
                elements.get(name.parse::<usize>().ok()?)?.get().to_owned()
            }
            _ => return None,
        };
        path.push('/');
        path.push_str(step);
    }
    open(&mut here, strings.contains(&path))?;
    Some(here.trim().to_owned())
}

/// Takes JSON out of its string; some versions of a vendor's program send it without one.
fn open(here: &mut String, is_string: bool) -> Option<()> {
    if is_string && here.trim_start().starts_with('"') {
        *here = serde_json::from_str::<String>(here).ok()?;
    }
    Some(())
}
