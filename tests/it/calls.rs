//! Calls: what exchanges tell, part by part and in any order, becomes one record of each call and one
//! ticket of each matter. The captures are those of real exchanges (adapters/hotline/tests/fixtures).

use crate::{
    browser::{Driver, appears, log_in},
    desk::Desk,
    media::TICKET,
    support::{Spec, TestGateway, at, gateway::Answer, number, until},
};
use intake_gateway::{
    calls::{self, Source, scan::Seen},
    secret,
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/adapters/hotline/tests/fixtures");
/// `fs:right-secret`.
pub const BASIC: (&str, &str) = ("authorization", "Basic ZnM6cmlnaHQtc2VjcmV0");
pub const VERIFY: &str = "verify.auth = { kind = 'basic', user = 'fs', password = 'right-secret' }";

/// The night in which the captures were made.
pub fn night() -> Spec {
    Spec::at(at("2026-11-23 23:46"))
}

pub fn freeswitch(more: &str) -> String {
    format!("[[hotline]]\noffice = 'tieling'\nid = 'fs'\nkind = 'freeswitch'\n{VERIFY}\n{more}")
}

pub fn vendor() -> String {
    let mapping = "mapping = 'tencent-tccc'";
    format!("[[hotline]]\noffice = 'tieling'\nid = 'tccc'\nkind = 'vendor'\n{VERIFY}\n{mapping}")
}

pub fn capture(name: &str) -> Vec<u8> {
    fs::read(format!("{FIXTURES}/freeswitch/{name}")).unwrap()
}

/// A voicemail that FreeSWITCH delivered, after the capture of one that was too short.
pub fn delivered(uuid: &str, caller: &str, path: &str) -> Vec<u8> {
    let capture = String::from_utf8(capture("007_json_cdr.body")).unwrap();
    let said = format!("\"voicemail_file_path\":\"{path}\",\"record_ms\":\"9380\"");
    capture
        .replace("b8d8d03e-67ae-4e95-a969-52582e7bcdf4", uuid)
        .replace("13700000001", caller)
        .replace("\"record_ms\":\"1520\"", &said)
        .into_bytes()
}

pub async fn push(gateway: &TestGateway, body: Vec<u8>) -> Answer {
    gateway.post("/channels/hotline/fs", &[BASIC], body).await
}

pub async fn tccc(gateway: &TestGateway, action: &str, body: &str) -> Answer {
    let path = format!("/channels/hotline/tccc?action={action}");
    gateway.post(&path, &[BASIC], body.as_bytes().to_vec()).await
}

/// Settles all that is due, after the moment for which a voicemail may be on the way.
pub async fn a_minute_later(gateway: &TestGateway) {
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::seconds(61));
    while calls::step(&gateway.app).await.unwrap() {}
}

pub async fn tickets(gateway: &TestGateway) -> i64 {
    number(&gateway.pool, "SELECT count(*) FROM ticket").await
}

pub async fn calls_of(gateway: &TestGateway) -> i64 {
    number(&gateway.pool, "SELECT count(*) FROM call").await
}

pub fn folder() -> PathBuf {
    let name = hex::encode(secret::random::<6>());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calls-{name}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A second of a tone, PCM, 8 kHz.
pub fn wav() -> Vec<u8> {
    let mut file = b"RIFF\xa4\x3e\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\x80\x3e\0\0".to_vec();
    file.extend((0..8000u32).flat_map(|n| (((n % 18) as i16 - 9) * 900).to_le_bytes()));
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn r5_2_a_call_told_by_three_modules_three_times_each_is_one_missed_call() {
    let gateway = night().with(&freeswitch("")).start().await;
    for _ in 0..3 {
        for name in ["001_json_cdr.body", "003_format_cdr.body", "002_xml_cdr.body"] {
            let answer = push(&gateway, capture(name)).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, ""));
        }
    }
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 0));
    a_minute_later(&gateway).await;
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    let page = Desk::login(&gateway, "zhao.min").await.get(TICKET).await.text();
    assert!(page.contains("未接来电") && page.contains("13700000002"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_hides_the_number_is_never_merged_and_marked() {
    let gateway = night().with(&freeswitch("")).start().await;
    push(&gateway, capture("004_json_cdr.body")).await;
    push(&gateway, capture("005_xml_cdr.body")).await;
    let other = String::from_utf8(capture("004_json_cdr.body")).unwrap();
    let other = other.replace("352d7f5f-8c84-4d5b-acd1-f6a9fae9c22d", &"1".repeat(36));
    push(&gateway, other.into_bytes()).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, 2));
    let page = Desk::login(&gateway, "zhao.min").await.get(TICKET).await.text();
    assert!(page.contains("无法回拨"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_again_in_the_same_night_has_one_ticket_until_somebody_takes_it_up() {
    let gateway = night().with(&freeswitch("")).start().await;
    for n in 1..=3 {
        let uuid = format!("{n}").repeat(36);
        push(&gateway, delivered(&uuid, "13900001234", "/x/msg.wav")).await;
    }
    push(&gateway, delivered(&"7".repeat(36), "13900009999", "/x/msg.wav")).await;
    // A hang-up of the same number goes there as well.
    let hung_up = String::from_utf8(capture("001_json_cdr.body")).unwrap();
    let hung_up = hung_up.replace("13700000002", "13900001234").replace("\"12333\"", "\"8001\"");
    push(&gateway, hung_up.into_bytes()).await;
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (5, 2));
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get(TICKET).await.text();
    assert!(page.contains("来电 4 次"), "{page}");

    let csrf = desk.csrf().await;
    let claimed = desk.post(&format!("{TICKET}/claim"), &[("csrf", &csrf)]).await;
    assert_eq!(claimed.status, 303, "{}", claimed.text());
    for n in 4..=5 {
        let uuid = format!("{n}").repeat(36);
        push(&gateway, delivered(&uuid, "13900001234", "/x/msg.wav")).await;
    }
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (7, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_vendor_make_one_call_and_one_ticket_in_whichever_order() {
    let voicemail = r#"{"SdkAppId":1,"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://r.example.com/1.mp3","EndpointUser":13900001234}"#;
    let record = r#"{"SdkAppId":1,"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795448700,"EndedTimestamp":1795448730,"Duration":30,"EndStatus":106}"#;
    let orders =
        [[("voicemail", voicemail), ("cdr", record)], [("cdr", record), ("voicemail", voicemail)]];
    for order in orders {
        let gateway = night().with(&vendor()).start().await;
        for _ in 0..3 {
            for (action, body) in order {
                let answer = tccc(&gateway, action, body).await;
                assert_eq!(answer.status, 200);
                assert_eq!(answer.json()["ErrCode"], 0);
            }
        }
        a_minute_later(&gateway).await;
        assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
        let whole = "SELECT count(*) FROM call WHERE line = '12333' AND ticket IS NOT NULL \
                     AND outcome = 'message_left' OR outcome = 'closed'";
        assert_eq!(number(&gateway.pool, whole).await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_one_line_over_two_exchanges_has_one_ticket() {
    let voicemail = r#"{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://r.example.com/1.mp3","EndpointUser":13900001234}"#;
    for (line, expected) in [("line = '12333'", 1), ("", 2)] {
        let both = format!("{}\n{}\n{line}", freeswitch(line), vendor());
        let gateway = night().with(&both).start().await;
        push(&gateway, delivered(&"1".repeat(36), "13900001234", "/x/msg.wav")).await;
        tccc(&gateway, "voicemail", voicemail).await;
        assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, expected), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_end_is_told_late_still_waits_for_its_voicemail() {
    let gateway = Spec::at(at("2026-11-23 10:06")).with(&vendor()).start().await;
    let unsaid = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795399500,"EndedTimestamp":1795399530}"#;
    let record = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795399500,"EndedTimestamp":1795399530,"Duration":30,"EndStatus":106}"#;
    let voicemail = r#"{"SessionId":"s1","Timestamp":1795399530,"RecordURL":"http://r.example.com/1.mp3","EndpointUser":13900001234}"#;
    tccc(&gateway, "cdr", unsaid).await;
    a_minute_later(&gateway).await;
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::minutes(5));
    tccc(&gateway, "cdr", record).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 0));
    tccc(&gateway, "voicemail", voicemail).await;
    a_minute_later(&gateway).await;
    let one = "SELECT count(*) FROM message WHERE text NOT LIKE '%未接来电%'";
    assert_eq!((tickets(&gateway).await, number(&gateway.pool, one).await), (1, 1));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 1);
}

/// At noon nobody is there to answer, but who answered before speaks on; and parts come in any order.
#[tokio::test(flavor = "multi_thread")]
async fn a_recording_of_which_nothing_is_known_yet_waits_for_what_it_was_of() {
    let record = r#"{"SessionId":"s1","RecordId":"r1","Timestamp":1795448730,"EndpointUser":"agent@example.com","RecordURL":"http://r.example.com/1.mp3"}"#;
    let spoken = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795448700,"EndedTimestamp":1795448730,"Duration":30,"EndStatus":1}"#;
    for (told, expected) in [(Some(spoken), 0), (None, 1)] {
        let gateway = night().with(&vendor()).start().await;
        tccc(&gateway, "record", record).await;
        assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 0));
        if let Some(spoken) = told {
            tccc(&gateway, "cdr", spoken).await;
        }
        a_minute_later(&gateway).await;
        assert_eq!(tickets(&gateway).await, expected, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voicemail_a_day_after_its_record_joins_the_ticket_of_the_missed_call() {
    let gateway = night().with(&vendor()).start().await;
    let record = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795448700,"EndedTimestamp":1795448730,"Duration":30,"EndStatus":106}"#;
    tccc(&gateway, "cdr", record).await;
    a_minute_later(&gateway).await;
    assert_eq!(tickets(&gateway).await, 1);
    gateway.clock.set(at("2026-11-25 00:10"));
    let voicemail = r#"{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://r.example.com/1.mp3","EndpointUser":13900001234}"#;
    tccc(&gateway, "voicemail", voicemail).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voicemail_that_comes_after_its_ticket_was_closed_is_a_matter_of_its_own() {
    let gateway = night().with(&vendor()).start().await;
    let record = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795448700,"EndedTimestamp":1795448730,"Duration":30,"EndStatus":106}"#;
    tccc(&gateway, "cdr", record).await;
    a_minute_later(&gateway).await;
    gateway.clock.set(at("2026-11-24 09:10"));
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    desk.post(&format!("{TICKET}/claim"), &[("csrf", &csrf)]).await;
    let solved = [("csrf", &*csrf), ("outcome", "solved"), ("opinion", "已补办")];
    assert_eq!(desk.post(&format!("{TICKET}/resolve"), &solved).await.status, 303);
    let closed = [("csrf", &*csrf), ("reason", "群众不愿评价")];
    assert_eq!(desk.post(&format!("{TICKET}/close"), &closed).await.status, 303);
    let voicemail = r#"{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://r.example.com/1.mp3","EndpointUser":13900001234}"#;
    tccc(&gateway, "voicemail", voicemail).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 2));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM held").await, 0);
    let waits = "SELECT count(*) FROM call_back WHERE ticket = 2026000000002 AND state = 'waiting'";
    assert_eq!(number(&gateway.pool, waits).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_name_another_call_has_is_told_of_all_the_same() {
    let gateway = night().with(&freeswitch("")).start().await;
    let body = String::from_utf8(capture("004_json_cdr.body")).unwrap();
    for (uuid, number) in [("1", "13900001234"), ("2", "13900005678")] {
        let body = body
            .replace("352d7f5f-8c84-4d5b-acd1-f6a9fae9c22d", &uuid.repeat(36))
            .replace(&format!("rec_{}.wav", uuid.repeat(36)), "night.wav")
            .replace("anonymous", number);
        assert_eq!(push(&gateway, body.into_bytes()).await.status, 200);
    }
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, 2));
    let waiting = "SELECT count(*) FROM call_back WHERE state = 'waiting'";
    assert_eq!(number(&gateway.pool, waiting).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_officer_dials_in_vain_is_no_missed_call() {
    let gateway = night().with(&freeswitch("")).start().await;
    let body = String::from_utf8(capture("001_json_cdr.body")).unwrap();
    push(&gateway, body.replace("13700000002", "8001").into_bytes()).await;
    a_minute_later(&gateway).await;
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_that_comes_after_the_recording_is_added_to_its_ticket() {
    let gateway = night().with(&vendor()).start().await;
    let voicemail =
        r#"{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://r.example.com/1.mp3"}"#;
    tccc(&gateway, "voicemail", voicemail).await;
    assert_eq!(
        number(&gateway.pool, "SELECT count(*) FROM ticket WHERE citizen_phone IS NULL").await,
        1
    );
    let record = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795448700,"EndedTimestamp":1795448730,"Duration":30,"EndStatus":106}"#;
    tccc(&gateway, "cdr", record).await;
    tccc(&gateway, "cdr", record).await;
    let known = "SELECT count(*) FROM ticket WHERE citizen_phone = '13900001234'";
    assert_eq!((number(&gateway.pool, known).await, tickets(&gateway).await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_call_whose_ticket_was_joined_into_another_makes_no_ticket() {
    let gateway = night().with(&vendor()).start().await;
    let voicemail =
        r#"{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://r.example.com/1.mp3"}"#;
    tccc(&gateway, "voicemail", voicemail).await;
    gateway.wechat("oA", "灯坏了", "1").await.reply();
    let desk = Desk::login(&gateway, "zhao.min").await;
    let csrf = desk.csrf().await;
    let form = [("csrf", csrf.as_str()), ("into", "BCS-2026-000002")];
    assert_eq!(desk.post(&format!("{TICKET}/join"), &form).await.status, 303);
    let moved = "SELECT count(*) FROM call WHERE ticket % 1000000000 = 2";
    assert_eq!(number(&gateway.pool, moved).await, 1);
    let record = r#"{"SessionId":"s1","Direction":"0","Caller":"13900001234","Callee":"12333","StartTimestamp":1795448700,"EndedTimestamp":1795448730,"Duration":30,"EndStatus":106}"#;
    tccc(&gateway, "cdr", record).await;
    assert_eq!(tickets(&gateway).await, 2);
    assert_eq!(crate::verify::faults(&gateway).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_that_hear_the_same_at_once_make_one_ticket() {
    let one = night().with(&freeswitch("")).with(&vendor()).start().await;
    let two = night().with(&freeswitch("")).with(&vendor()).on(&one.database_url).start().await;
    let pushes = (0..12).map(|n| {
        let gateway = if n % 2 == 0 { &one } else { &two };
        let uuid = if n < 6 { "1" } else { "2" }.repeat(36);
        push(gateway, delivered(&uuid, "13900001234", "/x/msg.wav"))
    });
    for answer in futures::future::join_all(pushes).await {
        assert_eq!(answer.status, 200);
    }
    a_minute_later(&one).await;
    assert_eq!((calls_of(&one).await, tickets(&one).await), (2, 1));
    assert_eq!(number(&one.pool, "SELECT count(*) FROM message").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_calls_make_tickets_as_the_policy_says() {
    for (policy, expected) in [("off", 0), ("aggregate", 1), ("always", 2)] {
        let settings = freeswitch(&format!("missed_calls = '{policy}'"));
        let gateway = night().with(&settings).start().await;
        push(&gateway, capture("001_json_cdr.body")).await;
        let again = String::from_utf8(capture("001_json_cdr.body")).unwrap();
        let again = again.replace("a2150427-c1fb-4761-8c8d-611ff7aa1992", &"2".repeat(36));
        push(&gateway, again.into_bytes()).await;
        a_minute_later(&gateway).await;
        assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, expected), "{policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_acknowledged_kept_and_can_be_tried_again() {
    let gateway = night().with(&freeswitch("")).start().await;
    let refused = gateway.post("/channels/hotline/fs", &[], b"{}".to_vec()).await;
    assert_eq!(refused.status, 401);
    for _ in 0..2 {
        assert_eq!(push(&gateway, b"<cdr><variables>".to_vec()).await.status, 200);
    }
    let kept = "SELECT count(*) FROM quarantine WHERE source = 'hotline:fs' AND state = 'open'";
    assert_eq!((number(&gateway.pool, kept).await, calls_of(&gateway).await), (1, 0));
    // As after an update that reads it: here, the content is exchanged.
    let raw = delivered(&"1".repeat(36), "13900001234", "/x/msg.wav");
    sqlx::query("UPDATE quarantine SET raw = $1").bind(raw).execute(&gateway.pool).await.unwrap();
    let id = number(&gateway.pool, "SELECT quarantine_id FROM quarantine").await;
    let id = intake_gateway::domain::id::QuarantineId(id);
    let replayed =
        intake_gateway::quarantine::replay(&gateway.app, gateway.office, id, "test").await;
    assert!(replayed.unwrap().is_some());
    assert_eq!((number(&gateway.pool, kept).await, tickets(&gateway).await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signed_webhook_keeps_its_calls_and_merges_repeat_callers() {
    let gateway = night().start().await;
    let one = gateway.voicemail("r1", "2026-11-23T23:40:00+08:00").await;
    let two = gateway.voicemail("r2", "2026-11-23T23:44:00+08:00").await;
    let again = gateway.voicemail("r1", "2026-11-23T23:40:00+08:00").await;
    assert_eq!((one.status, two.status, again.status), (202, 202, 200));
    assert_eq!((one.number(), two.number()), (again.number(), again.number()));
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, 1));
    // The next night is another matter.
    gateway.clock.set(at("2026-11-24 20:00"));
    gateway.voicemail("r3", "2026-11-24T19:59:00+08:00").await;
    assert_eq!(tickets(&gateway).await, 2);
}

pub struct Spool {
    pub root: PathBuf,
}

impl Spool {
    pub fn new() -> Self {
        Self { root: folder() }
    }

    pub fn inbox(&self, mailbox: &str) -> PathBuf {
        let folder = self.root.join("default").join(mailbox).join("INBOX");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// As Asterisk does: the sound first, the text last.
    pub fn put(&self, mailbox: &str, stem: &str, fixture: &str) {
        let folder = self.inbox(mailbox);
        fs::write(folder.join(format!("{stem}.wav")), wav()).unwrap();
        let text = fs::read(format!("{FIXTURES}/asterisk/{fixture}")).unwrap();
        fs::write(folder.join(format!("{stem}.txt")), text).unwrap();
    }

    pub fn settings(&self, more: &str) -> String {
        let root = self.root.display();
        format!(
            "[[hotline]]\noffice = 'tieling'\nid = 'ast'\nkind = 'asterisk'\nspools = ['{root}']\n\
             since = '2026-11-23T00:00:00+08:00'\n{more}"
        )
    }
}

pub fn source(gateway: &TestGateway, name: &str) -> Arc<Source> {
    Arc::clone(gateway.app.sources.of(gateway.office, name).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_is_read_by_the_messages_identity_whatever_their_numbers() {
    let spool = Spool::new();
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    spool.put("8001", "msg0000", "8001_msg0000.txt");
    let gateway = night().with(&spool.settings("")).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    let mut seen = Seen::new();
    assert_eq!(calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap(), 2);
    assert_eq!(calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap(), 0);
    // The first one is deleted, the next takes its number; a process starts anew.
    let inbox = spool.inbox("12333");
    for end in ["txt", "wav"] {
        fs::rename(inbox.join(format!("msg0000.{end}")), inbox.join(format!("msg0007.{end}")))
            .unwrap();
    }
    spool.put("12333", "msg0000", "12333_msg0002.txt");
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (3, 3));
    // And their sound is found where it lies by now.
    while gateway.app.fetcher.step().await.unwrap() {}
    let stored = "SELECT count(*) FROM call_recording WHERE state = 'stored' AND hash IS NOT NULL";
    assert_eq!(number(&gateway.pool, stored).await, 3);
    let page = Desk::login(&gateway, "zhao.min").await.get(TICKET).await.text();
    assert!(page.contains("<audio"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn call_records_complete_messages_and_tell_of_those_who_left_none() {
    let spool = Spool::new();
    let csv = format!("cdr_csv = '{FIXTURES}/asterisk/cdr.csv'\nzone = 'UTC'");
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    spool.put("12333", "msg0001", "12333_msg0002.txt");
    let gateway = night().with(&spool.settings(&csv)).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    // This one comes after its call record was taken.
    spool.put("8001", "msg0000", "8001_msg0000.txt");
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    a_minute_later(&gateway).await;
    assert_eq!(calls_of(&gateway).await, 12, "every call record, and no call twice");
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM call_recording").await, 3);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM call WHERE ticket IS NULL").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_taken_before_its_call_record_stays_one_call_after_it_left_the_spool() {
    let spool = Spool::new();
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    let csv = spool.root.join("Master.csv");
    let settings = spool.settings(&format!("cdr_csv = '{}'\nzone = 'UTC'", csv.display()));
    let gateway = night().with(&settings).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    fs::remove_dir_all(spool.inbox("12333")).unwrap();
    let records = fs::read_to_string(format!("{FIXTURES}/asterisk/cdr.csv")).unwrap();
    fs::write(&csv, records.lines().next().unwrap().to_owned() + "\n").unwrap();
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    let completed = "SELECT count(*) FROM call WHERE facts ->> 'call_s' = '22'";
    assert_eq!(number(&gateway.pool, completed).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_connected_tells_of_what_is_new_and_of_what_nobody_has_heard() {
    let spool = Spool::new();
    spool.put("12333", "msg0000", "12333_msg0000.txt");
    spool.put("8001", "msg0000", "8001_msg0000.txt");
    // Heard long ago.
    fs::rename(spool.inbox("8001"), spool.root.join("default/8001/Old")).unwrap();
    let csv = spool.root.join("Master.csv");
    let rows = fs::read_to_string(format!("{FIXTURES}/asterisk/cdr.csv")).unwrap();
    fs::write(&csv, &rows).unwrap();
    let settings = spool.settings(&format!("cdr_csv = '{}'\nzone = 'UTC'", csv.display()));
    let settings = settings.replace("since = '2026-11-23T00:00:00+08:00'", "");
    let gateway = night().with(&settings).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    // The next night: a call, a message; a process that starts anew remembers since when.
    let later = |text: &str| text.replace("2026-11-23", "2026-11-24");
    let row = later(rows.lines().find(|row| row.contains("13700000002")).unwrap());
    fs::write(&csv, format!("{rows}{}\n", row.replace("1795446870.7", "1795533270.7"))).unwrap();
    spool.put("8001", "msg0001", "8001_msg0000.txt");
    let path = spool.inbox("8001").join("msg0001.txt");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("1795446853", "1795533253")).unwrap();
    fs::rename(
        spool.inbox("8001").join("msg0001.txt"),
        spool.root.join("default/8001/Old/msg0001.txt"),
    )
    .unwrap();
    gateway.clock.set(at("2026-11-24 23:46"));
    calls::scan::scan(&gateway.app, &asterisk, &mut Seen::new()).await.unwrap();
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_length_never_comes_does_not_wait_for_ever() {
    let spool = Spool::new();
    spool.put("8001", "msg0000", "8001_msg0000.txt");
    let path = spool.inbox("8001").join("msg0000.txt");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("duration=9\n", "duration=\n")).unwrap();
    let gateway = night().with(&spool.settings("")).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    let mut seen = Seen::new();
    assert_eq!(calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap(), 0);
    // As after some minutes; files keep the machine's time.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap(), 1);
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    while gateway.app.fetcher.step().await.unwrap() {}
    let stored = "SELECT count(*) FROM call_recording WHERE state = 'stored'";
    assert_eq!(number(&gateway.pool, stored).await, 1);
    // Should it come after all, it is the same message.
    fs::write(&path, text).unwrap();
    calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap();
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM message").await, 1);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn call_records_that_cannot_be_read_are_put_aside_and_others_are_no_citizens() {
    let spool = Spool::new();
    spool.inbox("12333");
    let csv = spool.root.join("Master.csv");
    let rows = fs::read_to_string(format!("{FIXTURES}/asterisk/cdr.csv")).unwrap();
    let hung_up = rows.lines().find(|row| row.contains("13700000002")).unwrap();
    // Out by the trunk, from an extension, and the second half of a queue's call to the telephone.
    let out =
        hung_up.replace("13700000002", "02474123456").replace("1795446870.7", "1795446870.20");
    let inside = hung_up.replace("from-carrier", "from-inside").replace("870.7", "870.21");
    let half =
        hung_up.replace("SIP/127.0.0.1-00000007", "Local/8001@q-01;2").replace("870.7", "870.22");
    let unread = hung_up.rsplit_once(",\"1795446870.7\"").unwrap().0;
    let old = unread.replace("2026-11-23", "2026-01-23");
    let all = [hung_up, &out, &inside, &half, unread, &old, "\"being writt"].join("\n");
    fs::write(&csv, all).unwrap();
    let settings = spool.settings(&format!(
        "cdr_csv = '{}'\nzone = 'UTC'\ncontexts = ['from-carrier']\nnumbering.own = ['024-74123456']",
        csv.display()
    ));
    let gateway = night().with(&settings).start().await;
    let asterisk = source(&gateway, "hotline:ast");
    let mut seen = Seen::new();
    for _ in 0..2 {
        calls::scan::scan(&gateway.app, &asterisk, &mut seen).await.unwrap();
    }
    a_minute_later(&gateway).await;
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    let aside = "SELECT count(*) FROM quarantine WHERE reason = 'unknown_form'";
    assert_eq!(number(&gateway.pool, aside).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_freeswitch_could_not_deliver_is_taken_from_its_folder_once() {
    let folder = folder();
    // Named by the call's identity, which may be that of SIP.
    let name = "a_1-4675@10.0.0.1.cdr.json";
    fs::write(folder.join(name), capture("001_json_cdr.body")).unwrap();
    fs::write(folder.join("notes.txt"), "x").unwrap();
    let more = format!("err_log_dir = '{}'", folder.display());
    let gateway = night().with(&freeswitch(&more)).start().await;
    let fs_source = source(&gateway, "hotline:fs");
    let look =
        async || calls::scan::scan(&gateway.app, &fs_source, &mut Seen::new()).await.unwrap();
    assert_eq!((look().await, look().await), (1, 0));
    push(&gateway, capture("001_json_cdr.body")).await;
    assert_eq!(calls_of(&gateway).await, 1);
    assert!(folder.join(format!("{name}.taken")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_taken_from_the_configured_folders_and_from_nowhere_else() {
    let (root, elsewhere) = (folder(), folder());
    fs::write(root.join("good.wav"), wav()).unwrap();
    fs::write(elsewhere.join("secret.wav"), wav()).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("secret.wav"), root.join("link.wav")).unwrap();
    let gateway =
        night().with(&freeswitch(&format!("audio.roots = ['{}']", root.display()))).start().await;
    let outside = elsewhere.join("secret.wav").display().to_string();
    let inside = |name: &str| root.join(name).display().to_string();
    let dots = format!(
        "{}/../{}/secret.wav",
        root.display(),
        elsewhere.file_name().unwrap().to_str().unwrap()
    );
    let paths = [inside("good.wav"), outside, inside("link.wav"), dots, inside("late.wav")];
    for (n, path) in paths.iter().enumerate() {
        let (uuid, caller) = (format!("{n}").repeat(36), format!("1390000{n:04}"));
        assert_eq!(push(&gateway, delivered(&uuid, &caller, path)).await.status, 200);
    }
    assert_eq!(tickets(&gateway).await, 5);
    while gateway.app.fetcher.step().await.unwrap() {}
    let count = async |state: &str| {
        number(
            &gateway.pool,
            &format!("SELECT count(*) FROM call_recording WHERE state = '{state}'"),
        )
        .await
    };
    assert_eq!((count("stored").await, count("failed").await, count("announced").await), (1, 3, 1));
    let desk = Desk::login(&gateway, "zhao.min").await;
    assert!(desk.get(TICKET).await.text().contains("<audio"));
    let heard = desk.get("/desk/media/BCS-2026-000001/1/0/play").await;
    assert_eq!((heard.status, heard.body), (200, wav()));
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM media_opened").await, 1);
    // An exchange that is late with the file.
    fs::write(root.join("late.wav"), wav()).unwrap();
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::seconds(11));
    while gateway.app.fetcher.step().await.unwrap() {}
    assert_eq!(count("stored").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_fetched_from_listed_hosts_and_inside_only_where_that_is_written_out() {
    use axum::{Router, response::Redirect, routing::get};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let away = format!("http://localhost:{port}/good.wav");
    let router = Router::new()
        .route("/good.wav", get(async || wav()))
        .route("/round.wav", get(async || Redirect::temporary("/good.wav")))
        .route("/away.wav", get(async move || Redirect::temporary(&away)))
        .route("/large.wav", get(async || vec![0u8; 3 * 1024 * 1024]));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let cases = [
        ("inside_hosts = ['127.0.0.1']", "good", "stored"),
        ("inside_hosts = ['127.0.0.1']", "round", "stored"),
        ("inside_hosts = ['127.0.0.1']", "away", "failed"),
        ("inside_hosts = ['127.0.0.1']", "large", "failed"),
        ("hosts = ['127.0.0.1']\nallow_http = true", "good", "failed"),
        ("hosts = ['127.0.0.1']", "good", "failed"),
        ("hosts = ['*.example.com']", "good", "failed"),
    ];
    for (audio, name, state) in cases {
        let settings = format!("{}\n[hotline.audio]\n{audio}\n", vendor());
        let gateway = night().with("media.limit_mb = 1").with(&settings).start().await;
        let voicemail = format!(
            r#"{{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://127.0.0.1:{port}/{name}.wav","EndpointUser":13900001234}}"#
        );
        tccc(&gateway, "voicemail", &voicemail).await;
        while gateway.app.fetcher.step().await.unwrap() {}
        let query = format!("SELECT count(*) FROM call_recording WHERE state = '{state}'");
        assert_eq!(number(&gateway.pool, &query).await, 1, "{audio} {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_instead_of_a_recording_is_not_kept_as_one() {
    use axum::{Router, routing::get};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let late = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_late = Arc::clone(&late);
    let router =
        Router::new().route("/login", get(async || "<!DOCTYPE html><title>登录</title>")).route(
            "/late",
            get(async move || match is_late.load(std::sync::atomic::Ordering::SeqCst) {
                true => wav(),
                false => b"{\"code\":404,\"msg\":\"not ready\"}".to_vec(),
            }),
        );
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = format!("{}\n[hotline.audio]\ninside_hosts = ['127.0.0.1']\n", vendor());
    let gateway = night().with(&settings).start().await;
    for (n, name) in ["login", "late"].iter().enumerate() {
        let voicemail = format!(
            r#"{{"SessionId":"s{n}","Timestamp":1795448730,"RecordURL":"http://127.0.0.1:{port}/{name}","EndpointUser":1390000123{n}}}"#
        );
        tccc(&gateway, "voicemail", &voicemail).await;
    }
    let states = async |states: [&str; 3]| {
        let mut counts = [0; 3];
        for (count, state) in counts.iter_mut().zip(states) {
            let query = format!("SELECT count(*) FROM call_recording WHERE state = '{state}'");
            *count = number(&gateway.pool, &query).await;
        }
        counts
    };
    let all = ["announced", "stored", "failed"];
    while gateway.app.fetcher.step().await.unwrap() {}
    assert_eq!(states(all).await, [2, 0, 0]);
    late.store(true, std::sync::atomic::Ordering::SeqCst);
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::seconds(11));
    while gateway.app.fetcher.step().await.unwrap() {}
    assert_eq!(states(all).await, [1, 1, 0]);
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::days(4));
    while gateway.app.fetcher.step().await.unwrap() {}
    assert_eq!(states(all).await, [0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_link_is_followed_also_after_the_first_one_was_given_up() {
    use axum::{Router, routing::get};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/new.wav", get(async || wav()));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = format!("{}\n[hotline.audio]\ninside_hosts = ['127.0.0.1']\n", vendor());
    let gateway = night().with(&settings).start().await;
    let tell = async |name: &str| {
        let body = format!(
            r#"{{"SessionId":"s1","Timestamp":1795448730,"RecordURL":"http://127.0.0.1:{port}/{name}.wav","EndpointUser":13900001234}}"#
        );
        assert_eq!(tccc(&gateway, "voicemail", &body).await.status, 200);
        while gateway.app.fetcher.step().await.unwrap() {}
    };
    let states = async |state: &str| {
        let query = format!("SELECT count(*) FROM call_recording WHERE state = '{state}'");
        number(&gateway.pool, &query).await
    };
    tell("ended").await;
    gateway.clock.set(gateway.clock.now() + chrono::TimeDelta::days(4));
    tell("ended").await;
    assert_eq!((states("expired").await, states("announced").await), (1, 0));
    tell("other").await;
    assert_eq!((states("expired").await, states("announced").await), (0, 1));
    // A late repeat of the first is no renewal.
    tell("ended").await;
    let looked_at = "SELECT count(*) FROM media WHERE reference LIKE '%/other.wav'";
    assert_eq!(number(&gateway.pool, looked_at).await, 1);
    tell("new").await;
    assert_eq!((states("stored").await, tickets(&gateway).await), (1, 1));
    // What is here stays, whatever is told then.
    tell("ended").await;
    assert_eq!(states("stored").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_officer_hears_a_recording_in_a_real_browser() {
    let root = folder();
    fs::write(root.join("good.wav"), wav()).unwrap();
    let settings = freeswitch(&format!("audio.roots = ['{}']", root.display()));
    let gateway = night().with(&settings).start().await;
    let path = root.join("good.wav").display().to_string();
    push(&gateway, delivered(&"1".repeat(36), "13900001234", &path)).await;
    push(&gateway, delivered(&"2".repeat(36), "13900001234", &path)).await;
    while gateway.app.fetcher.step().await.unwrap() {}
    gateway.clock.set(at("2026-11-24 08:30"));
    let driver = Driver::start().await;
    let browser = driver.browser(1366, 768).await;
    browser.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
    log_in(&browser, "zhao.min").await;
    browser.goto(&format!("{}{TICKET}", gateway.base)).await.unwrap();
    appears(&browser, "audio").await;
    if let Ok(file) = std::env::var("SCREENSHOT") {
        fs::write(&file, browser.screenshot().await.unwrap()).unwrap();
        browser.set_window_size(390, 844).await.unwrap();
        fs::write(format!("{file}.phone.png"), browser.screenshot().await.unwrap()).unwrap();
    }
    // A browser plays for a hand only.
    appears(&browser, "h1").await.click().await.unwrap();
    let seek = "const a = document.querySelector('audio'); a.muted = true; \
                a.play().then(() => { a.currentTime = 0.6; }); return true";
    browser.execute(seek, vec![]).await.unwrap();
    until("it is heard to its end", async || {
        let ended = browser.execute("return document.querySelector('audio').ended", vec![]).await;
        ended.unwrap() == true
    })
    .await;
    browser.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_from_the_call_that_is_held_can_be_taken_as_one_of_its_own() {
    let gateway = night().with(&freeswitch("")).start().await;
    let uuid = "1".repeat(36);
    push(&gateway, delivered(&uuid, "13900001234", "/x/msg.wav")).await;
    let other = delivered(&uuid, "13900005678", "/x/msg.wav");
    for _ in 0..2 {
        assert_eq!(push(&gateway, other.clone()).await.status, 200);
    }
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (1, 1));
    let kept: Vec<u8> =
        sqlx::query_scalar("SELECT raw FROM quarantine WHERE reason = 'call_differs'")
            .fetch_one(&gateway.pool)
            .await
            .unwrap();
    assert_eq!(kept, other, "the original, for people");
    let desk = Desk::login(&gateway, "zhao.min").await;
    let page = desk.get("/desk/quarantine").await.text();
    assert!(page.contains("来电编号已被另一通来电使用"), "{page}");
    let id = number(&gateway.pool, "SELECT quarantine_id FROM quarantine").await;
    let csrf = desk.csrf().await;
    let again = desk.post(&format!("/desk/quarantine/{id}/replay"), &[("csrf", &csrf)]).await;
    assert_eq!(again.status, 303, "{}", again.text());
    assert_eq!((calls_of(&gateway).await, tickets(&gateway).await), (2, 2));
    let waits = "SELECT count(*) FROM call_back b JOIN ticket t USING (office_id, ticket) \
                 WHERE b.state = 'waiting' AND t.citizen_phone = '13900005678'";
    assert_eq!(number(&gateway.pool, waits).await, 1);
    let open = "SELECT count(*) FROM quarantine WHERE state = 'open'";
    assert_eq!(number(&gateway.pool, open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_of_two_callers_is_two_matters_and_a_long_one_is_kept_whole() {
    let gateway = night().start().await;
    let send = async |recording: &str, call: &str, caller: &str, at: &str| {
        let body = serde_json::json!({
            "v": 1, "recording_id": recording, "call_id": call, "caller": caller, "callee": "12333",
            "started_at": at, "duration_s": 14
        });
        let body = body.to_string();
        let sender = intake_hotline::sender::Sender::new("k1", "test-secret");
        let headers = sender.headers(body.as_bytes(), gateway.clock.now().timestamp());
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers.iter().map(|(n, v)| (*n, v.as_str())));
        gateway.post("/channels/hotline/pbx1", &all, body.into_bytes()).await.status
    };
    let tonight = "2026-11-23T23:11:54+08:00";
    let waiting = "SELECT count(*) FROM call_back WHERE state = 'waiting'";
    assert_eq!(send("r1", "17", "13900009999", tonight).await, 202);
    assert_eq!(send("r2", "17", "13800001111", tonight).await, 202);
    // A repeat, and a second message of that caller under the identity of the first one's call.
    assert_eq!(send("r2", "17", "13800001111", tonight).await, 200);
    assert_eq!(send("r3", "17", "13800001111", tonight).await, 202);
    let phones = "SELECT count(DISTINCT citizen_phone) FROM ticket";
    assert_eq!((tickets(&gateway).await, number(&gateway.pool, phones).await), (2, 2));
    assert_eq!((calls_of(&gateway).await, number(&gateway.pool, waiting).await), (2, 2));
    let apart =
        "SELECT count(*) FROM call_recording WHERE call_key LIKE '17#%' AND seq IS NOT NULL";
    assert_eq!(number(&gateway.pool, apart).await, 2);
    assert_eq!(number(&gateway.pool, "SELECT count(*) FROM quarantine").await, 0);
    let long = "r".repeat(200);
    assert_eq!(send(&long, &long, "13700002222", tonight).await, 202);
    assert_eq!(send(&long, &long, "13700002222", tonight).await, 200);
    assert_eq!(tickets(&gateway).await, 3);
    let waits = "SELECT count(*) FROM call_back WHERE ticket = 2026000000003 AND state = 'waiting'";
    assert_eq!(number(&gateway.pool, waits).await, 1);
    gateway.stop().await;
}
