//! The commands: each wires what it needs, then runs.

mod commands;

use clap::{Parser, Subcommand};
use intake_gateway::{
    config::Config,
    gateway::{Role, StartError},
    telemetry,
};
use std::{path::PathBuf, process::ExitCode};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns what citizens write, say and bring to a service window into numbered tickets with dates
/// that the law's calendar keeps.
#[derive(Parser)]
#[command(name = "intake", version, arg_required_else_help = true)]
struct Arguments {
    /// Configuration file; without it the defaults and the environment hold.
    #[arg(long, short, global = true, env = "INTAKE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Serve {
        /// What this process does.
        #[arg(long, value_enum, default_value_t = Roles::All)]
        role: Roles,
    },
    /// Create the database's tables, or bring them up to date.
    Migrate,
    /// Run the gateway with a demo office and a scripted evening.
    Demo {
        /// Where to write the addresses, keys and logins, as JSON.
        #[arg(long, value_name = "FILE")]
        access: PathBuf,
    },
    /// Read the configuration, say what is wrong or risky, and exit.
    CheckConfig,
    /// Holidays, closures and the dates that follow from them.
    #[command(subcommand)]
    Calendar(commands::calendar::Command),
    /// Sign and send real requests to a running gateway, as the outside does.
    #[command(subcommand)]
    Simulate(commands::simulate::Command),
    /// The schedule of what is due.
    #[command(subcommand)]
    Schedule(commands::schedule::Command),
    /// Check that the register has no gap and every ticket's trail is unbroken.
    Verify,
    /// People who log in, and tokens for programs.
    #[command(subcommand)]
    Account(commands::account::Command),
    /// The sources of calls: compare, look now.
    #[command(subcommand)]
    Hotline(commands::hotline::Command),
    /// The official account's menu and QR codes.
    #[command(subcommand)]
    Wechat(commands::wechat::Command),
    /// Offices, their units and rosters.
    #[command(subcommand)]
    Office(commands::office::Command),
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Roles {
    All,
    Web,
    Worker,
}

impl From<Roles> for Role {
    fn from(role: Roles) -> Self {
        match role {
            Roles::All => Self::All,
            Roles::Web => Self::Web,
            Roles::Worker => Self::Worker,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return commands::failed(&StartError::caused("no threads", error)),
    };
    match runtime.block_on(run(arguments)) {
        Ok(code) => code,
        Err(error) => commands::failed(&error),
    }
}

async fn run(arguments: Arguments) -> Result<ExitCode, StartError> {
    let file = arguments.config;
    let load = || {
        let config =
            Config::load(file.as_deref()).map_err(|error| StartError::new(error.to_string()))?;
        telemetry::logs(config.log.json, &config.log.filter);
        Ok::<_, StartError>(config)
    };
    match arguments.command {
        Command::Serve { role } => commands::serve::serve(load()?, role.into()).await,
        Command::Migrate => commands::serve::migrate(&load()?).await,
        Command::Demo { access } => commands::demo::run(file.as_deref(), &access).await,
        Command::CheckConfig => commands::serve::check_config(&load()?),
        Command::Calendar(command) => commands::calendar::run(command, load).await,
        Command::Simulate(command) => commands::simulate::run(command, file.as_deref()).await,
        Command::Schedule(command) => commands::schedule::run(command, &load()?).await,
        Command::Verify => commands::verify::run(&load()?).await,
        Command::Account(command) => commands::account::run(command, &load()?).await,
        Command::Hotline(command) => commands::hotline::run(command, load).await,
        Command::Wechat(command) => commands::wechat::run(command, &load()?).await,
        Command::Office(command) => commands::office::run(command, &load()?).await,
    }
}
