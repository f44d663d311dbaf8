//! What people would use instead, on the same servers in the same run; scripts/peers.sh installs it.

pub mod bullmq;
pub mod python;

use serde_json::{Value, json};
use std::path::PathBuf;

/// Where a peer is installed.
fn installed(name: &str) -> Result<PathBuf, Value> {
    let folder = std::path::absolute("target/peers").unwrap();
    let why = std::fs::read_to_string(folder.join(format!("{name}.missing")));
    if why.is_err() && folder.join(name).join("pins").exists() {
        return Ok(folder.join(name));
    }
    let why = why.unwrap_or_else(|_| "it is not installed; make bench installs it.".to_owned());
    println!("\nThe peer {name} is left out: {why}");
    Err(json!({ "left_out": why }))
}
