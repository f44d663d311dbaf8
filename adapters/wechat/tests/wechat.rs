//! The official account against vectors that other implementations made or the platform printed.

use chrono::{DateTime, TimeDelta, Utc};
use intake_contract::{
    Answer, Channel, Kept, Method, Outcome, Receipt, Refusal, Request, Submission, Verified,
    clean_text,
    conformance::{Delivery, Peer, run, through},
};
use intake_wechat::{
    Account, Mode, ServiceWords, WechatChannel, WordsNow,
    crypto::{Key, signature},
    message::{Content, EventKind, Inbound, Message},
    receipt::{Consented, Delivered},
    reply::{Reply, envelope},
    sender::Sender,
    xml::Element,
};
use serde_json::Value;
use std::sync::Arc;

fn vectors() -> Value {
    serde_json::from_str(include_str!("fixtures/wechat_vectors.json")).expect("JSON")
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn account(mode: Mode) -> Account {
    let vectors = vectors();
    let settings = &vectors["account"];
    Account {
        id: "main".to_owned(),
        app_id: text(settings, "appid").to_owned(),
        original_id: text(settings, "to_user_name").to_owned(),
        token: text(settings, "token").into(),
        token_previous: None,
        encoding_aes_key: Some(text(settings, "encoding_aes_key").into()),
        encoding_aes_key_previous: Some(text(settings, "encoding_aes_key_previous").into()),
        mode,
        timestamp_window_s: 600,
        api: None,
    }
}

fn channel(mode: Mode) -> WechatChannel {
    let words = words_now(ServiceWords {
        office_name: "反映窗口".to_owned(),
        opening_hours: "办公时间：工作日 8:30-11:30、13:00-16:30。".to_owned(),
        phone: None,
    });
    WechatChannel::new(account(mode), words).expect("sound settings")
}

fn words_now(words: ServiceWords) -> WordsNow {
    let words = Arc::new(words);
    Arc::new(move || Arc::clone(&words))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

/// Each vector is of its own time.
fn time_of(query: &str) -> DateTime<Utc> {
    parameter(query, "timestamp")
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .unwrap_or_default()
}

fn post(channel: &WechatChannel, query: &str, body: &str) -> Result<Verified, Refusal> {
    let request = Request { method: Method::Post, query, headers: &[], body: body.as_bytes() };
    channel.verify(request, time_of(query))
}

fn submitted(verified: Result<Verified, Refusal>) -> Submission {
    match verified {
        Ok(Verified::Submit { submission, .. }) => *submission,
        Ok(Verified::Answer(answer)) => {
            panic!("answered: {}", String::from_utf8_lossy(&answer.body))
        }
        Ok(Verified::Quarantine(item, _)) => panic!("quarantined: {}", item.reason),
        Err(refusal) => panic!("refused: {refusal:?}"),
    }
}

#[test]
fn the_platforms_check_of_the_address_is_answered_or_refused() {
    for vector in list(&vectors()["url_verification"]) {
        let query = text(vector, "query");
        let request = Request { method: Method::Get, query, headers: &[], body: b"" };
        let outcome = channel(Mode::Safe).verify(request, time_of(query));
        let id = text(vector, "id");
        match (text(vector, "expect"), outcome) {
            ("echo", Ok(Verified::Answer(answer))) => {
                assert_eq!(answer, Answer::text(200, text(vector, "expected_body")), "{id}");
            }
            ("reject", Err(refusal)) => assert_eq!(refusal.status, 403, "{id}"),
            (expected, _) => panic!("{id}: not {expected}"),
        }
    }
}

#[test]
fn signatures_and_ciphertexts_that_others_published_are_ours() {
    let vectors = vectors();
    let published = &vectors["published"];
    let fixtures = list(&published["tencent"]).iter().chain(list(&published["sdk_fixtures"]));
    let mut opened = 0;
    for fixture in fixtures {
        let id = text(fixture, "id");
        let get = |key: &str| fixture[key].as_str();
        if let (Some(signed), Some(timestamp), Some(nonce)) =
            (get("signature"), get("timestamp"), get("nonce"))
        {
            assert_eq!(signature(&[text(fixture, "token"), timestamp, nonce]), signed, "{id}");
        }
        let (Some(encrypted), Some(key), Some(app_id)) =
            (get("encrypt"), get("encoding_aes_key"), get("appid"))
        else {
            continue;
        };
        if let (Some(signed), Some(timestamp), Some(nonce)) =
            (get("msg_signature"), get("timestamp"), get("nonce"))
        {
            let parts = [text(fixture, "token"), timestamp, nonce, encrypted];
            assert_eq!(signature(&parts), signed, "{id}");
        }
        let key = Key::parse(key).unwrap_or_else(|| panic!("{id}: the key is refused"));
        let plain = key.decrypt(encrypted, app_id).unwrap_or_else(|e| panic!("{id}: {e}"));
        opened += 1;
        if let Some(wanted) = get("plaintext") {
            assert_eq!(plain, wanted, "{id}");
        }
        if fixture["byte_exact_reencrypt"] == true {
            let random: [u8; 16] =
                text(fixture, "random16").as_bytes().try_into().expect("16 bytes");
            assert_eq!(key.encrypt(plain.as_bytes(), app_id, random), encrypted, "{id}");
        }
    }
    assert!(opened >= 8, "{opened} opened");
}

#[test]
fn every_kind_of_message_and_event_is_read_in_every_mode() {
    for vector in list(&vectors()["callbacks"]) {
        let id = text(vector, "id");
        let inbound =
            Inbound::parse(text(vector, "plaintext_xml")).unwrap_or_else(|e| panic!("{id}: {e}"));
        expected(id, &inbound, &vector["expect"]);
        let key = Key::parse(text(vector, "encoding_aes_key")).expect("a key");
        let plain = text(vector, "plaintext_xml");
        let random: [u8; 16] = text(vector, "random16").as_bytes().try_into().expect("16 bytes");
        assert_eq!(
            key.encrypt(plain.as_bytes(), text(vector, "appid"), random),
            text(vector, "encrypt"),
            "{id}"
        );
        for (mode, query, body) in [
            (Mode::Safe, "query_safe", "body_safe"),
            (Mode::Compatible, "query_safe", "body_compat"),
            (Mode::Plain, "query_plain", "body_plain"),
        ] {
            let (Some(query), Some(body)) = (vector[query].as_str(), vector[body].as_str()) else {
                continue;
            };
            let outcome = post(&channel(mode), query, body);
            match (&inbound.content, outcome) {
                (_, Err(refusal)) => panic!("{id} in {mode:?}: {refusal:?}"),
                (Content::Unknown { .. }, Ok(Verified::Quarantine(item, answer))) => {
                    // Encrypted: that a person will look at it.
                    assert_eq!(item.reason, "unknown_type");
                    assert!(answer.body.starts_with(b"<xml>"), "{id} in {mode:?}");
                }
                (Content::Unknown { .. }, Ok(_)) => panic!("{id} in {mode:?}: not put aside"),
                (Content::Message { message: Message::Text { content, .. }, .. }, Ok(outcome)) => {
                    assert_eq!(
                        matches!(outcome, Verified::Submit { .. }),
                        !content.is_empty(),
                        "{id}"
                    );
                }
                (Content::Message { .. }, Ok(outcome)) => {
                    assert!(matches!(outcome, Verified::Submit { .. }), "{id} in {mode:?}");
                }
                (Content::Event(event), Ok(outcome)) => {
                    // A counter's code is remembered, a menu entry of ours asks for something.
                    let asks = match &event.kind {
                        EventKind::Scan { .. } | EventKind::Subscribe { scene: Some(_), .. } => {
                            true
                        }
                        EventKind::Click => event.key == "NEW",
                        _ => false,
                    };
                    assert_eq!(
                        matches!(outcome, Verified::Submit { .. }),
                        asks,
                        "{id} in {mode:?}: {}",
                        event.key
                    );
                }
            }
        }
    }
}

/// The value at a key, as text.
fn said(expect: &Value, key: &str) -> Option<String> {
    match &expect[key] {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn same_number(a: &str, b: &Value) -> bool {
    a.parse::<f64>().ok() == b.as_f64()
}

fn expected(id: &str, inbound: &Inbound, expect: &Value) {
    match &inbound.content {
        Content::Message { message, .. } => match message {
            Message::Text { content, menu_id } => {
                assert_eq!(Some(content.clone()), said(expect, "content"), "{id}");
                assert_eq!(menu_id.clone(), said(expect, "bizmsgmenuid"), "{id}");
            }
            Message::Image { pic_url, media_id } => {
                assert_eq!(Some(pic_url.clone()), said(expect, "pic_url"), "{id}");
                assert_eq!(Some(media_id.clone()), said(expect, "media_id"), "{id}");
            }
            Message::Voice { media_id, format, media_id_16k, recognition } => {
                assert_eq!(Some(media_id.clone()), said(expect, "media_id"), "{id}");
                assert_eq!(Some(format.clone()), said(expect, "format"), "{id}");
                assert_eq!(media_id_16k.clone(), said(expect, "media_id_16k"), "{id}");
                assert_eq!(recognition.clone(), said(expect, "recognition"), "{id}");
            }
            Message::Video { media_id, thumb_media_id, short } => {
                assert_eq!(Some(media_id.clone()), said(expect, "media_id"), "{id}");
                assert_eq!(Some(thumb_media_id.clone()), said(expect, "thumb_media_id"), "{id}");
                assert_eq!(*short, expect["msg_type"] == "shortvideo", "{id}");
            }
            Message::Location { latitude, longitude, scale, label } => {
                assert!(same_number(latitude, &expect["latitude"]), "{id}");
                assert!(same_number(longitude, &expect["longitude"]), "{id}");
                assert!(same_number(scale, &expect["scale"]), "{id}");
                assert_eq!(Some(label.clone()), said(expect, "label"), "{id}");
            }
            Message::Link { title, description, url } => {
                assert_eq!(Some(title.clone()), said(expect, "title"), "{id}");
                assert_eq!(Some(description.clone()), said(expect, "description"), "{id}");
                assert_eq!(Some(url.clone()), said(expect, "url"), "{id}");
            }
            Message::File { .. } => {}
        },
        Content::Unknown { msg_type, .. } => {
            assert_eq!(Some(msg_type.clone()), said(expect, "msg_type"), "{id}");
            assert_eq!(expect["unknown"], true, "{id}");
        }
        Content::Event(event) => {
            assert_eq!(Some(event.name.clone()), said(expect, "event"), "{id}");
            if let Some(msg_id) = said(expect, "msgid") {
                assert_eq!(event.msg_id, msg_id, "{id}");
            }
            match &event.kind {
                EventKind::Subscribe { scene, .. } => {
                    assert_eq!(scene.clone(), said(expect, "scene"), "{id}");
                }
                EventKind::Scan { ticket } => {
                    assert_eq!(Some(ticket.clone()), said(expect, "ticket"), "{id}");
                    assert_eq!(Some(event.key.clone()), said(expect, "scene"), "{id}");
                }
                EventKind::Location { latitude, longitude, precision } => {
                    assert!(same_number(latitude, &expect["latitude"]), "{id}");
                    assert!(same_number(longitude, &expect["longitude"]), "{id}");
                    assert!(same_number(precision, &expect["precision"]), "{id}");
                }
                EventKind::View { menu_id } => {
                    assert_eq!(Some(event.key.clone()), said(expect, "url"), "{id}");
                    assert_eq!(Some(menu_id.clone()), said(expect, "menu_id"), "{id}");
                }
                EventKind::ScanCode { scan_type, result, .. } => {
                    assert_eq!(Some(scan_type.clone()), said(expect, "scan_type"), "{id}");
                    assert_eq!(Some(result.clone()), said(expect, "scan_result"), "{id}");
                }
                EventKind::Pictures { count, md5 } => {
                    assert_eq!(Some(count.clone()), said(expect, "count"), "{id}");
                    assert_eq!(serde_json::json!(md5), expect["md5"], "{id}");
                }
                EventKind::TemplateSent { status } | EventKind::MassSent { status } => {
                    assert_eq!(Some(status.clone()), said(expect, "status"), "{id}");
                }
                EventKind::SubscribeMessagePopup(consents) => {
                    for (consent, wanted) in consents.iter().zip(list(&expect["list"])) {
                        assert_eq!(consent.template_id, wanted[0], "{id}");
                        assert_eq!(consent.status, wanted[1], "{id}");
                        assert_eq!(consent.scene, wanted[2], "{id}");
                    }
                    assert_eq!(consents.len(), list(&expect["list"]).len(), "{id}");
                }
                EventKind::SubscribeMessageSent(deliveries) => {
                    for (delivery, wanted) in deliveries.iter().zip(list(&expect["list"])) {
                        assert_eq!(delivery.template_id, wanted[0], "{id}");
                        assert_eq!(delivery.msg_id, wanted[1], "{id}");
                        assert_eq!(delivery.error_code, wanted[2].to_string(), "{id}");
                        assert_eq!(delivery.error_status, wanted[3], "{id}");
                    }
                }
                EventKind::Unknown => panic!("{id} is not known"),
                _ => {}
            }
        }
    }
}

#[test]
fn receipts_and_consents_are_read_from_their_events() {
    let (mut receipts, mut consents) = (Vec::new(), Vec::new());
    for vector in list(&vectors()["callbacks"]) {
        let inbound = Inbound::parse(text(vector, "plaintext_xml")).expect("understood");
        let Content::Event(event) = inbound.content else { continue };
        receipts.extend(event.receipts());
        consents.extend(event.consents());
    }
    assert!(receipts.iter().any(|r| r.delivered == Delivered::Yes), "{receipts:?}");
    assert!(receipts.iter().any(|r| r.delivered == Delivered::Refused), "{receipts:?}");
    let consents: Vec<_> = consents.iter().map(|c| (c.template_id.as_str(), c.consented)).collect();
    assert_eq!(consents, [("TPL_A", Consented::Given), ("TPL_B", Consented::Declined)]);
    let sender = Sender::new("token", None, "wx1", "gh_1");
    let event = |fields: &[(&str, &str)]| {
        let xml = sender.message("o1", "event", fields, "", 1_770_000_000);
        match Inbound::parse(&xml).expect("understood").content {
            Content::Event(event) => event,
            other => panic!("{other:?}"),
        }
    };
    let huge = "18446744073709551615";
    for (status, delivered) in [
        ("success", Delivered::Yes),
        ("failed:user block", Delivered::Refused),
        ("failed: user block", Delivered::Refused),
        ("failed: system failed", Delivered::Failed),
        ("failed:freq limit", Delivered::TooFrequent),
        ("failed:other", Delivered::Otherwise("failed:other".to_owned())),
    ] {
        let fields = [("Event", "TEMPLATESENDJOBFINISH"), ("MsgID", huge), ("Status", status)];
        let [receipt] = &event(&fields).receipts()[..] else { panic!("{status}") };
        assert_eq!(receipt.msg_id.as_deref(), Some(huge));
        assert_eq!(receipt.delivered, delivered, "{status}");
    }
    // A receipt that names no message is a receipt still.
    let fields = [("Event", "TEMPLATESENDJOBFINISH"), ("MsgID", "0"), ("Status", "success")];
    assert_eq!(event(&fields).receipts()[0].msg_id, None);
}

#[test]
fn every_length_of_padding_is_opened() {
    for vector in list(&vectors()["padding_sweep"]) {
        let settings = account(Mode::Safe);
        let vectors = vectors();
        let key = Key::parse(text(&vectors["account"], "encoding_aes_key")).expect("a key");
        let plain = key.decrypt(text(vector, "encrypt"), &settings.app_id).expect("opens");
        assert_eq!(plain, text(vector, "plaintext_xml"));
    }
}

#[test]
fn what_is_odd_and_right_is_taken() {
    for vector in list(&vectors()["accept_odd"]) {
        let id = text(vector, "id");
        let mode = if vector["account_mode"] == "compat" { Mode::Compatible } else { Mode::Safe };
        let channel = channel(mode);
        let outcome = post(&channel, text(vector, "query"), text(vector, "body"));
        let Ok(Verified::Submit { submission, respond }) = outcome else { panic!("{id}") };
        if let Some(content) = vector["expected"]["content"].as_str() {
            assert_eq!(submission.text, content, "{id}");
        }
        if let Some(chars) = vector["expected"]["content_chars"].as_u64() {
            assert_eq!(submission.text.chars().count() as u64, chars, "{id}");
        }
        // The reply goes out with the key that opened the message.
        let used = text(vector, "encoding_aes_key_used");
        let sender = Sender::new(
            text(vector, "token"),
            Some(used),
            text(vector, "appid"),
            &account(mode).original_id,
        );
        let answer = respond(&outcome_of(1), time_of(text(vector, "query")));
        let opened = sender.open(&String::from_utf8_lossy(&answer.body)).expect("opens");
        assert!(opened.content.contains("BCS-2026-000001"), "{id}: {}", opened.content);
    }
}

#[test]
fn what_is_wrong_is_refused_for_the_right_reason() {
    for vector in list(&vectors()["negative"]) {
        let id = text(vector, "id");
        let mode = if vector["account_mode"] == "plain" { Mode::Plain } else { Mode::Safe };
        let outcome = post(&channel(mode), text(vector, "query"), text(vector, "body"));
        let expect = text(vector, "expect");
        if expect == "replay_or_idempotent" {
            // Plain mode does not sign the message; its identity keeps a repeat harmless.
            assert!(outcome.is_ok(), "{id}");
            continue;
        }
        let Err(refusal) = outcome else { panic!("{id} was taken") };
        assert!(matches!(refusal.status, 400 | 403), "{id}: {refusal:?}");
        let reasons: Vec<&str> = match expect {
            "bad_padding_or_appid" => {
                vec!["bad_padding", "appid_mismatch", "bad_length", "bad_encoding"]
            }
            "bad_xml_or_encryption_required" => vec!["bad_xml", "encryption_required"],
            other => vec![other],
        };
        assert!(reasons.contains(&refusal.reason), "{id}: {refusal:?}, not {expect}");
    }
}

fn outcome_of(sequence: u32) -> Outcome {
    let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
    Outcome::Durable {
        kept: Kept::Registered,
        repeated: sequence > 1,
        receipt: Receipt {
            number: "BCS-2026-000001".to_owned(),
            received_at: at("2026-11-28T14:14:00Z"),
            follow_up_at: Some(at("2026-11-30T00:30:00Z")),
            due_at: at("2026-12-01T08:30:00Z"),
            provisional: false,
            asks_contact: false,
            page: None,
            alarms: false,
            alarm_reaches: false,
        },
    }
}

#[test]
fn a_redelivery_is_one_submission_with_the_same_words() {
    let mut identities = Vec::new();
    let mut replies = Vec::new();
    let settings = account(Mode::Safe);
    let vectors = vectors();
    let key = text(&vectors["account"], "encoding_aes_key");
    let token = text(&vectors["account"], "token");
    let sender = Sender::new(token, Some(key), &settings.app_id, &settings.original_id);
    for (index, vector) in list(&vectors["retry_of_text_basic"]).iter().enumerate() {
        let outcome = post(&channel(Mode::Safe), text(vector, "query"), text(vector, "body"));
        let Ok(Verified::Submit { submission, respond }) = outcome else { panic!("not taken") };
        identities.push((submission.source.clone(), submission.source_id.clone()));
        let answer = respond(&outcome_of(index as u32 + 1), time_of(text(vector, "query")));
        replies.push(sender.open(&String::from_utf8_lossy(&answer.body)).expect("opens").content);
    }
    identities.dedup();
    replies.dedup();
    assert_eq!((identities.len(), replies.len()), (1, 1));
    assert_eq!(
        replies[0],
        "您的反映已登记，编号 BCS-2026-000001。我们11月30日（周一）8:30开始办理，最晚12月1日（周二）16:30前给您答复。周末和法定节假日不计入。如有补充，直接在这里发给我们。"
    );
}

#[test]
fn a_burst_of_one_citizen_is_one_thread() {
    let vectors = vectors();
    let burst = list(&vectors["burst_one_ticket"]);
    let callbacks = list(&vectors["callbacks"]);
    let mut threads: Vec<_> = burst
        .iter()
        .map(|id| {
            let vector = callbacks.iter().find(|v| v["id"] == *id).expect("a callback");
            let outcome =
                post(&channel(Mode::Safe), text(vector, "query_safe"), text(vector, "body_safe"));
            submitted(outcome).thread
        })
        .collect();
    assert!(threads.len() > 1);
    threads.dedup();
    assert_eq!(threads.len(), 1);
}

/// The platform, delivering as the account's mode says.
struct Platform(WechatChannel, Mode);

impl Platform {
    fn new(mode: Mode) -> Self {
        Self(channel(mode), mode)
    }

    fn sender() -> Sender {
        let vectors = vectors();
        let settings = &vectors["account"];
        Sender::new(
            text(settings, "token"),
            Some(text(settings, "encoding_aes_key")),
            text(settings, "appid"),
            text(settings, "to_user_name"),
        )
    }
}

impl Peer for Platform {
    fn deliver(
        &self,
        id: &str,
        words: &str,
        said_at: DateTime<Utc>,
        at: DateTime<Utc>,
    ) -> Delivery {
        let sender = Self::sender();
        let xml = sender.text("oABCD1234567890abcdefghijkl", words, id, said_at.timestamp());
        let nonce = format!("{}", at.timestamp() % 1000);
        let (query, mut body) = sender.callback(&xml, at.timestamp(), &nonce, [7; 16]);
        if self.1 == Mode::Compatible {
            // The plain message beside the encrypted one: nobody signed it, nobody reads it.
            let encrypted =
                body.split("<Encrypt>").nth(1).and_then(|t| t.split("</Encrypt>").next());
            let encrypted = encrypted.expect("an encrypted body");
            body = xml.replace("</xml>", &format!("<Encrypt>{encrypted}</Encrypt></xml>"));
        }
        Delivery { query, headers: Vec::new(), body: body.into_bytes() }
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
        Some(600)
    }

    fn tells_time(&self) -> bool {
        true
    }

    fn carries_text(&self) -> bool {
        true
    }
}

#[test]
fn the_channel_conforms() {
    run(&Platform::new(Mode::Safe), DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
}

#[test]
fn the_channel_conforms_in_compatible_mode_too() {
    run(&Platform::new(Mode::Compatible), DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
}

#[test]
fn replies_are_byte_for_byte_what_others_send() {
    let mut kinds = Vec::new();
    for vector in list(&vectors()["replies"]) {
        let (id, plain) = (text(vector, "id"), text(vector, "plaintext_xml"));
        let root = Element::parse(plain).unwrap_or_else(|e| panic!("{id}: {e}"));
        let of = |at: &Element, name: &str| at.field(name).expect("one field");
        let inner = |name: &str| root.child(name).expect("one child").expect("there").clone();
        let kind = of(&root, "MsgType");
        let reply = match kind.as_str() {
            "text" => Reply::Text { content: of(&root, "Content") },
            "image" => Reply::Image { media_id: of(&inner("Image"), "MediaId") },
            "news" => {
                let article = &inner("Articles").children[0];
                Reply::News {
                    title: of(article, "Title"),
                    description: of(article, "Description"),
                    pic_url: of(article, "PicUrl"),
                    url: of(article, "Url"),
                }
            }
            "transfer_customer_service" => Reply::TransferCustomerService { account: None },
            other => panic!("{id}: {other}"),
        };
        let created_at = of(&root, "CreateTime").parse().expect("seconds");
        let xml = reply.xml(&of(&root, "ToUserName"), &of(&root, "FromUserName"), created_at);
        assert_eq!(xml, plain, "{id}");

        let key = Key::parse(text(vector, "encoding_aes_key")).expect("a key");
        let random: [u8; 16] = text(vector, "random16").as_bytes().try_into().expect("16 bytes");
        let (app_id, token) = (text(vector, "appid"), text(vector, "token"));
        let (timestamp, nonce) = (text(vector, "timestamp"), text(vector, "nonce"));
        let encrypted = text(vector, "encrypt");
        assert_eq!(key.encrypt(xml.as_bytes(), app_id, random), encrypted, "{id}");
        let signed = signature(&[token, timestamp, nonce, encrypted]);
        assert_eq!(signed, text(vector, "msg_signature"), "{id}");
        let body = envelope(&xml, &key, token, app_id, timestamp, nonce, random);
        assert_eq!(body, text(vector, "body"), "{id}");
        kinds.push(kind);
    }
    assert_eq!(kinds, ["text", "image", "news", "transfer_customer_service", "text"]);
}

#[test]
fn the_token_before_is_taken_and_an_empty_one_is_no_token() {
    let words = words_now(ServiceWords::default());
    let settings = account(Mode::Safe);
    let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let (key, old) = (text(&vectors()["account"], "encoding_aes_key").to_owned(), "old_token_2025");
    let sender = Sender::new(old, Some(&key), &settings.app_id, &settings.original_id);
    let xml = sender.text("oA", "灯坏了", "1", now.timestamp());
    let (query, body) = sender.callback(&xml, now.timestamp(), "5", [7; 16]);
    assert!(post(&channel(Mode::Safe), &query, &body).is_err());

    let with = |token: &str| Account { token_previous: Some(token.into()), ..settings.clone() };
    let rotating = WechatChannel::new(with(old), words.clone()).expect("sound settings");
    let Ok(Verified::Submit { respond, .. }) = post(&rotating, &query, &body) else { panic!() };
    // The answer is signed with the token that the platform still uses.
    let answer = respond(&outcome_of(1), now);
    assert!(sender.open(&String::from_utf8_lossy(&answer.body)).is_some());
    for wrong in ["", "ab", "with space", &"x".repeat(33)] {
        let error = with(wrong).check().expect_err(wrong);
        assert_eq!(error.key, "token_previous", "{wrong}");
    }
}

#[test]
fn an_address_check_that_was_overheard_is_refused_later() {
    let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let query = Platform::sender().address_check(now.timestamp(), "5", "echo");
    let request = Request { method: Method::Get, query: &query, headers: &[], body: b"" };
    for (offset, taken) in [(0, true), (600, true), (-600, true), (601, false), (-601, false)] {
        let outcome = channel(Mode::Safe).verify(request, now + TimeDelta::seconds(offset));
        assert_eq!(outcome.is_ok(), taken, "{offset} s off");
    }
}

#[test]
fn a_picture_without_its_place_is_put_aside() {
    let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let sender = Platform::sender();
    for kind in ["image", "voice", "video", "shortvideo"] {
        let fields = [("PicUrl", "http://x"), ("MediaId", ""), ("Format", "amr")];
        let xml = sender.message("oA", kind, &fields, "1", now.timestamp());
        let (query, body) = sender.callback(&xml, now.timestamp(), "5", [7; 16]);
        match post(&channel(Mode::Safe), &query, &body) {
            Ok(Verified::Quarantine(item, _)) => assert_eq!(item.reason, "missing_field", "{kind}"),
            _ => panic!("{kind} was not put aside"),
        }
    }
}

#[test]
fn who_writes_after_the_limit_is_not_promised_a_date_in_the_past() {
    let platform = Platform::new(Mode::Safe);
    let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let delivery = platform.deliver("1", "还没修", now, now);
    let request = Request {
        method: Method::Post,
        query: &delivery.query,
        headers: &[],
        body: &delivery.body,
    };
    let Ok(Verified::Submit { respond, .. }) = platform.0.verify(request, now) else { panic!() };
    let Outcome::Durable { repeated, mut receipt, .. } = outcome_of(1) else { panic!() };
    receipt.received_at = receipt.due_at;
    let answer = respond(&Outcome::Durable { kept: Kept::Appended, repeated, receipt }, now);
    let words = Platform::sender().open(&String::from_utf8_lossy(&answer.body)).expect("opens");
    assert_eq!(
        words.content,
        "已收到，补充到您的反映 BCS-2026-000001。您的反映已超过承诺日期，我们已报告上级领导，会尽快答复。"
    );
}

#[test]
fn a_provisional_date_is_never_told_as_a_fact() {
    let platform = Platform::new(Mode::Safe);
    let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let delivery = platform.deliver("1", "灯坏了", now, now);
    let request = Request {
        method: Method::Post,
        query: &delivery.query,
        headers: &[],
        body: &delivery.body,
    };
    let Ok(Verified::Submit { respond, .. }) = platform.0.verify(request, now) else { panic!() };
    let Outcome::Durable { kept, repeated, mut receipt } = outcome_of(1) else { panic!() };
    receipt.provisional = true;
    let answer = respond(&Outcome::Durable { kept, repeated, receipt }, now);
    let words = Platform::sender().open(&String::from_utf8_lossy(&answer.body)).expect("opens");
    assert!(words.content.contains("BCS-2026-000001"));
    assert!(!words.content.contains("12月1日"), "{}", words.content);
}

proptest::proptest! {
    #[test]
    fn whatever_a_reply_says_is_read_back_as_it_was_written(
        content in "(\\PC|\\]\\]>|<|&|\u{0}|\n){0,80}", to in "\\PC{1,30}"
    ) {
        let xml = Reply::Text { content: content.clone() }.xml(&to, "gh_1", 1);
        let root = Element::parse(&xml).expect("well-formed");
        let names: Vec<&str> = root.children.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(names, ["ToUserName", "FromUserName", "CreateTime", "MsgType", "Content"]);
        assert_eq!(root.children[4].text, clean_text(&content));
        assert_eq!(root.children[0].text, clean_text(&to));
    }

    #[test]
    fn no_input_makes_it_panic(body in ".{0,600}", query in ".{0,200}") {
        let _ = post(&channel(Mode::Safe), &query, &body);
        let _ = post(&channel(Mode::Plain), &query, &body);
        let _ = Inbound::parse(&body);
    }

    #[test]
    fn whatever_the_platform_encrypts_is_read_back(words in "\\PC{0,300}", random: [u8; 16]) {
        let vectors = vectors();
        let key = Key::parse(text(&vectors["account"], "encoding_aes_key")).expect("a key");
        let encrypted = key.encrypt(words.as_bytes(), "wx1", random);
        assert_eq!(key.decrypt(&encrypted, "wx1").as_deref(), Ok(words.as_str()));
        assert!(key.decrypt(&encrypted, "wx2").is_err());
    }
}
