//! The telephone's sources, as they tell of a call: each sends, signs or writes what the real one does,
//! to the gateway that is set up for it.

use super::{Access, Where, local, read};
use chrono::{DateTime, TimeDelta, Utc};
use intake_gateway::{
    calls::{Settings, SourceKind},
    clock::Clock,
    config::Config,
    gateway::StartError,
    lifecycle::Wake,
    secret,
};
use intake_hotline::{
    TimeFormat, Zone,
    sender::{Description, Sender, prove},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Who tells of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The signed webhook.
    Webhook,
    /// FreeSWITCH's mod_json_cdr.
    Freeswitch,
    /// Asterisk: files in its voicemail spool.
    Asterisk,
    /// Twilio's callback.
    Twilio,
    /// 腾讯云联络中心.
    Tccc,
    /// 阿里云语音服务.
    Aliyun,
    /// 华为云语音通话.
    Huawei,
    /// 星纵 Yeastar.
    Yeastar,
}

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    at: Where,
    /// Who tells of it.
    #[arg(long = "as", value_enum, default_value_t = Kind::Webhook)]
    kind: Kind,
    /// The source's id, where several of this kind are configured.
    #[arg(long, value_name = "ID")]
    source: Option<String>,
    /// The number that called; empty when withheld.
    #[arg(long, default_value = "13900001234")]
    caller: String,
    /// How long they spoke, in seconds.
    #[arg(long, default_value_t = 42, value_parser = clap::value_parser!(u32).range(1..=600))]
    duration: u32,
    /// They hung up without leaving a message.
    #[arg(long)]
    missed: bool,
    /// When, with its offset; now when missing.
    #[arg(long)]
    started_at: Option<String>,
    /// The recording's id; a new one when missing. The same one again is a repeat.
    #[arg(long)]
    recording_id: Option<String>,
}

/// Somebody calls; prints what the gateway makes of it. With `--config` the secrets are those of that
/// file, else the demo's.
pub async fn run(arguments: Arguments, file: Option<&Path>) -> Result<ExitCode, StartError> {
    let now = Clock::system().now();
    let exchange = match file {
        Some(file) => {
            let config = Config::load(Some(file));
            let config = config.map_err(|error| StartError::new(error.to_string()))?;
            let (base, ops) = (config.http.listen.to_string(), config.ops.listen.to_string());
            let sources = config.hotline.into_iter().map(|entry| entry.settings).collect();
            Exchange::new(format!("http://{base}"), format!("http://{ops}"), None, sources)?
        }
        None => Exchange::of(&read(&arguments.at)?)?,
    };
    let call = Call {
        id: arguments.recording_id,
        caller: arguments.caller,
        spoke_s: if arguments.missed { None } else { Some(arguments.duration) },
        started_at: match &arguments.started_at {
            None => now - TimeDelta::seconds(i64::from(arguments.duration) + 20),
            Some(text) => DateTime::parse_from_rfc3339(text)
                .map_err(|_| {
                    StartError::new(format!(
                        "--started-at {text}: give the time with its offset, as {}",
                        local(now)
                    ))
                })?
                .to_utc(),
        },
    };
    let source = exchange.source(arguments.kind, arguments.source.as_deref())?;
    println!("{}", exchange.tell(source, &call, now).await?);
    if arguments.kind == Kind::Webhook {
        return Ok(ExitCode::SUCCESS);
    }
    match exchange.ticket(&call).await? {
        Some(number) => println!("ticket {number}"),
        None => println!("{}", exchange.no_ticket(source, &call)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A call to the hotline.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Of the recording; a new one when missing.
    pub id: Option<String>,
    /// Empty when withheld.
    pub caller: String,
    /// How long they spoke after the tone, in seconds; `None`: they left no message.
    pub spoke_s: Option<u32>,
    pub started_at: DateTime<Utc>,
}

const CALLEE: &str = "12333";
/// From the call's beginning to the tone.
const GREETING_S: i64 = 8;

impl Call {
    fn recorded_at(&self) -> DateTime<Utc> {
        self.started_at + TimeDelta::seconds(GREETING_S)
    }

    fn ended_at(&self) -> DateTime<Utc> {
        let spoke = i64::from(self.spoke_s.unwrap_or(0));
        self.recorded_at() + TimeDelta::seconds(spoke)
    }

    fn length_s(&self) -> i64 {
        (self.ended_at() - self.started_at).num_seconds()
    }

    /// An identity of its own, or the same as before for the same `--recording-id`.
    fn key(&self) -> String {
        match &self.id {
            Some(id) => hex::encode(&secret::digest(id)[..16]),
            None => hex::encode(secret::random::<16>()),
        }
    }
}

/// Everything on the other side of the telephone, for one gateway.
pub struct Exchange {
    client: reqwest::Client,
    base: String,
    ops: String,
    api_token: Option<String>,
    sources: Vec<Settings>,
}

impl Exchange {
    /// For the gateway of an access file.
    pub fn of(access: &Access) -> Result<Self, StartError> {
        let hotline = &access.hotline;
        let text = match access.telephone.as_str() {
            "" => format!(
                "[[hotline]]\noffice = 'x'\nid = '{}'\nkeys = [{{ id = '{}', secret = '{}' }}]\n",
                hotline.source, hotline.key_id, hotline.secret
            ),
            text => text.to_owned(),
        };
        let text = format!("database_url = 'postgres://x'\nredis_url = 'redis://x'\n{text}");
        let config = Config::from_toml(&text).map_err(|error| {
            StartError::new(format!("the access file's sources cannot be read: {error}"))
        })?;
        let sources = config.hotline.into_iter().map(|entry| entry.settings).collect();
        Self::new(access.base.clone(), access.ops.clone(), Some(access.api_token.clone()), sources)
    }

    fn new(
        base: String,
        ops: String,
        api_token: Option<String>,
        sources: Vec<Settings>,
    ) -> Result<Self, StartError> {
        Ok(Self { client: super::client()?, base, ops, api_token, sources })
    }

    /// The source of this kind that is configured.
    pub fn source(&self, kind: Kind, id: Option<&str>) -> Result<&Settings, StartError> {
        let is = |source: &&Settings| {
            kind_of(source) == Some(kind) && id.is_none_or(|id| source.id == id)
        };
        if let Some(source) = self.sources.iter().find(is) {
            return Ok(source);
        }
        let known: Vec<String> = self
            .sources
            .iter()
            .map(|source| {
                format!("{} ({})", source.id, kind_of(source).map_or("a mapping of its own", name))
            })
            .collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let wanted = id.map_or_else(String::new, |id| format!(" with the id {id}"));
        Err(StartError::new(format!(
            "the gateway has no source that speaks {}{wanted}; it has: {known}",
            name(kind)
        )))
    }

    /// Tells of the call as this source does; returns what was answered or done.
    pub async fn tell(
        &self,
        source: &Settings,
        call: &Call,
        now: DateTime<Utc>,
    ) -> Result<String, StartError> {
        let unknown = || StartError::new("a mapping of one's own cannot be simulated");
        let key = call.key();
        match kind_of(source).ok_or_else(unknown)? {
            Kind::Webhook => self.webhook(source, call, now).await,
            Kind::Asterisk => self.asterisk(source, call, &key).await,
            Kind::Freeswitch => {
                let body = freeswitch(source, call, &key)?.to_string();
                self.push(source, &format!("uuid={key}"), body, JSON, now).await
            }
            Kind::Twilio => self.push(source, "", twilio(call, &key), FORM, now).await,
            Kind::Tccc => {
                let mut said = String::new();
                for (query, body) in tccc(call, &key) {
                    said = self.push(source, query, body.to_string(), JSON, now).await?;
                }
                Ok(said)
            }
            Kind::Aliyun => {
                let mut said = String::new();
                for body in aliyun(call, &key) {
                    said = self.push(source, "", body.to_string(), JSON, now).await?;
                }
                Ok(said)
            }
            Kind::Huawei => self.push(source, "", huawei(call, &key).to_string(), JSON, now).await,
            Kind::Yeastar => {
                self.push(source, "", yeastar(call, &key).to_string(), JSON, now).await
            }
        }
    }

    async fn webhook(
        &self,
        source: &Settings,
        call: &Call,
        now: DateTime<Utc>,
    ) -> Result<String, StartError> {
        let Some(spoke_s) = call.spoke_s else {
            return Err(StartError::new(
                "the signed webhook tells of messages only; another --as can be --missed",
            ));
        };
        let key = source.keys.first().ok_or_else(|| StartError::new("the source has no key"))?;
        let id = call.id.clone().unwrap_or_else(|| format!("{}:{}", source.id, call.key()));
        let file = recording(source, call, &call.key())?;
        let sender = Sender::new(&key.id, key.secret.expose_secret());
        let body = sender.body(&Description {
            recording_id: &id,
            call_id: &id,
            caller: &call.caller,
            callee: CALLEE,
            started_at: &local(call.started_at),
            duration_s: spoke_s,
            audio_url: &file.map_or_else(
                || "file:msg0000.wav".to_owned(),
                |file| format!("file:{}", file.display()),
            ),
        });
        let headers = sender.headers(body.as_bytes(), now.timestamp());
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value));
        self.post(source, "", headers.collect(), body, JSON).await
    }

    async fn push(
        &self,
        source: &Settings,
        query: &str,
        body: String,
        kind: &str,
        now: DateTime<Utc>,
    ) -> Result<String, StartError> {
        let verify =
            source.verify.as_ref().ok_or_else(|| StartError::new("the source has no verify"))?;
        let proof = prove(&verify.auth, query, body.as_bytes(), now);
        self.post(source, &proof.query, proof.headers, body, kind).await
    }

    async fn post(
        &self,
        source: &Settings,
        query: &str,
        headers: Vec<(String, String)>,
        body: String,
        kind: &str,
    ) -> Result<String, StartError> {
        let mark = if query.is_empty() { "" } else { "?" };
        let url = format!("{}/channels/hotline/{}{mark}{query}", self.base, source.id);
        let mut request = self.client.post(url).header("content-type", kind).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (status, answer) = super::send(request, &self.base).await?;
        if (200..300).contains(&status) {
            return Ok(format!("{status} {}", answer.trim()).trim_end().to_owned());
        }
        let hint = match status {
            401 => "; does it run with this configuration?",
            403 => "; does the source's allow_ips hold this machine?",
            _ => "",
        };
        Err(StartError::new(format!("the gateway answered {status}: {}{hint}", answer.trim())))
    }

    /// Files in the order in which Asterisk writes them: sound and text in `tmp`, then moved, the text
    /// last. A call without a message is a line of the call records, or an event that is posted.
    async fn asterisk(
        &self,
        source: &Settings,
        call: &Call,
        key: &str,
    ) -> Result<String, StartError> {
        let channel = format!("SIP/127.0.0.1-{}", &key[..8]);
        let Some(spoke_s) = call.spoke_s else {
            return self.asterisk_record(source, call, &channel, key).await;
        };
        let spool = source
            .spools
            .first()
            .ok_or_else(|| StartError::new("the source has no spools to leave a message in"))?;
        let origtime = call.recorded_at().timestamp();
        let text = format!(
            ";\n; Message Information file\n;\n[message]\norigmailbox={CALLEE}\ncontext=from-carrier\nmacrocontext=\nexten={CALLEE}\nrdnis=unknown\npriority=6\ncallerchan={channel}\ncallerid={}\norigdate={}\norigtime={origtime}\ncategory=night\nmsg_id={origtime}-{}\nflag=\nduration={spoke_s}\n",
            caller_id(call),
            call.recorded_at().format("%a %b %e %I:%M:%S %p UTC %Y"),
            &key[..8]
        );
        let mailbox = spool.join("default").join(CALLEE);
        let (tmp, inbox) = (mailbox.join("tmp"), mailbox.join("INBOX"));
        for folder in [&tmp, &inbox] {
            fs::create_dir_all(folder).map_err(|error| cannot_write(folder, error))?;
        }
        let free = |number: &u32| !inbox.join(format!("msg{number:04}.txt")).exists();
        let number =
            (0..10_000).find(free).ok_or_else(|| StartError::new("the mailbox is full"))?;
        for (ending, content) in [("wav", voice(spoke_s)), ("txt", text.into_bytes())] {
            let (draft, file) = (
                tmp.join(format!("{}.{ending}", &key[..6])),
                inbox.join(format!("msg{number:04}.{ending}")),
            );
            let written = fs::write(&draft, content).and_then(|()| fs::rename(&draft, &file));
            written.map_err(|error| cannot_write(&file, error))?;
        }
        // As voicemail.conf's externnotify; without it the gateway looks every few seconds anyway.
        let hint = self.client.post(format!("{}/hotline/{}/scan", self.ops, source.id));
        let _ = super::send(hint, &self.ops).await;
        Ok(format!("left {}", inbox.join(format!("msg{number:04}.txt")).display()))
    }

    async fn asterisk_record(
        &self,
        source: &Settings,
        call: &Call,
        channel: &str,
        key: &str,
    ) -> Result<String, StartError> {
        let zone = source.zone.unwrap_or_else(Zone::china);
        let time = |at| TimeFormat::Naive.write(at, zone);
        let (start, end) = (time(call.started_at), time(call.ended_at()));
        let unique = format!(
            "{}.{}",
            call.started_at.timestamp(),
            u32::from_str_radix(&key[..4], 16).unwrap_or(0)
        );
        let (length, caller) = (call.length_s(), shown(call));
        if let Some(csv) = &source.cdr_csv {
            let quoted = caller_id(call).replace('"', "\"\"");
            let line = format!(
                "\"hotline\",\"{caller}\",\"{CALLEE}\",\"from-carrier\",\"{quoted}\",\"{channel}\",\"\",\"VoiceMail\",\"{CALLEE}@default,us\",\"{start}\",\"{start}\",\"{end}\",{length},{length},\"ANSWERED\",\"DOCUMENTATION\",\"{unique}\",\"\"\n"
            );
            let appended = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(csv)
                .and_then(|mut file| std::io::Write::write_all(&mut file, line.as_bytes()));
            appended.map_err(|error| cannot_write(csv, error))?;
            return Ok(format!("added a line to {}", csv.display()));
        }
        if source.verify.is_none() {
            return Err(StartError::new(format!(
                "a call without a message leaves nothing in the spool: source {} needs cdr_csv or verify (config/exchanges)",
                source.id
            )));
        }
        let event = json!({
            "Event": "Cdr", "Source": caller, "Destination": CALLEE, "CallerID": caller_id(call),
            "Channel": channel, "LastApplication": "VoiceMail", "StartTime": start, "EndTime": end,
            "Duration": length.to_string(), "Disposition": "ANSWERED", "UniqueID": unique,
        });
        self.push(source, "", event.to_string(), JSON, Clock::system().now()).await
    }

    /// The ticket that the message has become, by the API; `None` where nobody may ask, or none came.
    async fn ticket(&self, call: &Call) -> Result<Option<String>, StartError> {
        const TURN: Duration = Duration::from_millis(500);
        let (Some(token), Some(_), false) = (&self.api_token, call.spoke_s, call.caller.is_empty())
        else {
            return Ok(None);
        };
        let url =
            format!("{}/api/v1/tickets?state=open&channel=hotline&q={}", self.base, call.caller);
        for _ in 0..12 {
            let (status, body) =
                super::send(self.client.get(&url).bearer_auth(token), &self.base).await?;
            let found: Value = serde_json::from_str(&body).unwrap_or_default();
            if status == 200
                && let Some(number) = found["items"][0]["number"].as_str()
            {
                return Ok(Some(number.to_owned()));
            }
            Wake::default().wait(TURN, &CancellationToken::new()).await;
        }
        Ok(None)
    }

    fn no_ticket(&self, source: &Settings, call: &Call) -> String {
        match (call.spoke_s, kind_of(source)) {
            (None, _) => format!(
                "a call without a message becomes a ticket after {} s, unless missed_calls is off: look at the desk",
                source.missed_after_s
            ),
            (Some(_), Some(Kind::Aliyun | Kind::Huawei)) => {
                "kept as a call: this vendor says that it was recorded, not that a message was left, which in office hours opens no ticket"
                    .to_owned()
            }
            _ => format!("look at the desk: {}/desk", self.base),
        }
    }
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

fn kind_of(source: &Settings) -> Option<Kind> {
    match (source.kind, source.mapping.as_str()) {
        (SourceKind::Webhook, _) => Some(Kind::Webhook),
        (SourceKind::Freeswitch, _) => Some(Kind::Freeswitch),
        (SourceKind::Asterisk, _) => Some(Kind::Asterisk),
        (SourceKind::Twilio, _) => Some(Kind::Twilio),
        (SourceKind::Vendor, "tencent-tccc") => Some(Kind::Tccc),
        (SourceKind::Vendor, "aliyun-vms") => Some(Kind::Aliyun),
        (SourceKind::Vendor, "huawei-voicecall") => Some(Kind::Huawei),
        (SourceKind::Vendor, "yeastar-p") => Some(Kind::Yeastar),
        (SourceKind::Vendor, _) => None,
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Webhook => "webhook",
        Kind::Freeswitch => "freeswitch",
        Kind::Asterisk => "asterisk",
        Kind::Twilio => "twilio",
        Kind::Tccc => "tccc",
        Kind::Aliyun => "aliyun",
        Kind::Huawei => "huawei",
        Kind::Yeastar => "yeastar",
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> StartError {
    StartError::caused(format!("{} cannot be written", path.display()), error)
}

fn shown(call: &Call) -> &str {
    if call.caller.is_empty() { "anonymous" } else { &call.caller }
}

fn caller_id(call: &Call) -> String {
    match call.caller.as_str() {
        "" => "\"Anonymous\" <anonymous>".to_owned(),
        number => format!("\"{number}\" <{number}>"),
    }
}

/// A file in the first of the folders that the gateway may look at; `None` where there is none.
fn recording(source: &Settings, call: &Call, key: &str) -> Result<Option<PathBuf>, StartError> {
    let (Some(root), Some(spoke_s)) = (source.audio.roots.first(), call.spoke_s) else {
        return Ok(None);
    };
    let file = root.join(format!("msg_{key}.wav"));
    let written = fs::create_dir_all(root).and_then(|()| fs::write(&file, voice(spoke_s)));
    written.map_err(|error| cannot_write(&file, error))?;
    Ok(Some(file))
}

/// PCM, 16 bit, 8 kHz, mono, as exchanges record: something that rises and falls like speech.
fn voice(seconds: u32) -> Vec<u8> {
    const RATE: u32 = 8000;
    let bytes = seconds * RATE * 2;
    let mut file = Vec::with_capacity(bytes as usize + 44);
    file.extend(b"RIFF");
    file.extend((bytes + 36).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(RATE.to_le_bytes());
    file.extend((RATE * 2).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    let turn = |hertz: f64, at: f64| (at * hertz * std::f64::consts::TAU).sin();
    file.extend((0..seconds * RATE).flat_map(|n| {
        let at = f64::from(n) / f64::from(RATE);
        let pitch = 140.0 + 20.0 * turn(0.4, at);
        let tone: f64 = (1..5)
            .map(|harmonic| turn(pitch * f64::from(harmonic), at) / f64::from(harmonic))
            .sum();
        // Syllables, and a breath every three seconds.
        let loud = turn(2.1, at).max(0.0) * f64::from(u8::from(at % 3.0 < 2.4));
        ((tone * loud * 6000.0) as i16).to_le_bytes()
    }));
    file
}

fn freeswitch(source: &Settings, call: &Call, key: &str) -> Result<Value, StartError> {
    let uuid =
        format!("{}-{}-{}-{}-{}", &key[..8], &key[8..12], &key[12..16], &key[16..20], &key[20..]);
    let epoch = |at: DateTime<Utc>| at.timestamp().to_string();
    let (start, end) = (epoch(call.started_at), epoch(call.ended_at()));
    let length = call.length_s().to_string();
    let mut variables = json!({
        "uuid": uuid, "direction": "inbound", "start_epoch": start, "answer_epoch": start,
        "end_epoch": end, "duration": length, "billsec": length, "last_app": "playback",
    });
    if let Some(spoke_s) = call.spoke_s {
        let file = recording(source, call, key)?;
        let file =
            file.unwrap_or_else(|| format!("/var/lib/freeswitch/storage/msg_{key}.wav").into());
        variables["last_app"] = "voicemail".into();
        variables["voicemail_file_path"] = file.display().to_string().into();
        variables["voicemail_account"] = CALLEE.into();
        variables["record_ms"] = (spoke_s * 1000).to_string().into();
    }
    Ok(json!({
        "core-uuid": key, "switchname": "hotline-pbx", "channel_data": {}, "variables": variables,
        "callflow": [{ "caller_profile": {
            "caller_id_name": shown(call), "caller_id_number": shown(call), "destination_number": CALLEE,
        } }],
    }))
}

fn twilio(call: &Call, key: &str) -> String {
    let from = if call.caller.is_empty() {
        "anonymous".to_owned()
    } else {
        format!("%2B86{}", call.caller)
    };
    let head =
        format!("AccountSid=AC{key}&CallSid=CA{key}&From={from}&To={CALLEE}&Direction=inbound");
    match call.spoke_s {
        Some(spoke_s) => format!(
            "{head}&RecordingSid=RE{key}&RecordingStatus=completed&RecordingSource=RecordVerb&RecordingDuration={spoke_s}&RecordingUrl=https%3A%2F%2Fapi.twilio.com%2FRecordings%2FRE{key}"
        ),
        None => format!("{head}&CallStatus=no-answer"),
    }
}

fn tccc(call: &Call, key: &str) -> Vec<(&'static str, Value)> {
    let voicemail = json!({
        "SdkAppId": 1_400_000_001, "SessionId": key, "Timestamp": call.ended_at().timestamp(),
        "RecordURL": format!("https://recorder.example.myqcloud.com/{key}.mp3"), "EndpointUser": call.caller,
    });
    let record = json!({
        "SdkAppId": 1_400_000_001, "SessionId": key, "Caller": call.caller, "Callee": CALLEE,
        "Direction": 0, "CallType": 2, "Duration": 0, "StartTimestamp": call.started_at.timestamp(),
        "EndedTimestamp": call.ended_at().timestamp(), "EndStatus": 106,
    });
    // As they may come: the message before the call.
    let voicemail = call.spoke_s.map(|_| ("action=voicemail", voicemail));
    voicemail.into_iter().chain([("action=cdr&version=1", record)]).collect()
}

fn china_time(at: DateTime<Utc>) -> String {
    TimeFormat::Naive.write(at, Zone::china())
}

fn aliyun(call: &Call, key: &str) -> Vec<Value> {
    let id = format!("100001^{key}");
    let (start, end) = (china_time(call.started_at), china_time(call.ended_at()));
    let record = json!([{
        "call_id": id, "start_time": start, "end_time": end, "duration": call.length_s().to_string(),
        "status_code": "200010", "record_file": format!("http://record.example.aliyuncs.com/{key}.wav"),
        "record_begin_time": china_time(call.recorded_at()), "out_id": "",
    }]);
    let report = json!([{
        "call_id": id, "originate_time": start, "start_time": start, "end_time": end,
        "caller": call.caller, "callee": CALLEE, "duration": call.length_s().to_string(),
        "status_code": "200000", "voice_type": "voice",
    }]);
    call.spoke_s.map(|_| record).into_iter().chain([report]).collect()
}

fn huawei(call: &Call, key: &str) -> Value {
    let time = |at: DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S").to_string();
    let mut fee = json!({
        "direction": 0, "sessionId": key, "callerNum": call.caller, "calleeNum": CALLEE,
        "callInTime": time(call.started_at), "callEndTime": time(call.ended_at()), "recordFlag": 0,
    });
    if call.spoke_s.is_some() {
        fee["recordFlag"] = 1.into();
        fee["recordStartTime"] = time(call.recorded_at()).into();
        fee["recordDomain"] = "ostor.huawei.com".into();
        fee["recordObjectName"] = format!("{key}.wav").into();
    }
    json!({ "eventType": "fee", "feeLst": [fee] })
}

fn yeastar(call: &Call, key: &str) -> Value {
    let (status, file) = match call.spoke_s {
        Some(_) => ("VOICEMAIL", format!("{key}.wav")),
        None => ("NO ANSWER", String::new()),
    };
    let message = json!({
        "call_id": key, "time_start": china_time(call.started_at), "call_from": call.caller,
        "call_to": "8001", "call_duration": call.length_s(), "talk_duration": 0, "status": status,
        "type": "Inbound", "recording": file, "did_number": CALLEE, "uid": key,
    });
    json!({ "type": 30012, "sn": "3631A2124001", "msg": message.to_string() })
}
