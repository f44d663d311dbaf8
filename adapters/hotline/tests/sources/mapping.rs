use crate::{SOURCE, e164, numbering, post};
use intake_hotline::{CallEvent, Caller, Mapping, Outcome, SHIPPED, Told, Unread};

#[test]
fn every_shipped_mapping_does_what_its_fixtures_say() {
    for (name, text) in SHIPPED {
        assert!(Mapping::load(text).is_ok(), "{name}: {:?}", Mapping::load(text).err());
        assert!(Mapping::shipped(name).is_ok());
    }
    let missing = Mapping::shipped("nobody").expect_err("unknown").to_string();
    assert!(missing.contains("tencent-tccc"), "{missing}");
}

/// A mapping with these lines for its only rule and these for its only fixture's end.
fn mapping(head: &str, rule: &str, body: &str, expect: &str) -> Result<Mapping, String> {
    Mapping::load(&format!(
        "title = \"t\"\ntz = \"Asia/Shanghai\"\nack = {{ status = 200, text = \"ok\" }}\n{head}\n\
         [[map]]\nkind = \"call_ended\"\ncall_key = \"/id\"\n{rule}\n\
         [[fixture]]\nname = \"f\"\nbody = '''{body}'''\n\
         [[fixture.expect]]\nkind = \"call_ended\"\n{expect}\n"
    ))
    .map_err(|error| error.to_string())
}

fn refused(head: &str, rule: &str, body: &str, expect: &str) -> String {
    mapping(head, rule, body, expect).expect_err("refused")
}

#[test]
fn a_mapping_that_does_not_do_what_it_says_is_refused_with_a_sentence() {
    let body = r#"{"id":"1","t":1795446714}"#;
    assert!(mapping("", "", body, "call_key = \"1\"").is_ok());
    let wrong = refused("", "", body, "call_key = \"2\"");
    assert!(wrong.contains("the fixture f does not come to what it says"), "{wrong}");
    // What is not expected must not come either.
    let more = "call_started = { at = [\"/t\"], fmt = \"epoch_s\" }";
    assert!(refused("", more, body, "call_key = \"1\"").contains("does not come to"));
    let none = refused("", "when = { \"/id\" = [\"2\"] }", body, "call_key = \"1\"");
    assert!(none.contains("tells of 0 calls, not of 1"), "{none}");
    assert!(refused("", "", "no JSON", "call_key = \"1\"").contains("could not be read"));
}

#[test]
fn a_mapping_with_a_slip_is_refused_with_a_sentence() {
    let body = r#"{"id":"1"}"#;
    let expect = "call_key = \"1\"";
    let slips = [
        ("", "caler = \"/a\"", "unknown field"),
        ("", "caller = \"a\"", "a is no place"),
        ("", "ended = \"/t\"", "need fmt"),
        ("", "outcome = \"/t\"", "needs a table"),
        ("strings = [\"msg\"]", "", "msg is no pointer"),
        ("each = \"feeLst\"", "", "feeLst is no pointer"),
        ("delivery_id = \"x-id\"", "", "x-id is no place"),
    ];
    for (head, rule, says) in slips {
        let sentence = refused(head, rule, body, expect);
        assert!(sentence.contains(says), "{sentence}");
    }
    let text = SHIPPED[0].1;
    let retry = text.replace("status = 200", "status = 500");
    assert!(Mapping::load(&retry).expect_err("refused").to_string().contains("ack.status"));
    let zone = text.replace("Asia/Shanghai", "Asia/Chongqing");
    assert!(Mapping::load(&zone).expect_err("refused").to_string().contains("must be UTC"));
    let untried = text.replace("query = \"action=record\"", "query = \"action=other\"");
    let untried = Mapping::load(&untried).expect_err("refused").to_string();
    assert!(untried.contains("f") && untried.contains("calls"), "{untried}");
    let extra = format!(
        "{text}\n[[map]]\nkind = \"voicemail\"\nwhen = {{ \"?action\" = [\"never\"] }}\ncall_key = \"/never\"\n"
    );
    let extra = Mapping::load(&extra).expect_err("refused").to_string();
    assert!(extra.contains("no fixture tries rule 4"), "{extra}");
}

fn read(mapping: &Mapping, query: &str, body: &str) -> Told {
    mapping.read(SOURCE, post(query, &[], body.as_bytes()), &numbering())
}

fn tccc() -> Mapping {
    Mapping::shipped("tencent-tccc").expect("sound")
}

#[test]
fn voicemail_and_call_of_tccc_meet_by_the_session_in_either_order() {
    let voicemail = r#"{"SessionId":"s","Timestamp":1795446730,"RecordURL":"https://a.example/1.mp3","EndpointUser":13900001234}"#;
    let cdr = r#"{"SessionId":"s","Caller":"13900001234","Callee":"02412345678","Direction":0,"StartTimestamp":1795446706,"EndedTimestamp":1795446730,"Duration":24,"EndStatus":106}"#;
    let one = |query: &str, body: &str| read(&tccc(), query, body).calls.remove(0);
    let (voicemail, cdr) = (one("action=voicemail", voicemail), one("action=cdr", cdr));
    // Before the call's record is there, its end says in which night it was.
    assert_eq!(voicemail.spoken_at(), Some(crate::at(1_795_446_730)));
    let whole = voicemail.clone().merge(cdr.clone()).expect("the same call");
    assert_eq!(cdr.merge(voicemail), Ok(whole.clone()));
    assert_eq!(e164(&whole), "+8613900001234");
    assert_eq!(whole.callee.as_deref(), Some("02412345678"));
    assert_eq!(whole.outcome, Some(Outcome::MessageLeft));
}

#[test]
fn numbers_keep_every_digit() {
    let told = |number: &str| {
        let body = format!(
            r#"{{"SessionId":"s","RecordURL":"https://a.example/1","EndpointUser":{number}}}"#
        );
        read(&tccc(), "action=voicemail", &body).calls.remove(0)
    };
    assert_eq!(e164(&told("13123456789")), "+8613123456789");
    let CallEvent { caller, .. } = told("123456789012345678901234567890");
    assert_eq!(caller, Some(Caller::Raw("123456789012345678901234567890".to_owned())));
}

#[test]
fn what_is_verified_and_not_understood_is_said() {
    assert_eq!(read(&tccc(), "action=voicemail", "no JSON").unread, Some(Unread::Json));
    assert_eq!(read(&tccc(), "action=voicemail", "{}").unread, Some(Unread::Key));
    // Of no concern: another kind of push.
    assert_eq!(read(&tccc(), "action=asr", "{}"), Told::default());
    let aliyun = Mapping::shipped("aliyun-vms").expect("sound");
    assert_eq!(read(&aliyun, "", "{}").unread, Some(Unread::Form));
    let many = format!("[{}]", ["{}"; 201].join(","));
    assert_eq!(read(&aliyun, "", &many).unread, Some(Unread::TooLarge));
    // A bad neighbour spoils nobody's call.
    let two = r#"[{"record_file":"http://a.example/1"},{"call_id":"2","record_file":"http://a.example/2"}]"#;
    let told = read(&aliyun, "", two);
    assert_eq!((told.calls.len(), told.unread), (1, Some(Unread::Key)));
}

#[test]
fn an_address_that_is_none_of_the_web_is_not_fetched() {
    for url in ["file:///etc/passwd", "gopher://a/", "/etc/passwd", "javascript:alert(1)"] {
        let body = format!(r#"{{"SessionId":"s","RecordURL":"{url}","EndpointUser":1}}"#);
        let call = read(&tccc(), "action=voicemail", &body).calls.remove(0);
        assert!(call.recordings["s"].audio.is_none(), "{url}");
    }
}

#[test]
fn the_push_has_its_own_identity_and_its_own_answer() {
    let headers: [(&str, &[u8]); 1] = [("x-tccc-push-uuid", b"u-1")];
    let told = tccc().read(SOURCE, post("action=other", &headers, b"{}"), &numbering());
    assert_eq!(told.delivery_id.as_deref(), Some("u-1"));
    let answer = tccc().acknowledgement();
    assert_eq!(answer.content_type, "application/json");
    assert_eq!(answer.body, br#"{"ErrCode":0,"ErrMsg":""}"#);
    let aliyun = Mapping::shipped("aliyun-vms").expect("sound").acknowledgement();
    assert_eq!(String::from_utf8(aliyun.body).expect("text"), r#"{"code":0,"msg":"接收成功"}"#);
}

#[test]
fn forms_constants_fallbacks_and_encoded_values_are_read() {
    let rule = "caller = [\"/missing\", \"/from\"]\ncallee = { value = \"12333\" }\n\
                caller_name = { at = [\"/name\"], urldecode = true }\n\
                call_length = { at = [\"/len\"], unit = \"hms\" }";
    let expect = "call_key = \"1\"\ncaller = \"+8613900001234\"\ncallee = \"12333\"\n\
                  caller_name = \"张三\"\ncall_s = 9";
    let form = "id=1&missing=&from=13900001234&name=%25E5%25BC%25A0%25E4%25B8%2589&len=00:00:09";
    assert!(mapping("body = \"form\"", rule, form, expect).is_ok());
    let json = r#"{"id":1,"missing":null,"from":"13900001234","name":"%E5%BC%A0%E4%B8%89","len":"00:00:09"}"#;
    assert!(mapping("", rule, json, expect).is_ok());
    let wrapped: String = json.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let wrapped = format!("x=1&data={wrapped}");
    assert!(mapping("body = { form_json = \"data\" }", rule, &wrapped, expect).is_ok());
}

#[test]
fn pointers_are_those_of_rfc_6901() {
    let body = r#"{"id":"1","a/b":{"~":["x","13900001234"]}}"#;
    let rule = "caller = \"/a~1b/~0/1\"";
    assert!(mapping("", rule, body, "call_key = \"1\"\ncaller = \"+8613900001234\"").is_ok());
}

/// The list of calls as these lines describe it, in Yeastar's mapping.
fn with_pull(from: &str, to: &str) -> Result<Mapping, String> {
    let text = SHIPPED.iter().find(|(name, _)| *name == "yeastar-p").expect("shipped").1;
    assert!(text.contains(from), "{from}");
    Mapping::load(&text.replace(from, to)).map_err(|error| error.to_string())
}

#[test]
fn a_list_of_calls_is_asked_for_as_its_mapping_says() {
    let yeastar = Mapping::shipped("yeastar-p").expect("sound");
    let pull = yeastar.pull().expect("a list");
    let between = (crate::at(1_795_446_000), crate::at(1_795_447_000));
    let ask = pull.ask(2, between, "to/k&en{page}", yeastar.zone());
    assert_eq!(
        ask.path,
        "/openapi/v1.0/cdr/list?access_token=to%2Fk%26en%7Bpage%7D&page=2&page_size=100&sort_by=time&order_by=desc"
    );
    assert_eq!(ask.body, None);
    let login = pull.login("a\"b", "{user}").and_then(|ask| ask.body).expect("a body");
    assert_eq!(login, r#"{"username":"a\"b","password":"{user}"}"#);
    assert_eq!(pull.token(r#"{"access_token":"t"}"#).as_deref(), Some("t"));
    assert_eq!(pull.token("{}"), None);
    // Where a recording lies, on the same host and nowhere else.
    let file = |link: &str| pull.file(&format!(r#"{{"download_resource_url":"{link}"}}"#), "t");
    let ask = file("/api/download/a.wav").expect("a path");
    assert_eq!(ask.path, "/api/download/a.wav?access_token=t");
    for away in [
        "//10.0.0.5/x",
        "/\\t/10.0.0.5/x",
        "/\\n/10.0.0.5/x",
        "/\\\\10.0.0.5/x",
        "http://10.0.0.5/x",
    ] {
        assert_eq!(file(away), None, "{away}");
    }
    // Times in a body, in the vendor's own form.
    let posted = with_pull(
        "auth = \"path\"\n",
        "auth = \"path\"\ntime = \"naive\"\nbody = '{\"from\":\"{from}\",\"n\":{page}}'\n",
    );
    let posted = posted.expect("sound");
    let ask = posted.pull().expect("a list").ask(1, between, "t", posted.zone());
    assert_eq!(ask.body.as_deref(), Some(r#"{"from":"2026-11-23 23:00:00","n":1}"#));
}

#[test]
fn a_list_with_a_slip_is_refused_with_a_sentence() {
    let slips = [
        ("path = \"/openapi/v1.0/cdr", "path = \"openapi/v1.0/cdr", "is no path"),
        ("each = \"/data\"", "each = \"data\"", "is no pointer"),
        ("size = 100", "size = 1000", "pull.size must be 1 to 200"),
        ("&page={page}", "", "{page} stands neither"),
        ("newest_first = true", "", "{from} stands neither"),
        ("auth = \"path\"", "auth = \"bearer\"", "belong together"),
        (
            "\"disposition\":\"NO ANSWER\",\"call_type\":\"Inbound\"",
            "\"call_type\":\"Internal\"",
            "tells of 1 calls, not of 2",
        ),
        (
            "callee = \"12333\"\ncall_started = \"2026-11-23T15:11:46Z\"\ncall_s = 22\naudio = \"pull:2026",
            "callee = \"12345\"\ncall_started = \"2026-11-23T15:11:46Z\"\ncall_s = 22\naudio = \"pull:2026",
            "does not come to what it says",
        ),
    ];
    for (from, to, says) in slips {
        let sentence = with_pull(from, to).expect_err(says);
        assert!(sentence.contains(says), "{says}: {sentence}");
    }
    let yeastar = Mapping::shipped("yeastar-p").expect("sound");
    let page = |body: &str| yeastar.page(SOURCE, body.as_bytes(), &numbering());
    assert_eq!(page("no JSON"), Err(Unread::Json));
    assert_eq!(page(r#"{"errcode":10004}"#), Err(Unread::Form));
    assert_eq!(page(&format!(r#"{{"data":[{}]}}"#, ["{}"; 201].join(","))), Err(Unread::TooLarge));
    let mixed = page(r#"{"data":[{"call_type":"Inbound"},{"call_type":"Inbound","uid":"u"}]}"#);
    let mixed = mixed.expect("a page");
    assert_eq!((mixed.entries, mixed.calls.len(), mixed.unread.len()), (2, 1, 1));
    assert_eq!(mixed.calls[0].1, r#"{"call_type":"Inbound","uid":"u"}"#);
    let none = Mapping::shipped("tencent-tccc").expect("sound");
    assert_eq!(none.page(SOURCE, b"{}", &numbering()), Err(Unread::Form));
}
