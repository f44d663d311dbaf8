use crate::{
    http::{permanent, retry},
    target::{TargetError, Tls},
};
use chrono::{DateTime, Utc};
use intake_contract::{Notice, Notifier, SendError, SendFuture, Sent};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::authentication::Credentials,
};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// E-mail to the people on duty who have an address.
pub(crate) struct Smtp {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
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
        })
    }

    fn compose(&self, notice: &Notice, now: DateTime<Utc>) -> Result<Message, SendError> {
        // The same id for every attempt: mail servers drop the repeat.
        let domain = self.from.email.domain();
        let mut message = Message::builder()
            .from(self.from.clone())
            .date(now.into())
            .message_id(Some(format!("<{}@{domain}>", notice.idempotency_key)))
            .subject(notice.title.replace(['\r', '\n'], " "));
        let on_duty = notice.recipients.iter().filter_map(|r| r.email.as_deref()?.parse().ok());
        let to: Vec<Mailbox> = on_duty.chain(self.to.iter().cloned()).collect();
        if to.is_empty() {
            return Err(permanent("nobody who is told has an e-mail address, and `to` is empty"));
        }
        for mailbox in to {
            message = message.to(mailbox);
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
}

impl Notifier for Smtp {
    fn kind(&self) -> &'static str {
        "smtp"
    }

    fn send<'a>(&'a self, notice: &'a Notice, now: DateTime<Utc>) -> SendFuture<'a> {
        Box::pin(async move {
            let message = self.compose(notice, now)?;
            match self.transport.send(message).await {
                Ok(_) => Ok(Sent::default()),
                Err(error) => {
                    let code = error.status().map_or_else(String::new, |code| format!(" {code}"));
                    Err(if error.is_permanent() {
                        permanent(format!("the mail server refused{code}"))
                    } else if error.is_timeout() {
                        retry("the mail server did not answer in time", None)
                    } else {
                        retry(format!("the mail server could not take it{code}"), None)
                    })
                }
            }
        })
    }
}
