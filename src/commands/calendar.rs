use super::{pool, sql, store as failed};
use chrono::{DateTime, Days, NaiveDate};
use intake_contract::china;
use intake_gateway::{
    amend,
    clock::Clock,
    config::Config,
    domain::calendar::{Notice, OverrideKind, Week, WorkingCalendar},
    gateway::StartError,
    store::{self, calendar::NewDecision},
    wording,
};
use std::{path::PathBuf, process::ExitCode};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Show days with their reasons, or the dates of something received at a moment.
    Show {
        /// First day; today when missing.
        #[arg(long)]
        from: Option<NaiveDate>,
        /// How many days.
        #[arg(long, default_value_t = 14)]
        days: u64,
        /// A moment with its offset (2026-11-23T22:14:00+08:00): shows its 1-3-5 dates instead.
        #[arg(long)]
        received: Option<DateTime<chrono::FixedOffset>>,
        /// An office's own calendar; without it the notices that the program carries.
        #[arg(long)]
        office: Option<String>,
    },
    /// Read a notice and say what it holds, without loading it.
    Check {
        /// In the form of config/calendar/2026.toml.
        file: PathBuf,
    },
    /// Load a year's notice for all offices, and bring every open date to it.
    Load {
        /// In the form of config/calendar/2026.toml.
        file: PathBuf,
    },
    /// Close or open an office on a day, with the paper that says so.
    Decide {
        /// The office's code.
        #[arg(long)]
        office: String,
        /// Which day.
        #[arg(long)]
        day: NaiveDate,
        /// What is decided; `withdrawn` takes an earlier decision back.
        #[arg(long, value_parser = ["closed", "open", "morning_closed", "afternoon_closed", "withdrawn"])]
        kind: String,
        /// As people read it.
        #[arg(long)]
        reason: String,
        /// The paper it rests on.
        #[arg(long)]
        authority: String,
    },
    /// Change an office's sessions from a day on.
    Sessions {
        /// The office's code.
        #[arg(long)]
        office: String,
        /// From which day on.
        #[arg(long)]
        from: NaiveDate,
        /// As JSON: {"mon": ["08:30-11:30", "13:00-16:30"], …}.
        #[arg(long)]
        week: String,
    },
}

pub async fn run(
    command: Command,
    load: impl FnOnce() -> Result<Config, StartError>,
) -> Result<ExitCode, StartError> {
    match command {
        Command::Show { from, days, received, office } => {
            let calendar = match office {
                None => WorkingCalendar::national().build(),
                Some(code) => {
                    let pool = pool(&load()?).await?;
                    let mut db = pool.acquire().await.map_err(sql)?;
                    super::office::find(&mut db, &code).await?;
                    let offices = store::office::load_all(&mut db).await.map_err(failed)?;
                    offices
                        .into_iter()
                        .find(|office| office.code == code)
                        .map(|office| office.calendar)
                        .ok_or_else(|| StartError::new("the office is gone"))?
                }
            };
            match received {
                Some(at) => show_dates(&calendar, at),
                None => show_days(&calendar, from, days),
            }
        }
        Command::Check { file } => {
            let notice = read(&file)?.0;
            println!("{}: {} days listed", notice.year(), notice.days().len());
            for paper in notice.papers() {
                println!("  {paper}");
            }
            for (date, working, name) in notice.days() {
                let what = if *working { "上班" } else { "放假" };
                println!(
                    "  {date} {} {what} {name}",
                    wording::weekday(chrono::Datelike::weekday(date))
                );
            }
        }
        Command::Load { file } => load_notice(&load()?, &file).await?,
        Command::Decide { office, day, kind, reason, authority } => {
            if kind != "withdrawn" && OverrideKind::parse(&kind).is_none() {
                return Err(StartError::new(format!("{kind} is no decision")));
            }
            let config = load()?;
            let pool = pool(&config).await?;
            let mut db = pool.acquire().await.map_err(sql)?;
            let id = super::office::find(&mut db, &office).await?;
            let by = whoami();
            let decision =
                NewDecision { day, kind: &kind, reason: &reason, authority: &authority, by: &by };
            store::calendar::decide(&mut db, id, &decision, Clock::system().now())
                .await
                .map_err(failed)?;
            drop(db);
            recompute(&pool).await?;
        }
        Command::Sessions { office, from, week } => {
            let value: serde_json::Value = serde_json::from_str(&week)
                .map_err(|error| StartError::caused("--week is no JSON", error))?;
            serde_json::from_value::<Week>(value.clone())
                .map_err(|error| StartError::caused("--week", error))?;
            let config = load()?;
            let pool = pool(&config).await?;
            let mut db = pool.acquire().await.map_err(sql)?;
            let id = super::office::find(&mut db, &office).await?;
            let now = Clock::system().now();
            store::calendar::sessions_from(&mut db, id, from, &value, &whoami(), now)
                .await
                .map_err(failed)?;
            drop(db);
            recompute(&pool).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn whoami() -> String {
    std::env::var("SUDO_USER")
        .or_else(|_| std::env::var("USER"))
        .unwrap_or_else(|_| "command".to_owned())
}

fn read(file: &PathBuf) -> Result<(Notice, String), StartError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| StartError::caused(format!("{} cannot be read", file.display()), error))?;
    let notice = Notice::parse(&text)
        .map_err(|error| StartError::new(format!("{}: {error}", file.display())))?;
    Ok((notice, text))
}

async fn load_notice(config: &Config, file: &PathBuf) -> Result<(), StartError> {
    let (notice, text) = read(file)?;
    let pool = pool(config).await?;
    let mut db = pool.acquire().await.map_err(sql)?;
    let loaded = store::calendar::notices(&mut db).await.map_err(failed)?;
    let carried = Notice::carried();
    let active = loaded.iter().chain(&carried).find(|active| active.year() == notice.year());
    if let Some(active) = active {
        notice
            .replaces(active)
            .map_err(|error| StartError::new(format!("{}: {error}", file.display())))?;
    }
    let now = Clock::system().now();
    let version = store::calendar::add_notice(&mut db, notice.year(), &text, &whoami(), now)
        .await
        .map_err(failed)?;
    drop(db);
    println!("the notice of {} is loaded, version {version}", notice.year());
    recompute(&pool).await
}

/// Brings every open date to the calendar as it is now; running gateways notice by themselves.
async fn recompute(pool: &sqlx::PgPool) -> Result<(), StartError> {
    let clock = Clock::system();
    let mut db = pool.acquire().await.map_err(sql)?;
    let offices = store::office::load_all(&mut db).await.map_err(failed)?;
    drop(db);
    let mut not_brought = 0;
    for office in offices {
        let amended = amend::recompute(pool, &clock, &office).await.map_err(failed)?;
        not_brought += amended.failed;
        println!("{}", amend::summary(&office, &amended, &clock));
    }
    // This process does not know the schedule's Redis: the gateways fill it anew.
    let mut db = pool.acquire().await.map_err(sql)?;
    store::timer::next_epoch(&mut db, store::timer::SHARD).await.map_err(failed)?;
    match not_brought {
        0 => Ok(()),
        n => Err(StartError::new(format!(
            "the change is kept, but {n} open dates could not be brought to it (the log says why); gateways that run try again"
        ))),
    }
}

fn show_days(calendar: &WorkingCalendar, from: Option<NaiveDate>, days: u64) {
    let from = from.unwrap_or_else(|| wording::day_of(Clock::system().now()));
    for offset in 0..days.min(800) {
        let Some(date) = from.checked_add_days(Days::new(offset)) else { return };
        let day = calendar.day(date);
        let works = if day.working { "办公" } else { "休息" };
        let note =
            day.needs_year.map(|year| format!("  暂定，待{year}年放假通知")).unwrap_or_default();
        println!(
            "{date} {} {works}  {}{note}",
            wording::weekday(chrono::Datelike::weekday(&date)),
            day.reason
        );
    }
}

fn show_dates(calendar: &WorkingCalendar, received: DateTime<chrono::FixedOffset>) {
    let at = received.to_utc();
    let say =
        |at: DateTime<chrono::Utc>| at.with_timezone(&china()).format("%Y-%m-%d %H:%M").to_string();
    match calendar.follow_up_at(at) {
        Some(opens) => println!("out of hours; work starts {}", say(opens.value)),
        None => println!("within a session"),
    }
    // R6: the limits run from acceptance.
    let accepted = calendar.accepted_at(at).value;
    for level in [1, 3, 5] {
        let why = calendar.why(accepted, level);
        let note = if why.due.provisional { " (provisional)" } else { "" };
        println!("level {level}: {}{note}", say(why.due.at));
    }
    let why = calendar.why(accepted, 5);
    println!("day of acceptance: {}", why.received_day);
    for day in why.days {
        let counted = day.counted.map_or_else(|| "-".to_owned(), |n| n.to_string());
        println!("  {} {:>2}  {}", day.date, counted, day.reason);
    }
}
