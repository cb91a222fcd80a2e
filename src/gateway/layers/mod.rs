//! The layers of one call, one file each; `stack.rs` shows their order.
