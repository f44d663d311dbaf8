//! The configurations of exchanges that come with the gateway: what they make an exchange send and
//! write, as captured from real ones, is read by a source that is set up as the file beside them says.

use crate::{
    calls::{
        FIXTURES, Spool, a_minute_later, calls_of, capture, delivered, folder, source, tickets, wav,
    },
    support::{Spec, at, number},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use intake_gateway::calls::scan::{Seen, scan};
use std::{fs, path::Path};

const EXCHANGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/exchanges");
const PASSWORD: &str = "replace-me-with-24-random-characters";

fn shipped(name: &str) -> String {
    fs::read_to_string(format!("{EXCHANGES}/{name}")).unwrap()
}

/// The gateway's part, with the machine's folders below this one.
fn gateway_part(name: &str, machine: &Path) -> String {
    let secrets = machine.join("etc/intake");
    fs::create_dir_all(&secrets).unwrap();
    for password in ["fs-password", "ast-password"] {
        fs::write(secrets.join(password), format!("{PASSWORD}\n")).unwrap();
    }
    // The captures are older than the test's gateway.
    let since = "kind = \"asterisk\"\nsince = \"2026-11-23T00:00:00+08:00\"";
    let text = shipped(name).replace("kind = \"asterisk\"", since);
    ["/etc/", "/var/"].iter().fold(text, |text, root| {
        text.replace(&format!("\"{root}"), &format!("\"{}{root}", machine.display()))
    })
}

/// The value of a parameter in FreeSWITCH's file.
fn param<'a>(file: &'a str, name: &str) -> Option<&'a str> {
    let rest = file.split(&format!("name=\"{name}\" value=\"")).nth(1)?;
    rest.split('"').next()
}

fn basic(cred: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(cred))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_freeswitch_sends_and_leaves_by_the_shipped_configuration_is_read() {
    let file = shipped("freeswitch/json_cdr.conf.xml");
    for (name, value) in [
        ("log-b-leg", "false"),
        ("encode", "false"),
        ("encode-values", "false"),
        ("retries", "3"),
        ("delay", "5"),
    ] {
        assert_eq!(param(&file, name), Some(value), "{name}");
    }
    assert_eq!(param(&file, "disable-100-continue"), None);
    let (url, cred) = (param(&file, "url").unwrap(), param(&file, "cred").unwrap());
    let errors = param(&file, "err-log-dir").unwrap();

    let machine = folder();
    let left = machine.join(errors.trim_start_matches('/'));
    let recordings = machine.join("var/lib/freeswitch/storage/voicemail");
    fs::create_dir_all(&left).unwrap();
    fs::create_dir_all(&recordings).unwrap();
    let settings = gateway_part("freeswitch/gateway.toml", &machine);
    let gateway = Spec::at(at("2026-11-23 23:46")).with(&settings).start().await;
    let path = url.strip_prefix("http://127.0.0.1:8080").unwrap();
    let send = async |body: Vec<u8>| {
        let authorization = basic(cred);
        let headers = [("authorization", authorization.as_str())];
        // As the module does: the identity at the end of the address.
        gateway.post(&format!("{path}?uuid=x"), &headers, body).await.status
    };
    for name in ["001_json_cdr.body", "004_json_cdr.body", "007_json_cdr.body"] {
        assert_eq!(send(capture(name)).await, 200, "{name}");
    }
    let message = recordings.join("msg_1.wav");
    fs::write(&message, wav()).unwrap();
    let voicemail = delivered(&"1".repeat(36), "13900001234", &message.display().to_string());
    assert_eq!(send(voicemail).await, 200);
    // And what it could not deliver.
    let name = "e8c7062d-812c-4ac2-946d-39f360614df3.cdr.json";
    fs::write(left.join(name), delivered(&name[..36], "13900005678", "/elsewhere.wav")).unwrap();
    let freeswitch = source(&gateway, "hotline:fs");
    assert_eq!(scan(&gateway.app, &freeswitch, &mut Seen::new()).await.unwrap(), 1);
    a_minute_later(&gateway).await;
    while gateway.app.fetcher.step().await.unwrap() {}
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (5, 5));
    let stored = "SELECT count(*) FROM call_recording WHERE state = 'stored'";
    assert_eq!(number(&gateway.pool, stored).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_asterisk_writes_and_posts_by_the_shipped_configuration_is_read() {
    let voicemail = shipped("asterisk/voicemail.conf");
    let key = |name: &str| {
        let line = voicemail.lines().find(|line| line.starts_with(&format!("{name}=")));
        line.unwrap().split_once('=').unwrap().1.to_owned()
    };
    assert_eq!((key("format").as_str(), key("minsecs").as_str()), ("wav", "3"));
    assert!(key("externnotify").ends_with("intake hotline scan --source ast"));
    let records = shipped("asterisk/cdr.conf");
    for needed in ["loguniqueid=yes", "loguserfield=yes", "usegmtime=yes", "newcdrcolumns=no"] {
        assert!(records.lines().any(|line| line == needed), "{needed}");
    }

    let machine = folder();
    let spool = Spool { root: machine.join("var/spool/asterisk/voicemail") };
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    spool.put("12333", "msg0001", "12333_msg0002.txt");
    spool.put("8001", "msg0000", "8001_msg0000.txt");
    let csv = machine.join("var/log/asterisk/cdr-csv/Master.csv");
    fs::create_dir_all(csv.parent().unwrap()).unwrap();
    fs::copy(format!("{FIXTURES}/asterisk/cdr.csv"), &csv).unwrap();
    let settings = gateway_part("asterisk/gateway.toml", &machine);
    let gateway = Spec::at(at("2026-11-23 23:46")).with(&settings).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    a_minute_later(&gateway).await;
    assert_eq!(calls_of(&gateway).await, 12);

    // The hook, with the values that it had for the captured caller who hung up in the greeting, and
    // for one of whom there is no row.
    let dialplan = shipped("asterisk/extensions.conf");
    let line = dialplan.lines().find(|line| line.contains("${CURL(")).unwrap();
    let (address, form) = line.split_once("${CURL(").unwrap().1.split_once(',').unwrap();
    let form = form.strip_suffix(")})").unwrap();
    let path = address.strip_prefix("http://127.0.0.1:8080").unwrap();
    let user = dialplan.split("CURLOPT(userpwd)=").nth(1).unwrap().split(')').next().unwrap();
    for (unique, channel, calls) in
        [("1795446870.7", "00000007", 12), ("1795447999.1", "000000ff", 13)]
    {
        let ended = "2026-11-23%2015%3A14%3A32";
        let body = form
            .replace("${UNIQUEID}", unique)
            .replace("${URIENCODE(${CALLERID(num)})}", "13700000002")
            .replace("${CALLED}", "12333")
            .replace("${URIENCODE(${CHANNEL})}", &format!("SIP%2F127.0.0.1-{channel}"))
            .replace(
                "${URIENCODE(${STRFTIME(${BEGAN},UTC,%Y-%m-%d %H:%M:%S)})}",
                "2026-11-23%2015%3A14%3A30",
            )
            .replace("${URIENCODE(${STRFTIME(${EPOCH},UTC,%Y-%m-%d %H:%M:%S)})}", ended);
        assert!(!body.contains("${"), "{body}");
        let authorization = basic(user);
        let headers = [("authorization", authorization.as_str())];
        let answer = gateway.post(path, &headers, body.into_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(calls_of(&gateway).await, calls);
    }
    a_minute_later(&gateway).await;
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM call WHERE ticket IS NULL").await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 0);
    while gateway.app.fetcher.step().await.unwrap() {}
    let stored = "SELECT count(*) FROM call_recording WHERE state = 'stored'";
    assert_eq!(number(&gateway.pool, stored).await, 3);
}

/// Every source that can be simulated, each set up with another proof, against a gateway that runs.
#[tokio::test(flavor = "multi_thread")]
async fn every_source_can_be_simulated_with_the_gateways_own_configuration() {
    let machine = folder();
    let spool = Spool { root: machine.join("spool") };
    spool.inbox("12333");
    let source =
        |id: &str, more: &str| format!("[[hotline]]\noffice = 'tieling'\nid = '{id}'\n{more}\n");
    let vendor = |id: &str, mapping: &str, auth: &str| {
        source(id, &format!("kind = 'vendor'\nmapping = '{mapping}'\nverify.auth = {auth}"))
    };
    let url = "public_url = 'https://window.example/channels/hotline/x'";
    let settings = [
        source("fs", "kind = 'freeswitch'\nverify.auth = { kind = 'basic', user = 'fs', password = 'secret-secret' }"),
        source("ast", &format!("kind = 'asterisk'\nspools = ['{}']\nzone = 'UTC'\nverify.auth = {{ kind = 'bearer', token = 'secret-secret' }}", spool.root.display())),
        source("tw", &format!("kind = 'twilio'\nverify.auth = {{ kind = 'twilio', auth_token = 'secret-secret', {url} }}")),
        vendor("tc", "tencent-tccc", "{ kind = 'basic', user = 'tc', password = 'secret-secret' }"),
        vendor("al", "aliyun-vms", "{ kind = 'query_token', name = 'token', token = 'secret-secret' }"),
        vendor("hw", "huawei-voicecall", &format!("{{ kind = 'huawei_aksk', app_key = 'key', app_secret = 'secret-secret', {url} }}")),
        vendor("ye", "yeastar-p", "{ kind = 'hmac', alg = 'sha256', secret = 'secret-secret', parts = ['header:x-time', 'body'], signature = 'header:x-sign', encoding = 'hex', timestamp = 'header:x-time' }"),
    ]
    .concat();
    let now = intake_gateway::clock::Clock::system().now();
    let gateway = Spec::at(now).with(&settings).start().await;
    let file = machine.join("intake.toml");
    // The webhook is the one that every test's gateway has.
    let text = format!(
        "database_url = '{}'\nredis_url = 'redis://x'\n[http]\nlisten = '{}'\n[ops]\nlisten = '{}'\n{settings}\
         [[hotline]]\noffice = 'tieling'\nid = 'pbx1'\nkeys = [{{ id = 'k1', secret = 'test-secret' }}]\n",
        gateway.database_url,
        gateway.base.trim_start_matches("http://"),
        gateway.ops.trim_start_matches("http://"),
    );
    fs::write(&file, text).unwrap();
    let simulate = |arguments: &[&str]| {
        let done = std::process::Command::new(env!("CARGO_BIN_EXE_intake"))
            .arg("--config")
            .arg(&file)
            .args(["simulate", "hotline"])
            .args(arguments)
            .env_clear()
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let kinds =
        ["webhook", "freeswitch", "asterisk", "twilio", "tccc", "aliyun", "huawei", "yeastar"];
    for kind in kinds {
        let said = simulate(&["--as", kind, "--duration", "5"]);
        assert_eq!(said.0, Some(0), "{kind}: {said:?}");
    }
    for kind in &kinds[1..] {
        let said = simulate(&["--as", kind, "--missed", "--caller", "13900005678"]);
        assert_eq!(said.0, Some(0), "{kind}: {said:?}");
    }
    let (code, _, says) = simulate(&["--missed"]);
    assert_eq!(code, Some(1));
    assert!(says.contains("tells of messages only"), "{says}");
    let asterisk = crate::calls::source(&gateway, "hotline:ast");
    scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    for name in ["pbx1", "fs", "ast", "tw", "tc", "al", "hw", "ye"] {
        let of = format!("SELECT count(*) FROM call WHERE source = 'hotline:{name}'");
        let told = if name == "pbx1" { 1 } else { 2 };
        assert_eq!(number(&gateway.pool, &of).await, told, "{name}");
        let known = format!("{of} AND caller IS NOT NULL AND line = '12333'");
        assert_eq!(number(&gateway.pool, &known).await, told, "{name}");
    }
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 0);
    // The same recording again is the same call.
    for _ in 0..2 {
        let said = simulate(&[
            "--as",
            "freeswitch",
            "--recording-id",
            "r1",
            "--started-at",
            "2026-11-23T22:00:00+08:00",
        ]);
        assert_eq!(said.0, Some(0), "{said:?}");
    }
    let of = "SELECT count(*) FROM call WHERE source = 'hotline:fs'";
    assert_eq!(number(&gateway.pool, of).await, 3);
}
