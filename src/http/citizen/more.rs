//! Saying more: words, photos and documents (S25).

use super::{Contact, Failure, Opened, Sending, Shared, committed, html, page::whole};
use crate::{
    citizen::{
        self, Added, CitizenError, More,
        upload::{FILE_LIMIT, FILES, TOTAL_LIMIT, Upload},
    },
    domain::ticket::{NotAllowed, Outcome, State},
    secret, store,
};
use askama::Template;
use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request, State as Of, multipart::Field},
    http::{StatusCode, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use chrono::TimeDelta;
use futures::{StreamExt, ready, stream};
use http_body_util::{BodyExt, Limited};
use sqlx::Connection;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

/// What is read and thrown away at most, so that a telephone that sends too much gets an answer and
/// not a broken connection.
const READ_LIMIT: usize = 64 * 1024 * 1024;
/// A part's head and what stands before it, in bytes.
const HEAD: usize = 64 * 1024;
/// The form's own field, in bytes.
const FORM: usize = 64;
/// 2,000 characters of Chinese, and room for what is too long by a little.
const TEXT: usize = 16 * 1024;

#[derive(Template)]
#[template(path = "citizen/more.html")]
struct MorePage {
    contact: Contact,
    token: String,
    number: String,
    form: String,
    missing: Option<String>,
    text: String,
    error: Option<String>,
}

impl MorePage {
    fn new(app: &Shared, opened: Opened, state: &State) -> Self {
        let (number, token) = (opened.number(), opened.token);
        let contact = Contact::of(&opened.office, app.clock.now());
        let missing = match state {
            State::AwaitingCitizen { missing, .. } => Some(missing.clone()),
            _ => None,
        };
        let form = secret::token();
        Self { contact, token, number, form, missing, text: String::new(), error: None }
    }
}

fn takes_more(state: &State) -> bool {
    !matches!(state, State::Closed { .. } | State::Resolved { outcome: Outcome::Withdrawn, .. })
}

pub(super) async fn page(Of(app): Of<Shared>, opened: Opened) -> Result<Response, Failure> {
    let state = whole(&app, &opened).await?.1;
    if !takes_more(&state) {
        return Ok(opened.done(""));
    }
    Ok(html(StatusCode::OK, &MorePage::new(&app, opened, &state)))
}

/// What a form held, as far as it fits.
#[derive(Default)]
struct Sent {
    form: String,
    text: String,
    files: Vec<Upload>,
    wrong: Option<(StatusCode, String)>,
}

pub(super) async fn send(
    Of(app): Of<Shared>,
    Sending(opened): Sending,
    request: Request,
) -> Result<Response, Failure> {
    let (_, state) = whole(&app, &opened).await?;
    if !takes_more(&state) {
        return Ok(opened.done(""));
    }
    let declared = request.headers().get(header::CONTENT_LENGTH);
    let declared = declared.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > READ_LIMIT) {
        return Err(Failure::of_status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let of = (opened.office.id, opened.ticket);
    let Some(_seat) = app.citizen.uploading.seat(of) else { return Err(Failure::busy()) };
    let within = Duration::from_secs(app.citizen.settings.upload_timeout_s);
    let sent = tokio::time::timeout(within, read(request)).await;
    let mut sent = sent
        .map_err(|_| Failure::of_status(StatusCode::REQUEST_TIMEOUT))?
        .map_err(Failure::of_status)?;
    let again = |opened, sent: Sent, (status, error): (StatusCode, String)| {
        let page = MorePage::new(&app, opened, &state);
        Ok(html(status, &MorePage { text: sent.text, error: Some(error), ..page }))
    };
    if let Some(wrong) = sent.wrong.take() {
        return again(opened, sent, wrong);
    }
    let (office, now) = (&opened.office, app.clock.now());
    let mut db = app.pool.acquire().await?;
    let bytes: usize = sent.files.iter().map(|file| file.content.len()).sum();
    if bytes > 0 {
        let who = format!("mb:{}", opened.ticket.as_i64());
        let weight = i32::try_from(bytes.div_ceil(1024 * 1024)).unwrap_or(i32::MAX / 2);
        let weight = (weight, app.citizen.settings.upload_mb_per_h);
        let hour = now - TimeDelta::hours(1);
        let full = store::citizen::attempt(&mut db, office.id, &who, weight, now, hour).await?;
        if let Some(since) = full {
            return Err(Failure::too_often(since, now));
        }
    }
    let mut transaction = db.begin().await?;
    let more = More { text: &sent.text, files: &sent.files, form: &sent.form };
    match citizen::add(&mut transaction, office, opened.ticket, more, now).await {
        Ok(Added::Kept { urgent }) => {
            transaction.commit().await?;
            committed(&app, office.id, urgent);
            Ok(opened.done("more"))
        }
        Ok(Added::Before) => Ok(opened.done("more_before")),
        Err(CitizenError::TooLong) => {
            let says = "文字最多 2000 字，请精简一下，或者分两次发送。".to_owned();
            again(opened, sent, (StatusCode::UNPROCESSABLE_ENTITY, says))
        }
        Err(CitizenError::NotAllowed(NotAllowed::TextMissing)) => {
            let says = "还没有内容。请写几句话，或者选一张照片，再点“发送”。".to_owned();
            again(opened, sent, (StatusCode::UNPROCESSABLE_ENTITY, says))
        }
        Err(CitizenError::NotAllowed(_)) => Ok(opened.done("")),
        Err(CitizenError::NoTicket) => Err(Failure::no_link()),
        Err(CitizenError::Store(error)) => Err(error.into()),
    }
}

/// Reads the form part by part. What does not fit is read past and named, so that the words that were
/// written are not lost.
async fn read(request: Request) -> Result<Sent, StatusCode> {
    let (head, body) = request.into_parts();
    let room = Arc::new(AtomicUsize::new(HEAD));
    let request = Request::from_parts(head, in_pieces(body, Arc::clone(&room)));
    let mut parts =
        Multipart::from_request(request, &()).await.map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut sent = Sent::default();
    let mut total = 0;
    while let Some(mut part) = parts.next_field().await.map_err(|error| refused(&error))? {
        room.store(usize::MAX, Ordering::Relaxed);
        match part.name() {
            Some("form") => sent.form = text(&mut part, FORM).await?,
            Some("text") => sent.text = text(&mut part, TEXT).await?,
            Some("files") => file(&mut part, &mut sent, &mut total).await?,
            _ => drop(content(&mut part, 0).await?),
        }
        room.store(HEAD, Ordering::Relaxed);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !sent.form.chars().all(plain) {
        return Err(StatusCode::BAD_REQUEST);
    }
    Ok(sent)
}

/// A body piece by piece, with a pause after each, and no further than there is `room`. The parser
/// takes whatever it can get before it looks, and with each piece searches all that it holds for the
/// end of a part's head: a head of megabytes, sent in crumbs, would keep a core busy.
fn in_pieces(body: Body, room: Arc<AtomicUsize>) -> Body {
    let mut pieces = Limited::new(body, READ_LIMIT).into_data_stream();
    let mut pause = false;
    Body::from_stream(stream::poll_fn(move |context| {
        if std::mem::take(&mut pause) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = ready!(pieces.poll_next_unpin(context));
        pause = true;
        let length = piece.as_ref().and_then(|piece| piece.as_ref().ok()).map_or(0, Bytes::len);
        let fits =
            |room: usize| if room == usize::MAX { Some(room) } else { room.checked_sub(length) };
        match room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Poll::Ready(piece),
            Err(_) => Poll::Ready(Some(Err("a part's head has no end".into()))),
        }
    }))
}

async fn file(part: &mut Field<'_>, sent: &mut Sent, total: &mut usize) -> Result<(), StatusCode> {
    let name = part.file_name().map(str::to_owned);
    let room = if sent.files.len() < FILES { FILE_LIMIT.min(TOTAL_LIMIT - *total) } else { 0 };
    let content = content(part, room).await?;
    if content.as_ref().is_some_and(Bytes::is_empty) {
        return Ok(()); // no file chosen
    }
    let called = name.as_deref().filter(|name| !name.is_empty()).unwrap_or("有一个文件");
    let called: String = called.chars().take(40).collect();
    let wrong = match content {
        None if sent.files.len() == FILES => {
            (StatusCode::PAYLOAD_TOO_LARGE, format!("一次最多 {FILES} 个文件，请分几次发送。"))
        }
        None => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "“{called}”太大。每个不超过 10 兆，一次加起来不超过 24 兆；请换小一点的，或者分几次发送。"
            ),
        ),
        Some(content) => {
            *total += content.len();
            match Upload::new(name.as_deref(), content) {
                Some(file) => {
                    sent.files.push(file);
                    return Ok(());
                }
                None => (
                    StatusCode::UNSUPPORTED_MEDIA_TYPE,
                    format!("“{called}”不是照片或 PDF，没有收。请把它拍成照片，再选一次。"),
                ),
            }
        }
    };
    sent.wrong.get_or_insert(wrong);
    Ok(())
}

async fn text(part: &mut Field<'_>, limit: usize) -> Result<String, StatusCode> {
    let content = content(part, limit).await?.ok_or(StatusCode::PAYLOAD_TOO_LARGE)?;
    String::from_utf8(content.to_vec()).map_err(|_| StatusCode::BAD_REQUEST)
}

/// A part's content; `None` when it is longer than `limit`, after all of it was read.
async fn content(part: &mut Field<'_>, limit: usize) -> Result<Option<Bytes>, StatusCode> {
    let mut content = BytesMut::new();
    let mut fits = true;
    while let Some(chunk) = part.chunk().await.map_err(|error| refused(&error))? {
        fits &= content.len() + chunk.len() <= limit;
        if fits {
            content.extend_from_slice(&chunk);
        } else {
            content.clear();
        }
    }
    Ok(fits.then(|| content.freeze()))
}

fn refused(error: &axum::extract::multipart::MultipartError) -> StatusCode {
    // A form that breaks off or makes no sense; or more than anybody reads.
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        StatusCode::PAYLOAD_TOO_LARGE
    } else {
        StatusCode::BAD_REQUEST
    }
}
