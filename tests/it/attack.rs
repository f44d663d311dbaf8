//! What somebody sends who means no good: bent, huge and endless things at every door. None of it
//! may be a fault of ours (no 5xx, no panic, no broken connection), or keep others waiting.

use crate::{
    desk::Desk,
    support::{
        Spec, TestGateway, at,
        gateway::{APP_ID, KEY, OFFICE, ORIGINAL_ID, TOKEN, wechat_sender},
        number,
    },
};
use intake_gateway::{domain::register::RegisterNumber, secret};
use serde_json::json;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Panics of any task count from now on.
fn count_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
}

/// A gateway with an account that sends, to an address where nobody answers.
async fn gateway() -> TestGateway {
    let settings = format!(
        r#"
        [citizen]
        public_url = "https://window.example"
        [[wechat]]
        office = "{OFFICE}"
        id = "sending"
        app_id = "{APP_ID}"
        original_id = "{ORIGINAL_ID}"
        token = "{TOKEN}"
        encoding_aes_key = "{KEY}"
        [wechat.api]
        secret = "0123456789abcdef0123456789abcdef"
        base_url = "http://127.0.0.1:9"
        answer_timeout_s = 1
        "#
    );
    Spec::at(at("2026-11-24 09:10")).with(&settings).start().await
}

/// Texts that have broken something somewhere.
fn hostile() -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        "\0",
        "a\0b",
        "\u{1}\u{8}\u{1b}[31m",
        "0",
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "8210266876799",
        "-8334601228800",
        "253402300800",
        "1e400",
        "NaN",
        "../../etc/passwd",
        "%00%0d%0aSet-Cookie:x",
        "'; DROP TABLE ticket; --",
        "<script>alert(1)</script>",
        "]]>&amp;&lt;",
        "{{7*7}}",
        "\u{202e}\u{200b}\u{feff}\u{fffd}\u{10ffff}",
        "grade/2026000000001/1",
        "grade/9223372036854775807/5",
        "grade/-1/1",
        "grade//",
        "𠮷😀👨‍👩‍👧‍👦",
        "１２３４",
        "1",
        "确认",
        "新诉求",
        "撤回",
        "评价",
        "人工",
    ]
    .map(str::to_owned)
    .into();
    texts.push("9".repeat(5000));
    texts.push("王".repeat(10_000));
    texts.push("我叫".repeat(5000));
    texts.push("[微笑]".repeat(2000) + &"[".repeat(5000));
    texts.push("1 ".repeat(10_000));
    // What an index cannot hold, and cannot press together.
    texts.push((0..2000).map(|_| hex::encode(secret::random::<4>())).collect());
    texts
}

fn document(fields: &[(&str, &str)]) -> String {
    let mut xml = "<xml>".to_owned();
    for (name, text) in fields {
        let text = text.replace("]]>", "]]]]><![CDATA[>");
        xml.push_str(&format!("<{name}><![CDATA[{text}]]></{name}>"));
    }
    xml + "</xml>"
}

const KINDS: [&[(&str, &str)]; 13] = [
    &[("MsgType", "text"), ("Content", "灯坏了"), ("MsgId", "1")],
    &[("MsgType", "text"), ("Content", "满意"), ("MsgId", "1"), ("bizmsgmenuid", "grade/1/1")],
    &[("MsgType", "image"), ("PicUrl", "http://x"), ("MediaId", "m"), ("MsgId", "1")],
    &[("MsgType", "voice"), ("MediaId", "m"), ("Format", "amr"), ("MsgId", "1")],
    &[("MsgType", "video"), ("MediaId", "m"), ("ThumbMediaId", "t"), ("MsgId", "1")],
    &[
        ("MsgType", "location"),
        ("Location_X", "42"),
        ("Location_Y", "123"),
        ("Scale", "1"),
        ("Label", "铁岭"),
        ("MsgId", "1"),
    ],
    &[("MsgType", "link"), ("Title", "t"), ("Description", "d"), ("Url", "u"), ("MsgId", "1")],
    &[("MsgType", "event"), ("Event", "subscribe"), ("EventKey", "qrscene_a"), ("Ticket", "t")],
    &[("MsgType", "event"), ("Event", "unsubscribe")],
    &[("MsgType", "event"), ("Event", "SCAN"), ("EventKey", "a"), ("Ticket", "t")],
    &[("MsgType", "event"), ("Event", "CLICK"), ("EventKey", "EVALUATE")],
    &[
        ("MsgType", "event"),
        ("Event", "TEMPLATESENDJOBFINISH"),
        ("MsgID", "1"),
        ("Status", "success"),
    ],
    &[("MsgType", "file"), ("Title", "t"), ("Description", "d"), ("MsgId", "1")],
];

#[tokio::test(flavor = "multi_thread")]
async fn r28_whatever_stands_in_a_signed_message_is_no_fault() {
    count_panics();
    let gateway = gateway().await;
    let created = gateway.clock.now().timestamp().to_string();
    let mut sent = 0;
    let mut faults = Vec::new();
    for kind in KINDS {
        let mut fields =
            vec![("ToUserName", ORIGINAL_ID), ("FromUserName", "oX"), ("CreateTime", &created)];
        fields.extend_from_slice(kind);
        for place in 1..fields.len() {
            for text in hostile() {
                let mut bent = fields.clone();
                bent[place].1 = &text;
                sent += 1;
                let id = sent.to_string();
                if let Some(field) = bent.iter_mut().find(|f| f.0 == "MsgId" && f.1 == "1") {
                    field.1 = &id;
                }
                let answer = signed(&gateway, &document(&bent)).await;
                if answer >= 500 {
                    let text: String = text.chars().take(20).collect();
                    faults.push(format!("{kind:?} {} = {text:?}: {answer}", bent[place].0));
                }
            }
        }
    }
    for inside in [
        "<SubscribeMsgPopupEvent><List><TemplateId>{}</TemplateId><SubscribeStatusString>accept</SubscribeStatusString></List></SubscribeMsgPopupEvent>",
        "<SubscribeMsgChangeEvent><List><TemplateId>{}</TemplateId><SubscribeStatusString>reject</SubscribeStatusString></List></SubscribeMsgChangeEvent>",
        "<SubscribeMsgSentEvent><List><TemplateId>t</TemplateId><MsgID>{}</MsgID><ErrorCode>0</ErrorCode></List></SubscribeMsgSentEvent>",
    ] {
        let event = match inside.as_bytes()[14] {
            b'P' => "subscribe_msg_popup_event",
            b'C' => "subscribe_msg_change_event",
            _ => "subscribe_msg_sent_event",
        };
        for text in hostile() {
            let text = text.replace(['<', '&'], "x");
            let xml = format!(
                "<xml><ToUserName>{ORIGINAL_ID}</ToUserName><FromUserName>oX</FromUserName><CreateTime>{created}</CreateTime><MsgType>event</MsgType><Event>{event}</Event>{}</xml>",
                inside.replace("{}", &text)
            );
            let answer = signed(&gateway, &xml).await;
            if answer >= 500 {
                let text: String = text.chars().take(20).collect();
                faults.push(format!("{event} {text:?}: {answer}"));
            }
        }
    }
    let call = json!({ "recording_id": "r", "call_id": "c", "caller": "13900001234", "callee": "12333",
        "started_at": "2026-11-24T09:00:00+08:00", "duration_s": 14, "audio_url": "file:x.wav" });
    for key in call.as_object().unwrap().keys() {
        for text in hostile() {
            for value in [json!(text), json!([text]), json!({ "a": text }), json!(-1), json!(1e300)]
            {
                let mut bent = call.clone();
                bent[key] = value;
                let answer = gateway.hotline(&bent.to_string()).await.status;
                if answer >= 500 {
                    let text: String = text.chars().take(20).collect();
                    faults.push(format!("hotline {key} {text:?}: {answer}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} of {sent}: {faults:#?}", faults.len());
    // What came before did not stop what notes the acts of citizens.
    let xml = document(&[
        ("ToUserName", ORIGINAL_ID),
        ("FromUserName", "oLast"),
        ("CreateTime", &created),
        ("MsgType", "text"),
        ("Content", "灯坏了"),
        ("MsgId", "last"),
    ]);
    assert_eq!(signed(&gateway, &xml).await, 200);
    let noted = "SELECT count(*) FROM wechat_allowance WHERE openid = 'oLast'";
    crate::support::until("the act is noted", async || number(&gateway.pool, noted).await == 1)
        .await;
    while gateway.app.waits.step().await.unwrap() > 0 {}
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    gateway.stop().await;
}

async fn signed(gateway: &TestGateway, xml: &str) -> u16 {
    let now = gateway.clock.now().timestamp();
    let (query, body) = wechat_sender().callback(xml, now, "1", secret::random());
    let path = format!("/channels/wechat/sending?{query}");
    gateway.post(&path, &[], body.into_bytes()).await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_stands_in_an_address_or_a_form_is_no_fault() {
    count_panics();
    let gateway = gateway().await;
    let entry = json!({ "channel": "counter", "problem": "失业登记被退回三次",
        "citizen": { "name": "李春梅", "phone": "13900001234" } });
    let ticket = RegisterNumber::parse(&gateway.entry("k", &entry).await.number(), "BCS").unwrap();
    let link = gateway.app.citizen.links.path(gateway.office, ticket, gateway.clock.now()).unwrap();
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let mut faults = Vec::new();
    let mut note = |what: &str, text: &str, status: u16| {
        if status >= 500 {
            let text: String = text.chars().take(20).collect();
            faults.push(format!("{what} {text:?}: {status}"));
        }
    };
    let number = "BCS-2026-000001";
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = gateway.client.get(format!("{}{path}", gateway.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.map_or(0, |answer| answer.status().as_u16())
    };
    // Who is refused before all is read may find the connection closed: panics are counted apart.
    let post = async |path: &str, headers: &[(&str, &str)], body: Vec<u8>| {
        let mut request = gateway.client.post(format!("{}{path}", gateway.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.map_or(0, |answer| answer.status().as_u16())
    };
    let bearer = format!("Bearer {}", gateway.api_token);
    let api = [("authorization", bearer.as_str())];
    let cookie = [("cookie", desk.cookie.as_str())];
    let form_of_desk = [cookie[0], ("content-type", "application/x-www-form-urlencoded")];
    let encode = |form: &[(&str, &str)]| {
        let escape = |text: &str| text.bytes().map(|b| format!("%{b:02X}")).collect::<String>();
        let pairs = form.iter().map(|(name, value)| format!("{name}={}", escape(value)));
        pairs.collect::<Vec<_>>().join("&").into_bytes()
    };
    for text in hostile() {
        let encoded: String = text.bytes().take(2000).map(|b| format!("%{b:02X}")).collect();
        for path in [
            "/c/{}",
            "/c?office={}",
            "/c/wechat/{}",
            "/c/wechat/sending?code={}&state={}",
            "/c/assets/{}",
            "/c/{}/more",
            "/channels/wechat/{}?timestamp={}&nonce={}&signature={}&echostr={}",
            "/c/{}/evaluate?x=%",
        ] {
            note(path, &text, get(&path.replace("{}", &encoded), &[]).await);
        }
        for key in ["office", "q", "done"] {
            note(key, &text, get(&format!("{link}?{key}={encoded}"), &[]).await);
        }
        for key in
            ["state", "channel", "level", "unit", "due_from", "due_before", "q", "limit", "after"]
        {
            note(key, &text, get(&format!("/api/v1/tickets?{key}={encoded}"), &api).await);
        }
        note("api", &text, get(&format!("/api/v1/tickets/{encoded}"), &api).await);
        for path in [
            "/desk/tickets/{}",
            "/desk/media/{}/1/0/thumb",
            "/desk/media/BCS-2026-000001/{}/0/thumb",
            "/desk/media/BCS-2026-000001/1/{}/play",
            "/desk/media/BCS-2026-000001/1/0/{}",
            "/desk?view={}",
            "/desk?q={}",
            "/desk?after={}",
            "/desk?channel={}&level={}&unit={}&state={}",
            "/desk/notices?after={}",
            "/desk/assets/{}",
            "/desk/tickets/BCS-2026-000001?done={}",
        ] {
            note(path, &text, get(&path.replace("{}", &encoded), &cookie).await);
        }
        for act in [
            "say", "await", "resume", "raise", "triage", "resolve", "close", "reopen", "split",
            "join", "claim", "refer", "x",
        ] {
            let form = [
                ("csrf", csrf.as_str()),
                ("text", &text),
                ("missing", &text),
                ("until", &text),
                ("opinion", &text),
                ("answer", &text),
                ("outcome", "duplicate"),
                ("of", &text),
                ("into", &text),
                ("reason", &text),
                ("unit", &text),
                ("seen", &text),
                ("messages", &text),
                ("cause", &text),
            ];
            let path = format!("/desk/tickets/{number}/{act}");
            note(&path, &text, post(&path, &form_of_desk, encode(&form)).await);
            let body = json!({ "text": text, "missing": text, "until": text, "opinion": text, "outcome": "solved",
                "answer": text, "into": text, "reason": text, "messages": [text], "unit": text });
            let headers = [api[0], ("idempotency-key", "a")];
            let path = format!("/api/v1/tickets/{number}/{act}");
            note(&path, &text, post(&path, &headers, body.to_string().into_bytes()).await);
            let headers = [api[0], ("content-type", "application/json")];
            for body in
                [text.as_bytes(), b"{\"text\":\"\\ud800\"}", b"[[[[", b"{\"until\":99999999999999}"]
            {
                note(&path, &text, post(&path, &headers, body.to_vec()).await);
            }
        }
        for path in [
            format!("/desk/tickets/{number}/replies/{encoded}/called"),
            format!("/desk/notices/{encoded}/resend"),
            format!("/desk/quarantine/{encoded}/replay"),
            "/desk/login".to_owned(),
            "/desk/register".to_owned(),
        ] {
            let form = [
                ("csrf", csrf.as_str()),
                ("login", &text),
                ("password", &text),
                ("name", &text),
                ("phone", &text),
                ("problem", &text),
                ("channel", &text),
                ("key", &text),
            ];
            note(&path, &text, post(&path, &form_of_desk, encode(&form)).await);
        }
        for path in ["evaluate", "withdraw", "more"] {
            for kind in [
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "multipart/form-data",
                "text/xml",
            ] {
                let body = format!(
                    "grade={encoded}&text={encoded}&number={encoded}&phone={encoded}&office={encoded}"
                );
                let headers = [("content-type", kind)];
                let path = format!("{link}/{path}");
                note(&path, &text, post(&path, &headers, body.clone().into_bytes()).await);
                note("/c", &text, post("/c", &headers, body.into_bytes()).await);
                let parts = format!(
                    "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"{}\"\r\n\r\n{text}\r\n--x--\r\n",
                    text.replace(['\r', '\n'], "")
                );
                note(&path, &text, post(&path, &headers, parts.into_bytes()).await);
            }
            gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::minutes(5));
        }
        if let Ok(value) = reqwest::header::HeaderValue::from_str(&text) {
            for name in [
                "range",
                "cookie",
                "x-forwarded-for",
                "origin",
                "sec-fetch-site",
                "content-length",
                "if-none-match",
                "authorization",
            ] {
                if name == "content-length" {
                    continue;
                }
                let request = gateway.client.get(format!("{}{link}", gateway.base));
                let answer = request.header(name, value.clone()).send().await;
                note(name, &text, answer.map_or(0, |answer| answer.status().as_u16()));
            }
        }
    }
    assert!(faults.is_empty(), "{}: {faults:#?}", faults.len());
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_a_part_of_a_form_whose_head_has_no_end_is_refused_before_it_is_all_there() {
    let gateway = gateway().await;
    let entry = json!({ "channel": "counter", "problem": "失业登记被退回三次",
        "citizen": { "name": "李春梅", "phone": "13900001234" } });
    let ticket = RegisterNumber::parse(&gateway.entry("k", &entry).await.number(), "BCS").unwrap();
    let link = gateway.app.citizen.links.path(gateway.office, ticket, gateway.clock.now()).unwrap();
    let host = gateway.base.trim_start_matches("http://");
    // Before the first part, and in a part's head.
    for begins in ["", "--x\r\nContent-Disposition: form-data; name=\"text\"\r\nX: "] {
        let mut socket = TcpStream::connect(host).await.unwrap();
        let head = format!(
            "POST {link}/more HTTP/1.1\r\nHost: {host}\r\nContent-Length: 60000000\r\n\
             Content-Type: multipart/form-data; boundary=x\r\n\r\n{begins}"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        // The gateway may close while this is still being sent.
        let _ = socket.write_all(&vec![b'x'; 200_000]).await;
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(10), socket.read_exact(&mut answer));
        read.await.expect("an answer before the end").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_album_without_words_is_registered_before_it_is_a_heap() {
    let gateway = gateway().await;
    let created = gateway.clock.now().timestamp().to_string();
    for n in 0..40 {
        let id = format!("{n}");
        let xml = document(&[
            ("ToUserName", ORIGINAL_ID),
            ("FromUserName", "oAlbum"),
            ("CreateTime", &created),
            ("MsgType", "image"),
            ("PicUrl", "http://x"),
            ("MediaId", &id),
            ("MsgId", &id),
        ]);
        assert_eq!(signed(&gateway, &xml).await, 200);
    }
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM held").await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 40);
    gateway.stop().await;
}

/// Lines of the log, as they would be written.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s27_a_log_at_debug_names_nobody_and_opens_nothing() {
    let lines = Lines::default();
    let written = lines.clone();
    tracing_subscriber::fmt()
        .with_env_filter("debug")
        .with_writer(move || written.clone())
        .try_init()
        .unwrap();
    let gateway = gateway().await;
    let created = gateway.clock.now().timestamp().to_string();
    let base =
        [("ToUserName", ORIGINAL_ID), ("FromUserName", "oSecret77"), ("CreateTime", &created)];
    for kind in KINDS {
        let mut fields = base.to_vec();
        fields.extend_from_slice(kind);
        signed(&gateway, &document(&fields)).await;
    }
    let mut fields = base.to_vec();
    let words = "我叫欧阳秘密，电话13912345678，补助没发";
    fields.extend([("MsgType", "text"), ("Content", words), ("MsgId", "77")]);
    signed(&gateway, &document(&fields)).await;
    gateway.voicemail("rec1", "2026-11-24T09:00:00+08:00").await;
    let entry = json!({ "channel": "counter", "problem": "补助没发",
        "citizen": { "name": "欧阳秘密", "phone": "13912345678" } });
    let ticket = RegisterNumber::parse(&gateway.entry("k", &entry).await.number(), "BCS").unwrap();
    let link = gateway.app.citizen.links.path(gateway.office, ticket, gateway.clock.now()).unwrap();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (path, body) in [
        ("/c", "number=1&phone=5678".to_owned()),
        ("/c", "number=2&phone=5678".to_owned()),
        (&*format!("{link}/evaluate"), "grade=x&text=补助没发".to_owned()),
        (&*format!("{link}/withdraw"), "text=补助没发".to_owned()),
    ] {
        gateway.post(path, &form, body.into_bytes()).await;
    }
    let file = b"--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.jpg\"\r\n\r\n\xff\xd8\xff\xe0\r\n--x--\r\n";
    let parts = [("content-type", "multipart/form-data; boundary=x")];
    gateway.post(&format!("{link}/more"), &parts, file.to_vec()).await;
    // WeChat cannot be reached: who is told, what is fetched and who comes by a code all fail.
    let sent = gateway.client.get(format!("{}/c/wechat/sending", gateway.base)).send().await;
    let sent = sent.unwrap();
    let cookie = sent.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let state = cookie.split_once('=').unwrap().1;
    let back = format!("{}/c/wechat/sending?code=Kode88&state={state}", gateway.base);
    gateway.client.get(back).header("cookie", cookie).send().await.unwrap();
    while gateway.app.fetcher.step().await.unwrap() {}
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    desk.get("/desk?q=13912345678").await;
    for act in ["claim", "say"] {
        let form = [("csrf", csrf.as_str()), ("text", "补助没发")];
        desk.post(&format!("/desk/tickets/{}/{act}", ticket.display("BCS")), &form).await;
    }
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::minutes(30));
    gateway.app.relay.step().await.unwrap();
    gateway.app.waits.step().await.unwrap();
    let log = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(log.contains("DEBUG"), "the log is at debug");
    let (token, session) = (link.trim_start_matches("/c/"), desk.cookie.split_once('=').unwrap().1);
    for secret in [
        "oSecret77",
        "欧阳秘密",
        "13912345678",
        "补助没发",
        "13900001234",
        "Kode88",
        state,
        token,
        session,
        &csrf,
        TOKEN,
        KEY,
        &gateway.api_token,
        "right-horse",
        "0123456789abcdef0123456789abcdef",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret}: {}", line.unwrap_or_default());
    }
    gateway.stop().await;
}
