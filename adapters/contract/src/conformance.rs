//! What every channel must withstand. A channel's tests implement [`Peer`], its sender, and call
//! [`run`]; each check panics with what went wrong.
//!
//! Duplicates, reordering, hostile text, oversize, clock skew; bytes flipped and cut off on the way.

use crate::{Channel, LIMITS, Method, Refusal, Request, Submission, Verified};
use chrono::{DateTime, TimeDelta, Utc};

/// A request as it travels.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Without `?`.
    pub query: String,
    /// Lower-case names.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The raw body.
    pub body: Vec<u8>,
}

/// A channel's sender, as honest as the original.
pub trait Peer {
    /// Signs a message for delivery at `at`; the same `id` is the same message, whatever the time.
    fn deliver(&self, id: &str, text: &str, said_at: DateTime<Utc>, at: DateTime<Utc>) -> Delivery;

    /// Hands a delivery to the channel: `Ok(None)` for what is answered without being kept as a
    /// submission (quarantine, acknowledgement).
    ///
    /// # Errors
    /// The channel's refusal.
    fn receive(
        &self,
        delivery: &Delivery,
        now: DateTime<Utc>,
    ) -> Result<Option<Submission>, Refusal>;

    /// The greatest body that is read, in bytes.
    fn body_limit(&self) -> usize;

    /// How far the sender's clock may be off, in seconds; `None` where a login vouches for the
    /// sender instead of a signature.
    fn window_s(&self) -> Option<i64>;

    /// Whether the sender says when something was said.
    fn tells_time(&self) -> bool;

    /// Whether the citizen's words travel in the message (a recording has none).
    fn carries_text(&self) -> bool;
}

/// Hands a delivery to a [`Channel`], as the gateway does.
///
/// # Errors
/// The channel's refusal.
pub fn through(
    channel: &dyn Channel,
    delivery: &Delivery,
    now: DateTime<Utc>,
) -> Result<Option<Submission>, Refusal> {
    let headers: Vec<(&str, &[u8])> =
        delivery.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
    let request = Request {
        method: Method::Post,
        query: &delivery.query,
        headers: &headers,
        body: &delivery.body,
    };
    channel.verify(request, now).map(|verified| match verified {
        Verified::Submit { submission, .. } => Some(*submission),
        Verified::Answer(_) | Verified::Quarantine(..) => None,
    })
}

/// Texts that have broken such systems before.
pub const HOSTILE: [&str; 12] = [
    "NUL \u{0} in the middle",
    "C0 \u{1}\u{8}\u{1b}[31m and C1 \u{85}\u{9b}",
    "<script>alert(1)</script>",
    "'; DROP TABLE ticket; --",
    "]]> and <![CDATA[ nested",
    "&amp; &#x0; &lt;b&gt;",
    "{\"json\": \"}\\u0000\"}",
    "\u{202e}右から左 RTL override",
    "👩‍👩‍👧‍👦🇨🇳 𠮷野家 e\u{301}\u{301}\u{301}",
    "%s %n %x ${jndi:ldap://x} {{7*7}}",
    "=HYPERLINK(\"http://x\")",
    "line\r\nline\nline\ttab",
];

/// Runs every check.
///
/// # Panics
/// When one fails.
pub fn run(peer: &dyn Peer, now: DateTime<Utc>) {
    a_redelivery_is_the_same_submission(peer, now);
    deliveries_in_any_order_keep_their_own_time(peer, now);
    hostile_text_is_kept_as_text(peer, now);
    oversize_is_refused(peer, now);
    a_skewed_clock_is_refused_outside_the_window(peer, now);
    bytes_changed_on_the_way_change_nothing(peer, now);
    what_is_cut_off_is_refused(peer, now);
}

fn submission(peer: &dyn Peer, delivery: &Delivery, now: DateTime<Utc>) -> Submission {
    let kept = peer.receive(delivery, now).expect("an honest delivery is taken");
    kept.expect("an honest delivery is a submission").normalise().expect("within the bounds")
}

fn a_redelivery_is_the_same_submission(peer: &dyn Peer, now: DateTime<Utc>) {
    let first = submission(peer, &peer.deliver("1", "灯坏了", now, now), now);
    let later = now + TimeDelta::seconds(5);
    let again = submission(peer, &peer.deliver("1", "灯坏了", now, later), later);
    let other = submission(peer, &peer.deliver("2", "灯坏了", now, now), now);
    let identity = |s: &Submission| (s.source.clone(), s.source_id.clone());
    assert_eq!(identity(&first), identity(&again), "a redelivery has the same identity");
    assert_ne!(identity(&first), identity(&other), "another message has another identity");
    assert_eq!(first.thread, other.thread, "one citizen, one thread");
}

fn deliveries_in_any_order_keep_their_own_time(peer: &dyn Peer, now: DateTime<Utc>) {
    if !peer.tells_time() {
        return;
    }
    let said = now - TimeDelta::seconds(40);
    let late = submission(peer, &peer.deliver("1", "一", said, now), now);
    let soon = submission(peer, &peer.deliver("2", "二", now, now), now);
    assert_eq!(late.occurred_at, Some(said), "when it was said, not when it arrived");
    assert_eq!(soon.occurred_at, Some(now));
}

fn hostile_text_is_kept_as_text(peer: &dyn Peer, now: DateTime<Utc>) {
    for (index, text) in HOSTILE.iter().enumerate() {
        let delivery = peer.deliver(&format!("h{index}"), text, now, now);
        let kept = match peer.receive(&delivery, now) {
            Ok(Some(kept)) => kept,
            // A character that the channel's own format cannot carry may be put aside.
            Ok(None) => continue,
            Err(refusal) => {
                assert!((400..500).contains(&refusal.status), "{text:?}: {refusal:?}");
                continue;
            }
        };
        assert!(!kept.raw.is_empty(), "{text:?}: the original is kept");
        let clean = kept.normalise().expect("within the bounds");
        let bad = |c: char| c.is_control() && c != '\n' && c != '\t';
        assert!(!clean.text.contains(bad), "{text:?} became {:?}", clean.text);
        if peer.carries_text() {
            let wanted: String =
                text.chars().filter(|c| c.is_alphanumeric() && c.is_ascii()).collect();
            let found: String =
                clean.text.chars().filter(|c| c.is_alphanumeric() && c.is_ascii()).collect();
            assert_eq!(found, wanted, "nothing of the words is lost");
        }
    }
}

fn oversize_is_refused(peer: &dyn Peer, now: DateTime<Utc>) {
    let longest = "长".repeat(LIMITS.text.max(peer.body_limit()));
    let mut delivery = peer.deliver("1", &longest, now, now);
    delivery.body.resize(delivery.body.len().max(peer.body_limit() + 1), b' ');
    match peer.receive(&delivery, now) {
        Err(refusal) => assert!(matches!(refusal.status, 413 | 422), "{refusal:?}"),
        Ok(_) => panic!("a body of {} bytes was taken", delivery.body.len()),
    }
}

fn a_skewed_clock_is_refused_outside_the_window(peer: &dyn Peer, now: DateTime<Utc>) {
    let Some(window) = peer.window_s() else { return };
    let delivery = peer.deliver("1", "灯坏了", now, now);
    for (offset, taken) in
        [(0, true), (window, true), (-window, true), (window + 1, false), (-window - 1, false)]
    {
        let outcome = peer.receive(&delivery, now + TimeDelta::seconds(offset));
        assert_eq!(outcome.is_ok(), taken, "{offset} s off");
        if let Err(refusal) = outcome {
            assert!(matches!(refusal.status, 401 | 403), "{refusal:?}");
        }
    }
}

fn bytes_changed_on_the_way_change_nothing(peer: &dyn Peer, now: DateTime<Utc>) {
    if peer.window_s().is_none() {
        return;
    }
    let honest = peer.deliver("1", "灯坏了", now, now);
    let wanted = submission(peer, &honest, now);
    for at in 0..honest.body.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut changed = honest.clone();
            changed.body[at] ^= bit;
            if let Ok(kept) = peer.receive(&changed, now) {
                let kept = kept.expect("what is signed was not changed");
                assert_eq!(kept.text, wanted.text, "byte {at} changed what was said");
                assert_eq!(kept.source_id, wanted.source_id, "byte {at} changed the identity");
            }
        }
    }
    for index in 0..honest.headers.len() {
        let mut missing = honest.clone();
        let (name, _) = missing.headers.remove(index);
        if name.contains("signature") || name.contains("timestamp") {
            assert!(peer.receive(&missing, now).is_err(), "{name} is needed");
        }
    }
}

fn what_is_cut_off_is_refused(peer: &dyn Peer, now: DateTime<Utc>) {
    let honest = peer.deliver("1", "灯坏了", now, now);
    let significant = honest.body.trim_ascii_end().len();
    for length in 0..significant {
        let mut cut = honest.clone();
        cut.body.truncate(length);
        assert!(peer.receive(&cut, now).is_err(), "{length} of {significant} bytes were taken");
    }
}
