//! The data plane: takes HTTP, authenticates, decides with `policy`, forwards, filters and records.
//!
//! Never imports `api` or `local`, and needs no Kubernetes: what it enforces arrives as a [`crate::policy::Policy`].

pub mod audit;
pub mod auth;
mod body;
pub mod catalogue;
mod endpoint;
pub mod fetch;
mod layers;
pub mod limits;
pub mod protocol;
mod server;
mod stack;
pub mod upstream;

pub use server::{Gateway, Settings, StartError};
