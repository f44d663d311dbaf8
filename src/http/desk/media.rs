//! What citizens sent beside their words: in the story, and as files. Shown is only what was drawn
//! anew here; what came is given out as a file. Both are kept from doing anything in the browser
//! (S25): no guessing of types, and a sandbox without scripts or forms should one be opened alone.

use super::{Failure, must_see_tickets, session::LoggedIn};
use crate::{
    domain::register::RegisterNumber,
    http::Shared,
    media::{Copies, Type, Variant, shown_as},
    store::{
        self,
        media::{Content, Key, Lost, MediaRow, Standing, Transcript},
    },
    wording,
};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use intake_contract::AttachmentKind;
use std::ops::Range;

/// An attachment in the story.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// What it is, or what became of it.
    pub(super) words: String,
    /// The address below which its variants are; `None` where there is nothing to open.
    pub(super) at: Option<String>,
    pub(super) picture: bool,
    pub(super) sound: bool,
    /// What a machine has understood of it.
    pub(super) written: Option<String>,
}

impl Piece {
    /// Something that is all words: a place, a link, a recording that is elsewhere.
    pub(super) fn said(words: String) -> Self {
        Self { words, ..Self::default() }
    }

    /// What was sent, where it is with.
    pub(super) fn sent(row: &MediaRow, number: &str, label: String, now: DateTime<Utc>) -> Self {
        let content = match row.standing {
            Standing::Kept(content) => content,
            _ if row.elsewhere => return Self::said(elsewhere(&label)),
            // Nobody fetches it from there: what the channel says of it is all there is.
            Standing::Waiting { asked: false, .. } => return Self::said(label),
            Standing::Removed(at) => {
                let day = wording::day_in_sentence(wording::day_of(at), now);
                return Self::said(format!("电话录音已于{day}按规定删除。"));
            }
            other if row.recorded => return Self::said(recording_absent(&label, other)),
            other => return Self::said(absent(row.kind, other)),
        };
        let picture = content.copies == Copies::Picture;
        let sound = shown_as(&content, Variant::Play).is_some();
        let what = if row.recorded { "电话录音" } else { what(row.kind) };
        let size = size(content.size);
        let words = if picture || sound {
            heard(what, &content, &size)
        } else if content.ms == Some(0) {
            format!("{what}，{size}，文件是空的，没有声音。请回拨询问")
        } else if row.recorded {
            format!("{what}，{size}。格式不支持在线播放，请下载后收听")
        } else if content.kind == Type::Mp4 {
            format!("{what}，{size}，请下载后观看")
        } else if row.kind == AttachmentKind::File {
            format!("{label}，{size}，请下载后查看")
        } else if row.kind == AttachmentKind::Image {
            format!("{what}，{size}，不能在这里显示，可以下载原件；来历不明时请勿打开")
        } else {
            format!("{what}，{size}，不能在这里播放，可以下载原件")
        };
        let at = format!("/desk/media/{number}/{}/{}", row.seq, row.n);
        let written = row.transcript.as_ref().map(|written| match written {
            Transcript::Waiting => "正在转写，稍后刷新页面。".to_owned(),
            Transcript::Done(text) if text.is_empty() => "没有听出内容，请听录音。".to_owned(),
            Transcript::Done(text) => text.clone(),
            Transcript::Failed => "没有转写成功，请听录音。".to_owned(),
        });
        Self { words, at: Some(at), picture, sound, written }
    }
}

/// Something to look at or to hear. How long a sound is was measured, whatever its source said.
fn heard(what: &str, content: &Content, size: &str) -> String {
    let Some(ms) = content.ms else { return format!("{what}，{size}") };
    // A second that has begun is a second.
    let seconds = (ms + 999) / 1000;
    let length = match seconds {
        0..60 => format!("{seconds} 秒"),
        _ => format!("{} 分 {} 秒", seconds / 60, seconds % 60),
    };
    let doubt = if content.silent { "，疑似空录音" } else { "" };
    format!("{what}，{length}，{size}{doubt}")
}

fn what(kind: AttachmentKind) -> &'static str {
    match kind {
        AttachmentKind::Image => "照片",
        AttachmentKind::Voice => "语音",
        AttachmentKind::Video => "视频",
        AttachmentKind::Location => "位置",
        AttachmentKind::Link => "链接",
        AttachmentKind::File => "文件",
    }
}

fn absent(kind: AttachmentKind, standing: Standing) -> String {
    let what = what(kind);
    match standing {
        Standing::Lost(Lost::Expired) => {
            format!("{what}已过期：微信只保留 3 天，没有来得及取回。需要时请群众重新发送。")
        }
        Standing::Lost(Lost::Failed) => {
            format!("{what}取不回来：微信没有给出文件。需要时请群众重新发送。")
        }
        Standing::Lost(Lost::Refused) => {
            format!("{what}太大，没有保存。需要时请群众当面提供。")
        }
        Standing::Waiting { missed: true, .. } => {
            format!("{what}暂时没有取回来，系统会自动再试；微信只保留 3 天。")
        }
        Standing::Waiting { .. } | Standing::Kept(_) | Standing::Removed(_) => {
            format!("{what}正在从微信取回，稍后刷新页面查看。")
        }
    }
}

/// A recording that only the exchange or the vendor can play.
fn elsewhere(label: &str) -> String {
    format!("{label}：录音在电话系统里，本系统取不到。请到电话交换机或服务商的控制台收听。")
}

/// The same of a recording of the telephone.
fn recording_absent(label: &str, standing: Standing) -> String {
    match standing {
        Standing::Lost(Lost::Refused) => format!("{label}：录音太大，没有保存。请回拨询问。"),
        Standing::Lost(_) => format!("{label}：录音缺失，请回拨询问。"),
        Standing::Waiting { missed: true, .. } => {
            format!("{label}：录音待到，电话系统还没有给出文件，系统会自动再试。")
        }
        Standing::Waiting { .. } | Standing::Kept(_) | Standing::Removed(_) => {
            format!("{label}：录音待到，稍后刷新页面。")
        }
    }
}

/// As people say it.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KB", bytes.div_ceil(1024)),
        _ => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
    }
}

/// One variant of an attachment.
pub(super) async fn show(
    State(app): State<Shared>,
    LoggedIn(session): LoggedIn,
    Path((number, seq, n, variant)): Path<(String, i32, i16, String)>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    must_see_tickets(&session)?;
    let variant = match variant.as_str() {
        "thumb" => Variant::Thumb,
        "preview" => Variant::Preview,
        "play" => Variant::Play,
        "original" => Variant::Original,
        _ => return Err(Failure::gone()),
    };
    let office = app.offices.get(session.office).ok_or_else(Failure::gone)?;
    let ticket = RegisterNumber::parse(&number, &office.prefix).map_err(|_| Failure::gone())?;
    // Of this officer's office, whatever the address says.
    let key = Key { office: session.office, ticket, seq, n };
    let mut db = app.pool.acquire().await?;
    let content = store::media::content(&mut db, key).await?.ok_or_else(Failure::gone)?;
    drop(db);
    let (stored, mime) = shown_as(&content, variant).ok_or_else(Failure::gone)?;
    let size = app.media.store.size(office.id, &content.hash, stored).await;
    let size = size.map_err(storage)?.ok_or_else(missing)?;
    let part = match range(&headers, size) {
        Asked::Whole => None,
        Asked::Part(part) => Some(part),
        Asked::Beyond => return Ok(beyond(size)),
    };
    app.media.record_opened(key, session.staff, (variant, &content), app.clock.now()).await?;
    let opened = app.media.store.get(office.id, &content.hash, stored, part.clone()).await;
    let opened = opened.map_err(storage)?.ok_or_else(missing)?;
    let mut response = Response::new(Body::from_stream(opened.bytes));
    let sent = &opened.range;
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::CONTENT_TYPE, mime);
    put(header::CONTENT_LENGTH, &(sent.end - sent.start).to_string());
    put(header::ACCEPT_RANGES, "bytes");
    // Of this person: nothing between keeps it, nor does their browser.
    put(header::CACHE_CONTROL, "private, no-store");
    put(header::CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'; frame-ancestors 'none'");
    let number = ticket.display(&office.prefix);
    put(header::CONTENT_DISPOSITION, &disposition(variant, &number, seq, n, &content));
    if part.is_some() {
        let last = sent.end.saturating_sub(1);
        put(header::CONTENT_RANGE, &format!("bytes {}-{last}/{}", sent.start, opened.size));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn disposition(variant: Variant, number: &str, seq: i32, n: i16, content: &Content) -> String {
    match variant {
        Variant::Original => {
            let extension = content.kind.extension();
            format!("attachment; filename=\"{number}-{seq}-{n}.{extension}\"")
        }
        _ => "inline".to_owned(),
    }
}

/// What a request wants of a file.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<u64>),
    Beyond,
}

/// The one range that was asked for; several, or what is no range, are answered with the whole.
fn range(headers: &HeaderMap, size: u64) -> Asked {
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let Some((from, to)) = asked
        .and_then(|text| text.strip_prefix("bytes="))
        .filter(|text| !text.contains(','))
        .and_then(|text| text.trim().split_once('-'))
    else {
        return Asked::Whole;
    };
    let part = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) if from <= to => from..to.saturating_add(1).min(size),
        (Ok(from), Err(_)) if to.is_empty() => from..size,
        (Err(_), Ok(last)) if from.is_empty() => size.saturating_sub(last)..size,
        _ => return Asked::Whole,
    };
    if part.start < part.end { Asked::Part(part) } else { Asked::Beyond }
}

fn beyond(size: u64) -> Response {
    let headers = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
    (StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response()
}

fn storage(error: crate::media::StorageError) -> Failure {
    tracing::error!(error = %crate::telemetry::causes(&error), "what a citizen sent could not be read");
    Failure::says(
        StatusCode::SERVICE_UNAVAILABLE,
        "暂时打不开",
        "文件存储没有响应，文件还在。请过半分钟刷新再试；一直不行请联系管理员。",
    )
}

/// A row says that it is kept, and it is not there.
fn missing() -> Failure {
    tracing::error!("content that a medium names is missing in the storage");
    Failure::says(StatusCode::NOT_FOUND, "文件不见了", "登记过的文件在存储里找不到，请联系管理员。")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_browsers_write_it() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, HeaderValue::from_str(text).expect("a header"));
            range(&headers, 100)
        };
        assert_eq!(range(&HeaderMap::new(), 100), Asked::Whole);
        for (text, asked) in [
            ("bytes=0-", Asked::Part(0..100)),
            ("bytes=10-19", Asked::Part(10..20)),
            ("bytes=90-500", Asked::Part(90..100)),
            ("bytes=-5", Asked::Part(95..100)),
            ("bytes=-500", Asked::Part(0..100)),
            ("bytes=0-18446744073709551615", Asked::Part(0..100)),
            ("bytes=100-", Asked::Beyond),
            ("bytes=200-300", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-1", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(of(text), asked, "{text}");
        }
    }
}
