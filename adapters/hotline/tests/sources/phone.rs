use intake_hotline::{Caller, Numbering, Rewrite};

fn tieling() -> Numbering {
    crate::numbering()
}

/// `+8613900001234`, `+862423456789,8001`, `raw`, `anonymous`.
fn read(numbering: &Numbering, written: &str) -> String {
    match numbering.read(written) {
        Caller::Known(number) => {
            assert_eq!(number.raw, written.trim());
            match number.ext {
                Some(ext) => format!("{},{ext}", number.e164),
                None => number.e164,
            }
        }
        Caller::Raw(raw) => {
            assert_eq!(raw, written.trim());
            "raw".to_owned()
        }
        Caller::Anonymous => "anonymous".to_owned(),
    }
}

fn all(comes_to: &str, written: &[&str]) {
    for written in written {
        assert_eq!(read(&tieling(), written), comes_to, "{written}");
    }
}

#[test]
fn a_mobile_in_every_dress_is_one_number() {
    all(
        "+8613900001234",
        &[
            "13900001234",
            "013900001234",
            "8613900001234",
            "008613900001234",
            "+8613900001234",
            "0086 139-0000-1234",
            "１３９００００１２３４",
            "139 0000 1234",
            "sip:13900001234@10.0.0.1",
            "sip:+8613900001234@ims.example;user=phone",
            "tel:+86-139-0000-1234;phone-context=+86",
            "\"张三\" <sip:13900001234@10.0.0.1:5060>",
            "\"13900001234\" <13900001234>",
            "<sip:13900001234@10.0.0.1>;tag=4671",
        ],
    );
}

#[test]
fn a_landline_in_every_dress_is_one_number() {
    all(
        "+862423456789",
        &[
            "024-23456789",
            "02423456789",
            "+8602423456789",
            "+862423456789",
            "2423456789",
            "(024)23456789",
            "（024）2345-6789",
            "024-2345-6789",
            "23456789",
            "2345 6789",
        ],
    );
}

#[test]
fn areas_that_were_merged_come_to_their_new_numbers() {
    all(
        "+862472345678",
        &["0410-2345678", "(0410)2345678", "04102345678", "4102345678", "+864102345678"],
    );
    all("+862452345678", &["0413-2345678", "0413 234 5678"]);
    // An office that is still set to its former area.
    let former = Numbering { area: "0410".to_owned(), ..Numbering::default() };
    assert_eq!(read(&former, "2345678"), "+862472345678");
    assert_eq!(read(&former, "72345678"), "+862472345678");
    // Another office may name others, or none.
    let rewrite = Rewrite { from: "0414".to_owned(), digits: 7, to: "0244".to_owned() };
    let other = Numbering { rewrites: vec![rewrite], ..Numbering::default() };
    assert_eq!(read(&other, "0414-2345678"), "+862442345678");
    assert_eq!(read(&other, "0410-2345678"), "+864102345678");
}

#[test]
fn extensions_are_kept_apart() {
    all(
        "+862423456789,8001",
        &[
            "02423456789,8001",
            "+862423456789;ext=8001",
            "024-23456789-8001",
            "024-23456789转8001",
            "024-23456789 转 8001",
            "024-23456789分机8001",
            "024-23456789转分机8001",
            "024-23456789 ext. 8001",
            "024-23456789#8001",
            "024-23456789x8001",
            "23456789-8001",
            "sip:02423456789;ext=8001@10.0.0.1",
        ],
    );
    all("+862472345678,8001", &["0410-2345678-8001"]);
    all("+8613900001234", &["139-0000-1234", "0086-139-00001234"]);
}

#[test]
fn what_is_no_full_number_stays_as_it_is() {
    all(
        "raw",
        &[
            "110",
            "10086",
            "95588",
            "12333",
            "12345",
            "0410-12333",
            "8001",
            "转8001",
            "95588123",
            "+86",
            "1",
            "999999999999999",
        ],
    );
    // Seven digits are no number of an area whose numbers have eight.
    all("raw", &["2345678"]);
    // Without an area nobody can tell whose number it is.
    let nowhere = Numbering::default();
    assert_eq!(read(&nowhere, "23456789"), "raw");
}

#[test]
fn numbers_abroad_are_numbers() {
    all("+14158675310", &["+14158675310", "0014158675310", "+1 (415) 867-5310"]);
}

#[test]
fn a_withheld_number_is_nobodys() {
    all(
        "anonymous",
        &[
            "",
            "  ",
            "anonymous",
            "Anonymous",
            "unknown",
            "unavailable",
            "restricted",
            "Private",
            "asterisk",
            "\"Anonymous\" <anonymous>",
            "sip:anonymous@anonymous.invalid",
            "anonymous.invalid",
            "\"x\" <sip:abc@anonymous.invalid>;tag=1",
            "\u{0}",
            "Withheld",
            "Private Number",
            "Unavailable",
            "未知",
            "隐藏号码",
            "null",
            "-",
            "0",
            "000",
            "0000",
            "００００",
            "张三",
            "\"张三\" <sip:unknown.caller@10.0.0.1>",
        ],
    );
}

#[test]
fn what_is_dialled_is_what_reaches_the_caller() {
    let dialled = |written: &str| tieling().read(written).dialled().unwrap_or_default();
    for (written, number) in [
        ("+8613900001234", "13900001234"),
        ("+8619912345678", "19912345678"),
        ("010-62345678", "01062345678"),
        ("+861062345678", "01062345678"),
        ("1062345678", "01062345678"),
        ("024-23456789转8001", "02423456789 转 8001"),
        ("2423456789", "02423456789"),
        ("0951-5012345", "09515012345"),
        ("4008123123", "4008123123"),
        ("+864008123123", "4008123123"),
        ("04008123123", "4008123123"),
        ("8008101234", "8008101234"),
        ("9501234567", "9501234567"),
        ("95013123456", "95013123456"),
        ("10105757", "10105757"),
        ("1096156", "1096156"),
        ("95588", "95588"),
        ("+14158675310", "+14158675310"),
    ] {
        assert_eq!(dialled(written), number, "{written}");
    }
}

#[test]
fn the_offices_own_numbers_are_known_in_every_dress() {
    let own = ["024-74123456", "8XXX", "20XX", "024-741299XX"].map(str::to_owned).to_vec();
    let office = Numbering { own, ..tieling() };
    for own in ["02474123456", "74123456", "+862474123456", "8001", "2099", "024-74129907"] {
        assert!(office.is_own(&office.read(own)), "{own}");
    }
    for other in ["02474123457", "80011", "800", "2101", "13900001234", "anonymous", ""] {
        assert!(!office.is_own(&office.read(other)), "{other}");
    }
    assert!(!tieling().is_own(&tieling().read("8001")));
}

#[test]
fn lists_show_hints_only() {
    let masked = |written: &str| tieling().read(written).masked();
    assert_eq!(masked("+8613900001234"), "139****1234");
    assert_eq!(masked("024-23456789转8001"), "024****6789");
    assert_eq!(masked("+14158675310"), "+14****5310");
    assert_eq!(masked("8001"), "****");
    assert_eq!(masked("anonymous"), "");
    assert_eq!(masked("999999999999999"), "999****9999");
}
