//! Recordings of the telephone: heard in whatever form they come, kept as long as the rule says, held
//! by order, brought along by the webhook, written down by a machine.

use crate::{
    browser::{Driver, appears, log_in},
    calls::{delivered, folder, freeswitch, night, push, tickets, wav},
    desk::Desk,
    media::TICKET,
    support::{TestGateway, at, gateway::Answer, number, sql, until},
    verify::faults,
};
use intake_contract::AttachmentKind;
use intake_gateway::{
    domain::register::RegisterNumber,
    gateway::Role,
    housekeeping,
    media::{self, Copies, Hash, Type},
    store::{
        self,
        media::{Content, Key},
    },
};
use intake_hotline::sender::Sender;
use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const SOUND: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sound");
const PLAY: &str = "/desk/media/BCS-2026-000001/1/0/play";

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{SOUND}/{name}")).unwrap()
}

/// An exchange whose recordings lie in a folder.
struct Exchange {
    root: PathBuf,
    gateway: TestGateway,
}

impl Exchange {
    async fn start(more: &str) -> Self {
        Self::start_with("", more).await
    }

    /// `before`: settings above the source's.
    async fn start_with(before: &str, more: &str) -> Self {
        let root = folder();
        let settings = freeswitch(&format!("audio.roots = ['{}']\n{more}", root.display()));
        let gateway = night().with(before).with(&settings).start().await;
        Self { root, gateway }
    }

    /// A message of a caller of its own, and so a ticket of its own.
    async fn leaves(&self, n: usize, content: &[u8]) {
        let path = self.root.join(format!("{n}.bin"));
        fs::write(&path, content).unwrap();
        let (uuid, caller) = (format!("{n}").repeat(36), format!("1390000{n:04}"));
        let path = path.display().to_string();
        assert_eq!(push(&self.gateway, delivered(&uuid, &caller, &path)).await.status, 200);
        self.fetch().await;
    }

    async fn fetch(&self) {
        while self.gateway.app.fetcher.step().await.unwrap() {}
    }

    async fn count(&self, of: &str) -> i64 {
        number(&self.gateway.pool, &format!("SELECT count(*) FROM {of}")).await
    }
}

fn ticket(n: usize) -> String {
    format!("/desk/tickets/BCS-2026-{n:06}")
}

/// A program that does this.
fn program(script: &str) -> PathBuf {
    let path = folder().join("program");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_every_form_are_heard_measured_and_kept_as_they_came() {
    let exchange = Exchange::start("").await;
    let silent = [&wav()[..44], &vec![0; 16_000]].concat();
    let empty = [&wav()[..40], &[0; 4]].concat();
    let cases = [
        (fixture("msg0002.gsm"), "电话录音，8 秒，13 KB "),
        (fixture("msg0002.wav49"), "电话录音，8 秒，13 KB "),
        (fixture("msg0002.wav"), "电话录音，8 秒，121 KB "),
        (fixture("msg0002.mp3"), "电话录音，8 秒，16 KB "),
        // Broken off, and promising more than is there.
        (fixture("msg0002.wav")[..50_000].to_vec(), "电话录音，4 秒，49 KB "),
        (silent, "电话录音，1 秒，16 KB，疑似空录音 "),
        (empty, "电话录音，1 KB，文件是空的，没有声音。请回拨询问 "),
        (b"a form of its own".to_vec(), "格式不支持在线播放，请下载后收听 "),
        ([&wav()[..20], &[0; 24], &[7; 99]].concat(), "格式不支持在线播放，请下载后收听 "),
    ];
    let desk = Desk::login(&exchange.gateway, "zhao.min").await;
    for (n, (content, words)) in cases.iter().enumerate() {
        let n = n + 1;
        exchange.leaves(n, content).await;
        let page = desk.get(&ticket(n)).await.text();
        assert!(page.contains(words), "{n}: {page}");
        let plays = n < 7;
        assert_eq!(page.contains("<audio"), plays, "{n}");
        let at = format!("/desk/media/BCS-2026-{n:06}/1/0");
        let heard = desk.get(&format!("{at}/play")).await;
        assert_eq!(heard.status, if plays { 200 } else { 404 }, "{n}");
        if plays {
            assert_eq!(&heard.body[20..24], b"\x01\0\x01\0", "PCM, one channel");
        }
        assert_eq!(&desk.get(&format!("{at}/original")).await.body, content, "{n}");
    }
    assert_eq!(exchange.count("media_object WHERE copies = 'sound'").await, 4);
    assert_eq!(exchange.count("media_object WHERE copies = 'itself'").await, 2);
    exchange.gateway.stop().await;
}

/// The same content may come again where it cannot be decoded: in a gateway without the program, in
/// one that has no time for it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_of_a_content_stays_when_it_comes_again() {
    let exchange = Exchange::start("").await;
    let sound = fixture("msg0002.gsm");
    exchange.leaves(1, &sound).await;
    assert_eq!(exchange.count("media_object WHERE copies = 'sound' AND ms > 0").await, 1);
    let mut db = exchange.gateway.pool.acquire().await.unwrap();
    let ticket = RegisterNumber::new(2026, 2).unwrap();
    let key = Key { office: exchange.gateway.office, ticket, seq: 1, n: 0 };
    let told = ("hotline:fs", "file:/again.wav");
    let now = exchange.gateway.clock.now();
    store::media::expect(&mut db, key, AttachmentKind::Voice, told, now).await.unwrap();
    let content = Content {
        hash: Hash::of(&sound),
        kind: Type::Gsm,
        size: sound.len() as u64,
        copies: Copies::None,
        ms: None,
        silent: false,
    };
    store::media::kept(&mut db, key, &content, false).await.unwrap();
    assert_eq!(exchange.count("media WHERE state = 'kept'").await, 2);
    assert_eq!(exchange.count("media_object WHERE copies = 'sound' AND ms > 0").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_here_decodes_a_program_may() {
    let arguments = folder().join("arguments");
    // A second of samples, whatever it is given; nothing for what it does not know.
    let script = format!(
        "echo \"$@\" > {}; [ \"$(cat)\" = unknown ] && exit 1; head -c 16000 /dev/zero",
        arguments.display()
    );
    let ffmpeg = format!("media.ffmpeg = '{}'", program(&script).display());
    let exchange = Exchange::start_with(&ffmpeg, "").await;
    exchange.leaves(1, b"a form of its own").await;
    exchange.leaves(2, b"unknown").await;
    let desk = Desk::login(&exchange.gateway, "zhao.min").await;
    let page = desk.get(&ticket(1)).await.text();
    assert!(page.contains("<audio") && page.contains("电话录音，1 秒，1 KB，疑似空录音"), "{page}");
    assert_eq!(desk.get(PLAY).await.body.len(), 16_044);
    assert!(desk.get(&ticket(2)).await.text().contains("格式不支持在线播放，请下载后收听"));
    // No file, no address: nothing that a recording names is opened.
    let given = fs::read_to_string(arguments).unwrap();
    assert!(given.contains("-protocol_whitelist pipe -i pipe:0"), "{given}");
    exchange.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_playback_is_noted_once_and_by_whom() {
    let exchange = Exchange::start("").await;
    let gateway = &exchange.gateway;
    exchange.leaves(1, &fixture("msg0002.gsm")).await;
    let heard = async || exchange.count("media_opened").await;
    let (one, other) =
        (Desk::login(gateway, "zhao.min").await, Desk::login(gateway, "li.qiang").await);
    let part = async |desk: &Desk<'_>, range: &str| {
        let request = gateway.client.get(format!("{}{PLAY}", gateway.base));
        let request = request.header("cookie", &desk.cookie).header("range", range);
        Answer::of(request.send().await.unwrap()).await
    };
    let whole = one.get(PLAY).await;
    assert_eq!(whole.headers["cache-control"], "private, no-store");
    for range in ["bytes=0-", "bytes=60000-", "bytes=1-"] {
        assert_eq!(part(&one, range).await.status, 206);
    }
    assert_eq!(heard().await, 1);
    // Nothing is given, nothing is noted.
    assert_eq!(part(&other, "bytes=999999-").await.status, 416);
    assert_eq!(heard().await, 1);
    // Not from its beginning, and heard all the same.
    assert_eq!(part(&other, "bytes=60000-").await.status, 206);
    assert_eq!(heard().await, 2);
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::seconds(60));
    part(&one, "bytes=90000-").await;
    assert_eq!(heard().await, 2);
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::seconds(120));
    part(&one, "bytes=90000-").await;
    assert_eq!(heard().await, 3);
    // Who sees no tickets hears none.
    let admin = Desk::login(gateway, "admin").await;
    assert_eq!(part(&admin, "bytes=0-").await.status, 403);
    assert_eq!(heard().await, 3);
    exchange.gateway.stop().await;
}

/// Takes a ticket through to its closure.
async fn close(desk: &Desk<'_>, ticket: &str) {
    let csrf = desk.csrf().await;
    let form = |more: &[(&'static str, &'static str)]| {
        [("csrf", csrf.clone())]
            .into_iter()
            .chain(more.iter().map(|(k, v)| (*k, (*v).to_owned())))
            .collect::<Vec<_>>()
    };
    let steps = [
        ("claim", form(&[])),
        ("resolve", form(&[("outcome", "solved"), ("opinion", "已补办")])),
        ("close", form(&[("reason", "三次联系不上")])),
    ];
    for (act, form) in steps {
        let form: Vec<(&str, &str)> = form.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let done = desk.post(&format!("{ticket}/{act}"), &form).await;
        assert_eq!(done.status, 303, "{act}: {}", done.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_go_by_the_rule_after_closure_and_held_ones_never() {
    let exchange = Exchange::start("audio.keep_days = 30").await;
    let gateway = &exchange.gateway;
    // The first two are the same content, the last one stays open.
    let contents =
        [fixture("msg0002.gsm"), fixture("msg0002.gsm"), fixture("msg0002.wav49"), wav()];
    for (n, content) in contents.iter().enumerate() {
        exchange.leaves(n + 1, content).await;
    }
    gateway.clock.set(at("2026-11-24 09:00"));
    let desk = Desk::login(gateway, "li.qiang").await;
    for n in [1, 3] {
        close(&desk, &ticket(n)).await;
    }
    let csrf = desk.csrf().await;
    let hold = format!("{}/recordings/hold", ticket(3));
    let refused = desk.post(&hold, &[("csrf", &csrf), ("reason", "  ")]).await;
    assert!(refused.status == 422 && refused.text().contains("先写原因"), "{}", refused.text());
    for _ in 0..2 {
        let held = desk.post(&hold, &[("csrf", &csrf), ("reason", "行政复议用")]).await;
        assert_eq!(held.status, 303, "{}", held.text());
    }
    let page = desk.get(&ticket(3)).await.text();
    assert!(
        page.contains("录音已保留，不按规定删除") && page.contains("原因：行政复议用"),
        "{page}"
    );
    assert_eq!(page.matches("原因：行政复议用").count(), 1);
    // Who receives citizens does not decide it; the office does.
    let duty = Desk::login(gateway, "zhao.min").await;
    assert!(!duty.get(&ticket(3)).await.text().contains("取消保留"));
    let csrf_of_duty = duty.csrf().await;
    let form = [("csrf", csrf_of_duty.as_str()), ("reason", "x")];
    assert_eq!(duty.post(&format!("{}/recordings/release", ticket(3)), &form).await.status, 403);

    let remove = async || remove_old(gateway).await;
    let tidy = async || {
        let over = "UPDATE media_object SET unused_since = now() - interval '2 days' \
                    WHERE unused_since IS NOT NULL";
        sql(&mut gateway.pool.acquire().await.unwrap(), over).await;
        gateway.app.media.tidy().await.unwrap()
    };
    gateway.clock.set(at("2026-12-24 08:59"));
    assert_eq!(remove().await, 0);
    gateway.clock.set(at("2026-12-24 09:01"));
    assert_eq!((remove().await, remove().await), (1, 0));
    assert_eq!(tidy().await, 0, "another ticket has the same content");
    let desk = Desk::login(gateway, "zheng.yu").await;
    let page = desk.get(TICKET).await.text();
    assert!(page.contains("电话录音已于12月24日（周四）按规定删除。"), "{page}");
    assert!(page.contains("1 条录音按规定删除（销号后保存 30 天）") && !page.contains("<audio"));
    assert_eq!(desk.get(PLAY).await.status, 404);
    assert_eq!(exchange.count("call_recording WHERE state = 'removed' AND hash IS NULL").await, 1);
    assert_eq!(desk.get("/desk/media/BCS-2026-000002/1/0/play").await.status, 200);
    assert_eq!(desk.get("/desk/media/BCS-2026-000003/1/0/play").await.status, 200);
    assert_eq!(faults(gateway).await, Vec::<String>::new());

    // Held for a year; then by nobody.
    gateway.clock.set(at("2027-12-24 09:00"));
    assert_eq!(remove().await, 0);
    let desk = Desk::login(gateway, "zheng.yu").await;
    let csrf = desk.csrf().await;
    let form = [("csrf", csrf.as_str()), ("reason", "复议已结")];
    let released = desk.post(&format!("{}/recordings/release", ticket(3)), &form).await;
    assert_eq!(released.status, 303, "{}", released.text());
    assert_eq!((remove().await, tidy().await), (1, 1));
    let files = fs::read_dir(gateway_folder(gateway)).unwrap().count();
    assert_eq!(files, 3, "the gsm with its copy, and the open one's");
    assert_eq!(faults(gateway).await, Vec::<String>::new());
    // What is changed beside the program shows.
    let tamper = "UPDATE ticket SET recordings_held = true WHERE ticket % 10 = 1";
    sql(&mut gateway.pool.acquire().await.unwrap(), tamper).await;
    assert!(faults(gateway).await[0].contains("recordings_held is not what the trail says"));
}

/// Where the gateway keeps this office's content.
fn gateway_folder(gateway: &TestGateway) -> PathBuf {
    let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).join("media");
    let hash = hex::encode(Sha256::digest(wav()));
    let of = |entry: fs::DirEntry| entry.path().join(gateway.office.to_string());
    let newest =
        fs::read_dir(folders).unwrap().flatten().map(of).filter(|f| f.join(&hash).exists());
    newest.max_by_key(|folder| fs::metadata(folder).unwrap().modified().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_cannot_be_removed_keeps_no_other_one() {
    let exchange = Exchange::start("").await;
    let gateway = &exchange.gateway;
    exchange.leaves(1, &wav()).await;
    // What lies there is a folder with something in it.
    let stuck = Hash::of(b"stuck");
    fs::create_dir_all(gateway_folder(gateway).join(hex::encode(stuck.0)).join("x")).unwrap();
    let unused = format!(
        "INSERT INTO media_object (office_id, hash, unused_since)
         SELECT {0}, sha256(n::text::bytea), now() - interval '2 days' FROM generate_series(1, 250) n
         UNION ALL SELECT {0}, '\\x{1}', now() - interval '3 days'",
        gateway.office,
        hex::encode(stuck.0)
    );
    sql(&mut gateway.pool.acquire().await.unwrap(), &unused).await;
    assert!(gateway.app.media.tidy().await.is_err());
    let left = format!("media_object WHERE hash = '\\x{}'", hex::encode(stuck.0));
    assert_eq!((exchange.count("media_object").await, exchange.count(&left).await), (2, 1));
    // Not again at once; the other one is in use.
    assert_eq!(gateway.app.media.tidy().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_that_may_go_are_found_behind_those_that_may_not() {
    let exchange = Exchange::start("").await;
    let gateway = &exchange.gateway;
    for n in 1..=3 {
        exchange.leaves(n, &wav()).await;
    }
    gateway.clock.set(at("2026-11-24 09:00"));
    let desk = Desk::login(gateway, "zhao.min").await;
    for n in 1..=3 {
        close(&desk, &ticket(n)).await;
    }
    let mut db = gateway.pool.acquire().await.unwrap();
    let sources = store::recording::sources(&mut db, gateway.office).await.unwrap();
    assert_eq!(sources, ["hotline:fs"]);
    let of = (gateway.office, sources[0].as_str());
    let (mut after, mut found) = (None, Vec::new());
    for _ in 0..4 {
        let before = at("2027-11-24 09:00");
        let page = store::recording::to_remove(&mut db, of, before, after, 1).await.unwrap();
        found.extend(page.0.iter().map(|ticket| ticket.sequence()));
        after = page.1;
    }
    assert_eq!((found, after), (vec![1, 2, 3], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_matter_that_is_taken_up_again_keeps_its_recordings() {
    let exchange = Exchange::start("").await;
    let gateway = &exchange.gateway;
    exchange.leaves(1, &wav()).await;
    gateway.clock.set(at("2026-11-24 09:00"));
    let desk = Desk::login(gateway, "zhao.min").await;
    close(&desk, TICKET).await;
    let csrf = desk.csrf().await;
    let form = [("csrf", csrf.as_str()), ("reason", "没有解决")];
    assert_eq!(desk.post(&format!("{TICKET}/reopen"), &form).await.status, 303);
    gateway.clock.set(at("2027-11-24 09:00"));
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(remove_old(gateway).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_in_favour_of_another_matter_keeps_its_recordings_as_long_as_that() {
    let exchange = Exchange::start("").await;
    let gateway = &exchange.gateway;
    exchange.leaves(1, &fixture("msg0002.gsm")).await;
    exchange.leaves(2, &wav()).await;
    gateway.clock.set(at("2026-11-24 09:00"));
    let desk = Desk::login(gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let form = [("csrf", csrf.as_str()), ("into", "BCS-2026-000002")];
    let joined = desk.post(&format!("{TICKET}/join"), &form).await;
    assert_eq!(joined.status, 303, "{}", joined.text());
    gateway.clock.set(at("2027-11-24 09:00"));
    assert_eq!(remove_old(gateway).await, 0, "the other one is open");
    let desk = Desk::login(gateway, "zhao.min").await;
    close(&desk, &ticket(2)).await;
    gateway.clock.set(at("2028-05-20 09:00"));
    assert_eq!(remove_old(gateway).await, 0);
    gateway.clock.set(at("2028-05-23 09:00"));
    assert_eq!(remove_old(gateway).await, 2);
    assert_eq!(faults(gateway).await, Vec::<String>::new());
}

async fn remove_old(gateway: &TestGateway) -> usize {
    let app = &gateway.app;
    media::remove_old(&app.pool, &app.offices, &app.sources, app.clock.now()).await.unwrap()
}

/// A description of a voicemail; `{}` stands for the recording's hash.
const EVENT: &str = r#"{"v":1,"recording_id":"r1","call_id":"c1","caller":"13900001234","callee":"12333","started_at":"2026-11-23T23:40:00+08:00","duration_s":8,"audio":{"sha256":"{}"}}"#;

struct Parts<'a> {
    event: String,
    audio: Option<&'a [u8]>,
    event_first: bool,
}

impl<'a> Parts<'a> {
    fn of(audio: &'a [u8]) -> Self {
        let event = EVENT.replace("{}", &hex::encode(Sha256::digest(audio)));
        Self { event, audio: Some(audio), event_first: true }
    }

    fn body(&self) -> Vec<u8> {
        let head =
            |name: &str| format!("--b0\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        let event = [head("event").as_bytes(), self.event.as_bytes(), b"\r\n"].concat();
        let audio = self.audio.map(|audio| [head("audio").as_bytes(), audio, b"\r\n"].concat());
        let audio = audio.unwrap_or_default();
        let parts = if self.event_first { [event, audio] } else { [audio, event] };
        [&parts.concat()[..], b"--b0--\r\n"].concat()
    }

    async fn send(&self, gateway: &TestGateway) -> Answer {
        self.send_signed(gateway, self.event.as_bytes()).await
    }

    async fn send_signed(&self, gateway: &TestGateway, what: &[u8]) -> Answer {
        let headers =
            Sender::new("k1", "test-secret").headers(what, gateway.clock.now().timestamp());
        let mut headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(("content-type", "multipart/form-data; boundary=b0"));
        gateway.post("/channels/hotline/pbx1", &headers, self.body()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_brought_along_is_kept_before_its_sender_is_answered() {
    let audio = fixture("msg0002.gsm");
    // Longer than a key is, and with blanks around it, as well.
    let long = "r".repeat(130);
    for (event_first, id) in [(true, "r1"), (false, "r1"), (true, &long), (true, " r1 ")] {
        let gateway = night().start().await;
        let mut parts = Parts { event_first, ..Parts::of(&audio) };
        parts.event = parts.event.replace("\"r1\"", &format!("\"{id}\""));
        let first = parts.send(&gateway).await;
        assert_eq!(first.status, 202, "{}", first.text());
        let lies = "SELECT count(*) FROM citizen_upload u JOIN media m ON m.state = 'waiting' \
                    AND m.reference = 'upload:' || encode(u.digest, 'hex') AND next_try_at IS NOT NULL";
        assert_eq!(number(&gateway.pool, lies).await, 1);
        // The same again, before and after it is in the storage.
        let again = parts.send(&gateway).await;
        assert_eq!((again.status, again.number()), (200, first.number()));
        while gateway.app.fetcher.step().await.unwrap() {}
        let again = parts.send(&gateway).await;
        assert_eq!((again.status, again.number()), (200, first.number()));
        while gateway.app.fetcher.step().await.unwrap() {}
        let left = "SELECT count(*) FROM citizen_upload";
        assert_eq!((number(&gateway.pool, left).await, tickets(&gateway).await), (0, 1));
        let desk = Desk::login(&gateway, "zhao.min").await;
        assert!(desk.get(TICKET).await.text().contains("电话录音，8 秒"));
        assert_eq!(desk.get("/desk/media/BCS-2026-000001/1/0/original").await.body, audio);
        let stored = "SELECT count(*) FROM call_recording WHERE state = 'stored'";
        assert_eq!(number(&gateway.pool, stored).await, 1);
        assert_eq!(faults(&gateway).await, Vec::<String>::new());
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_brought_along_by_two_gateways_at_once_is_one_call_and_one_recording() {
    let one = night().start().await;
    let two = night().on(&one.database_url).start().await;
    let audio = fixture("msg0002.gsm");
    let parts = Parts::of(&audio);
    let sent = (0..10).map(|n| parts.send(if n % 2 == 0 { &one } else { &two }));
    let answers = futures::future::join_all(sent).await;
    let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    // More than are read at a time are told to come again.
    statuses.retain(|status| *status != 503);
    statuses.sort_unstable();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 202].contains(status)), "{statuses:?}");
    while one.app.fetcher.step().await.unwrap() {}
    assert_eq!(parts.send(&two).await.status, 200);
    assert_eq!(tickets(&one).await, 1);
    assert_eq!(number(&one.pool, "SELECT count(*) FROM media WHERE state = 'kept'").await, 1);
    assert_eq!(number(&one.pool, "SELECT count(*) FROM citizen_upload").await, 0);
    assert_eq!(faults(&one).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_may_come_with_the_repeat_and_empty() {
    let gateway = night().start().await;
    let audio = fixture("msg0002.wav49");
    // Told without it, as parts and as plain JSON: one call.
    let parts = Parts::of(&audio);
    let alone = Parts { audio: None, event: parts.event.clone(), event_first: true };
    assert_eq!(alone.send(&gateway).await.status, 202);
    assert_eq!(gateway.hotline(&parts.event).await.status, 200);
    assert!(!gateway.app.fetcher.step().await.unwrap());
    assert_eq!(parts.send(&gateway).await.status, 200);
    while gateway.app.fetcher.step().await.unwrap() {}
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert!(desk.get(TICKET).await.text().contains("电话录音，8 秒"));
    // Nothing in it: somebody called.
    let empty = Parts { event: Parts::of(b"").event.replace("\"r1\"", "\"r2\""), ..Parts::of(b"") };
    assert_eq!(empty.send(&gateway).await.status, 202);
    while gateway.app.fetcher.step().await.unwrap() {}
    assert!(desk.get(TICKET).await.text().contains("录音缺失，请回拨询问"));
    // What was left behind by somebody who never came again goes after a week.
    let left = "INSERT INTO citizen_upload SELECT office_id, decode(repeat('ab', 32), 'hex'), 'x', \
                '2026-11-01' FROM office";
    sql(&mut gateway.pool.acquire().await.unwrap(), left).await;
    housekeeping::tidy(&gateway.app).await.unwrap();
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM citizen_upload WHERE content = 'x'").await,
        0
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_nobody_vouches_for_is_not_taken_and_the_call_is_not_lost() {
    let gateway = night().start().await;
    let audio = fixture("msg0002.gsm");
    let (right, other) = (Parts::of(&audio), wav());
    let exchanged = Parts { audio: Some(&other), event: right.event.clone(), event_first: false };
    let answer = exchanged.send(&gateway).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (422, Some("audio_hash")));
    let unsigned = EVENT.replace("\"{}\"", "null").replace("\"r1\"", "\"r2\"");
    let unsigned = Parts { event: unsigned, ..Parts::of(&audio) };
    let answer = unsigned.send(&gateway).await;
    assert_eq!((answer.status, answer.json()["error"].as_str()), (422, Some("audio_unsigned")));
    // Kept for people, without the recording.
    let kept = "SELECT count(*) FROM quarantine WHERE reason = 'bad_audio' AND length(raw) < 300";
    assert_eq!((number(&gateway.pool, kept).await, tickets(&gateway).await), (2, 0));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_upload").await, 0);
    // Another content under a known identity: neither its words nor its recording are taken.
    assert_eq!(right.send(&gateway).await.status, 202);
    while gateway.app.fetcher.step().await.unwrap() {}
    let reused = Parts::of(&other);
    assert_eq!(reused.send(&gateway).await.status, 200);
    assert!(!gateway.app.fetcher.step().await.unwrap());
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_upload").await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM media_object").await, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_not_signed_or_make_no_sense_are_refused() {
    let gateway = night().with("media.limit_mb = 1").start().await;
    let audio = fixture("msg0002.gsm");
    let right = Parts::of(&audio);
    // Signed is the event, and nothing else.
    for what in [right.body(), audio.clone(), Vec::new()] {
        assert_eq!(right.send_signed(&gateway, &what).await.status, 401);
    }
    let large = vec![0x80; 1024 * 1024 + 1];
    assert_eq!(Parts::of(&large).send(&gateway).await.status, 413);
    // What is too large altogether is refused before it is read: the sender hears so, or finds that
    // nobody listens to the rest.
    let huge = vec![0x80; 3 * 1024 * 1024];
    let parts = Parts::of(&huge);
    let sender = Sender::new("k1", "test-secret");
    let url = format!("{}/channels/hotline/pbx1", gateway.base);
    let mut request =
        gateway.client.post(url).header("content-type", "multipart/form-data; boundary=b0");
    for (name, value) in sender.headers(parts.event.as_bytes(), gateway.clock.now().timestamp()) {
        request = request.header(name, value);
    }
    match request.body(parts.body()).send().await {
        Ok(answer) => assert_eq!(answer.status(), 413),
        Err(error) => assert!(error.is_request(), "{error}"),
    }
    let wordy =
        Parts { event: format!("{}{}", right.event, " ".repeat(70_000)), ..Parts::of(&audio) };
    assert_eq!(wordy.send(&gateway).await.status, 413);
    // Bodies that only look like it: none is an error of ours.
    let body = right.body();
    let twice = [&body[..body.len() - 8], &body[..]].concat();
    let half = body[..body.len() / 2].to_vec();
    let headers = Sender::new("k1", "test-secret")
        .headers(right.event.as_bytes(), gateway.clock.now().timestamp());
    for kind in [
        "multipart/form-data; boundary=b0",
        "multipart/form-data",
        "multipart/form-data; boundary=\"\"",
    ] {
        for body in [
            twice.clone(),
            half.clone(),
            Vec::new(),
            b"--b0--\r\n".to_vec(),
            right.event.clone().into_bytes(),
        ] {
            let mut headers: Vec<(&str, &str)> =
                headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            headers.push(("content-type", kind));
            let answer = gateway.post("/channels/hotline/pbx1", &headers, body).await;
            assert_eq!((answer.status, answer.text().as_str()), (400, "refused\n"), "{kind}");
        }
    }
    assert_eq!(tickets(&gateway).await, 0);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM citizen_upload").await, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_understands_is_a_suggestion_and_no_words_of_the_citizen() {
    // It says how long the file is, so that it has read it, and where it lies.
    let place = folder().join("place");
    let script = format!(
        "echo \"$2\" > {}; stat -c %a \"$2\" > {0}.mode; printf '我的<社保卡>没有办成 %s' \"$1\"; wc -c < \"$2\"",
        place.display()
    );
    let program = program(&script);
    let settings = format!("transcribe.command = ['{}', 'zh']", program.display());
    let exchange = Exchange::start_with(&settings, "").await;
    let gateway = &exchange.gateway;
    let transcriber = &gateway.app.transcriber;
    exchange.leaves(1, &fixture("msg0002.gsm")).await;
    exchange.leaves(2, b"a form of its own").await;
    // The same again is not written down again.
    exchange.leaves(3, &fixture("msg0002.gsm")).await;
    let desk = Desk::login(gateway, "zhao.min").await;
    assert!(desk.get(TICKET).await.text().contains("正在转写"));
    assert!(transcriber.step().await.unwrap());
    assert!(!transcriber.step().await.unwrap());
    for n in [1, 3] {
        let page = desk.get(&ticket(n)).await.text();
        let says = "<b>机器转写，仅供参考</b> 我的&#60;社保卡&#62;没有办成 zh122924</p>";
        assert!(page.contains(says), "{page}");
    }
    assert!(!desk.get(&ticket(2)).await.text().contains("机器转写"));
    // Only this account could read it, and it is gone.
    let lay = fs::read_to_string(&place).unwrap();
    assert_eq!(fs::read_to_string(place.with_extension("mode")).unwrap(), "600\n");
    assert!(!Path::new(lay.trim()).exists() && lay.contains("recording.wav"));
    let elsewhere = "SELECT (SELECT count(*) FROM message WHERE text LIKE '%社保卡%') \
        + (SELECT count(*) FROM event WHERE data::text LIKE '%社保卡%') \
        + (SELECT count(*) FROM outbox WHERE data::text LIKE '%社保卡%')";
    assert_eq!(number(&gateway.pool, elsewhere).await, 0);
    // It goes with the recording.
    let gone = "UPDATE media SET state = 'removed', hash = NULL, removed_at = now() WHERE hash IS NOT NULL";
    sql(&mut gateway.pool.acquire().await.unwrap(), gone).await;
    let over = "UPDATE media_object SET unused_since = now() - interval '2 days'";
    sql(&mut gateway.pool.acquire().await.unwrap(), over).await;
    gateway.app.media.tidy().await.unwrap();
    assert_eq!(exchange.count("transcript").await, 0);
    exchange.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_fetch_and_write_down_by_themselves() {
    let root = folder();
    fs::write(root.join("1.bin"), wav()).unwrap();
    let source = freeswitch(&format!("audio.roots = ['{}']", root.display()));
    let settings = format!("transcribe.command = ['{}']", program("echo a").display());
    let gateway = night().with(&settings).with(&source).role(Role::All).start().await;
    let path = root.join("1.bin").display().to_string();
    push(&gateway, delivered(&"1".repeat(36), "13900001234", &path)).await;
    until("it is written down", async || {
        number(&gateway.pool, "SELECT count(*) FROM transcript WHERE text = 'a'").await == 1
    })
    .await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_fails_is_asked_again_and_then_left() {
    let settings = format!("transcribe.command = ['{}']", program("exit 1").display());
    let exchange = Exchange::start_with(&settings, "").await;
    let gateway = &exchange.gateway;
    exchange.leaves(1, &wav()).await;
    let transcriber = &gateway.app.transcriber;
    for wait in [0, 61, 601] {
        let now = gateway.clock.now();
        assert!(wait == 0 || !transcriber.step().await.unwrap());
        gateway.clock.set(now + chrono::TimeDelta::seconds(wait));
        assert!(transcriber.step().await.unwrap());
    }
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::days(1));
    assert!(!transcriber.step().await.unwrap());
    let desk = Desk::login(gateway, "zhao.min").await;
    let page = desk.get(TICKET).await.text();
    assert!(page.contains("没有转写成功，请听录音") && page.contains("<audio"), "{page}");
    exchange.gateway.stop().await;
    // Off, unless a program is named.
    let exchange = Exchange::start("").await;
    exchange.leaves(1, &wav()).await;
    assert!(!exchange.gateway.app.transcriber.step().await.unwrap());
    assert_eq!(exchange.count("transcript").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_seeks_in_a_recording_in_a_real_browser() {
    let script =
        program("printf '喂，你好，我想问一下我的社保卡补办了一个月还没有拿到，请给我回电话。'");
    let settings = format!("transcribe.command = ['{}']", script.display());
    let exchange = Exchange::start_with(&settings, "").await;
    let gateway = &exchange.gateway;
    exchange.leaves(1, &fixture("msg0002.gsm")).await;
    gateway.app.transcriber.step().await.unwrap();
    gateway.clock.set(at("2026-11-24 08:30"));
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
    log_in(&browser, "li.qiang").await;
    browser.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
    appears(&browser, "audio").await;
    if let Ok(file) = std::env::var("SCREENSHOT") {
        fs::write(&file, browser.screenshot().await.unwrap()).unwrap();
        let phone = driver.phone(390, 16).await;
        phone.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
        log_in(&phone, "li.qiang").await;
        phone.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
        appears(&phone, "audio").await;
        fs::write(format!("{file}.phone.png"), phone.screenshot().await.unwrap()).unwrap();
        let down = "document.querySelector('audio').scrollIntoView({block: 'center'}); return true";
        phone.execute(down, vec![]).await.unwrap();
        fs::write(format!("{file}.phone2.png"), phone.screenshot().await.unwrap()).unwrap();
        phone.close().await.unwrap();
    }
    // A browser plays for a hand only.
    appears(&browser, "h1").await.click().await.unwrap();
    let play = "const a = document.querySelector('audio'); a.muted = true; window.sought = []; \
        a.addEventListener('seeked', () => window.sought.push(a.currentTime)); \
        a.play().then(() => { a.currentTime = a.duration / 2; }); return true";
    browser.execute(play, vec![]).await.unwrap();
    let sought = "return window.sought.length > 0 && window.sought[0] > 3.8 && window.sought[0] < 4.5 \
        && Math.abs(document.querySelector('audio').duration - 7.68) < 0.01";
    until("it is sought to its middle", async || {
        browser.execute(sought, vec![]).await.unwrap() == true
    })
    .await;
    assert_eq!(exchange.count("media_opened WHERE variant = 'play'").await, 1);
    browser.close().await.unwrap();
}
