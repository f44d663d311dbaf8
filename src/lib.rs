//! The intake gateway of a service window (ARCHITECTURE.md).
//!
//! `domain` is pure. `store` holds all SQL. `intake`, `schedule`, `relay` and `reply` are what runs;
//! `http` is how the outside reaches it, `desk` what staff do. `gateway` wires them into one process.

pub mod amend;
pub mod calls;
pub mod citizen;
pub mod clock;
pub mod config;
pub mod desk;
pub mod domain;
pub mod gateway;
pub mod hearing;
pub mod housekeeping;
pub mod http;
pub mod intake;
pub mod lifecycle;
pub mod media;
pub mod offices;
pub mod platform;
pub mod quarantine;
pub mod relay;
pub mod reply;
pub mod schedule;
pub mod search;
pub mod secret;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod verify;
pub mod wording;
