//! The commands, as whoever types them sees them.

use crate::support::{Spec, TestGateway, at, number, redis_url, sql, until};
use intake_gateway::gateway::Role;
use std::process::Command;

/// Exit status, what was said, and what went wrong.
fn intake(gateway: &TestGateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_intake"))
        .args(arguments)
        .env_clear()
        .env("INTAKE_DATABASE_URL", &gateway.database_url)
        .env("INTAKE_REDIS_URL", redis_url())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (done.status.code(), text(done.stdout), text(done.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_office_decides_is_set_and_a_running_gateway_follows() {
    let gateway = Spec::at(at("2026-11-24 21:00")).role(Role::All).start().await;
    let office = gateway.app.offices.get(gateway.office).unwrap();
    let set = |arguments: &[&str]| {
        intake(&gateway, &[&["office", "set", "--code", &office.code], arguments].concat())
    };
    let (code, says, wrong) = set(&["--phone", "024-7000 0000", "--urgent-words", "煤气、 爆炸"]);
    assert_eq!((code, wrong.as_str()), (Some(0), ""), "{says}");
    assert!(says.contains("024-7000 0000") && says.contains("爆炸"), "{says}");
    until("the gateway says the new telephone", async || {
        gateway.wechat("oA", "人工", "1").await.reply().contains("024-7000 0000")
    })
    .await;
    let policy = &gateway.app.offices.get(gateway.office).unwrap().policy;
    assert!(policy.sounds_urgent("楼下爆炸了") && !policy.sounds_urgent("有人晕倒"));
    // The other settings stay.
    let (code, says, _) = set(&["--limits-run-from", "hand_up"]);
    assert!(
        code == Some(0) && says.contains("hand_up") && says.contains("024-7000 0000"),
        "{says}"
    );
    let (code, says, _) = set(&["--phone", ""]);
    assert!(code == Some(0) && !says.contains("024"), "{says}");
    let (code, _, says) = set(&["--urgent-words", "，"]);
    assert!(code == Some(1) && says.contains("at least one word"), "{says}");
    let (code, _, says) = set(&[]);
    assert!(code == Some(1) && says.contains("say what to change: --phone"), "{says}");
    let (code, _, says) = set(&["--limits-run-from", "handup"]);
    assert!(code == Some(2) && says.contains("registration or hand_up"), "{says}");
    let (code, _, says) = intake(&gateway, &["office", "set", "--code", "nowhere", "--phone", "1"]);
    assert!(code == Some(1) && says.contains("there is no office nowhere; there are: "), "{says}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_leaves_where_a_person_is_told_as_it_is() {
    let gateway = Spec::at(at("2026-11-24 21:00")).start().await;
    let office = gateway.app.offices.get(gateway.office).unwrap().code.clone();
    let add = |more: &[&str]| {
        let of =
            ["--office", &office, "--login", "sun.li", "--name", "孙丽", "--role", "duty_officer"];
        let (code, says, wrong) = intake(&gateway, &[&["account", "add"], &of[..], more].concat());
        assert_eq!(code, Some(0), "{wrong}");
        assert!(says.contains("login sun.li, password "), "{says}");
    };
    let told = "SELECT count(*) FROM staff WHERE login = 'sun.li' AND unit_id IS NOT NULL AND ";
    let told = async |how: &str| number(&gateway.pool, &format!("{told}{how}")).await;
    add(&["--unit", "社保股", "--email", "sun@office.test", "--mobile", "13900001234"]);
    add(&[]);
    assert_eq!(told("email = 'sun@office.test' AND mobile = '13900001234'").await, 1);
    add(&["--email", ""]);
    assert_eq!(told("email IS NULL AND mobile = '13900001234'").await, 1);
    add(&["--unit", "", "--mobile", ""]);
    let bare = "SELECT count(*) FROM staff WHERE login = 'sun.li' AND unit_id IS NULL \
                AND mobile IS NULL";
    assert_eq!(number(&gateway.pool, bare).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_tables_each_command_says_what_to_do() {
    let gateway = Spec::at(at("2026-11-24 10:00")).start().await;
    let mut db = gateway.pool.acquire().await.unwrap();
    sql(&mut db, "DELETE FROM _sqlx_migrations WHERE version > 20").await;
    for arguments in [&["office", "list"][..], &["account", "list", "--office", "a"], &["verify"]] {
        let (code, _, says) = intake(&gateway, arguments);
        assert_eq!(code, Some(1), "{arguments:?}: {says}");
        let wanted = "the database's tables are missing or old: run `intake migrate`";
        assert!(says.contains(wanted), "{arguments:?}: {says}");
    }
}
