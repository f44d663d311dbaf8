//! Twilio's callbacks, and those of whoever speaks its language (hotline.md §1.4).
//!
//! A recording's callback does not say who called. The numbers come with the request of `<Record
//! action>`, which is another part of the same call, or in the callback's own address, where the
//! document that starts the recording puts them.

use crate::{
    call::{AudioRef, CallEvent, Kind, Outcome, Recording, Unread},
    phone::Numbering,
    text::{BODY_LIMIT, KEY, decode, fact, field, form},
    time::{TimeFormat, Unit, Zone},
    verify::{HashKind, alike, keyed},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use intake_contract::{Refusal, Request};
use secrecy::SecretString;
use sha2::{Digest, Sha256};

const REFUSED: Refusal = Refusal::new(401, "bad_signature");

/// Whether Twilio signed it: HMAC-SHA1 over the address as Twilio has it and the form's fields in
/// order. A body that is no form is covered by its hash in the address.
pub(crate) fn verify(
    request: Request<'_>,
    auth_token: &SecretString,
    public_url: &str,
) -> Result<(), Refusal> {
    let given = request.header("x-twilio-signature").ok_or(REFUSED)?;
    let given = STANDARD.decode(given.trim()).map_err(|_| REFUSED)?;
    let signed = signed(request, public_url)?;
    alike(&given, &keyed(HashKind::Sha1, auth_token, signed.as_bytes()))
}

/// What is signed of a request.
pub(crate) fn signed(request: Request<'_>, public_url: &str) -> Result<String, Refusal> {
    let mut signed = public_url.to_owned();
    if !request.query.is_empty() {
        signed.push('?');
        signed.push_str(request.query);
    }
    let query = form(request.query);
    match field(&query, "bodySHA256") {
        Some(hash) => {
            let body = hex::encode(Sha256::digest(request.body));
            alike(hash.to_ascii_lowercase().as_bytes(), body.as_bytes())?;
        }
        None => {
            let body = std::str::from_utf8(request.body).map_err(|_| REFUSED)?;
            let mut fields = form(body);
            fields.sort();
            fields.dedup();
            fields.iter().for_each(|(name, value)| {
                signed.push_str(name);
                signed.push_str(value);
            });
        }
    }
    Ok(signed)
}

/// Reads a callback: a recording's state, a finished `<Record>`, or a call's end.
///
/// # Errors
/// [`Unread`].
pub fn parse(
    source: &str,
    query: &str,
    body: &[u8],
    numbering: &Numbering,
) -> Result<Option<CallEvent>, Unread> {
    if body.len() > BODY_LIMIT || query.len() > BODY_LIMIT {
        return Err(Unread::TooLarge);
    }
    let (body, query) = (form(&decode(body)), form(query));
    let get = |name: &str| field(&body, name);
    let either = |name: &str| get(name).or_else(|| field(&query, name));
    if get("Direction").is_some_and(|direction| direction.starts_with("outbound")) {
        return Ok(None);
    }
    let call_sid = get("CallSid").ok_or(Unread::Key)?;
    let mut call = CallEvent::new(source, call_sid, Kind::CallEnded)?;
    call.caller = either("From").or(either("Caller")).map(|number| numbering.read(number));
    call.callee = either("To").or(either("Called")).and_then(|number| fact(number, KEY));
    let sent = get("Timestamp").and_then(|t| TimeFormat::Rfc2822.read(t, Zone::china()));
    let call_s = get("CallDuration").and_then(|s| Unit::S.millis(s)).map(|ms| ms / 1000);
    call.call_s = call_s;
    if get("CallStatus") == Some("completed") {
        call.ended_at = sent;
    }
    let mut call = call.named(either("CallerName"));

    let url = get("RecordingUrl");
    let sid = get("RecordingSid").or(url.and_then(|url| url.rsplit('/').next()));
    let Some(sid) = sid else {
        call.outcome = match get("CallStatus") {
            Some("completed") => None, // with a person or a machine, it does not say
            Some("busy" | "no-answer" | "canceled") => Some(Outcome::Missed),
            Some("failed") => Some(Outcome::Failed),
            // It goes on; its end comes by itself.
            Some("queued" | "initiated" | "ringing" | "in-progress") => return Ok(None),
            _ => return Err(Unread::Field),
        };
        return Ok(Some(call));
    };
    let status = get("RecordingStatus");
    // A request of `<Record action>` names no source: it is the verb itself that asks.
    let left = matches!(get("RecordingSource"), Some("RecordVerb") | None);
    call.kind = match status {
        Some("absent" | "failed") => Kind::RecordingAbsent,
        Some("in-progress") => Kind::CallEnded,
        _ if left => Kind::Voicemail,
        _ => Kind::RecordingReady,
    };
    call.outcome = match (call.kind, get("ErrorCode")) {
        (Kind::RecordingAbsent, Some("16101")) => Some(Outcome::TooShort),
        (Kind::RecordingAbsent, Some("16102")) => Some(Outcome::Silent),
        (Kind::Voicemail, _) => Some(Outcome::MessageLeft),
        _ => None,
    };
    let ready = matches!(call.kind, Kind::Voicemail | Kind::RecordingReady);
    let started = get("RecordingStartTime");
    let recording = Recording {
        started_at: started.and_then(|text| {
            let read = |format: TimeFormat| format.read(text, Zone::china());
            read(TimeFormat::Rfc2822).or_else(|| read(TimeFormat::Rfc3339))
        }),
        ms: get("RecordingDuration").and_then(|s| Unit::S.millis(s)),
        audio: url.filter(|_| ready).and_then(AudioRef::parse),
        ..Recording::default()
    };
    call.recordings.insert(crate::text::key(sid).ok_or(Unread::Key)?, recording);
    Ok(Some(call))
}
