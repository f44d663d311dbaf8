use crate::at;
use intake_hotline::{TimeFormat, Unit, Zone};

#[test]
fn every_way_to_write_a_time_is_the_same_instant() {
    let utc = Zone::parse("UTC").expect("a zone");
    let instant = at(1_795_446_714);
    let same = [
        (TimeFormat::EpochS, "1795446714", utc),
        (TimeFormat::EpochS, "1795446714.999", utc),
        (TimeFormat::EpochMs, "1795446714000", utc),
        (TimeFormat::EpochUs, "1795446714000000", utc),
        (TimeFormat::Naive, "2026-11-23 15:11:54", utc),
        (TimeFormat::Naive, "2026-11-23 23:11:54", Zone::china()),
        (TimeFormat::Naive, "2026-11-23T23:11:54", Zone::parse("+08:00").expect("a zone")),
        (TimeFormat::Naive, "2026/11/23 23:11:54", Zone::parse("Asia/Shanghai").expect("a zone")),
        (TimeFormat::Rfc3339, "2026-11-23T23:11:54+08:00", utc),
        (TimeFormat::Rfc3339, "2026-11-23T15:11:54Z", utc),
        (TimeFormat::Rfc3339, "2026-11-23T15:11:54.000+0000", utc),
        (TimeFormat::Rfc2822, "Mon, 23 Nov 2026 15:11:54 +0000", utc),
    ];
    for (format, text, zone) in same {
        assert_eq!(format.read(text, zone), Some(instant), "{format:?} {text}");
    }
}

#[test]
fn what_is_no_time_of_a_call_is_none() {
    for text in ["", "0", "-1", "9223372036854775807", "99999999999999999999", "soon", "2026-13-01"]
    {
        for format in [
            TimeFormat::EpochS,
            TimeFormat::EpochMs,
            TimeFormat::EpochUs,
            TimeFormat::Naive,
            TimeFormat::Rfc3339,
        ] {
            assert_eq!(format.read(text, Zone::china()), None, "{format:?} {text}");
        }
    }
    assert_eq!(Zone::parse("Mars/Olympus"), None);
}

#[test]
fn spans_are_hints_in_milliseconds() {
    for (unit, text, ms) in [
        (Unit::S, "9", 9000),
        (Unit::S, "9.38", 9380),
        (Unit::S, "10秒", 10_000),
        (Unit::Ms, "9380", 9380),
        (Unit::Hms, "00:00:09", 9000),
        (Unit::Hms, "01:09", 69_000),
        (Unit::Hms, "1:00:00", 3_600_000),
    ] {
        assert_eq!(unit.millis(text), Some(ms), "{text}");
    }
    for text in ["", "-1", "NaN", "inf", "1e9", "nine", "99999999999", "1:2:3:4", ":", "00:00:-9"] {
        for unit in [Unit::S, Unit::Ms, Unit::Hms] {
            assert_eq!(unit.millis(text), None, "{unit:?} {text}");
        }
    }
}
