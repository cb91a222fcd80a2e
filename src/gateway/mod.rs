//! The data plane: takes HTTP, authenticates, decides with `policy`, forwards, filters and records.
//!
//! Never imports `api` or `local`, and needs no Kubernetes: what it enforces arrives as a [`crate::policy::Policy`].

pub mod audit;
pub mod auth;
pub mod catalogue;
pub mod fetch;
pub mod layers;
pub mod limits;
pub mod protocol;
mod server;
pub mod upstream;

pub use server::{Gateway, Settings, StartError};
