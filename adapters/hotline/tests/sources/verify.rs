use crate::{at, fixture, numbering, post};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use intake_contract::{Method, Refusal, Request};
use intake_hotline::{
    Auth, BODY_LIMIT, Encoding, Format, HashKind, Mapping, Numbering, PushSource, Unread, Verify,
};
use sha2::Sha256;
use std::net::IpAddr;

const NOW: i64 = 1_795_446_730;
const REFUSED: Refusal = Refusal::new(401, "bad_signature");
const STALE: Refusal = Refusal::new(401, "stale");

type Headers<'a> = &'a [(&'a str, &'a str)];

fn ask(auth: &Auth, query: &str, headers: Headers<'_>, body: &[u8]) -> Result<(), Refusal> {
    let verify = Verify { auth: auth.clone(), allow_ips: Vec::new() };
    verify.check().expect("sound settings");
    let headers: Vec<(&str, &[u8])> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
    verify.verify(post(query, &headers, body), None, at(NOW))
}

fn basic(password: &str) -> Auth {
    Auth::Basic { user: "fs".to_owned(), password: password.into() }
}

fn freeswitch() -> PushSource {
    let verify = Verify { auth: basic("secret-secret"), allow_ips: Vec::new() };
    let format = Format::Freeswitch;
    PushSource::new("pbx1", verify, numbering(), format).expect("sound settings")
}

#[test]
fn basic_is_the_captured_header_and_no_other() {
    // As captured: fs, secret.
    let captured = "Basic ZnM6c2VjcmV0";
    let auth = basic("secret");
    let verify = Verify { auth, allow_ips: Vec::new() };
    let asked = |value: &str| {
        let headers = [("authorization", value.as_bytes())];
        verify.verify(post("", &headers, b""), None, at(NOW))
    };
    assert_eq!(asked(captured), Ok(()));
    assert_eq!(asked("basic  ZnM6c2VjcmV0"), Ok(()));
    for wrong in
        ["", "Basic", "Basic !", "Basic ZnM6c2VjcmV1", "Bearer ZnM6c2VjcmV0", "ZnM6c2VjcmV0"]
    {
        assert_eq!(asked(wrong), Err(REFUSED), "{wrong}");
    }
    let twice = [("authorization", captured.as_bytes()), ("authorization", captured.as_bytes())];
    assert_eq!(verify.verify(post("", &twice, b""), None, at(NOW)), Err(REFUSED));
    assert_eq!(verify.verify(post("", &[], b""), None, at(NOW)), Err(REFUSED));
}

#[test]
fn tokens_are_compared_whole() {
    let bearer = Auth::Bearer { token: "token-token".into() };
    assert_eq!(ask(&bearer, "", &[("authorization", "Bearer token-token")], b""), Ok(()));
    assert_eq!(ask(&bearer, "", &[("authorization", "Bearer token-toke")], b""), Err(REFUSED));
    let query = Auth::QueryToken { name: "t".to_owned(), token: "a token+/=".into() };
    assert_eq!(ask(&query, "x=1&t=a+token%2B%2F%3D", &[], b""), Ok(()));
    assert_eq!(ask(&query, "t=a+token%2B%2F", &[], b""), Err(REFUSED));
    assert_eq!(ask(&query, "t=no&t=a+token%2B%2F%3D", &[], b""), Err(REFUSED), "twice");
    assert_eq!(ask(&query, "", &[], b""), Err(REFUSED));
}

#[test]
fn hmac_covers_what_it_is_told_to() {
    let parts = ["header:x-timestamp", "text:.", "body"].map(str::to_owned).to_vec();
    let auth = |encoding| Auth::Hmac {
        alg: HashKind::Sha256,
        secret: "test-secret".into(),
        parts: parts.clone(),
        signature: "header:x-signature".to_owned(),
        prefix: "v1=".to_owned(),
        encoding,
        timestamp: Some("header:x-timestamp".to_owned()),
        public_url: String::new(),
    };
    // The vector of the signed webhook (hotline.md §2a).
    let body = br#"{"v":1,"recording_id":"pbx1:1795446714-00000000","call_id":"1795446706.0","caller":"13900001234","callee":"12333","started_at":"2026-11-23T23:11:54+08:00","duration_s":14,"audio":{"url":"file:msg0000.wav","sha256":null}}"#;
    let hex = "aa694d9886c2396d19b7a4a41bdbcfc5443d97e82edb8c13402b5723fbc12bd6";
    let send = |signature: &str, timestamp: &str, body: &[u8]| {
        ask(
            &auth(Encoding::Hex),
            "",
            &[("x-signature", signature), ("x-timestamp", timestamp)],
            body,
        )
    };
    let signature = format!("v1={hex}");
    assert_eq!(send(&signature, "1795446730", body), Ok(()));
    assert_eq!(send(&format!("v1={}", hex.to_uppercase()), "1795446730", body), Ok(()));
    assert_eq!(send(hex, "1795446730", body), Err(REFUSED), "without its prefix");
    assert_eq!(send(&signature, "1795446731", body), Err(REFUSED));
    assert_eq!(send(&signature, "1795446730", b"{}"), Err(REFUSED));
    let base64 = STANDARD.encode(hex::decode(hex).expect("hex"));
    let headers =
        [("x-signature", format!("v1={base64}")), ("x-timestamp", "1795446730".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(ask(&auth(Encoding::Base64), "", &headers, body), Ok(()));
    // Signed long ago: a repeat of somebody who listened.
    let mut mac = Hmac::<Sha256>::new_from_slice(b"test-secret").expect("any length");
    mac.update(b"1795446000.{}");
    let old = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
    assert_eq!(send(&old, "1795446000", b"{}"), Err(STALE));
}

#[test]
fn huaweis_token_binds_address_nonce_and_beijings_time() {
    let url = "https://window.example/channels/hotline/huawei";
    let auth = Auth::HuaweiAksk {
        app_key: "app-key".to_owned(),
        app_secret: "app-secret".into(),
        public_url: url.to_owned(),
    };
    let token = |user: &str, secret: &str, url: &str, created: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(format!("{url}\n66C92B11\n{created}").as_bytes());
        let digest = STANDARD.encode(mac.finalize().into_bytes());
        format!(
            "UsernameToken Username=\"{user}\", PasswordDigest=\"{digest}\", Nonce=\"66C92B11\", Created=\"{created}\""
        )
    };
    let send = |token: String| ask(&auth, "", &[("x-aksk", &token)], b"{}");
    // 15:12:10 UTC is 23:12:10 in Beijing, and is written with a Z.
    let now = "2026-11-23T23:12:10Z";
    assert_eq!(send(token("app-key", "app-secret", url, now)), Ok(()));
    assert_eq!(send(token("other", "app-secret", url, now)), Err(REFUSED));
    assert_eq!(send(token("app-key", "app-secre", url, now)), Err(REFUSED));
    assert_eq!(
        send(token("app-key", "app-secret", "https://elsewhere.example/", now)),
        Err(REFUSED)
    );
    assert_eq!(send(token("app-key", "app-secret", url, "2026-11-23T15:12:10Z")), Err(STALE));
    for broken in ["", "UsernameToken", "UsernameToken Username=\"app-key\""] {
        assert_eq!(send(broken.to_owned()), Err(REFUSED), "{broken}");
    }
}

#[test]
fn no_proof_needs_a_list_of_addresses() {
    let none = |nets: &[&str]| Verify {
        auth: Auth::None,
        allow_ips: nets.iter().map(|net| net.parse().expect("a network")).collect(),
    };
    assert!(none(&[]).check().expect_err("refused").contains("allow_ips is empty"));
    assert!(
        none(&["10.0.0.0/8", "0.0.0.0/0"]).check().expect_err("refused").contains("whole Internet")
    );
    let source = PushSource::new("x", none(&[]), numbering(), Format::Freeswitch);
    assert_eq!(source.err().map(|error| error.key), Some("verify"));
    // Not checked, not let in either.
    assert_eq!(none(&[]).verify(post("", &[], b""), None, at(NOW)), Err(REFUSED));

    let listed = none(&["10.1.0.0/16", "2001:db8::/32"]);
    listed.check().expect("sound");
    let from = |peer: Option<&str>| {
        let peer: Option<IpAddr> = peer.map(|peer| peer.parse().expect("an address"));
        listed.verify(post("", &[], b""), peer, at(NOW))
    };
    let outside = Err(Refusal::new(403, "bad_address"));
    assert_eq!(from(Some("10.1.2.3")), Ok(()));
    assert_eq!(from(Some("::ffff:10.1.2.3")), Ok(()), "the same address in the other family");
    assert_eq!(from(Some("2001:db8::1")), Ok(()));
    assert_eq!(from(Some("10.2.0.1")), outside);
    assert_eq!(from(None), outside);
    // A list beside a proof: both are needed.
    let both = Verify { auth: basic("secret-secret"), ..listed.clone() };
    let peer = "10.1.2.3".parse().ok();
    assert_eq!(both.verify(post("", &[], b""), peer, at(NOW)), Err(REFUSED));
}

#[test]
fn settings_that_prove_nothing_are_refused() {
    let hmac = |parts: &[&str], signature: &str, timestamp: Option<&str>| Auth::Hmac {
        alg: HashKind::Sha1,
        secret: "long-enough".into(),
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        signature: signature.to_owned(),
        prefix: String::new(),
        encoding: Encoding::Base64url,
        timestamp: timestamp.map(str::to_owned),
        public_url: String::new(),
    };
    let wrong = [
        (basic("short"), "at least 8"),
        (Auth::Basic { user: String::new(), password: "long-enough".into() }, "user is empty"),
        (Auth::Bearer { token: "short".into() }, "at least 8"),
        (Auth::QueryToken { name: String::new(), token: "long-enough".into() }, "name is empty"),
        (hmac(&["query:nonce"], "header:x-s", None), "must hold body"),
        (hmac(&["body"], "header:x-s", Some("header:x-t")), "one of auth.parts"),
        (hmac(&["body", "url"], "header:x-s", None), "public_url is needed"),
        (hmac(&["body", "cookie"], "header:x-s", None), "that there is not"),
        (hmac(&["body"], "x-s", None), "that there is not"),
        (Auth::Twilio { auth_token: "long-enough".into(), public_url: String::new() }, "https://"),
    ];
    for (auth, says) in wrong {
        let verify = Verify { auth, allow_ips: Vec::new() };
        let sentence = verify.check().expect_err("refused");
        assert!(sentence.contains(says), "{sentence}");
    }
    // Each format with the proof that belongs to it.
    let verify = Verify { auth: basic("secret-secret"), allow_ips: Vec::new() };
    let twilio = PushSource::new("x", verify.clone(), numbering(), Format::Twilio);
    assert_eq!(twilio.err().map(|error| error.key), Some("verify.auth"));
    let mut numbering = numbering();
    numbering.area = "24".to_owned();
    let format = Format::Freeswitch;
    let area = PushSource::new("x", verify.clone(), numbering.clone(), format.clone());
    assert_eq!(area.err().map(|error| error.key), Some("numbering.area"));
    numbering.area = String::new();
    let id = PushSource::new("a/b", verify, numbering, format);
    assert_eq!(id.err().map(|error| error.key), Some("id"));
}

#[test]
fn settings_are_read_from_toml() {
    #[derive(serde::Deserialize)]
    struct Settings {
        verify: Verify,
    }
    let read = |text: &str| toml::from_str::<Settings>(text).map(|settings| settings.verify);
    let none = read("verify = { auth = { kind = \"none\" }, allow_ips = [\"192.0.2.7/32\"] }");
    none.expect("readable").check().expect("sound");
    let basic =
        read("[verify.auth]\nkind = \"basic\"\nuser = \"fs\"\npassword = \"secret-secret\"");
    let basic = basic.expect("readable");
    basic.check().expect("sound");
    assert!(!format!("{basic:?}").contains("secret-secret"));
    assert!(read("[verify.auth]\nkind = \"trust\"").is_err());
    assert!(read("[verify]\nauth = { kind = \"none\" }\nallow = []").is_err());
}

#[test]
fn a_push_is_verified_then_read_then_answered() {
    let source = freeswitch();
    assert_eq!((source.name(), source.body_limit()), ("hotline:pbx1", BODY_LIMIT));
    let proof = format!("Basic {}", STANDARD.encode("fs:secret-secret"));
    let headers = [("authorization", proof.as_bytes())];
    let query = "uuid=a2150427-c1fb-4761-8c8d-611ff7aa1992";
    let body = fixture("freeswitch/001_json_cdr.body");
    let received = source.verify(post(query, &headers, &body), None, at(NOW)).expect("verified");
    assert_eq!((received.calls.len(), received.unread), (1, None));
    assert_eq!(received.answer.status, 200);
    // Known and not understood: kept, and not sent again.
    let unread = source.verify(post(query, &headers, b"?"), None, at(NOW)).expect("verified");
    assert_eq!((unread.calls.len(), unread.unread), (0, Some(Unread::Form)));
    assert_eq!(unread.answer.status, 200);

    assert_eq!(source.verify(post(query, &[], &body), None, at(NOW)), Err(REFUSED));
    let large = vec![b' '; BODY_LIMIT + 1];
    let too_large = Err(Refusal::new(413, "too_large"));
    assert_eq!(source.verify(post(query, &headers, &large), None, at(NOW)), too_large);
    let get = Request { method: Method::Get, ..post(query, &headers, &body) };
    assert_eq!(source.verify(get, None, at(NOW)), Err(REFUSED));

    let mapping = Box::new(Mapping::shipped("tencent-tccc").expect("sound"));
    let verify = Verify { auth: basic("secret-secret"), allow_ips: Vec::new() };
    let tccc =
        PushSource::new("tccc", verify, numbering(), Format::Mapped(mapping)).expect("sound");
    let received =
        tccc.verify(post("action=other", &headers, b"{}"), None, at(NOW)).expect("verified");
    assert_eq!(received.answer.body, br#"{"ErrCode":0,"ErrMsg":""}"#);
}

#[test]
fn every_proof_that_can_be_set_up_can_be_given() {
    let secret = || "secret-secret".into();
    let url = || "https://window.example/channels/hotline/x".to_owned();
    let hmac = |parts: &[&str], signature: &str, timestamp: Option<&str>| Auth::Hmac {
        alg: HashKind::Sha256,
        secret: secret(),
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        signature: signature.to_owned(),
        prefix: "v=".to_owned(),
        encoding: Encoding::Hex,
        timestamp: timestamp.map(str::to_owned),
        public_url: url(),
    };
    let auths = [
        basic("secret-secret"),
        Auth::Bearer { token: secret() },
        Auth::QueryToken { name: "token".to_owned(), token: secret() },
        Auth::Twilio { auth_token: secret(), public_url: url() },
        Auth::HuaweiAksk { app_key: "key".to_owned(), app_secret: secret(), public_url: url() },
        hmac(&["header:x-time", "text:.", "body"], "header:x-sign", Some("header:x-time")),
        hmac(&["url", "query:nonce", "body"], "query:sign", None),
    ];
    for auth in auths {
        let body = b"CallSid=CA1&From=%2B8613900001234";
        let proof = intake_hotline::sender::prove(&auth, "action=voicemail", body, at(NOW));
        let headers: Vec<(&str, &str)> =
            proof.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(ask(&auth, &proof.query, &headers, body), Ok(()), "{auth:?}");
        assert!(ask(&auth, &proof.query, &headers[..0], body).is_err() || headers.is_empty());
    }
}

#[test]
fn what_the_office_dials_itself_is_no_citizens_call_and_its_settings_are_checked() {
    let source = |own: &str| {
        let verify = Verify { auth: basic("secret-secret"), allow_ips: Vec::new() };
        let numbering = Numbering { own: vec![own.to_owned()], ..numbering() };
        PushSource::new("pbx1", verify, numbering, Format::Freeswitch)
    };
    let told = |own: &str, name: &str| {
        source(own).expect("sound").reread(&fixture(&format!("freeswitch/{name}.body"))).calls.len()
    };
    assert_eq!(told("137000000XX", "001_json_cdr"), 0);
    assert_eq!(told("8XXX", "001_json_cdr"), 1);
    // Who left a message wants to be heard, whoever it is; here, somebody without a number.
    assert_eq!(told("8XXX", "004_json_cdr"), 1);
    for wrong in ["", "XXXX", "trunk", "8[0-9]"] {
        assert_eq!(source(wrong).expect_err("refused").key, "numbering.own", "{wrong}");
    }
}
