use crate::{SOURCE, at, e164, fixture, numbering};
use base64::{Engine, engine::general_purpose::STANDARD};
use intake_hotline::{
    AudioRef, BODY_LIMIT, CallEvent, Caller, Kind, Outcome, Unread,
    freeswitch::{left_behind, parse},
};

fn read(body: &[u8]) -> Result<Option<CallEvent>, Unread> {
    parse(SOURCE, body, &numbering())
}

fn call(body: &[u8]) -> CallEvent {
    read(body).expect("readable").expect("of a citizen")
}

/// The same call as three modules tell it; format_cdr was set to encode values.
fn three(json: &str, xml: &str, form: &str) -> CallEvent {
    let [json, xml, form] =
        [json, xml, form].map(|name| fixture(&format!("freeswitch/{name}.body")));
    let told = call(&json);
    assert_eq!(call(&xml), told);
    assert_eq!(call(&form), told);
    told
}

#[test]
fn who_hangs_up_in_the_greeting_gave_up() {
    let call = three("001_json_cdr", "002_xml_cdr", "003_format_cdr");
    assert_eq!(call.call_key, "a2150427-c1fb-4761-8c8d-611ff7aa1992");
    assert_eq!((call.kind, call.outcome), (Kind::CallEnded, Some(Outcome::GaveUp)));
    assert_eq!(e164(&call), "+8613700000002");
    assert_eq!(call.caller_name.as_deref(), Some("early"));
    assert_eq!(call.callee.as_deref(), Some("12333"));
    assert_eq!(call.started_at.map(|at| at.timestamp()), Some(1_795_448_709));
    assert_eq!(call.ended_at.map(|at| at.timestamp_micros()), Some(1_795_448_710_435_150));
    assert_eq!(call.call_s, Some(1));
    assert!(call.recordings.is_empty() && !call.has_message());
}

#[test]
fn records_of_older_exchanges_are_read_however_they_write_the_flow() {
    let json = String::from_utf8(fixture("freeswitch/001_json_cdr.body")).expect("text");
    let told = call(json.as_bytes());
    let at = json.find("\"callflow\":[").expect("a list");
    let with = |rest: &str| format!("{}{rest}}}", &json[..at]);
    let first =
        serde_json::from_str::<serde_json::Value>(&json).expect("JSON")["callflow"][0].to_string();
    let older =
        r#""callflow":{"caller_profile":{"caller_id_number":"8001","destination_number":"1"}}"#;
    for rest in [
        format!("\"callflow\":{first}"),
        format!("\"callflow\":{first},{older},{older}"),
        format!("\"callflow\":{first},\"variables\":{{\"uuid\":\"another\"}}"),
    ] {
        assert_eq!(call(with(&rest).as_bytes()), told, "{rest}");
    }
    // Without one, the channel's own variables are left.
    for rest in ["\"callflow\":null", "\"callflow\":[]", "\"callflow\":\"\"", "\"callflow\":[7]"] {
        assert_eq!(call(with(rest).as_bytes()).call_key, told.call_key, "{rest}");
    }
}

#[test]
fn what_was_left_in_the_folder_is_encoded_as_it_would_have_been_sent() {
    let json = fixture("freeswitch/001_json_cdr.body");
    let told = call(&json);
    let percent: String = json.iter().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(call(percent.as_bytes()), told);
    assert_eq!(call(STANDARD.encode(&json).as_bytes()), told);
    for nothing in [&b""[..], b"nothing of the kind", b"%7Bno", b"AAAA"] {
        assert!(read(nothing).is_err());
    }
}

#[test]
fn a_message_that_was_ended_by_a_key_is_one_whatever_the_dialplan_did_next() {
    let body = String::from_utf8(fixture("freeswitch/004_json_cdr.body")).unwrap();
    let body = body.replace("\"last_app\":\"record\"", "\"last_app\":\"playback\"");
    let body = body.replace("\"last_arg\":\"", "\"last_arg\":\"/x/thanks.wav ");
    let told = call(body.as_bytes());
    assert_eq!((told.kind, told.outcome), (Kind::Voicemail, Some(Outcome::MessageLeft)));
    let recording = told.recordings.values().next().expect("a recording");
    assert_eq!(recording.ms, Some(6020));
    assert!(recording.says_something());
}

#[test]
fn raw_json_that_comes_as_a_form_is_read_all_the_same() {
    let call = three("016_json_nocont", "017_xml_cdr", "018_format_cdr");
    assert_eq!(call.call_key, "a62e8387-50d8-450b-8164-a2dc2941e411");
    assert_eq!(call.outcome, Some(Outcome::GaveUp));
    assert_eq!(e164(&call), "+8613700000009");
}

#[test]
fn a_recording_of_somebody_who_hides_the_number_is_a_message_of_nobody_known() {
    let call = three("004_json_cdr", "005_xml_cdr", "006_format_cdr");
    assert_eq!((call.kind, call.outcome), (Kind::Voicemail, Some(Outcome::MessageLeft)));
    assert_eq!(call.caller, Some(Caller::Anonymous));
    assert_eq!(call.caller_name, None);
    assert_eq!(call.callee.as_deref(), Some("8003"));
    let (key, recording) = call.recordings.first_key_value().expect("a recording");
    assert_eq!(*key, format!("{}/rec_{0}.wav", call.call_key));
    assert_eq!(recording.ms, Some(6020));
    let path = "/opt/asterisk/fsrun/vm/rec_352d7f5f-8c84-4d5b-acd1-f6a9fae9c22d.wav";
    assert_eq!(recording.audio, Some(AudioRef::Local(path.to_owned())));
    assert!(call.has_message());
}

#[test]
fn the_file_of_a_recording_is_found_wherever_the_dialplan_says_it() {
    let whole = "/opt/asterisk/fsrun/vm/rec_352d7f5f-8c84-4d5b-acd1-f6a9fae9c22d.wav";
    let json = String::from_utf8(fixture("freeswitch/004_json_cdr.body")).expect("text");
    let at = |json: &str| {
        let call = call(json.as_bytes());
        let (key, recording) = call.recordings.into_iter().next().expect("a recording");
        assert!(key.starts_with(&format!("{}/", call.call_key)), "{key}");
        match recording.audio {
            Some(AudioRef::Local(path)) => path,
            other => panic!("no file: {other:?}"),
        }
    };
    let folder = json.replace(
        &format!("\"record_path\":\"{whole}\""),
        "\"record_path\":\"/rec/2026/Nov/23\",\"record_name\":\"night.wav\"",
    );
    assert_eq!(at(&folder), "/rec/2026/Nov/23/night.wav");
    assert_eq!(at(&folder.replace("/23\",", "/23/night.wav\",")), "/rec/2026/Nov/23/night.wav");
    // Nothing of it in the variables: what `record` was called with, whatever came after it.
    let logged = json
        .replace(&format!("\"record_path\":\"{whole}\","), "")
        .replace("\"last_app\":\"record\"", "\"last_app\":\"playback\"")
        .replace(&format!("\"app_data\":\"{whole} 180"), "\"app_data\":\"/logged.wav 180");
    assert_eq!(at(&logged), "/logged.wav");
    let xml = String::from_utf8(fixture("freeswitch/005_xml_cdr.body")).expect("text");
    let begins = xml.find("<record_path>").expect("a variable");
    let ends = xml.find("</record_path>").expect("its end") + "</record_path>".len();
    let xml = format!("{}{}", &xml[..begins], &xml[ends..]);
    assert_eq!(at(&xml), whole);
    let empty = xml.replace("8\" app_stamp=\"1795448709237679\"></application>", "8\"/>");
    assert_eq!(at(&empty), whole);
}

#[test]
fn the_number_that_was_called_is_no_name_of_the_dialplan() {
    let json = String::from_utf8(fixture("freeswitch/001_json_cdr.body")).expect("text");
    let sent_on =
        json.replace("\"destination_number\":\"12333\"", "\"destination_number\":\"night-12333\"");
    let callee = |json: &str| call(json.as_bytes()).callee;
    assert_eq!(callee(&sent_on).as_deref(), Some("12333"));
    let blind = sent_on.replace("\"sip_to_user\":\"12333\"", "\"sip_to_user\":\"gw+carrier\"");
    assert_eq!(callee(&blind).as_deref(), Some("12333"), "the request names it");
    let blind = blind.replace("\"sip_req_user\":\"12333\"", "\"sip_req_user\":\"gw\"");
    assert_eq!(callee(&blind).as_deref(), Some("night-12333"), "nothing better is known");
    // The first time that it went through the dialplan comes last.
    let first = blind.replace(
        "\"callflow\":[",
        "\"callflow\":[{\"caller_profile\":{\"destination_number\":\"night-12333\"}},",
    );
    let first = first
        .replace("\"destination_number\":\"night-12333\",", "\"destination_number\":\"12333\",");
    assert_eq!(callee(&first).as_deref(), Some("12333"));
}

#[test]
fn what_the_exchange_threw_away_was_too_short() {
    let call = three("007_json_cdr", "008_xml_cdr", "009_format_cdr");
    assert_eq!((call.kind, call.outcome), (Kind::CallEnded, Some(Outcome::TooShort)));
    assert_eq!(e164(&call), "+8613700000001");
    assert_eq!(call.call_s, Some(9));
    assert!(call.recordings.is_empty());
}

/// The discarded one, as it would read had it been delivered.
fn delivered() -> String {
    let json = String::from_utf8(fixture("freeswitch/007_json_cdr.body")).expect("text");
    json.replace(
        r#""record_seconds":"1","record_ms":"1520""#,
        r#""record_seconds":"9","record_ms":"9380","voicemail_account":"8001","voicemail_message_len":"00:00:09","voicemail_file_path":"/var/vm/8001/msg_2bd7c520-6813-4f8d-ad72-adfa0ccc8cd8.wav""#,
    )
}

#[test]
fn values_that_are_encoded_once_more_are_read_and_others_left() {
    let path = |json: &str| match call(json.as_bytes()).recordings.into_values().next() {
        Some(recording) => recording.audio,
        None => None,
    };
    let local = |path: &str| Some(AudioRef::Local(path.to_owned()));
    let odd = delivered().replace("/var/vm/8001/msg", "/var/vm/100%25/msg");
    let plain = "/var/vm/100%25/msg_2bd7c520-6813-4f8d-ad72-adfa0ccc8cd8.wav";
    assert_eq!(path(&odd), local(plain));
    let encoded = odd.replace("2026-11-23 23:45:09", "2026-11-23%2023%3A45%3A09");
    assert_eq!(path(&encoded), local(&plain.replace("%25", "%")));
}

#[test]
fn a_delivered_voicemail_goes_by_the_call_and_not_by_its_file() {
    let call = call(delivered().as_bytes());
    assert_eq!((call.kind, call.outcome), (Kind::Voicemail, Some(Outcome::MessageLeft)));
    let (key, recording) = call.recordings.first_key_value().expect("a recording");
    assert_eq!(*key, call.call_key);
    assert_eq!(recording.ms, Some(9380));
    let path = "/var/vm/8001/msg_2bd7c520-6813-4f8d-ad72-adfa0ccc8cd8.wav";
    assert_eq!(recording.audio, Some(AudioRef::Local(path.to_owned())));
    // Without the milliseconds the length in hours, minutes, seconds counts.
    let coarse = delivered().replace("\"record_seconds\":\"9\",\"record_ms\":\"9380\",", "");
    let coarse = self::call(coarse.as_bytes());
    assert_eq!(coarse.recordings.first_key_value().and_then(|(_, r)| r.ms), Some(9000));
}

#[test]
fn every_encoding_of_every_module_comes_to_the_same() {
    let json = fixture("freeswitch/001_json_cdr.body");
    let xml = fixture("freeswitch/002_xml_cdr.body");
    let told = call(&json);
    for plain in [&json, &xml] {
        let base64 = STANDARD.encode(plain);
        let broken_up: Vec<&str> =
            base64.as_bytes().chunks(72).map(|c| std::str::from_utf8(c).expect("ASCII")).collect();
        let percent: String = plain.iter().map(|byte| format!("%{byte:02X}")).collect();
        let text = String::from_utf8(plain.clone()).expect("text");
        let wrapped = [
            format!("cdr={base64}"),
            format!("cdr={}", broken_up.join("\n")),
            format!("cdr={percent}"),
            format!("\u{feff} \r\n cdr={percent}&uuid=x"),
            format!("cdr={text}"),
            format!("  {text}\n"),
        ];
        for body in wrapped {
            assert_eq!(call(body.as_bytes()), told);
        }
    }
}

#[test]
fn base64_keeps_its_plus_signs() {
    // Bytes that make `+` in base64.
    let json = String::from_utf8(fixture("freeswitch/001_json_cdr.body")).expect("text");
    let json = json.replace("\"early\"", "\"\u{5f20}>>>\u{4e09}???\"");
    let body = format!("cdr={}", STANDARD.encode(&json));
    assert!(body.contains('+'));
    assert_eq!(call(body.as_bytes()), call(json.as_bytes()));
}

#[test]
fn a_name_in_gb18030_is_read_and_nul_is_not_kept() {
    let json = fixture("freeswitch/001_json_cdr.body");
    let with = |name: &[u8]| {
        let place = b"\"caller_id_name\":\"";
        let at = json.windows(place.len()).position(|w| w == place).expect("a name") + place.len();
        [&json[..at], name, &json[at + "early".len()..]].concat()
    };
    let name = |bytes: &[u8]| call(&with(bytes)).caller_name;
    assert_eq!(name(b"\xd5\xc5\xc8\xfd").as_deref(), Some("张三"));
    assert_eq!(name("张三".as_bytes()).as_deref(), Some("张三"));
    assert_eq!(name(b"a\0b\\u0000c").as_deref(), Some("abc"));
    // Neither: what can be read stays.
    assert_eq!(name(b"ok \xff").as_deref(), Some("ok \u{fffd}"));
}

#[test]
fn the_officers_leg_and_outgoing_calls_are_no_calls_of_citizens() {
    let json = String::from_utf8(fixture("freeswitch/001_json_cdr.body")).expect("text");
    let outbound = json
        .replace(r#""variables":{"direction":"inbound""#, r#""variables":{"direction":"outbound""#);
    assert_eq!(read(outbound.as_bytes()), Ok(None));
}

#[test]
fn a_bridged_call_was_answered_and_an_unanswered_one_missed() {
    let json = String::from_utf8(fixture("freeswitch/001_json_cdr.body")).expect("text");
    let bridged = json.replace(r#""bridge_epoch":"0""#, r#""bridge_epoch":"1795448709""#);
    assert_eq!(call(bridged.as_bytes()).outcome, Some(Outcome::Answered));
    let unanswered = json
        .replace(r#""answer_epoch":"1795448709""#, r#""answer_epoch":"0""#)
        .replace(r#""answer_uepoch":"#, r#""was":"#);
    assert_eq!(call(unanswered.as_bytes()).outcome, Some(Outcome::Missed));
}

#[test]
fn files_that_were_left_behind_are_told_by_their_names() {
    let uuid = "e8c7062d-812c-4ac2-946d-39f360614df3";
    for name in
        [format!("a_{uuid}.cdr.json"), format!("{uuid}.cdr.json"), format!("a_{uuid}.cdr.xml")]
    {
        assert_eq!(left_behind(&name), Some(uuid));
    }
    // Identities may be those of SIP.
    assert_eq!(left_behind("a_1-4675@10.0.0.1.cdr.json"), Some("1-4675@10.0.0.1"));
    for name in ["a_.cdr.json", "notes.txt", "a_x.cdr.json.tmp", "a_x.cdr.json.taken"] {
        assert_eq!(left_behind(name), None, "{name}");
    }
}

#[test]
fn what_is_no_record_is_named() {
    assert_eq!(read(b""), Err(Unread::Form));
    assert_eq!(read(b"hello=world"), Err(Unread::Form));
    assert_eq!(read(b"cdr=%%%"), Err(Unread::Form));
    assert_eq!(read(b"{\"variables\":"), Err(Unread::Json));
    assert_eq!(read(b"{\"variables\":{}}"), Err(Unread::Key));
    assert_eq!(read(b"<cdr><variables>"), Err(Unread::Xml));
    assert_eq!(read(b"<html><body/></html>"), Err(Unread::Xml));
    let bomb =
        b"<!DOCTYPE cdr [<!ENTITY a \"b\">]><cdr><variables><uuid>&a;</uuid></variables></cdr>";
    assert_eq!(read(bomb), Err(Unread::Xml));
    assert_eq!(read(&vec![b' '; BODY_LIMIT + 1]), Err(Unread::TooLarge));
    let long = format!("{{\"variables\":{{\"uuid\":\"{}\"}}}}", "u".repeat(500));
    assert_eq!(read(long.as_bytes()), Err(Unread::Key));
}

#[test]
fn wrappings_within_wrappings_end() {
    let mut body = "cdr=".repeat(50).into_bytes();
    body.extend(b"{}");
    assert_eq!(read(&body), Err(Unread::Form));
    let mut wrapped = String::from("{\"variables\":{\"uuid\":\"u\"}}");
    for _ in 0..6 {
        wrapped = format!("cdr={}", STANDARD.encode(wrapped));
    }
    assert_eq!(read(wrapped.as_bytes()), Err(Unread::Form));
}

#[test]
fn a_plausible_time_is_asked_of_the_source() {
    let call = call(&fixture("freeswitch/001_json_cdr.body"));
    assert!(call.time_is_plausible(at(1_795_448_720)));
    assert!(!call.time_is_plausible(at(1_795_448_709 - 400)));
    assert!(!call.time_is_plausible(at(1_795_448_709 + 31 * 86_400)));
}
