use super::{pool, sql, store as failed};
use intake_gateway::{
    config::Config,
    domain::role::Role,
    gateway::StartError,
    secret,
    store::{self, office::NewStaff},
};
use std::process::ExitCode;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Enter a person, or give an existing login a new password and particulars; what is not given
    /// of unit, e-mail and telephone stays as it is, and what is given as '' is taken away.
    Add {
        /// The office's code.
        #[arg(long)]
        office: String,
        /// A lower-case letter, then 1 to 31 lower-case letters, digits, dots, underscores or hyphens.
        #[arg(long)]
        login: String,
        /// As on the roster.
        #[arg(long)]
        name: String,
        /// duty_officer, unit_head, lead_on_duty, leadership, party_group, office or administrator.
        #[arg(long, value_parser = role)]
        role: Role,
        /// The unit (股室), by name.
        #[arg(long)]
        unit: Option<String>,
        /// For notices by e-mail.
        #[arg(long)]
        email: Option<String>,
        /// For mentions in group robots.
        #[arg(long)]
        mobile: Option<String>,
    },
    /// List the people of an office.
    List {
        /// The office's code.
        #[arg(long)]
        office: String,
    },
    /// Lock a person out, at once.
    Disable {
        /// Whose.
        login: String,
    },
    /// Make a token for a program; an older one of the same name ends.
    Token {
        /// The office's code.
        #[arg(long)]
        office: String,
        /// What for; the name shows in the trail.
        #[arg(long)]
        name: String,
        /// What it may do.
        #[arg(long = "scope", value_parser = ["tickets:read", "tickets:write"],
              default_values_t = ["tickets:read".to_owned(), "tickets:write".to_owned()])]
        scopes: Vec<String>,
    },
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| {
        let all: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
        format!("is none of {}", all.join(", "))
    })
}

pub async fn run(command: Command, config: &Config) -> Result<ExitCode, StartError> {
    let pool = pool(config).await?;
    let mut db = pool.acquire().await.map_err(sql)?;
    match command {
        Command::Add { office, login, name, role, unit, email, mobile } => {
            let id = super::office::find(&mut db, &office).await?;
            let password = secret::readable_password();
            let hash = secret::hash_password(&password)
                .ok_or_else(|| StartError::new("the password could not be hashed"))?;
            let unit = match unit {
                Some(name) if name.is_empty() => Some(NewStaff::NO_UNIT),
                Some(name) => {
                    Some(store::office::put_unit(&mut db, id, &name).await.map_err(failed)?)
                }
                None => None,
            };
            let staff = NewStaff {
                login: &login,
                name: &name,
                role,
                unit,
                email: email.as_deref(),
                mobile: mobile.as_deref(),
                password_hash: &hash,
            };
            store::office::put_staff(&mut db, id, &staff).await.map_err(|error| {
                StartError::caused(
                    format!("{login} could not be entered; is the login a lower-case letter, then 1 to 31 lower-case letters, digits, dots, underscores or hyphens, and not another office's?"),
                    error,
                )
            })?;
            println!("login {login}, password {password}");
        }
        Command::List { office } => {
            let id = super::office::find(&mut db, &office).await?;
            let staff = store::office::staff(&mut db, id).await.map_err(failed)?;
            if staff.is_empty() {
                println!("nobody yet; enter people with `intake account add`");
            }
            for person in staff {
                println!(
                    "{:<20} {:<14} {} {}{}",
                    person.login,
                    person.role.as_str(),
                    person.name,
                    person.unit.unwrap_or_default(),
                    if person.disabled { " (disabled)" } else { "" }
                );
            }
        }
        Command::Disable { login } => {
            if !store::office::disable_staff(&mut db, &login).await.map_err(failed)? {
                return Err(StartError::new(format!("there is no login {login}")));
            }
            println!("{login} is locked out");
        }
        Command::Token { office, name, scopes } => {
            let id = super::office::find(&mut db, &office).await?;
            let token = secret::token();
            let digest = secret::digest(&token);
            store::access::put_api_token(&mut db, id, &name, &digest, &scopes)
                .await
                .map_err(|error| {
                    StartError::caused(
                        "the token could not be entered; is its name a lower-case letter, then 1 to 31 lower-case letters, digits, dots, underscores or hyphens?",
                        error,
                    )
                })?;
            println!("{token}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
