//! acrcred keeps image pull Secrets for Azure Container Registry alive without a stored password.
//!
//! ```text
//! watches ┐
//! queue   ┴► observe ─► plan(&Observed, now) ─► mint ─► settle(.., outcomes, now) ─► execute ─► queue(wake_at)
//!            reads      pure                    azure   pure                         writes
//! ```
//!
//! Imports go one way: [`credential`], `api` and `process` at the ground, `azure` and `plan` above
//! them, `controller` above those, and the program on top.

pub mod api;
pub mod args;
pub mod azure;
pub mod controller;
pub mod credential;
#[cfg(test)]
mod fuzzing;
pub mod plan;
pub mod process;
