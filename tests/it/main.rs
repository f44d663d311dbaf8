//! The gateway through its front door, on real PostgreSQL and Redis. Only the clock and the world
//! outside are stand-ins. Run with `make test`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that cannot go on should say where"
)]

mod actions;
mod api;
mod attack;
mod browser;
mod calendar;
mod calendar_change;
mod call_back;
mod calls;
mod citizen;
mod commands;
mod conversation;
mod desk;
mod exchanges;
mod front_door;
mod intake;
mod interop;
mod limits;
mod media;
mod migrations;
mod outage;
mod plans;
mod platform;
mod quarantine;
mod queue;
mod reconcile;
mod recordings;
mod relay;
mod replies;
mod schedule;
mod search;
mod spool;
mod support;
mod verify;
