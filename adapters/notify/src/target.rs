use crate::{
    http::Http,
    robots::{DingTalk, Feishu, WeCom},
    smtp::Smtp,
    webhook::Webhook,
};
use intake_contract::Notifier;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::sync::Arc;

/// A way to tell the staff, as configured. URLs of robots are secrets: who has one can post.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Target {
    /// 企业微信群机器人.
    WeCom {
        /// As shown by the group's settings.
        url: SecretString,
        /// Another host that is allowed, also without TLS: a proxy inside the network.
        #[serde(default)]
        allow_host: Option<String>,
    },
    /// 钉钉群机器人, 加签.
    DingTalk {
        /// As shown by the group's settings.
        url: SecretString,
        /// `SEC…`, as shown beside 加签.
        secret: SecretString,
        /// As for WeCom.
        #[serde(default)]
        allow_host: Option<String>,
    },
    /// 飞书群机器人, 签名校验.
    Feishu {
        /// As shown by the group's settings.
        url: SecretString,
        /// As shown beside 签名校验.
        secret: SecretString,
        /// As for WeCom.
        #[serde(default)]
        allow_host: Option<String>,
    },
    /// E-mail.
    Smtp {
        /// The mail server.
        host: String,
        /// 465 for TLS from the start, 587 or 25 for STARTTLS.
        #[serde(default)]
        port: Option<u16>,
        /// `implicit`, `starttls`, or `none` (inside the network only).
        #[serde(default)]
        tls: Tls,
        /// To log in.
        #[serde(default)]
        username: Option<String>,
        /// To log in.
        #[serde(default)]
        password: Option<SecretString>,
        /// The sender's address.
        from: String,
        /// Told as well, and alone when nobody on duty has an address.
        #[serde(default)]
        to: Vec<String>,
    },
    /// A program of your own.
    Webhook {
        /// Where to post.
        url: SecretString,
        /// Signs each request.
        secret: SecretString,
        /// As for WeCom.
        #[serde(default)]
        allow_host: Option<String>,
    },
}

/// How a mail connection is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// From the first byte.
    #[default]
    Implicit,
    /// After STARTTLS, which is required.
    #[serde(rename = "starttls")]
    Upgraded,
    /// Not at all.
    None,
}

/// A setting is wrong; names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {says}")]
pub struct TargetError {
    /// Which.
    pub key: &'static str,
    /// What is wrong with it.
    pub says: String,
}

pub(crate) fn wrong(key: &'static str, says: impl Into<String>) -> TargetError {
    TargetError { key, says: says.into() }
}

/// The URL, if it goes to one of the hosts by TLS, or to the host that the settings allow.
pub(crate) fn checked(
    url: &SecretString,
    hosts: &[&str],
    allow_host: Option<&str>,
) -> Result<Url, TargetError> {
    let url = Url::parse(url.expose_secret()).map_err(|_| wrong("url", "is no URL"))?;
    let host = url.host_str().unwrap_or_default();
    if !matches!(url.scheme(), "https" | "http") || host.is_empty() {
        return Err(wrong("url", "must begin with https://"));
    }
    if allow_host == Some(host) {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(wrong("url", "must begin with https://, or its host be named in allow_host"));
    }
    if !hosts.is_empty() && !hosts.contains(&host) {
        let known = hosts.join(" or ");
        return Err(wrong(
            "url",
            format!("does not go to {known}; if that is meant, name its host in allow_host"),
        ));
    }
    Ok(url)
}

const WECOM: &[&str] = &["qyapi.weixin.qq.com"];
const DINGTALK: &[&str] = &["oapi.dingtalk.com", "api.dingtalk.com"];
const FEISHU: &[&str] = &["open.feishu.cn", "open.larksuite.com"];

impl Target {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(&self) -> Result<(), TargetError> {
        notifier(self).map(|_| ())
    }
}

/// The notifier of a target.
///
/// # Errors
/// The first setting that is wrong.
pub fn notifier(target: &Target) -> Result<Arc<dyn Notifier>, TargetError> {
    let http = || Http::new().map_err(|error| wrong("tls", error));
    let secret = |secret: &SecretString| {
        if secret.expose_secret().is_empty() {
            return Err(wrong("secret", "is empty"));
        }
        Ok(secret.clone())
    };
    Ok(match target {
        Target::WeCom { url, allow_host } => {
            let url = checked(url, WECOM, allow_host.as_deref())?;
            Arc::new(WeCom { http: http()?, url })
        }
        Target::DingTalk { url, secret: key, allow_host } => {
            let url = checked(url, DINGTALK, allow_host.as_deref())?;
            Arc::new(DingTalk { http: http()?, url, secret: secret(key)? })
        }
        Target::Feishu { url, secret: key, allow_host } => {
            let url = checked(url, FEISHU, allow_host.as_deref())?;
            Arc::new(Feishu { http: http()?, url, secret: secret(key)? })
        }
        Target::Webhook { url, secret: key, allow_host } => {
            let url = checked(url, &[], allow_host.as_deref())?;
            Arc::new(Webhook { http: http()?, url, secret: secret(key)? })
        }
        Target::Smtp { host, port, tls, username, password, from, to } => {
            let login = match (username, password) {
                (Some(name), Some(password)) => {
                    Some((name.clone(), password.expose_secret().to_owned()))
                }
                (None, None) => None,
                _ => return Err(wrong("username", "and password belong together")),
            };
            Arc::new(Smtp::new(host, *port, *tls, login, from, to)?)
        }
    })
}
