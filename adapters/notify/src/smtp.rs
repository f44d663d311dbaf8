use crate::{
    http::{permanent, retry},
    target::{TargetError, Tls},
};
use chrono::{DateTime, Utc};
use intake_contract::{Notice, Notifier, SendError, SendFuture, Sent};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    address::Envelope,
    message::{Mailbox, header::ContentType},
    transport::smtp::{Error, authentication::Credentials},
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

const WITHIN: Duration = Duration::from_secs(10);
/// Notices of which it is remembered whom they have reached, while others are still to be tried.
const REMEMBERED: usize = 256;

/// E-mail to the people on duty who have an address.
///
/// One message for all, as long as the server takes it. Once it refuses, each mailbox for itself:
/// one that is full or gone must not keep the others from being told.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
    /// Mailboxes that have it, by the notice's key: the next attempt leaves them out. Lost with the
    /// process, which costs a second copy.
    reached: Mutex<VecDeque<(String, BTreeSet<String>)>>,
}

/// A mailbox, and the person whom a report names.
struct Addressed {
    name: String,
    mailbox: Mailbox,
}

impl Smtp {
    pub(crate) fn new(
        host: &str,
        port: Option<u16>,
        tls: Tls,
        login: Option<(String, String)>,
        from: &str,
        to: &[String],
    ) -> Result<Self, TargetError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        type Transport = AsyncSmtpTransport<Tokio1Executor>;
        let built = match tls {
            Tls::Implicit => Transport::relay(host),
            Tls::Upgraded => Transport::starttls_relay(host),
            Tls::None => Ok(Transport::builder_dangerous(host)),
        };
        let wrong = |key, says: &str| TargetError { key, says: says.to_owned() };
        let mut builder = built.map_err(|_| wrong("host", "is no server name"))?;
        builder = builder.timeout(Some(WITHIN));
        if let Some(port) = port {
            builder = builder.port(port);
        }
        if let Some((name, password)) = login {
            builder = builder.credentials(Credentials::new(name, password));
        }
        let address = |key, text: &str| text.parse().map_err(|_| wrong(key, "is no address"));
        Ok(Self {
            transport: builder.build(),
            from: address("from", from)?,
            to: to.iter().map(|text| address("to", text)).collect::<Result<_, _>>()?,
            reached: Mutex::default(),
        })
    }

    /// Who is told by mail, and the names of those whose address is none.
    fn addressed(&self, notice: &Notice) -> (Vec<Addressed>, Vec<String>) {
        let mut addressed: Vec<Addressed> = Vec::new();
        let mut missed = Vec::new();
        for recipient in &notice.recipients {
            let Some(address) = &recipient.email else { continue };
            match address.parse::<Mailbox>() {
                // A server that takes ASCII only is given none of the others: the library refuses
                // the whole message then (「163。com」).
                Ok(mailbox) if mailbox.email.to_string().is_ascii() => {
                    addressed.push(Addressed { name: recipient.name.clone(), mailbox });
                }
                _ => missed.push(recipient.name.clone()),
            }
        }
        let also = self
            .to
            .iter()
            .enumerate()
            .map(|(n, mailbox)| Addressed { name: format!("to[{n}]"), mailbox: mailbox.clone() });
        addressed.extend(also);
        let mut seen = BTreeSet::new();
        addressed.retain(|one| seen.insert(one.mailbox.email.to_string()));
        (addressed, missed)
    }

    fn compose(
        &self,
        notice: &Notice,
        to: &[Addressed],
        now: DateTime<Utc>,
    ) -> Result<Message, SendError> {
        // The same id for every attempt: mail servers drop the repeat.
        let domain = self.from.email.domain();
        let mut message = Message::builder()
            .from(self.from.clone())
            .date(now.into())
            .message_id(Some(format!("<{}@{domain}>", notice.idempotency_key)))
            .subject(notice.title.replace(['\r', '\n'], " "));
        for one in to {
            message = message.to(one.mailbox.clone());
        }
        let mut body = notice.lines.join("\n");
        if let Some(link) = &notice.link {
            body.push_str("\n\n");
            body.push_str(link);
        }
        message
            .header(ContentType::TEXT_PLAIN)
            .body(body)
            .map_err(|_| permanent("the message could not be composed"))
    }

    fn reached(&self, key: &str) -> BTreeSet<String> {
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        reached.iter().find(|(k, _)| k == key).map(|(_, to)| to.clone()).unwrap_or_default()
    }

    fn remember(&self, key: &str, address: String) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, to)) = reached.iter_mut().find(|(k, _)| k == key) {
            to.insert(address);
            return;
        }
        if reached.len() == REMEMBERED {
            reached.pop_front();
        }
        reached.push_back((key.to_owned(), BTreeSet::from([address])));
    }

    async fn attempt(&self, notice: &Notice, now: DateTime<Utc>) -> Result<Sent, SendError> {
        let (mut to, mut missed) = self.addressed(notice);
        if to.is_empty() {
            return Err(permanent("nobody who is told has an e-mail address, and `to` is empty"));
        }
        let message = self.compose(notice, &to, now)?;
        let raw = message.formatted();
        let reached = self.reached(&notice.idempotency_key);
        let mut told = !reached.is_empty();
        to.retain(|one| !reached.contains(&one.mailbox.email.to_string()));
        if !told {
            match self.transport.send_raw(message.envelope(), &raw).await {
                Ok(_) => return Ok(Sent { missed, ..Sent::default() }),
                // No word from the server: it would not be another one for each mailbox.
                Err(error) if error.status().is_none() || to.len() == 1 => {
                    return Err(said(&error));
                }
                Err(_) => {}
            }
        }
        let mut last_refusal = None;
        let mut again = None;
        for one in to {
            let email = one.mailbox.email;
            let address = email.to_string();
            let envelope = Envelope::new(Some(self.from.email.clone()), vec![email])
                .map_err(|_| permanent("the message could not be addressed"))?;
            match self.transport.send_raw(&envelope, &raw).await {
                Ok(_) => {
                    told = true;
                    self.remember(&notice.idempotency_key, address);
                }
                Err(error) if error.is_permanent() => {
                    last_refusal = Some(said(&error));
                    missed.push(one.name);
                }
                Err(error) => again = Some(said(&error)),
            }
        }
        match (again, told, last_refusal) {
            // Those who have it are left out then.
            (Some(error), ..) => Err(error),
            (None, false, Some(refusal)) => Err(refusal),
            (None, ..) => Ok(Sent { missed, ..Sent::default() }),
        }
    }
}

/// What a failure means; quotes nothing of what the server said but its code.
fn said(error: &Error) -> SendError {
    let code = error.status().map_or_else(String::new, |code| format!(" {code}"));
    if error.is_permanent() {
        permanent(format!("the mail server refused{code}"))
    } else if error.is_timeout() {
        retry("the mail server did not answer in time", None)
    } else {
        retry(format!("the mail server could not take it{code}"), None)
    }
}

impl Notifier for Smtp {
    fn kind(&self) -> &'static str {
        "smtp"
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: DateTime<Utc>) -> SendFuture<'a> {
        Box::pin(self.attempt(notice, now))
    }
}
