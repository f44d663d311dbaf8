use super::{pool, store as failed};
use intake_gateway::{
    calls::{
        Source,
        reconcile::{Repair, reconcile},
    },
    clock::Clock,
    config::Config,
    gateway::{Gateway, StartError},
    store::reconcile::Outcome,
};
use std::{collections::BTreeMap, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Compare what the sources of calls say with what is here, and bring in what is missing; exits
    /// with 1 when something could not be brought in.
    Reconcile {
        /// One source, by its id in the configuration; all when missing.
        #[arg(long, value_name = "ID")]
        source: Option<String>,
        /// So many days back; as calls.reconcile_days when missing.
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=30))]
        days: Option<u32>,
        /// Change nothing: what would be brought in counts as missing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Tell a running gateway on this machine to look through a source's folders now; Asterisk's
    /// externnotify can call it.
    Scan {
        /// The source, by its id in the configuration.
        #[arg(long, value_name = "ID")]
        source: String,
        /// The gateway's operations listener.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
        ops: SocketAddr,
        /// What Asterisk adds: context, mailbox, counts. Not needed, for all mailboxes are looked at.
        #[arg(hide = true)]
        mailbox: Vec<String>,
    },
}

pub async fn run(
    command: Command,
    load: impl FnOnce() -> Result<Config, StartError>,
) -> Result<ExitCode, StartError> {
    match command {
        Command::Reconcile { source, days, dry_run } => {
            let repair = if dry_run { Repair::No } else { Repair::Yes };
            compare(&load()?, source.as_deref(), days, repair).await
        }
        // Without the configuration: whoever calls may not be allowed to read it.
        Command::Scan { source, ops, .. } => scan(&source, ops).await,
    }
}

async fn compare(
    config: &Config,
    id: Option<&str>,
    days: Option<u32>,
    repair: Repair,
) -> Result<ExitCode, StartError> {
    let pool = pool(config).await?;
    let gateway = Gateway::new(config, pool, Clock::system()).await?;
    let known: BTreeMap<String, Arc<Source>> = gateway
        .app
        .sources
        .0
        .values()
        .map(|source| (source.settings.id.clone(), Arc::clone(source)))
        .collect();
    let names = known.keys().cloned().collect::<Vec<_>>().join(", ");
    let chosen: Vec<Arc<Source>> = match id {
        None => known.into_values().collect(),
        Some(id) => {
            // As it stands in the database, too.
            let id = id.strip_prefix("hotline:").unwrap_or(id);
            let Some(source) = known.get(id) else {
                let known = if names.is_empty() { "none".to_owned() } else { names };
                return Err(StartError::new(format!(
                    "there is no source {id} in the configuration; there are: {known}"
                )));
            };
            vec![Arc::clone(source)]
        }
    };
    if chosen.is_empty() {
        println!("the configuration names no [[hotline]]: there is nothing to compare");
        return Ok(ExitCode::SUCCESS);
    }
    let days = days.unwrap_or(config.calls.reconcile_days);
    let mut outcomes = Vec::new();
    for source in &chosen {
        let outcome = reconcile(&gateway.app, source, days, repair).await.map_err(failed)?;
        outcomes.push(outcome);
    }
    gateway.close().await;
    print(&outcomes, days);
    let wrong = outcomes.iter().any(|one| one.missing + one.differs > 0);
    Ok(if wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(outcomes: &[Outcome], days: u32) {
    println!(
        "{days} days back{:>21}{:>11}{:>10}{:>9}{:>9}  cannot be compared, or found",
        "told there", "held here", "repaired", "missing", "differs"
    );
    for one in outcomes {
        let told = one.told.map_or_else(|| "-".to_owned(), |told| told.to_string());
        println!(
            "{:<22}{told:>11}{:>11}{:>10}{:>9}{:>9}  {}",
            one.source,
            one.held,
            one.repaired,
            one.missing,
            one.differs,
            one.says.as_deref().unwrap_or_default()
        );
    }
}

async fn scan(id: &str, ops: SocketAddr) -> Result<ExitCode, StartError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !id.chars().all(plain) {
        return Err(StartError::new("--source is an id as in the configuration: pbx1"));
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
    let client = client.map_err(|error| {
        StartError::caused("no HTTP client; is the package ca-certificates installed?", error)
    })?;
    let asked = async {
        let response = client.post(format!("http://{ops}/hotline/{id}/scan")).send().await?;
        Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
    };
    match asked.await {
        Ok((202, _)) => Ok(ExitCode::SUCCESS),
        Ok((_, says)) => Err(StartError::new(format!("{id}: {}", says.trim()))),
        Err(error) => Err(StartError::caused(
            format!("no answer from {ops}; is the gateway running, with ops.listen there?"),
            error.without_url(),
        )),
    }
}
