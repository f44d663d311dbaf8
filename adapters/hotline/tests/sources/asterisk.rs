use crate::{SOURCE, at, e164, fixture, numbering};
use intake_hotline::{
    AudioRef, CallEvent, Caller, Kind, Numbering, Outcome, Unread, Zone,
    asterisk::{
        CallRecord, Message, audio_file, call_records, mailbox_changed, message_file, mix_monitor,
        posted, recording_event, without_copies,
    },
};

fn message(file: &str) -> Message {
    let mailbox = file.split('_').next().expect("a mailbox");
    Message::parse(&fixture(&format!("asterisk/{file}.txt")), "default", mailbox).expect(file)
}

fn records() -> Vec<CallRecord> {
    let zone = Zone::parse("UTC").expect("a zone");
    call_records(&fixture("asterisk/cdr.csv"), zone)
        .into_iter()
        .map(|r| r.expect("a row"))
        .collect()
}

#[test]
fn messages_of_the_spool_are_read_in_each_shape_of_caller() {
    let quoted = message("12333_msg0000");
    assert_eq!(quoted.recording_key(), "default/12333/1795446714-00000000");
    assert_eq!(quoted.recorded_at, Some(at(1_795_446_714)));
    assert_eq!(quoted.duration_s, Some(14));
    assert_eq!(quoted.category.as_deref(), Some("night"));
    assert!(!quoted.urgent);
    let audio = AudioRef::Local("msg0000.wav".to_owned());
    let call = quoted.call(SOURCE, None, Some(audio), &numbering()).expect("a call");
    assert_eq!((call.kind, call.outcome), (Kind::Voicemail, Some(Outcome::MessageLeft)));
    assert_eq!(e164(&call), "+8613900001234");
    assert_eq!(call.caller_name, None, "the number again is no name");
    assert_eq!(call.callee.as_deref(), Some("12333"));
    assert_eq!(call.spoken_at(), Some(at(1_795_446_714)));
    assert!(call.has_message());

    let named = message("8001_msg0000").call(SOURCE, None, None, &numbering()).expect("a call");
    assert_eq!(e164(&named), "+862423456789");
    assert_eq!(named.caller_name.as_deref(), Some("张三"));

    let bare = message("12333_msg0002").call(SOURCE, None, None, &numbering()).expect("a call");
    assert_eq!(e164(&bare), "+8613800005678");

    let text = String::from_utf8(fixture("asterisk/12333_msg0002.txt")).expect("text");
    let hidden = text.replace("callerid=+8613800005678", "callerid=\"Anonymous\" <anonymous>");
    let hidden = Message::parse(hidden.as_bytes(), "default", "12333").expect("a message");
    let call = hidden.call(SOURCE, None, None, &numbering()).expect("a call");
    assert_eq!((call.caller, call.caller_name), (Some(Caller::Anonymous), None));
}

#[test]
fn a_message_and_its_recording_are_told_by_their_names() {
    assert_eq!(message_file("msg0012.txt"), Some("msg0012"));
    for other in
        ["msg0012.wav", "msg12.txt", "msgabcd.txt", ".lock", "unavail.wav", "msg0012.txt.tmp"]
    {
        assert_eq!(message_file(other), None, "{other}");
    }
    let spool =
        ["msg0000.WAV", "msg0000.gsm", "msg0000.txt", "msg0000.wav", "msg0001.gsm", "msg0001.WAV"];
    assert_eq!(audio_file("msg0000", &spool), Some("msg0000.wav"));
    assert_eq!(audio_file("msg0001", &spool), Some("msg0001.WAV"));
    assert_eq!(audio_file("msg0002", &spool), None);
}

#[test]
fn a_message_without_identity_gets_one_that_stays() {
    let text = String::from_utf8(fixture("asterisk/12333_msg0000.txt")).expect("text");
    let old = text.replace("msg_id=1795446714-00000000\n", "");
    let read = |text: &str| Message::parse(text.as_bytes(), "default", "12333").expect("a message");
    assert_eq!(read(&old).msg_id, read(&old).msg_id);
    assert!(read(&old).msg_id.starts_with('h'));
    assert_ne!(
        read(&old).msg_id,
        read(&old.replace("origtime=1795446714", "origtime=1795446715")).msg_id
    );
}

#[test]
fn flags_raw_bytes_and_unfinished_files_are_known() {
    let text = String::from_utf8(fixture("asterisk/8001_msg0000.txt")).expect("text");
    let urgent = text.replace("flag=\n", "flag=Urgent\n");
    assert!(Message::parse(urgent.as_bytes(), "default", "8001").expect("a message").urgent);

    let (before, after) = text.split_once("张三").expect("a name");
    let gbk = [before.as_bytes(), b"\xd5\xc5\xc8\xfd", after.as_bytes()].concat();
    let gbk = Message::parse(&gbk, "default", "8001").expect("a message");
    let call = gbk.call(SOURCE, None, None, &numbering()).expect("a call");
    assert_eq!(call.caller_name.as_deref(), Some("张三"));

    let unfinished = text.replace("duration=9\n", "");
    let unfinished = Message::parse(unfinished.as_bytes(), "default", "8001").expect("a message");
    assert_eq!(unfinished.duration_s, None);
    let call = unfinished.call(SOURCE, None, None, &numbering()).expect("a call");
    assert!(call.recordings.values().all(|recording| recording.says_something()));
    assert_eq!(Message::parse(b"", "default", "8001"), Err(Unread::Form));
    assert_eq!(Message::parse(b"msg_id=1\nduration=1", "default", "8001"), Err(Unread::Form));
}

#[test]
fn call_records_are_read_row_by_row_in_the_sources_zone() {
    let records = records();
    assert_eq!(records.len(), 12);
    let first = records[0].call(SOURCE, &numbering()).expect("a call");
    assert_eq!(first.call_key, "1795446706.0");
    assert_eq!(first.started_at, Some(at(1_795_446_706)));
    assert_eq!(first.ended_at, Some(at(1_795_446_728)));
    assert_eq!((first.call_s, first.outcome), (Some(22), Some(Outcome::GaveUp)));
    let named = records[1].call(SOURCE, &numbering()).expect("a call");
    assert_eq!(named.caller_name.as_deref(), Some("张三"));
    // The same file of an exchange whose clock runs in China lies eight hours earlier.
    let in_china = call_records(&fixture("asterisk/cdr.csv"), Zone::china());
    let in_china = in_china[0].as_ref().expect("a row").started_at;
    assert_eq!(in_china, at(1_795_446_706 - 8 * 3600));

    let mut spoilt = b"\"a\",\"b\"\n\xff\xff\n".to_vec();
    spoilt.extend(fixture("asterisk/cdr.csv"));
    let rows = call_records(&spoilt, Zone::china());
    assert_eq!(rows.iter().filter(|row| row.is_ok()).count(), 12);
    assert_eq!(rows.iter().filter(|row| row.is_err()).count(), 2);
}

#[test]
fn call_records_are_read_in_each_layout_that_has_an_identity() {
    let rows = String::from_utf8(fixture("asterisk/cdr.csv")).expect("text");
    let first = rows.lines().next().expect("a row");
    let told = records()[0].clone();
    let without_user = first.strip_suffix(",\"\"").expect("a userfield");
    for row in [
        format!("{without_user}\n"),
        format!("{without_user},\"\",\"1795446706.0\",\"0\"\n"),
        format!("{first},\"\",\"1795446706.0\",\"0\"\n"),
    ] {
        assert_eq!(call_records(row.as_bytes(), utc()), [Ok(told.clone())], "{row}");
    }
    let named = first.replace("1795446706.0", "pbx-1-1795446706.0");
    let named = call_records(named.as_bytes(), utc()).remove(0).expect("a row");
    assert_eq!(named.unique_id, "pbx-1-1795446706.0");
    // Without one, or with something else in its place, it is none; the time is known all the same.
    let without_id = without_user.strip_suffix(",\"1795446706.0\"").expect("an identity");
    for (row, unread) in [
        (without_id.to_owned(), Unread::Form),
        (format!("{without_id},\"night\""), Unread::Key),
        (format!("{without_id},\"\",\"1795446706.0\",\"0\""), Unread::Form),
    ] {
        let bad = call_records(row.as_bytes(), utc()).remove(0).expect_err("unread");
        assert_eq!((bad.unread, bad.at), (unread, Some(at(1_795_446_706))), "{row}");
        assert_eq!(bad.raw, row.as_bytes());
    }
}

#[test]
fn one_row_in_another_encoding_garbles_no_other() {
    let rows = String::from_utf8(fixture("asterisk/cdr.csv")).expect("text");
    let (before, after) = rows.split_once("张三").expect("a name");
    let gbk = [before.as_bytes(), b"\xd5\xc5\xc8\xfd", after.as_bytes()].concat();
    let names = |bytes: &[u8]| -> Vec<String> {
        let rows = call_records(bytes, utc()).into_iter();
        rows.map(|row| row.expect("a row").caller_id).collect()
    };
    assert_eq!(names(&gbk), names(rows.as_bytes()));
    assert!(after.contains("张三"), "the other one is UTF-8");
}

#[test]
fn only_what_came_in_is_a_citizens_call() {
    let office =
        Numbering { own: vec!["8XXX".to_owned(), "024-74123456".to_owned()], ..numbering() };
    let record = |from: &str, context: &str, channel: &str| CallRecord {
        caller: from.to_owned(),
        context: context.to_owned(),
        channel: channel.to_owned(),
        ..records()[0].clone()
    };
    let trunk = ["from-carrier".to_owned(), "from-trunk".to_owned()];
    let came_in = |record: CallRecord| record.came_in(&trunk, &office);
    assert!(came_in(record("13900001234", "from-trunk", "SIP/carrier-1")));
    assert!(!came_in(record("13900001234", "from-trunk", "Local/8001@queue-1;2")));
    assert!(!came_in(record("13900001234", "from-internal", "SIP/8001-1")));
    assert!(!came_in(record("8001", "from-trunk", "SIP/8001-1")));
    assert!(!came_in(record("02474123456", "from-trunk", "SIP/8001-1")));
    assert!(record("8001", "from-internal", "SIP/8001-1").came_in(&[], &numbering()));
    // The same of what is posted.
    let posts = |more: &str| {
        let form = format!(
            "Event=Cdr&Source=13900001234&Destination=12333&StartTime=2026-11-23+15:11:46&UniqueID=17.0{more}"
        );
        posted(SOURCE, form.as_bytes(), (utc(), &trunk), &office)
    };
    assert_eq!(posts("&DestinationContext=from-trunk&Channel=SIP/a-1").0.len(), 1);
    assert_eq!(posts("&Channel=SIP/a-1").0.len(), 1, "as the shipped hook posts it");
    assert_eq!(posts("&DestinationContext=from-internal&Channel=SIP/a-1"), (Vec::new(), None));
    assert_eq!(posts("&DestinationContext=from-trunk&Channel=Local/a@b-1;1"), (Vec::new(), None));
}

#[test]
fn each_message_finds_its_own_call_record() {
    let records = records();
    let calls = [
        ("12333_msg0000", "1795446706.0"),
        ("12333_msg0002", "1795446852.4"),
        ("8001_msg0000", "1795446852.3"),
    ];
    for (file, unique_id) in calls {
        let message = message(file);
        let record = message.record_of(&records, &numbering()).expect(file);
        assert_eq!(record.unique_id, unique_id, "{file}");
        let call = record.call(SOURCE, &numbering()).expect("a call");
        let left = message.call(SOURCE, Some(record), None, &numbering()).expect("a call");
        let whole = call.merge(left).expect("the same call");
        assert_eq!((whole.kind, whole.outcome), (Kind::Voicemail, Some(Outcome::MessageLeft)));
        assert_eq!(whole.started_at, Some(record.started_at));
    }
}

#[test]
fn a_caller_who_rings_twice_in_a_minute_is_not_mixed_up_while_a_record_is_missing() {
    // 69 s later the same number called the same mailbox; the first call's record is not there yet.
    let later: Vec<CallRecord> =
        records().into_iter().filter(|r| r.unique_id == "1795446783.1").collect();
    let first = message("12333_msg0000");
    assert_eq!(first.record_of(&later, &numbering()), None);
    // Only a message that knows no channel goes by number, mailbox and time.
    let text = String::from_utf8(fixture("asterisk/12333_msg0000.txt")).expect("text");
    let blind = text.replace("SIP/127.0.0.1-00000000", "Unknown");
    let blind = Message::parse(blind.as_bytes(), "default", "12333").expect("a message");
    let found = |records: &[CallRecord]| {
        blind.record_of(records, &numbering()).map(|record| record.unique_id.clone())
    };
    assert_eq!(found(&later).as_deref(), Some("1795446783.1"));
    assert_eq!(found(&records()).as_deref(), Some("1795446706.0"), "the nearest");
}

#[test]
fn copies_in_several_mailboxes_are_one_message() {
    let text = fixture("asterisk/8001_msg0000.txt");
    let text = String::from_utf8(text).expect("text");
    let copy = text.replace("msg_id=1795446853-00000003", "msg_id=1795446860-00000009");
    let copy = Message::parse(copy.as_bytes(), "default", "8002").expect("a message");
    let original = message("8001_msg0000");
    let kept = without_copies(vec![copy.clone(), message("12333_msg0000"), original.clone()]);
    assert_eq!(kept, [message("12333_msg0000"), original.clone()]);
    // Also where each comes for itself it is the same call.
    let call = |message: &Message| message.call(SOURCE, None, None, &numbering()).expect("a call");
    assert_eq!(call(&copy).call_key, call(&original).call_key);
}

#[test]
fn hooks_are_read() {
    for line in String::from_utf8(fixture("asterisk/externnotify.log")).expect("text").lines() {
        let argv = line.split("argv=[").nth(1).and_then(|rest| rest.split("] ").next());
        let argv: Vec<&str> = argv.expect("arguments").split("][").collect();
        let changed = mailbox_changed(&argv).expect("a mailbox");
        assert_eq!(changed.context, "default");
        assert_eq!(
            (changed.mailbox.as_str(), changed.counts[0].to_string().as_str()),
            (argv[1], argv[2])
        );
    }
    assert_eq!(mailbox_changed(&["default", "8001", "1", "0"]), None);
    assert_eq!(mailbox_changed(&["default", "8001", "x", "0", "0"]), None);

    for line in String::from_utf8(fixture("asterisk/mixmonitor.log")).expect("text").lines() {
        let argv = line.split("argv=[").nth(1).and_then(|rest| rest.split("] ").next());
        let line = argv.expect("arguments").replace("][", " ");
        let call = mix_monitor(SOURCE, &line, &numbering()).expect("a call");
        assert_eq!(call.kind, Kind::RecordingReady);
        let (key, recording) = call.recordings.first_key_value().expect("a recording");
        assert_eq!(*key, format!("{}.wav", call.call_key));
        assert_eq!(recording.audio, Some(AudioRef::Local(format!("/opt/asterisk/mixmon/{key}"))));
    }
    let blanks = mix_monitor(SOURCE, "/rec/two words.wav 13900001234 12333 17.1", &numbering());
    assert!(blanks.expect("a call").recordings.contains_key("two words.wav"));
    assert_eq!(mix_monitor(SOURCE, "13900001234 12333 17.1", &numbering()), Err(Unread::Form));
}

const FINISHED: &str = r#"{"type":"RecordingFinished","timestamp":"2026-11-23T15:15:50.450+0000","recording":{"name":"vm-1795446940.10","format":"wav","state":"done","target_uri":"channel:1795446940.10","duration":8,"talking_duration":8,"silence_duration":0},"asterisk_id":"00:00","application":"gw"}"#;

#[test]
fn a_recording_made_over_ari_meets_its_call_record() {
    let call = recording_event(SOURCE, FINISHED).expect("readable").expect("a recording");
    assert_eq!(call.ended_at.map(|at| at.timestamp_millis()), Some(1_795_446_950_450));
    let recording = &call.recordings["vm-1795446940.10"];
    assert_eq!((recording.ms, recording.spoken_ms), (Some(8000), Some(8000)));
    assert_eq!(recording.audio, Some(AudioRef::Local("vm-1795446940.10.wav".to_owned())));
    let older = FINISHED.replace("\"format\":\"wav\"", "\"format\":\"wav49\"");
    let older = recording_event(SOURCE, &older).expect("readable").expect("a recording");
    let audio = older.recordings["vm-1795446940.10"].audio.clone();
    assert_eq!(audio, Some(AudioRef::Local("vm-1795446940.10.WAV".to_owned())));
    let records = records();
    let record = records.iter().find(|record| record.unique_id == call.call_key).expect("a record");
    let whole =
        record.call(SOURCE, &numbering()).and_then(|c| c.merge(call).map_err(|_| Unread::Key));
    let whole = whole.expect("the same call");
    assert_eq!(e164(&whole), "+8613900001234");
    assert!(whole.has_message());
}

#[test]
fn silence_is_no_message_and_other_events_are_none() {
    let silent = FINISHED.replace(r#""talking_duration":8"#, r#""talking_duration":0"#);
    let silent = recording_event(SOURCE, &silent).expect("readable").expect("a recording");
    assert_eq!(silent.outcome, Some(Outcome::Silent));
    assert!(!silent.has_message());
    let failed = FINISHED.replace("RecordingFinished", "RecordingFailed");
    let failed = recording_event(SOURCE, &failed).expect("readable").expect("a recording");
    assert_eq!((failed.kind, failed.outcome), (Kind::RecordingAbsent, None));
    assert!(failed.recordings.values().all(|r| r.audio.is_none()));
    let bridge = FINISHED.replace("channel:", "bridge:");
    assert_eq!(recording_event(SOURCE, &bridge), Ok(None));
    assert_eq!(recording_event(SOURCE, r#"{"type":"StasisStart"}"#), Ok(None));
    assert_eq!(recording_event(SOURCE, "no JSON"), Err(Unread::Json));
}

fn utc() -> Zone {
    Zone::parse("UTC").expect("a zone")
}

#[test]
fn posted_events_of_the_manager_are_the_rows_of_the_call_records() {
    let (calls, unread) = posted(SOURCE, &fixture("asterisk/ami.log"), (utc(), &[]), &numbering());
    assert_eq!(unread, None);
    let mut rows: Vec<CallEvent> =
        records().iter().map(|row| row.call(SOURCE, &numbering()).expect("a call")).collect();
    let mut came = calls.clone();
    let key = |call: &CallEvent| call.call_key.clone();
    rows.sort_by_key(key);
    came.sort_by_key(key);
    assert_eq!(came, rows);
    // The same as JSON, a line each, and the one as a form.
    let text = String::from_utf8(fixture("asterisk/ami.log")).expect("text");
    let mut lines = String::new();
    for event in text.trim().split("\r\n\r\n") {
        let pairs = event.lines().filter_map(|line| line.split_once(':'));
        let fields: serde_json::Map<String, serde_json::Value> =
            pairs.map(|(name, value)| (name.to_owned(), value.trim().into())).collect();
        lines.push_str(&serde_json::Value::Object(fields).to_string());
        lines.push('\n');
    }
    assert_eq!(posted(SOURCE, lines.as_bytes(), (utc(), &[]), &numbering()), (calls.clone(), None));
    let form = "Event=Cdr&Source=13900001234&Destination=12333&CallerID=%2213900001234%22+%3C13900001234%3E&Channel=SIP%2F127.0.0.1-00000000&StartTime=2026-11-23+15:11:46&EndTime=2026-11-23+15:12:08&Duration=22&Disposition=ANSWERED&UniqueID=1795446706.0";
    assert_eq!(posted(SOURCE, form.as_bytes(), (utc(), &[]), &numbering()).0, calls[..1]);
    // Recordings of ARI beside them; a bad neighbour spoils nobody's.
    let mixed = format!("{FINISHED}\n{{\"Event\":\"Cdr\"}}\n{{\"type\":\"StasisEnd\"}}");
    let (calls, unread) = posted(SOURCE, mixed.as_bytes(), (utc(), &[]), &numbering());
    assert_eq!((calls.len(), unread), (1, Some(Unread::Key)));
    for nothing in ["", "hello", "a=1", "{}", "[1]"] {
        let (calls, unread) = posted(SOURCE, nothing.as_bytes(), (utc(), &[]), &numbering());
        assert!(calls.is_empty() && unread.is_some(), "{nothing}");
    }
}
