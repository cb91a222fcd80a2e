//! The kinds as users write them.
