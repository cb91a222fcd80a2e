//! The data plane: takes HTTP, authenticates, decides with `policy`, forwards, filters and records.
//!
//! Never imports `api` or `local`, and needs no Kubernetes: what it enforces arrives as a [`crate::policy::Policy`].

mod accept;
mod admin;
pub mod audit;
pub mod auth;
mod body;
pub mod catalogue;
mod causes;
#[cfg(feature = "sidecar")]
pub mod certificate;
mod drain;
mod endpoint;
pub mod fetch;
mod layers;
mod lifetime;
pub mod limits;
mod link;
mod lookup;
pub mod memory;
mod progress;
pub mod protocol;
pub mod reach;
#[cfg(feature = "sidecar")]
mod report;
mod server;
#[cfg(feature = "sidecar")]
pub mod sidecar;
#[cfg(feature = "sidecar")]
pub mod source;
mod stack;
#[cfg(feature = "sidecar")]
mod state;
mod sweep;
mod tasks;
mod tls;
#[cfg(feature = "sidecar")]
mod trust;
pub mod upstream;
#[cfg(feature = "sidecar")]
mod worker;

pub use server::{Gateway, Settings, StartError};
pub use tls::Tls;
