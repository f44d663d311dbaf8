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
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

/// What a record holds that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    /// The channel's variables.
    variables: BTreeMap<String, String>,
    /// The caller's profile of the call's last leg through the dialplan.
    profile: BTreeMap<String, String>,
    /// The number that was called at first: later ones may be names within the dialplan.
    first_called: Option<String>,
    /// What `record` was last called with.
    recorded: Option<String>,
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
/// `a_e8c7062d-….cdr.json`, or whatever the exchange is set to take for one (`1-4675@10.0.0.1`).
/// `None` for other files. The file's content is a body for [`parse`].
#[must_use]
pub fn left_behind(file_name: &str) -> Option<&str> {
    let stem =
        [".cdr.json", ".cdr.xml", ".cdr"].iter().find_map(|end| file_name.strip_suffix(end))?;
    Some(without_leg(stem)).filter(|identity| !identity.is_empty())
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

/// The parts of a record that matter. Older versions write `callflow` as an object, several of them
/// one after the other under the same name, and may double `variables`: the first one stands, as it
/// is the newest.
#[derive(Default)]
struct Written {
    variables: Option<Map<String, Value>>,
    callflow: Vec<Value>,
    app_log: Option<Value>,
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Written;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Written, A::Error> {
                let mut written = Written::default();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "variables" if written.variables.is_none() => {
                            written.variables = map.next_value()?;
                        }
                        "callflow" => match map.next_value()? {
                            Value::Array(flows) => written.callflow.extend(flows),
                            flow => written.callflow.push(flow),
                        },
                        "app_log" if written.app_log.is_none() => {
                            written.app_log = map.next_value()?;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(written)
            }
        }
        deserializer.deserialize_map(Parts)
    }
}

fn json(text: &str) -> Result<Record, Unread> {
    let written: Written = serde_json::from_str(text).map_err(|_| Unread::Json)?;
    // What is no text is of no use here: channel variables are texts, doubled ones are lists.
    let texts = |values: Map<String, Value>| -> BTreeMap<String, String> {
        let text = |(name, value): (String, Value)| match value {
            Value::String(text) => Some((name, text)),
            _ => None,
        };
        values.into_iter().filter_map(text).collect()
    };
    let mut variables = texts(written.variables.ok_or(Unread::Json)?);
    // `encode-values` encodes each value once more. A stamp tells: it always holds a blank.
    let stamps = ["start_stamp", "end_stamp"].iter().filter_map(|name| variables.get(*name));
    if stamps.into_iter().any(|stamp| stamp.contains("%20")) {
        variables.values_mut().for_each(|value| *value = percent(value));
    }
    // The newest comes first.
    let profile = |flow: &Value| flow.get("caller_profile")?.as_object().cloned();
    let mut profiles: Vec<_> = written.callflow.iter().filter_map(profile).map(texts).collect();
    let first_called = profiles.last().and_then(|first| first.get("destination_number").cloned());
    let profile = if profiles.is_empty() { BTreeMap::new() } else { profiles.swap_remove(0) };
    let applications = written.app_log.as_ref().and_then(|log| log.get("applications")?.as_array());
    let record = applications.and_then(|all| {
        all.iter().rev().find(|one| one.get("app_name").and_then(Value::as_str) == Some("record"))
    });
    let recorded = record.and_then(|one| Some(one.get("app_data")?.as_str()?.to_owned()));
    Ok(Record { variables, profile, first_called, recorded })
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
                if path == ["cdr", "app_log", "application"]
                    && attribute(&start, "app_name").as_deref() == Some("record")
                {
                    record.recorded = attribute(&start, "app_data");
                }
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
                        if name == "destination_number" {
                            record.first_called = Some(value.trim().to_owned());
                        }
                        let first = record.profile.entry(name.to_owned());
                        first.or_insert_with(|| value.trim().to_owned());
                    }
                    _ => {}
                }
                path.pop();
                value.clear();
            }
            Event::DocType(_) => return Err(Unread::Xml),
            Event::Empty(empty)
                if path == ["cdr", "app_log"]
                    && empty.name().as_ref() == "application"
                    && attribute(&empty, "app_name").as_deref() == Some("record") =>
            {
                record.recorded = attribute(&empty, "app_data");
            }
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

impl Record {
    /// The number that was called: as the carrier's request names it, else as the dialplan had it at
    /// first. Where the call was sent on within the dialplan it ends under a name of that (`night-12333`).
    fn called(&self) -> Option<&str> {
        let told = [
            self.variable(&["sip_to_user"]),
            self.variable(&["sip_req_user"]),
            self.first_called.as_deref(),
            said(&self.profile, &["destination_number"]),
        ];
        let is_number = |text: &&str| {
            let digits = text.strip_prefix('+').unwrap_or(text);
            !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
        };
        let said = || told.into_iter().flatten().filter(|text| !text.is_empty());
        said().find(is_number).or_else(|| said().next_back())
    }

    /// Where `record` wrote to: `record_path`, which is a folder where `record_name` names the file;
    /// else as it was called, with the limits behind the path.
    fn recorded_at(&self, last_app: &str) -> Option<String> {
        let path = self.variable(&["record_path"]);
        if let (Some(folder), Some(name)) = (path, self.variable(&["record_name"])) {
            let whole = folder.rsplit('/').next() == Some(name);
            let folder = folder.trim_end_matches('/');
            return Some(if whole { folder.to_owned() } else { format!("{folder}/{name}") });
        }
        let last = || match last_app {
            "record" => self.variable(&["current_application_data", "last_arg"]),
            _ => None,
        };
        let called = path.or(self.recorded.as_deref()).or_else(last)?;
        called.split_ascii_whitespace().next().map(str::to_owned)
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = element.try_get_attribute(name).ok()??;
    Some(found.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned())
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
    let callee = record.called();
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
    let path = match delivered {
        Some(path) => path.split_ascii_whitespace().next().map(str::to_owned),
        None => record.recorded_at(last_app),
    };
    if delivered.is_some() || recorded {
        // A voicemail goes by the call: the identity in its file's name is another one.
        // A file that `record` wrote may have a name that others have in other folders.
        let name = path.as_deref().filter(|_| delivered.is_none());
        let name = name.and_then(|path| path.rsplit('/').next()).filter(|name| !name.is_empty());
        let named = name.and_then(|name| crate::text::key(&format!("{uuid}/{name}")));
        let key = named.or_else(|| crate::text::key(uuid)).ok_or(Unread::Key)?;
        let audio = path.as_deref().and_then(AudioRef::parse);
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
