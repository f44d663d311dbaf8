//! Everything may be sent by anybody who has a source's secret, or may lie in a spool: nothing panics,
//! nothing that is handed on is longer than it may be.

use crate::{SOURCE, fixture, numbering, post};
use intake_contract::{LIMITS, Request};
use intake_hotline::{
    BODY_LIMIT, CallEvent, Caller, Mapping, SHIPPED, TimeFormat, Unit, Zone, asterisk, freeswitch,
    twilio,
};
use proptest::{collection::vec, prelude::*};
use std::sync::LazyLock;

static MAPPINGS: LazyLock<Vec<Mapping>> =
    LazyLock::new(|| SHIPPED.map(|(name, _)| Mapping::shipped(name).expect("sound")).into());

/// Hands the bytes to every reader and looks at what comes out.
fn everything(query: &str, bytes: &[u8]) {
    let mut calls = Vec::new();
    calls.extend(freeswitch::parse(SOURCE, bytes, &numbering()).ok().flatten());
    calls.extend(twilio::parse(SOURCE, query, bytes, &numbering()).ok().flatten());
    let text = String::from_utf8_lossy(bytes);
    calls.extend(asterisk::recording_event(SOURCE, &text).ok().flatten());
    calls.extend(asterisk::posted(SOURCE, bytes, (Zone::china(), &[]), &numbering()).0);
    calls.extend(asterisk::mix_monitor(SOURCE, &text, &numbering()).ok());
    let _ = asterisk::mailbox_changed(&text.split(' ').collect::<Vec<_>>());
    let _ = freeswitch::left_behind(&text);
    let records: Vec<_> =
        asterisk::call_records(bytes, Zone::china()).into_iter().flatten().collect();
    calls.extend(records.iter().filter_map(|record| record.call(SOURCE, &numbering()).ok()));
    if let Ok(message) = asterisk::Message::parse(bytes, "default", "8001") {
        let record = message.record_of(&records, &numbering());
        calls.extend(message.call(SOURCE, record, None, &numbering()).ok());
        assert!(asterisk::without_copies(vec![message.clone(), message]).len() <= 2);
    }
    let headers: [(&str, &[u8]); 1] = [("x-tccc-push-uuid", bytes)];
    let request: Request<'_> = post(query, &headers, bytes);
    calls.extend(
        MAPPINGS.iter().flat_map(|mapping| mapping.read(SOURCE, request, &numbering()).calls),
    );
    let pages = MAPPINGS.iter().filter_map(|one| one.page(SOURCE, bytes, &numbering()).ok());
    calls.extend(pages.flat_map(|page| page.calls.into_iter().map(|(call, _)| call)));
    calls.iter().for_each(bounded);
}

/// What is handed on can be kept: no control characters, no longer than the columns and their keys.
fn bounded(call: &CallEvent) {
    let sound = |text: &str, most: usize| {
        assert!(text.len() <= most && !text.is_empty(), "{} of {most}", text.len());
        assert!(!text.chars().any(char::is_control));
    };
    sound(&call.call_key, 120);
    call.caller_name.iter().for_each(|name| sound(name, LIMITS.name));
    call.callee.iter().for_each(|callee| sound(callee, 120));
    match &call.caller {
        Some(Caller::Known(number)) => {
            sound(&number.e164, 16);
            sound(&number.raw, 160);
        }
        Some(Caller::Raw(raw)) => sound(raw, 160),
        Some(Caller::Anonymous) | None => {}
    }
    call.recordings.keys().for_each(|key| sound(key, LIMITS.source_id));
    let _ = (call.has_message(), call.spoken_at(), call.caller.as_ref().map(Caller::masked));
}

/// Samples to be bent.
fn samples() -> Vec<Vec<u8>> {
    let mut samples: Vec<Vec<u8>> = [
        "freeswitch/004_json_cdr.body",
        "freeswitch/005_xml_cdr.body",
        "freeswitch/006_format_cdr.body",
        "asterisk/8001_msg0000.txt",
        "asterisk/cdr.csv",
    ]
    .map(fixture)
    .into();
    let plain: [&[u8]; 3] = [
        br#"{"SdkAppId":1,"SessionId":"s","Timestamp":1608130650,"RecordURL":"http://a/b.mp3","EndpointUser":13123456789,"Direction":0}"#,
        br#"{"type":30012,"sn":"3","msg":"{\"call_id\":\"1\",\"status\":\"VOICEMAIL\",\"type\":\"Inbound\",\"recording\":\"r\"}"}"#,
        br#"{"eventType":"fee","feeLst":[{"sessionId":"s","callInTime":"2026-11-23 15:11:46","recordObjectName":"o"}]}"#,
    ];
    samples.extend(plain.map(<[u8]>::to_vec));
    samples
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic(query in "[ -~]{0,60}", bytes in vec(any::<u8>(), 0..600)) {
        everything(&query, &bytes);
        for start in ["{", "<cdr>", "cdr=", "[message]\n", "[", "cdr=%7B"] {
            everything("action=voicemail", &[start.as_bytes(), &bytes].concat());
        }
    }

    #[test]
    fn no_bent_sample_makes_a_reader_panic(
        sample in prop::sample::select(samples()),
        bends in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..20),
        action in prop::sample::select(vec!["voicemail", "record", "cdr"]),
    ) {
        let mut bytes = sample;
        for (place, byte, how) in bends {
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        everything(&format!("action={action}"), &bytes);
    }

    #[test]
    fn no_number_makes_the_reader_panic(written in ".{0,200}", digits in "[+0-9 ()转分机#,;=x-]{0,40}") {
        for text in [&written, &digits] {
            let _ = numbering().read(text).masked();
        }
    }

    #[test]
    fn no_time_and_no_span_panic(text in ".{0,40}", number in any::<i64>()) {
        for text in [text, number.to_string()] {
            for format in [TimeFormat::EpochS, TimeFormat::EpochMs, TimeFormat::EpochUs, TimeFormat::Naive, TimeFormat::Rfc3339, TimeFormat::Rfc2822] {
                let _ = format.read(&text, Zone::china());
            }
            for unit in [Unit::S, Unit::Ms, Unit::Hms] {
                let _ = unit.millis(&text);
            }
            let _ = Zone::parse(&text);
        }
    }

    #[test]
    fn no_file_makes_the_loader_panic(text in ".{0,200}", cut in any::<prop::sample::Index>()) {
        let _ = Mapping::load(&text);
        let shipped = SHIPPED[0].1;
        let at = shipped.floor_char_boundary(cut.index(shipped.len()));
        let _ = Mapping::load(&shipped[..at]);
    }
}

#[test]
fn depth_costs_no_stack() {
    let nested = |open: &str, close: &str| {
        let times = BODY_LIMIT / 2 / (open.len() + close.len());
        format!("{}{}", open.repeat(times), close.repeat(times))
    };
    let documents = [
        nested("[", "]"),
        "[".repeat(BODY_LIMIT),
        nested("{\"a\":", "}").replace(":}", ":1}"),
        "{\"variables\":".repeat(9000),
        format!("{{\"variables\":{{\"uuid\":\"u\"}},\"x\":{}}}", nested("[", "]")),
        format!("{{\"SessionId\":{}}}", nested("[", "]")),
        format!("{{\"msg\":{}}}", nested("[", "]")),
        format!("<cdr>{}</cdr>", nested("<a>", "</a>")),
        "<cdr>".repeat(20_000),
        "cdr=".repeat(30_000),
        "%25".repeat(40_000),
        "a=&".repeat(40_000),
        "\n".repeat(BODY_LIMIT),
        ",".repeat(BODY_LIMIT),
        "\"".repeat(BODY_LIMIT),
    ];
    for document in documents {
        everything("action=voicemail", document.as_bytes());
    }
}

#[test]
fn what_is_larger_than_is_read_is_not_read() {
    let large = vec![b'{'; BODY_LIMIT + 1];
    assert!(freeswitch::parse(SOURCE, &large, &numbering()).is_err());
    assert!(twilio::parse(SOURCE, "", &large, &numbering()).is_err());
    assert!(asterisk::Message::parse(&large, "default", "8001").is_err());
    for mapping in MAPPINGS.iter() {
        let told = mapping.read(SOURCE, post("", &[], &large), &numbering());
        assert!(told.calls.is_empty() && told.unread.is_some());
    }
}
