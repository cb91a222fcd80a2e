//! The laptop mode and the offline tools.
