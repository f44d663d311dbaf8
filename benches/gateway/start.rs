//! What it takes to have the gateway running: time, memory, disk.

use crate::{Plan, figures::Spread, gateway::Gateway, load, schedule::every};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command, time::Duration};

const CONNECTIONS: usize = 64;

pub async fn run(plan: &Plan, server: &str, redis: &str) -> Value {
    let (mut ready, mut idle, mut loaded, mut peak) = (vec![], vec![], vec![], vec![]);
    for _ in 0..plan.rounds {
        let gateway = Gateway::start(server, redis, "intake_start").await;
        ready.push(gateway.ready_s * 1000.0);
        every(Duration::from_secs(1)).tick().await;
        idle.push(gateway.memory_mib().0);
        load::run(gateway.address, CONNECTIONS, Duration::from_secs(1)).await;
        let (now, most) = gateway.memory_mib();
        loaded.push(now);
        peak.push(most);
        gateway.stop(false).await;
    }
    let [ready, idle, loaded, peak] = [ready, idle, loaded, peak].map(Spread::of);
    let program = Path::new(env!("CARGO_BIN_EXE_intake"));
    let (size, stripped) = (mib(program), stripped(program));
    println!("\nStart and size, {} times on a database that is there", plan.rounds);
    println!("{:>44} {ready}", "from the start to the first ready answer, ms");
    println!("{:>44} {idle}", "memory a second later, MiB");
    println!("{:>44} {loaded}", "after a second of 64 connections, MiB");
    println!("{:>44} {peak}", "the most meanwhile, MiB");
    println!("{:>44} {size:.1}", "the program with its symbols, MiB");
    if let Some(stripped) = stripped {
        println!("{:>44} {stripped:.1}", "without, MiB");
    }
    json!({
        "ready_ms": ready, "idle_mib": idle, "loaded_mib": loaded, "peak_mib": peak,
        "program_mib": size, "stripped_mib": stripped,
    })
}

fn mib(file: &Path) -> f64 {
    fs::metadata(file).unwrap().len() as f64 / 1024.0 / 1024.0
}

/// `None` where there is no `strip`.
fn stripped(program: &Path) -> Option<f64> {
    let to = std::env::temp_dir().join(format!("intake-stripped-{}", std::process::id()));
    let done = Command::new("strip").arg("-o").arg(&to).arg(program).status().ok()?;
    let size = done.success().then(|| mib(&to));
    let _ = fs::remove_file(to);
    size
}
