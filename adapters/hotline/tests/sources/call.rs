use crate::{SOURCE, at, numbering};
use intake_hotline::{
    AudioRef, CallEvent, Caller, Kind, OtherCall, Outcome, Recording, Unread, Voicemail,
};
use proptest::{collection::vec, option::of, prelude::*};

fn caller() -> impl Strategy<Value = Caller> {
    prop_oneof![
        Just(Caller::Anonymous),
        "[0-9]{3,11}".prop_map(|digits| numbering().read(&digits)),
        Just(numbering().read("13900001234")),
    ]
}

fn recording() -> impl Strategy<Value = Recording> {
    let audio = prop_oneof![
        "[a-c]".prop_map(AudioRef::Local),
        "[a-c]".prop_map(AudioRef::Http),
        "[a-c]".prop_map(AudioRef::Pull)
    ];
    (of(0..9_i64), of(0..9_u32), of(0..9_u32), of(audio), of("[a-c]")).prop_map(
        |(started, ms, spoken_ms, audio, sha256)| Recording {
            started_at: started.map(at),
            ms,
            spoken_ms,
            audio,
            sha256,
        },
    )
}

/// Any part of one call, also such as contradict each other.
fn part() -> impl Strategy<Value = CallEvent> {
    let kind = prop_oneof![
        Just(Kind::CallEnded),
        Just(Kind::RecordingAbsent),
        Just(Kind::RecordingReady),
        Just(Kind::Voicemail)
    ];
    let outcome = prop_oneof![
        Just(Outcome::GaveUp),
        Just(Outcome::Closed),
        Just(Outcome::Answered),
        Just(Outcome::MessageLeft)
    ];
    let facts = (of(caller()), of("[a-c]"), of("[a-c]"), of(0..9_i64), of(0..9_i64), of(0..9_u32));
    let recordings = vec(("[xyz]", recording()), 0..3);
    (kind, of(outcome), facts, recordings).prop_map(|(kind, outcome, facts, recordings)| {
        let mut call = CallEvent::new(SOURCE, "call", kind).expect("a key");
        call.outcome = outcome;
        (call.caller, call.caller_name, call.callee) = (facts.0, facts.1, facts.2);
        (call.started_at, call.ended_at, call.call_s) = (facts.3.map(at), facts.4.map(at), facts.5);
        call.recordings = recordings.into_iter().collect();
        call
    })
}

fn whole(parts: &[CallEvent]) -> CallEvent {
    let mut parts = parts.iter().cloned();
    let first = parts.next().expect("a part");
    parts.try_fold(first, CallEvent::merge).expect("the same call")
}

/// Parts, and the same in another order with some of them again.
fn twice_told() -> impl Strategy<Value = (Vec<CallEvent>, Vec<CallEvent>)> {
    let repeats = vec(any::<prop::sample::Index>(), 0..12);
    (vec(part(), 1..6), repeats).prop_flat_map(|(parts, repeats)| {
        let repeated = repeats.iter().map(|index| index.get(&parts).clone());
        let again: Vec<CallEvent> = parts.iter().cloned().chain(repeated).collect();
        (Just(parts), Just(again).prop_shuffle())
    })
}

proptest! {
    #[test]
    fn any_order_and_any_repetition_of_the_parts_makes_the_same_call(
        (parts, again) in twice_told(),
        cut in any::<prop::sample::Index>(),
    ) {
        // Where a recording lies is told anew when its link was renewed: there the last one counts.
        let still = |call: CallEvent| {
            let mut call = call;
            call.recordings.values_mut().for_each(|recording| recording.audio = None);
            call
        };
        let (parts, again): (Vec<_>, Vec<_>) = (
            parts.into_iter().map(still).collect(),
            again.into_iter().map(still).collect(),
        );
        let call = whole(&parts);
        prop_assert_eq!(&whole(&again), &call);
        // However it is bracketed: two gateways may have put parts of it together.
        let (left, right) = again.split_at(cut.index(again.len()));
        if !left.is_empty() && !right.is_empty() {
            prop_assert_eq!(&whole(&[whole(right), whole(left)]), &call);
        }
    }

    #[test]
    fn nothing_that_was_known_is_forgotten(parts in vec(part(), 1..6)) {
        let call = whole(&parts);
        for part in &parts {
            prop_assert!(part.caller.is_none() || call.caller.is_some());
            prop_assert!(part.caller_name.is_none() || call.caller_name.is_some());
            prop_assert!(part.callee.is_none() || call.callee.is_some());
            prop_assert!(part.started_at.is_none() || call.started_at <= part.started_at);
            prop_assert!(part.ended_at <= call.ended_at && part.call_s <= call.call_s);
            prop_assert!(part.outcome <= call.outcome && part.kind <= call.kind);
            for (key, recording) in &part.recordings {
                let kept = &call.recordings[key];
                prop_assert!(recording.audio.is_none() || kept.audio.is_some());
                prop_assert!(recording.ms <= kept.ms && recording.spoken_ms <= kept.spoken_ms);
                prop_assert!(recording.sha256.is_none() || kept.sha256.is_some());
                prop_assert!(recording.started_at.is_none() || kept.started_at.is_some());
            }
        }
    }
}

#[test]
fn a_known_number_is_better_than_a_raw_one_and_that_than_none() {
    let with = |written: &str| {
        let mut call = CallEvent::new(SOURCE, "call", Kind::CallEnded).expect("a key");
        call.caller = Some(numbering().read(written));
        call
    };
    let merged = whole(&[with("anonymous"), with("8001"), with("13900001234"), with("anonymous")]);
    assert_eq!(merged.caller, with("13900001234").caller);
    assert_eq!(whole(&[with("8001"), with("")]).caller, with("8001").caller);
}

#[test]
fn parts_of_other_calls_and_other_sources_are_kept_apart() {
    let call =
        |source: &str, key: &str| CallEvent::new(source, key, Kind::CallEnded).expect("a key");
    assert_eq!(call("a", "1").merge(call("a", "2")), Err(OtherCall));
    assert_eq!(call("a", "1").merge(call("b", "1")), Err(OtherCall));
}

#[test]
fn an_identity_is_taken_whole_or_not_at_all() {
    let new = |key: &str| CallEvent::new(SOURCE, key, Kind::CallEnded).map(|call| call.call_key);
    assert_eq!(new(" 1\u{0}7.\n1 "), Ok("17. 1".to_owned()));
    assert_eq!(new(&"长".repeat(40)), Ok("长".repeat(40)));
    for bad in ["", " \n", &"长".repeat(41), &"k".repeat(121), &format!("{} x", "k".repeat(119))] {
        assert_eq!(new(bad), Err(Unread::Key), "{bad}");
    }
}

#[test]
fn a_renewed_link_takes_the_place_of_the_first() {
    let with = |link: Option<&str>| {
        let mut call = CallEvent::new(SOURCE, "call", Kind::Voicemail).expect("a key");
        let audio = link.and_then(AudioRef::parse);
        call.recordings.insert("1".to_owned(), Recording { audio, ..Recording::default() });
        call
    };
    let links = [
        Some("https://r.example/b"),
        None,
        Some("https://r.example/a"),
        Some("https://r.example/c"),
        None,
    ];
    let merged = whole(&links.map(with));
    assert_eq!(merged.recordings["1"].audio, AudioRef::parse("https://r.example/c"));
}

#[test]
fn two_recordings_of_a_call_stay_two() {
    let with = |key: &str| {
        let mut call = CallEvent::new(SOURCE, "call", Kind::Voicemail).expect("a key");
        call.recordings.insert(key.to_owned(), Recording::default());
        call
    };
    assert_eq!(whole(&[with("1"), with("2"), with("1")]).recordings.len(), 2);
}

#[test]
fn r5_2_a_call_counts_from_when_the_citizen_spoke() {
    let mut call = CallEvent::new(SOURCE, "call", Kind::Voicemail).expect("a key");
    assert_eq!(call.spoken_at(), None);
    assert!(call.time_is_plausible(at(0)));
    call.started_at = Some(at(100));
    assert_eq!(call.spoken_at(), Some(at(100)));
    let later = Recording { started_at: Some(at(108)), ..Recording::default() };
    call.recordings.insert("1".to_owned(), later);
    assert_eq!(call.spoken_at(), Some(at(108)));
}

#[test]
fn a_message_shorter_than_three_seconds_is_a_missed_call() {
    let with = |ms: Option<u32>, spoken_ms: Option<u32>, audio: Option<AudioRef>| {
        let mut call = CallEvent::new(SOURCE, "call", Kind::Voicemail).expect("a key");
        call.recordings
            .insert("1".to_owned(), Recording { ms, spoken_ms, audio, ..Recording::default() });
        call.has_message()
    };
    let audio = Some(AudioRef::Local("a.wav".to_owned()));
    assert!(with(Some(3000), None, audio.clone()));
    assert!(with(None, None, audio.clone()));
    assert!(!with(Some(2999), None, audio.clone()));
    assert!(!with(Some(9000), Some(0), audio.clone()));
    assert!(!with(Some(9000), None, None), "only announced");
}

#[test]
fn the_signed_webhook_comes_to_the_same_form() {
    let body = br#"{"v":1,"recording_id":"pbx1:1795446714-00000000","call_id":"1795446706.0","caller":"13900001234","callee":"12333","started_at":"2026-11-23T23:11:54+08:00","duration_s":14,"audio":{"url":"file:msg0000.wav","sha256":null}}"#;
    let call =
        Voicemail::parse(body).expect("a voicemail").call(SOURCE, &numbering()).expect("a call");
    assert_eq!(call.call_key, "1795446706.0");
    assert_eq!(crate::e164(&call), "+8613900001234");
    let recording = &call.recordings["pbx1:1795446714-00000000"];
    assert_eq!(recording.audio, Some(AudioRef::Local("msg0000.wav".to_owned())));
    assert_eq!((recording.ms, call.spoken_at()), (Some(14_000), Some(at(1_795_446_714))));
    assert!(call.has_message());
}
