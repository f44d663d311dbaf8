//! Callbacks to the gateway (§4): five seconds, three deliveries, and what the citizen reads when
//! nobody answers.

use super::Shared;
use intake_wechat::sender::Opened;

/// Deliveries of one message in all; each with a nonce, a timestamp and a signature of its own.
const DELIVERIES: usize = 3;

/// What a citizen reads in place of a reply.
pub(crate) const UNAVAILABLE: &str = "该公众号暂时无法提供服务，请稍后再试";

pub(crate) enum Answered {
    /// `success`, or an empty body.
    Silently,
    /// With a reply.
    With(Opened),
    /// Not at all, or with something that is no reply.
    Wrongly {
        /// For the page: in the words of who looks for the fault.
        why: String,
    },
}

pub(crate) async fn deliver(shared: &Shared, openid: &str, xml: &str) -> Answered {
    let mut why = String::new();
    for _ in 0..DELIVERIES {
        let nonce = rand::random::<u32>().to_string();
        let (query, body) =
            shared.sender.callback(xml, shared.now().timestamp(), &nonce, rand::random());
        let plain = format!("{query}&openid={openid}");
        let request = shared
            .client
            .post(format!("{}?{plain}", shared.settings.callback))
            .header("content-type", "text/xml")
            .timeout(shared.settings.patience)
            .body(body);
        let answered = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
        };
        match answered.await {
            Ok((200, body)) => return understand(shared, openid, &body),
            Ok((status, _)) => why = format!("网关回了 HTTP {status}"),
            Err(error) if error.is_timeout() => "网关没有在 5 秒内回答".clone_into(&mut why),
            Err(_) => "连不上网关".clone_into(&mut why),
        }
    }
    Answered::Wrongly { why: format!("投递 {DELIVERIES} 次，{why}") }
}

fn understand(shared: &Shared, openid: &str, body: &str) -> Answered {
    if body.is_empty() || body == "success" {
        return Answered::Silently;
    }
    match shared.sender.open(body) {
        // An empty text is shown as a fault as well.
        Some(reply)
            if reply.to == openid && (reply.msg_type != "text" || !reply.content.is_empty()) =>
        {
            Answered::With(reply)
        }
        _ => Answered::Wrongly { why: "网关的回复不是平台认识的格式".to_owned() },
    }
}
