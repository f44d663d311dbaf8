//! Being the citizen, as a browser is it: forms and pages, no scripts.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use axum::Router;
use chrono::{DateTime, Utc};
use intake_standin_wechat::{Act, How, PATIENCE, Settings, StandIn};
use std::sync::Arc;
use tokio::net::TcpListener;

/// A platform whose gateway takes everything in silence.
async fn standin() -> StandIn {
    let gateway = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        app_id: "wx5f1c9e8a7b6d4c3e".to_owned(),
        secret: "0123456789abcdef0123456789abcdef".to_owned(),
        original_id: "gh_8a1b2c3d4e5f".to_owned(),
        token: "gov_center_token_2026".to_owned(),
        encoding_aes_key: None,
        callback: format!("http://{}", gateway.local_addr().unwrap()),
        patience: PATIENCE,
    };
    let silent = Router::new().fallback(async || "success");
    tokio::spawn(async move { axum::serve(gateway, silent).await });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let now: DateTime<Utc> = "2026-11-24T09:00:00+08:00".parse().unwrap();
    let standin = StandIn::new(settings, Arc::new(move || now), &listener).unwrap();
    tokio::spawn(standin.clone().serve(listener));
    standin
}

async fn get(url: String) -> String {
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

async fn post(standin: &StandIn, path: &str, form: &str, origin: Option<&str>) -> u16 {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let mut request = client
        .build()
        .unwrap()
        .post(format!("{}{path}", standin.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn what_a_citizen_writes_is_shown_as_words() {
    let standin = standin().await;
    let words =
        "text=%3Cscript%3Ealert(1)%3C%2Fscript%3E%0D%0A%E6%88%91%E8%A6%81%E5%8F%8D%E6%98%A0";
    assert_eq!(post(&standin, "/citizen/1/say", words, Some(standin.url())).await, 303);
    let citizens = standin.citizens();
    let talk = standin.talk(&citizens[1]);
    assert_eq!((talk.len(), talk[0].how), (1, How::Said));
    assert_eq!(talk[0].text, "<script>alert(1)</script>\n我要反映");
    let page = get(format!("{}/talk/1", standin.url())).await;
    assert!(!page.contains("<script") && page.contains("我要反映"), "{page}");
    assert!(get(format!("{}/talk/0", standin.url())).await.contains("还没有说话"));
    // Nothing is nothing, and nobody is nobody.
    assert_eq!(post(&standin, "/citizen/1/say", "text=%20", None).await, 303);
    assert_eq!(standin.talk(&citizens[1]).len(), 1);
    assert_eq!(post(&standin, "/citizen/9/say", "text=a", None).await, 404);
}

#[tokio::test]
async fn other_sites_cannot_act_here() {
    let standin = standin().await;
    for path in ["/citizen/0/say", "/citizen/0/act", "/switch"] {
        let form = "text=a&act=voice&which=busy&back=0";
        assert_eq!(post(&standin, path, form, Some("http://evil.example")).await, 403, "{path}");
    }
    assert!(standin.talk(&standin.citizens()[0]).is_empty());
}

#[tokio::test]
async fn everything_on_the_page_can_be_done() {
    let standin = standin().await;
    let citizen = standin.citizens().remove(0);
    for act in [
        "voice",
        "video",
        "location",
        "link",
        "sticker",
        "menu&of=NEW",
        "choose&of=1&words=%E5%A5%BD",
    ] {
        assert_eq!(
            post(&standin, "/citizen/0/act", &format!("act={act}"), None).await,
            303,
            "{act}"
        );
    }
    assert_eq!(standin.talk(&citizen).len(), 7);
    assert_eq!(post(&standin, "/citizen/0/act", "act=dance", None).await, 400);
    standin.act(&citizen, Act::Photo(None)).await;
    let page = get(format!("{}/talk/0", standin.url())).await;
    let from = page.find("/file/").unwrap();
    let picture: String = page[from..].chars().take_while(|c| *c != '"').collect();
    let picture = reqwest::get(format!("{}{picture}", standin.url())).await.unwrap();
    assert_eq!(picture.headers()["content-type"], "image/png");

    for (act, says) in [("unfollow", "关注公众号"), ("follow", "取消关注"), ("block", "不再拒收")]
    {
        post(&standin, "/citizen/0/act", &format!("act={act}"), None).await;
        let page = get(format!("{}/citizen/0", standin.url())).await;
        assert!(page.contains(says), "{act}");
        assert!(!page.contains("<script"), "no scripts");
    }
    for which in ["hangs", "busy", "quota", "address", "receipts"] {
        let pressed = async || {
            let page = get(format!("{}/citizen/0", standin.url())).await;
            page.matches("aria-pressed=\"true\"").count()
        };
        let form = format!("which={which}&back=0");
        post(&standin, "/switch", &form, None).await;
        assert_eq!(pressed().await, 1, "{which}");
        post(&standin, "/switch", &form, None).await;
        assert_eq!(pressed().await, 0, "{which}");
    }
}
