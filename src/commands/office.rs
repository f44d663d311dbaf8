use super::{pool, sql, store as failed};
use chrono::{NaiveDate, NaiveTime, TimeZone};
use intake_gateway::{
    config::Config,
    domain::{
        id::OfficeId,
        policy::{LimitsRunFrom, Policy},
        word_list::WordList,
    },
    gateway::StartError,
    store::{self, office::Duty},
};
use sqlx::PgConnection;
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Enter an office (a window).
    Add {
        /// Its short name in the configuration: a lower-case letter, then up to 31 lower-case letters, digits or hyphens.
        #[arg(long)]
        code: String,
        /// Its name for people.
        #[arg(long)]
        name: String,
        /// Of its register numbers: 1 to 8 capitals.
        #[arg(long, default_value = "BCS")]
        prefix: String,
        /// The window's telephone, for citizens.
        #[arg(long)]
        phone: Option<String>,
    },
    /// Change what an office has decided for itself. Running gateways follow within seconds, and open
    /// dates are computed anew.
    Set {
        /// The office's code.
        #[arg(long)]
        code: String,
        /// The window's telephone, for citizens; empty for none.
        #[arg(long)]
        phone: Option<String>,
        /// From when the limits of levels 3 and 5 run: registration or hand_up (R6).
        #[arg(long, value_parser = limits)]
        limits_run_from: Option<LimitsRunFrom>,
        /// Words that mark a message as an emergency (RD3.2), with commas or 、 between them; in place of
        /// those before.
        #[arg(long)]
        urgent_words: Option<String>,
    },
    /// List the offices.
    List,
    /// Enter a unit (股室).
    Unit {
        /// The office's code.
        #[arg(long)]
        office: String,
        /// The unit's name.
        #[arg(long)]
        name: String,
    },
    /// Enter a shift on the roster.
    Shift {
        /// The office's code.
        #[arg(long)]
        office: String,
        /// Who, by login.
        #[arg(long)]
        login: String,
        /// As lead on duty (带班领导) instead of officer at the window.
        #[arg(long)]
        lead: bool,
        /// First day.
        #[arg(long)]
        from: NaiveDate,
        /// Last day, included.
        #[arg(long)]
        to: NaiveDate,
    },
}

fn limits(text: &str) -> Result<LimitsRunFrom, String> {
    match text {
        "registration" => Ok(LimitsRunFrom::Registration),
        "hand_up" => Ok(LimitsRunFrom::HandUp),
        _ => Err("registration or hand_up".to_owned()),
    }
}

/// The office with this code.
pub async fn find(db: &mut PgConnection, code: &str) -> Result<OfficeId, StartError> {
    let offices = store::office::load_all(db).await.map_err(failed)?;
    let known: Vec<&str> = offices.iter().map(|office| office.code.as_str()).collect();
    offices.iter().find(|office| office.code == code).map(|office| office.id).ok_or_else(|| {
        StartError::new(if known.is_empty() {
            format!("there is no office {code}; create it with `intake office add`")
        } else {
            format!("there is no office {code}; there are: {}", known.join(", "))
        })
    })
}

pub async fn run(command: Command, config: &Config) -> Result<ExitCode, StartError> {
    let pool = pool(config).await?;
    let mut db = pool.acquire().await.map_err(sql)?;
    match command {
        Command::Add { code, name, prefix, phone } => {
            let policy = Policy { phone, ..Policy::default() };
            let policy = serde_json::to_value(policy).unwrap_or_default();
            store::office::create(&mut db, &code, &name, &prefix, &policy).await.map_err(
                |error| {
                    StartError::caused(
                        "the office could not be entered; is its code new, a lower-case letter and then at most 31 lower-case letters, digits or hyphens, and its prefix 1 to 8 capitals?",
                        error,
                    )
                },
            )?;
            println!(
                "office {code} is there; add people with `intake account add --office {code}`"
            );
        }
        Command::Set { code, phone, limits_run_from, urgent_words } => {
            let id = find(&mut db, &code).await?;
            let mut changes = serde_json::Map::new();
            if let Some(phone) = phone {
                let phone = Some(phone).filter(|phone| !phone.is_empty());
                changes.insert("phone".to_owned(), phone.into());
            }
            if let Some(from) = limits_run_from {
                let from = serde_json::to_value(from).unwrap_or_default();
                changes.insert("limits_run_from".to_owned(), from);
            }
            if let Some(words) = urgent_words {
                let words = words.split([',', '，', '、', ';', '；']).map(str::trim);
                let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
                if words.is_empty() {
                    return Err(StartError::new("--urgent-words needs at least one word"));
                }
                WordList::new(words.iter().copied()).map_err(|error| {
                    StartError::caused("these words cannot be looked for", error)
                })?;
                changes.insert("urgent_words".to_owned(), words.into());
            }
            if changes.is_empty() {
                return Err(StartError::new(
                    "say what to change: --phone, --limits-run-from or --urgent-words",
                ));
            }
            let policy = store::office::change_policy(&mut db, id, &changes.into()).await;
            let policy = policy.map_err(failed)?;
            println!("office {code} now has {policy}");
        }
        Command::List => {
            let offices = store::office::load_all(&mut db).await.map_err(failed)?;
            if offices.is_empty() {
                println!("none yet; create one with `intake office add`");
            }
            for office in offices {
                println!("{:<20} {} ({})", office.code, office.name, office.prefix);
            }
        }
        Command::Unit { office, name } => {
            let id = find(&mut db, &office).await?;
            store::office::put_unit(&mut db, id, &name).await.map_err(failed)?;
            println!("unit {name} is there");
        }
        Command::Shift { office, login, lead, from, to } => {
            let id = find(&mut db, &office).await?;
            let staff = store::office::staff(&mut db, id).await.map_err(failed)?;
            let person = staff
                .iter()
                .find(|person| person.login == login)
                .ok_or_else(|| StartError::new(format!("office {office} has no login {login}")))?;
            let ends = to
                .succ_opt()
                .filter(|end| *end > from)
                .ok_or_else(|| StartError::new("--to lies before --from"))?;
            let duty = if lead { Duty::Lead } else { Duty::Officer };
            let midnight = |day: NaiveDate| {
                intake_contract::china()
                    .from_local_datetime(&day.and_time(NaiveTime::MIN))
                    .single()
                    .map(|at| at.to_utc())
                    .ok_or_else(|| StartError::new("the day is out of range"))
            };
            let (starts_at, ends_at) = (midnight(from)?, midnight(ends)?);
            store::office::put_shift(&mut db, id, duty, person.id, starts_at, ends_at)
                .await
                .map_err(failed)?;
            println!("{} is on duty from {from} to {to}", person.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}
