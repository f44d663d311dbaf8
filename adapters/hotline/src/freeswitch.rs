//! Call detail records of FreeSWITCH: mod_json_cdr, mod_xml_cdr, mod_format_cdr, in every encoding
//! that they can be set to (hotline.md §1.2).
//!
//! The content type is not believed: with `disable-100-continue` raw JSON comes as a form (§5-1). The
//! body itself says what it is.

use crate::{
    call::{AudioRef, CallEvent, Kind, Outcome, Recording, SHORTEST_MS, Unread},
    phone::Numbering,
    text::{BODY_LIMIT, decode, percent},
    time::{TimeFormat, Unit, Zone},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use quick_xml::{Reader, events::Event};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a record holds that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    /// The channel's variables.
    variables: BTreeMap<String, String>,
    /// The caller's profile of the call's last leg through the dialplan.
    profile: BTreeMap<String, String>,
}

/// Reads a record; `None` for one that no citizen began: an outgoing call, or the leg to the officer.
///
/// # Errors
/// [`Unread`].
pub fn parse(
    source: &str,
    body: &[u8],
    numbering: &Numbering,
) -> Result<Option<CallEvent>, Unread> {
    if body.len() > BODY_LIMIT {
        return Err(Unread::TooLarge);
    }
    let record = read(&decode(body), 0)?;
    call(source, &record, numbering)
}

/// The call's identity in the name of a file that was left in `err-log-dir` because nobody answered:
/// `a_e8c7062d-….cdr.json`. `None` for other files. The file's content is a body for [`parse`].
#[must_use]
pub fn left_behind(file_name: &str) -> Option<&str> {
    let stem =
        [".cdr.json", ".cdr.xml", ".cdr"].iter().find_map(|end| file_name.strip_suffix(end))?;
    let uuid = without_leg(stem);
    let plain = uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (uuid.len() == 36 && plain).then_some(uuid)
}

/// Identities of a call's first leg come with `a_`, depending on the module.
fn without_leg(uuid: &str) -> &str {
    uuid.strip_prefix("a_").unwrap_or(uuid)
}

/// Takes off one wrapping after the other until the record lies open.
fn read(text: &str, depth: u8) -> Result<Record, Unread> {
    /// A form around base64 around the record; nobody wraps more.
    const WRAPPINGS: u8 = 3;
    let text = text.trim();
    if text.starts_with('{') {
        return json(text);
    }
    if text.starts_with('<') {
        return xml(text);
    }
    if depth == WRAPPINGS {
        return Err(Unread::Form);
    }
    // In `err-log-dir` the value lies alone, encoded as it would have been sent.
    let inner = text.strip_prefix("cdr=").unwrap_or(text).trim_start();
    // `encode=false` puts plain XML, with all its ampersands, behind the equals sign.
    if inner.starts_with(['{', '<']) {
        return read(inner, depth + 1);
    }
    // Base64 is not percent-encoded, so that its plus signs are no spaces.
    let compact: String = inner.split_ascii_whitespace().collect();
    if let Ok(decoded) = STANDARD.decode(percent(&compact)) {
        return read(&decode(&decoded), depth + 1);
    }
    let value = inner.split('&').next().unwrap_or(inner);
    let opened = percent(&value.replace('+', " "));
    if !opened.trim_start().starts_with(['{', '<']) {
        return Err(Unread::Form);
    }
    read(&opened, depth + 1)
}

fn json(text: &str) -> Result<Record, Unread> {
    #[derive(Deserialize)]
    struct Written {
        variables: BTreeMap<String, serde_json::Value>,
        #[serde(default)]
        callflow: Vec<Flow>,
    }
    #[derive(Deserialize)]
    struct Flow {
        #[serde(default)]
        caller_profile: BTreeMap<String, serde_json::Value>,
    }
    let written: Written = serde_json::from_str(text).map_err(|_| Unread::Json)?;
    // What is no text is of no use here: channel variables are texts, doubled ones are lists.
    let texts = |values: BTreeMap<String, serde_json::Value>| -> BTreeMap<String, String> {
        let text = |(name, value): (String, serde_json::Value)| match value {
            serde_json::Value::String(text) => Some((name, text)),
            _ => None,
        };
        values.into_iter().filter_map(text).collect()
    };
    let mut variables = texts(written.variables);
    // `encode-values` encodes each value once more. A stamp tells: it always holds a blank.
    let stamps = ["start_stamp", "end_stamp"].iter().filter_map(|name| variables.get(*name));
    if stamps.into_iter().any(|stamp| stamp.contains("%20")) {
        variables.values_mut().for_each(|value| *value = percent(value));
    }
    let profile = written.callflow.into_iter().next().map(|flow| flow.caller_profile);
    Ok(Record { variables, profile: texts(profile.unwrap_or_default()) })
}

/// XML: the variables are percent-encoded, the profile is not. Only elements at known places are
/// kept, nothing is nested deeper than a record is, and there is no DOCTYPE.
fn xml(text: &str) -> Result<Record, Unread> {
    const DEPTH: usize = 12;
    let mut reader = Reader::from_str(text);
    let mut record = Record::default();
    let mut path: Vec<String> = Vec::new();
    let mut value = String::new();
    loop {
        match reader.read_event().map_err(|_| Unread::Xml)? {
            Event::Start(start) => {
                if path.len() == DEPTH || (path.is_empty() && start.name().as_ref() != "cdr") {
                    return Err(Unread::Xml);
                }
                path.push(start.name().as_ref().to_owned());
                value.clear();
            }
            Event::Text(text) => value.push_str(&text),
            Event::CData(text) => value.push_str(&text),
            Event::GeneralRef(reference) => value.push(match reference.resolve_char_ref() {
                Ok(Some(c)) => c,
                Ok(None) => match &*reference {
                    "amp" => '&',
                    "lt" => '<',
                    "gt" => '>',
                    "quot" => '"',
                    "apos" => '\'',
                    _ => return Err(Unread::Xml),
                },
                Err(_) => return Err(Unread::Xml),
            }),
            Event::End(_) => {
                let places: Vec<&str> = path.iter().map(String::as_str).collect();
                match places[..] {
                    ["cdr", "variables", name] => {
                        record.variables.insert(name.to_owned(), percent(value.trim()));
                    }
                    // The first one stands, as in JSON: it is the newest.
                    ["cdr", "callflow", "caller_profile", name] => {
                        let first = record.profile.entry(name.to_owned());
                        first.or_insert_with(|| value.trim().to_owned());
                    }
                    _ => {}
                }
                path.pop();
                value.clear();
            }
            Event::DocType(_) => return Err(Unread::Xml),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if path.is_empty() && !record.variables.is_empty() { Ok(record) } else { Err(Unread::Xml) }
}

impl Record {
    /// The first of these variables that says something.
    fn variable(&self, names: &[&str]) -> Option<&str> {
        said(&self.variables, names)
    }

    /// Of `start`, `answer`, `end`, `bridge`; microseconds where they are there. Never the stamps,
    /// which are local and have no zone.
    fn time(&self, of: &str) -> Option<DateTime<Utc>> {
        let read = |unit: &str, format: TimeFormat| {
            format.read(self.variables.get(&format!("{of}_{unit}"))?, Zone::china())
        };
        read("uepoch", TimeFormat::EpochUs).or_else(|| read("epoch", TimeFormat::EpochS))
    }
}

fn said<'a>(values: &'a BTreeMap<String, String>, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        values.get(*name).map(|value| value.trim()).filter(|value| !value.is_empty())
    })
}

fn call(source: &str, record: &Record, numbering: &Numbering) -> Result<Option<CallEvent>, Unread> {
    if record.variable(&["direction"]) == Some("outbound") {
        return Ok(None);
    }
    let uuid = without_leg(record.variable(&["uuid"]).ok_or(Unread::Key)?);
    let caller = said(&record.profile, &["caller_id_number"])
        .or_else(|| record.variable(&["sip_from_user", "effective_caller_id_number"]));
    let callee = said(&record.profile, &["destination_number"])
        .or_else(|| record.variable(&["sip_to_user"]));
    let mut call = CallEvent::new(source, uuid, Kind::CallEnded)?;
    call.caller = Some(numbering.read(caller.unwrap_or_default()));
    call.callee = callee.and_then(|callee| crate::text::fact(callee, crate::text::KEY));
    call.started_at = record.time("start");
    call.ended_at = record.time("end");
    call.call_s =
        record.variable(&["duration"]).and_then(|s| Unit::S.millis(s)).map(|ms| ms / 1000);
    let mut call = call.named(said(&record.profile, &["caller_id_name"]));

    let ms = record
        .variable(&["record_ms"])
        .and_then(|ms| Unit::Ms.millis(ms))
        .or_else(|| record.variable(&["record_seconds"]).and_then(|s| Unit::S.millis(s)))
        .or_else(|| record.variable(&["voicemail_message_len"]).and_then(|s| Unit::Hms.millis(s)));
    let last_app = record.variable(&["last_app"]).unwrap_or_default();
    // Written once the message lies in the box, and not before.
    let delivered = record.variable(&["voicemail_file_path"]);
    // What `record` took down, whatever the dialplan did after it: nobody was put through.
    let recorded = ms.is_some() && last_app != "voicemail" && record.time("bridge").is_none();
    let last = if last_app == "record" {
        record.variable(&["record_path", "current_application_data", "last_arg"])
    } else {
        record.variable(&["record_path"])
    };
    let path = delivered.or(last).and_then(|path| path.split_ascii_whitespace().next());
    if delivered.is_some() || recorded {
        // A voicemail goes by the call: the identity in its file's name is another one.
        let key = match path.filter(|_| delivered.is_none()) {
            Some(path) => path.rsplit('/').next().unwrap_or(path),
            None => uuid,
        };
        let key = crate::text::key(key).ok_or(Unread::Key)?;
        let audio = path.and_then(AudioRef::parse);
        call.recordings.insert(key, Recording { ms, audio, ..Recording::default() });
        call.kind = Kind::Voicemail;
        call.outcome = Some(Outcome::MessageLeft);
        return Ok(Some(call));
    }
    // Recorded and not delivered: shorter than the exchange is set to keep.
    call.outcome = Some(if let ("voicemail", Some(ms)) = (last_app, ms) {
        // Long enough, and not kept: thrown away by the caller.
        if ms < SHORTEST_MS { Outcome::TooShort } else { Outcome::GaveUp }
    } else if record.time("bridge").is_some() {
        Outcome::Answered
    } else if record.time("answer").is_some() {
        Outcome::GaveUp
    } else {
        Outcome::Missed
    });
    Ok(Some(call))
}
