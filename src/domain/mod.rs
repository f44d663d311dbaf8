//! The window's rules, pure: no clock, no network, no database (invariant 7).

pub mod calendar;
pub mod call_back;
pub mod chain;
pub mod contact;
pub mod conversation;
pub mod event;
pub mod id;
pub mod ladder;
pub mod level;
pub mod policy;
pub mod promise;
pub mod register;
pub mod role;
pub mod standing;
pub mod ticket;
pub mod timer;
pub mod word_list;
