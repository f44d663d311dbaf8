//! Independent peers: wechatpy, WeRoBot and wechat-crypto, which `scripts/test.sh` installs into
//! target/interop, against the running gateway. What both sides of one program agree on, both may
//! have wrong.

use crate::support::{
    Spec, at,
    gateway::{APP_ID, KEY, ORIGINAL_ID, TOKEN},
    number,
};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Stdio};
use tokio::{io::AsyncWriteExt, process::Command};

fn installed() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/interop");
    assert!(
        folder.join("python/pins").exists() && folder.join("npm/pins").exists(),
        "target/interop is not complete: run `make test`, which installs the peers"
    );
    folder
}

async fn run(mut command: Command, case: &Value) -> Value {
    let mut peer =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut input = peer.stdin.take().unwrap();
    input.write_all(case.to_string().as_bytes()).await.unwrap();
    drop(input);
    let output = peer.wait_with_output().await.unwrap();
    assert!(output.status.success(), "the peer failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn message(openid: &str, now: i64, fields: &str) -> String {
    format!(
        "<xml><ToUserName><![CDATA[{ORIGINAL_ID}]]></ToUserName><FromUserName><![CDATA[{openid}]]>\
         </FromUserName><CreateTime>{now}</CreateTime>{fields}</xml>"
    )
}

fn text(openid: &str, now: i64, said: &str, id: u64) -> String {
    let fields = format!(
        "<MsgType><![CDATA[text]]></MsgType><Content><![CDATA[{said}]]></Content><MsgId>{id}</MsgId>"
    );
    message(openid, now, &fields)
}

/// A first message, a photo, a command, an event, a repeat; of every length of padding some.
fn conversation(openid: &str, now: i64) -> Vec<String> {
    let photo = "<MsgType><![CDATA[image]]></MsgType><PicUrl><![CDATA[http://mmbiz.qpic.cn/1]]></PicUrl>\
        <MediaId><![CDATA[m1]]></MediaId><MsgId>24000000000000002</MsgId>";
    let follows = "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[subscribe]]></Event>\
        <EventKey><![CDATA[]]></EventKey>";
    let view = "<MsgType><![CDATA[event]]></MsgType><Event><![CDATA[VIEW]]></Event>\
        <EventKey><![CDATA[https://example.cn/]]></EventKey>";
    let mut all = vec![
        message(openid, now, follows),
        text(openid, now, "社保卡 <b>&amp;</b> 办不下来😀", 24_000_000_000_000_001),
        message(openid, now, photo),
        text(openid, now, "进度", 24_000_000_000_000_003),
        text(openid, now, "社保卡 <b>&amp;</b> 办不下来😀", 24_000_000_000_000_001),
        message(openid, now, view),
    ];
    all.extend((0..32).map(|n| {
        text(openid, now, &format!("补充{}", "，".repeat(n)), 24_000_000_000_000_100 + n as u64)
    }));
    all
}

fn check(answers: &Value, openid: &str, number: &str) {
    let answers = answers.as_array().unwrap();
    let content = |n: usize| answers[n]["reply"]["Content"].as_str().unwrap_or_default();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["status"], 200, "{n}: {answer}");
        assert!(answer.get("genuine").is_none_or(|genuine| genuine == true), "{n}: {answer}");
        if n != 5 {
            assert_eq!(answer["reply"]["ToUserName"], openid, "{n}: {answer}");
            assert_eq!(answer["reply"]["FromUserName"], ORIGINAL_ID, "{n}: {answer}");
            assert_eq!(answer["reply"]["MsgType"], "text", "{n}: {answer}");
        }
    }
    assert!(content(0).contains("欢迎关注"), "{}", content(0));
    assert!(content(1).contains(&format!("已登记，编号 {number}")), "{}", content(1));
    assert!(content(2).contains(&format!("补充到您的反映 {number}")), "{}", content(2));
    assert!(content(3).contains(&format!("{number}：已登记")), "{}", content(3));
    assert_eq!(content(4), content(1), "the same delivery again");
    assert_eq!(answers[5]["text"], "success");
    assert!(content(37).contains(number), "{}", content(37));
}

#[tokio::test(flavor = "multi_thread")]
async fn wechatpy_sends_and_werobot_reads_what_it_is_answered() {
    let folder = installed();
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let now = gateway.clock.now().timestamp();
    let case = json!({
        "url": format!("{}/channels/wechat/main", gateway.base),
        "token": TOKEN, "key": KEY, "app_id": APP_ID, "now": now,
        "messages": conversation("oInterop", now),
    });
    let mut python = Command::new(folder.join("python/bin/python"));
    python.arg("tests/interop/wechat.py");
    let heard = run(python, &case).await;
    assert_eq!(heard["address"], "4375120948345356249");
    check(&heard["answers"], "oInterop", "BCS-2026-000001");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM ticket").await, 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 34);
}

#[tokio::test(flavor = "multi_thread")]
async fn wechat_crypto_sends_and_reads_what_it_is_answered() {
    let folder = installed();
    let gateway = Spec::at(at("2026-11-24 09:10")).start().await;
    let now = gateway.clock.now().timestamp();
    let case = json!({
        "url": format!("{}/channels/wechat/main", gateway.base),
        "token": TOKEN, "key": KEY, "app_id": APP_ID, "now": now,
        "messages": conversation("oInterop", now),
    });
    let mut node = Command::new("node");
    node.args(["--no-deprecation", "tests/interop/wechat.js"]).arg(folder.join("npm"));
    let heard = run(node, &case).await;
    check(&heard["answers"], "oInterop", "BCS-2026-000001");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 34);
}
