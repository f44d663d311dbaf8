//! What exchanges and vendors send, and what it comes to.

mod asterisk;
mod call;
mod freeswitch;
mod hostile;
mod mapping;
mod phone;
mod time;
mod twilio;
mod verify;

use chrono::{DateTime, Utc};
use intake_contract::{Method, Request};
use intake_hotline::{CallEvent, Caller, Numbering};

const SOURCE: &str = "hotline:pbx1";

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).expect("a time")
}

/// An office in Tieling.
fn numbering() -> Numbering {
    Numbering { area: "024".to_owned(), ..Numbering::default() }
}

fn post<'a>(query: &'a str, headers: &'a [(&'a str, &'a [u8])], body: &'a [u8]) -> Request<'a> {
    Request { method: Method::Post, query, headers, body }
}

fn e164(call: &CallEvent) -> &str {
    match &call.caller {
        Some(Caller::Known(number)) => &number.e164,
        other => panic!("no number: {other:?}"),
    }
}
