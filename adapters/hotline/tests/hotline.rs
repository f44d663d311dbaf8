//! The signed webhook, as hotline.md §2a describes it.

use chrono::{DateTime, Utc};
use intake_contract::{
    Answer, Busy, Channel, Kept, Method, Outcome, Receipt, Refusal, Request, Submission, Verified,
    conformance::{Delivery, Peer, run, through},
};
use intake_hotline::{
    HotlineChannel, Key, Source,
    sender::{Description, Sender},
};

const SECRET: &str = "test-secret";
const BODY: &str = r#"{"v":1,"recording_id":"pbx1:1795446714-00000000","call_id":"1795446706.0","caller":"13900001234","callee":"12333","started_at":"2026-11-23T23:11:54+08:00","duration_s":14,"audio":{"url":"file:msg0000.wav","sha256":null}}"#;
const TIMESTAMP: i64 = 1_795_446_730;
const SIGNATURE: &str = "aa694d9886c2396d19b7a4a41bdbcfc5443d97e82edb8c13402b5723fbc12bd6";
const UNSIGNED: Refusal = Refusal::new(401, "bad_signature");

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap_or_default()
}

fn channel() -> HotlineChannel {
    let key = |id: &str, secret: &str| Key { id: id.to_owned(), secret: secret.into() };
    let source = Source {
        id: "pbx1".to_owned(),
        keys: vec![key("k1", SECRET), key("k2", "the-next-secret")],
        replay_window_s: 300,
    };
    HotlineChannel::new(source).expect("sound settings")
}

fn send(headers: &[(&str, &str)], body: &str, now: i64) -> Result<Verified, Refusal> {
    let headers: Vec<(&str, &[u8])> =
        headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    let body = body.as_bytes();
    let request = Request { method: Method::Post, query: "", headers: &headers, body };
    channel().verify(request, at(now))
}

/// Signed at [`TIMESTAMP`], received at `now`.
fn signed(body: &str, now: i64) -> Result<Verified, Refusal> {
    let headers = Sender::new("k1", SECRET).headers(body.as_bytes(), TIMESTAMP);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    send(&headers, body, now)
}

fn kept(verified: Result<Verified, Refusal>) -> Submission {
    match verified {
        Ok(Verified::Submit { submission, .. }) => *submission,
        Ok(_) => panic!("not a submission"),
        Err(refusal) => panic!("{refusal:?}"),
    }
}

fn refused(verified: Result<Verified, Refusal>) -> Refusal {
    verified.map(|_| ()).expect_err("refused")
}

#[test]
fn the_published_vector_is_taken() {
    assert_eq!(BODY.len(), 220);
    let (signature, timestamp) = (format!("v1={SIGNATURE}"), TIMESTAMP.to_string());
    let headers = [
        ("x-hotline-key", "k1"),
        ("x-hotline-timestamp", timestamp.as_str()),
        ("x-hotline-signature", signature.as_str()),
    ];
    let submission = kept(send(&headers, BODY, TIMESTAMP));
    assert_eq!(submission.source, "hotline:pbx1");
    assert_eq!(submission.source_id, "pbx1:1795446714-00000000");
    assert_eq!(submission.citizen.phone.as_deref(), Some("13900001234"));
    assert_eq!(submission.occurred_at.map(|at| at.timestamp()), Some(1_795_446_714));
    assert_eq!(submission.attachments.len(), 1);
    assert_eq!(submission.raw, BODY.as_bytes());
}

#[test]
fn one_fitting_signature_of_several_is_enough_while_a_secret_is_changed() {
    let timestamp = TIMESTAMP.to_string();
    let with = |key: &str, signature: &str| {
        let headers = [
            ("x-hotline-key", key),
            ("x-hotline-timestamp", timestamp.as_str()),
            ("x-hotline-signature", signature),
        ];
        send(&headers, BODY, TIMESTAMP)
    };
    kept(with("k1", &format!("v0=00, v1={}, v1={SIGNATURE}", "0".repeat(64))));
    let signature = format!("v1={SIGNATURE}");
    for (key, signature) in [
        ("k2", signature.as_str()),
        ("k3", &signature),
        ("k1", SIGNATURE),
        ("k1", &signature.to_uppercase()),
        ("k1", ""),
        ("", &signature),
    ] {
        assert_eq!(refused(with(key, signature)), UNSIGNED, "{key} {signature}");
    }
}

#[test]
fn a_header_that_is_missing_or_doubled_is_refused() {
    let headers = Sender::new("k1", SECRET).headers(BODY.as_bytes(), TIMESTAMP);
    for skipped in 0..3 {
        let mut some: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let one = some.remove(skipped);
        assert_eq!(refused(send(&some, BODY, TIMESTAMP)), UNSIGNED);
        some.extend([one, one]);
        assert_eq!(refused(send(&some, BODY, TIMESTAMP)), UNSIGNED);
    }
}

#[test]
fn a_timestamp_outside_the_window_is_refused() {
    for (offset, taken) in [(300, true), (-300, true), (301, false), (-301, false)] {
        assert_eq!(signed(BODY, TIMESTAMP + offset).is_ok(), taken, "{offset} s");
    }
    for strange in ["", "-1795446730", "+1795446730", " 1795446730", "99999999999999999999"] {
        let headers = [
            ("x-hotline-key", "k1"),
            ("x-hotline-timestamp", strange),
            ("x-hotline-signature", "v1=00"),
        ];
        assert_eq!(refused(send(&headers, BODY, TIMESTAMP)).status, 401, "{strange}");
    }
}

#[test]
fn what_is_signed_and_wrong_is_told_with_422_and_kept_for_staff() {
    for (body, reason) in [
        (BODY.replace("+08:00", ""), "zoneless_time"),
        (BODY.replace("2026-11-23T23:11:54+08:00", "2026-11-23 23:11:54"), "zoneless_time"),
        (BODY.replace("2026-11-23T23:11:54+08:00", "yesterday"), "bad_time"),
        (BODY.replace("\"v\":1", "\"v\":2"), "bad_version"),
        (BODY.replace("\"duration_s\":14", "\"duration_s\":-1"), "bad_json"),
        (BODY.replace("\"duration_s\":14", "\"duration_s\":86401"), "bad_field"),
        (BODY.replace("pbx1:1795446714-00000000", ""), "bad_field"),
        (BODY.replace("13900001234", "139\\u00000001234"), "bad_field"),
        (BODY.replace("\"sha256\":null", "\"sha256\":\"zz\""), "bad_field"),
        (BODY.replace("\"callee\":\"12333\",", ""), "bad_json"),
        ("[]".to_owned(), "bad_json"),
        (String::new(), "bad_json"),
    ] {
        match signed(&body, TIMESTAMP) {
            Ok(Verified::Quarantine(item, Answer { status, .. })) => {
                assert_eq!((item.reason, status), (reason, 422), "{body}");
                assert_eq!(item.raw, body.as_bytes());
            }
            Ok(_) => panic!("{body} was understood"),
            Err(refusal) => panic!("{body}: {refusal:?}"),
        }
    }
}

#[test]
fn a_withheld_number_is_no_number() {
    for caller in ["anonymous", "Anonymous", "unknown", "", "sip:anonymous@anonymous.invalid"] {
        let submission = kept(signed(&BODY.replace("13900001234", caller), TIMESTAMP));
        assert_eq!(submission.citizen.phone, None, "{caller}");
        assert!(submission.text.contains("无法回拨"));
    }
}

#[test]
fn an_incredible_time_is_not_believed() {
    for started in
        ["2026-11-23T23:30:00+08:00", "2026-10-01T00:00:00+08:00", "1970-01-01T00:00:00Z"]
    {
        let body = BODY.replace("2026-11-23T23:11:54+08:00", started);
        assert_eq!(kept(signed(&body, TIMESTAMP)).occurred_at, None, "{started}");
    }
}

#[test]
fn new_is_202_and_a_repeat_200_with_the_same_number() {
    let receipt = Receipt {
        number: "BCS-2026-000001".to_owned(),
        received_at: at(TIMESTAMP),
        follow_up_at: None,
        due_at: at(TIMESTAMP + 86_400),
        provisional: false,
        asks_contact: false,
        page: None,
        alarms: false,
        alarm_reaches: false,
    };
    let answer = |outcome: Outcome| match signed(BODY, TIMESTAMP) {
        Ok(Verified::Submit { respond, .. }) => respond(&outcome, at(TIMESTAMP)),
        _ => panic!("not a submission"),
    };
    for (repeated, status) in [(false, 202), (true, 200)] {
        let (kept, receipt) = (Kept::Registered, receipt.clone());
        let answer = answer(Outcome::Durable { kept, repeated, receipt });
        assert_eq!(answer.status, status);
        assert!(String::from_utf8_lossy(&answer.body).contains("BCS-2026-000001"));
    }
    assert_eq!(answer(Outcome::Spooled { alarms: false }).status, 202);
    assert_eq!(answer(Outcome::Busy(Busy { retry_after_s: 5 })).status, 503);
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_their_key() {
    const KEY: &str = r#"{"id":"k","secret":"12345678"}"#;
    for (json, key) in [
        (r#"{"id":"","keys":[]}"#.to_owned(), "id"),
        (r#"{"id":"p","keys":[]}"#.to_owned(), "keys"),
        (r#"{"id":"p","keys":[{"id":"k","secret":"short"}]}"#.to_owned(), "keys.secret"),
        (format!(r#"{{"id":"p","keys":[{KEY},{KEY}]}}"#), "keys.id"),
        (format!(r#"{{"id":"p","keys":[{KEY}],"replay_window_s":1}}"#), "replay_window_s"),
    ] {
        let source: Source = serde_json::from_str(&json).expect("the form is right");
        assert_eq!(source.check().expect_err(&json).key, key);
    }
}

struct Exchange(HotlineChannel);

impl Peer for Exchange {
    fn deliver(&self, id: &str, text: &str, said_at: DateTime<Utc>, at: DateTime<Utc>) -> Delivery {
        let sender = Sender::new("k1", SECRET);
        // A recording has no words; hostile ones may stand in a file's name.
        let body = sender.body(&Description {
            recording_id: id,
            call_id: id,
            caller: "13900001234",
            callee: "12333",
            started_at: &said_at.to_rfc3339(),
            duration_s: 14,
            audio_url: text,
        });
        let headers = sender
            .headers(body.as_bytes(), at.timestamp())
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect();
        Delivery { query: String::new(), headers, body: body.into_bytes() }
    }

    fn receive(
        &self,
        delivery: &Delivery,
        now: DateTime<Utc>,
    ) -> Result<Option<Submission>, Refusal> {
        through(&self.0, delivery, now)
    }

    fn body_limit(&self) -> usize {
        self.0.body_limit()
    }

    fn window_s(&self) -> Option<i64> {
        Some(300)
    }

    fn tells_time(&self) -> bool {
        true
    }

    fn carries_text(&self) -> bool {
        false
    }
}

#[test]
fn the_channel_conforms() {
    run(&Exchange(channel()), at(TIMESTAMP));
}

proptest::proptest! {
    #[test]
    fn no_input_makes_it_panic(body in ".{0,400}", signature in ".{0,80}", timestamp in ".{0,24}") {
        let headers = [
            ("x-hotline-key", "k1"),
            ("x-hotline-timestamp", timestamp.as_str()),
            ("x-hotline-signature", signature.as_str()),
        ];
        assert!(send(&headers, &body, TIMESTAMP).is_err());
        // Signed, so that the parser is reached.
        let _ = signed(&body, TIMESTAMP);
    }
}
