//! error

/// A protocol version that the gateway does not know.
#[derive(Debug)]
pub struct Unsupported(pub String);
