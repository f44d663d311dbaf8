use crate::{SOURCE, at, e164, numbering, post};
use intake_contract::Refusal;
use intake_hotline::{
    AudioRef, Auth, CallEvent, Format, Kind, Outcome, PushSource, Received, Unread, Verify,
    twilio::parse,
};

fn source(token: &str, public_url: &str) -> PushSource {
    let auth = Auth::Twilio { auth_token: token.into(), public_url: public_url.to_owned() };
    let verify = Verify { auth, allow_ips: Vec::new() };
    PushSource::new("twilio", verify, numbering(), Format::Twilio).expect("sound settings")
}

fn send(query: &str, body: &str, signature: &str) -> Result<Received, Refusal> {
    // The published vectors' token is shorter than settings allow, so the check is asked directly.
    let auth = Auth::Twilio {
        auth_token: "12345".into(),
        public_url: "https://mycompany.com/myapp.php".to_owned(),
    };
    let verify = Verify { auth, allow_ips: Vec::new() };
    let headers = [("x-twilio-signature", signature.as_bytes())];
    let request = post(query, &headers, body.as_bytes());
    verify.verify(request, None, at(0))?;
    let told = source("long-enough", "https://example.com/").read(request);
    let answer = intake_contract::Answer::text(200, "");
    Ok(Received { calls: told.calls, unread: told.unread, delivery_id: None, answer })
}

fn body(from: &str) -> String {
    format!(
        "CallSid=CA1234567890ABCDE&Caller=%2B{from}&Digits=1234&From=%2B{from}&To=%2B18005551212"
    )
}

const REFUSED: Refusal = Refusal::new(401, "bad_signature");

#[test]
fn the_published_signatures_are_accepted_and_others_are_not() {
    let vectors = [
        ("14158675310", "GvWf1cFY/Q7PnoempGyD5oXAezc="),
        ("12349013030", "0/KCTR6DLpKmkAf8muzZqo1nDgQ="),
    ];
    for (from, signature) in vectors {
        assert!(send("foo=1&bar=2", &body(from), signature).is_ok());
        assert_eq!(send("foo=1&bar=3", &body(from), signature), Err(REFUSED));
        assert_eq!(send("", &body(from), signature), Err(REFUSED));
        assert_eq!(send("foo=1&bar=2", &body("14158675311"), signature), Err(REFUSED));
        assert_eq!(send("foo=1&bar=2", &format!("{}&X=1", body(from)), signature), Err(REFUSED));
        assert_eq!(send("foo=1&bar=2", &body(from), "AAAA"), Err(REFUSED));
        assert_eq!(send("foo=1&bar=2", &body(from), "%"), Err(REFUSED));
    }
}

#[test]
fn a_body_that_is_no_form_is_covered_by_its_hash() {
    use hmac::{Hmac, KeyInit, Mac};
    use sha2::{Digest, Sha256};
    let body = "{\"CallSid\":\"CA1\"}";
    let query = format!("bodySHA256={}", hex::encode(Sha256::digest(body)));
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"12345").expect("any length");
    mac.update(format!("https://mycompany.com/myapp.php?{query}").as_bytes());
    let signature = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
    };
    assert!(send(&query, body, &signature).is_ok());
    assert_eq!(send(&query, "{\"CallSid\":\"CA2\"}", &signature), Err(REFUSED));
}

fn read(query: &str, body: &str) -> CallEvent {
    parse(SOURCE, query, body.as_bytes(), &numbering()).expect("readable").expect("of a citizen")
}

const RECORDED: &str = "AccountSid=AC1&CallSid=CA1&RecordingSid=RE1&RecordingUrl=https%3A%2F%2Fapi.twilio.com%2FRecordings%2FRE1&RecordingStatus=completed&RecordingDuration=9&RecordingChannels=1&RecordingSource=RecordVerb&RecordingStartTime=Mon%2C+23+Nov+2026+15%3A11%3A54+%2B0000";

#[test]
fn a_recording_finds_its_caller_in_its_address_or_in_the_action_request() {
    let recorded = read("", RECORDED);
    assert_eq!((recorded.kind, recorded.caller.clone()), (Kind::Voicemail, None));
    let recording = &recorded.recordings["RE1"];
    assert_eq!(recording.ms, Some(9000));
    assert_eq!(recording.started_at, Some(at(1_795_446_714)));
    assert_eq!(
        recording.audio,
        Some(AudioRef::Http("https://api.twilio.com/Recordings/RE1".to_owned()))
    );

    let in_query = read("From=%2B8613900001234&To=%2B862412345678", RECORDED);
    assert_eq!(e164(&in_query), "+8613900001234");
    assert_eq!(in_query.callee.as_deref(), Some("+862412345678"));

    let action = read(
        "",
        "CallSid=CA1&From=%2B8613900001234&To=%2B862412345678&Direction=inbound&RecordingUrl=https%3A%2F%2Fapi.twilio.com%2FRecordings%2FRE1&RecordingDuration=9&Digits=hangup",
    );
    let whole = recorded.merge(action).expect("the same call");
    assert_eq!(whole.recordings.len(), 1);
    assert_eq!(e164(&whole), "+8613900001234");
    assert!(whole.has_message());
}

#[test]
fn a_recording_that_there_is_not_says_why() {
    let absent = |code: &str| {
        read(
            "",
            &format!(
                "CallSid=CA1&RecordingSid=RE1&RecordingStatus=absent&RecordingSource=RecordVerb&ErrorCode={code}"
            ),
        )
    };
    for (code, outcome) in
        [("16101", Some(Outcome::TooShort)), ("16102", Some(Outcome::Silent)), ("1", None)]
    {
        let call = absent(code);
        assert_eq!((call.kind, call.outcome), (Kind::RecordingAbsent, outcome));
        assert!(!call.has_message());
    }
    let running = read("", &RECORDED.replace("completed", "in-progress"));
    assert!(running.recordings["RE1"].audio.is_none());
    let conversation = read("", &RECORDED.replace("RecordVerb", "DialVerb"));
    assert_eq!((conversation.kind, conversation.outcome), (Kind::RecordingReady, None));
}

#[test]
fn a_calls_end_is_read_and_outgoing_calls_are_left() {
    let missed =
        read("", "CallSid=CA1&CallStatus=no-answer&From=%2B8613900001234&Direction=inbound");
    assert_eq!((missed.kind, missed.outcome), (Kind::CallEnded, Some(Outcome::Missed)));
    let outgoing = b"CallSid=CA1&CallStatus=completed&Direction=outbound-api";
    assert_eq!(parse(SOURCE, "", outgoing, &numbering()), Ok(None));
    assert_eq!(parse(SOURCE, "", b"From=1", &numbering()), Err(Unread::Key));
    assert_eq!(parse(SOURCE, "", b"CallSid=CA1", &numbering()), Err(Unread::Field));
}
