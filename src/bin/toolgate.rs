//! `toolgate`: the laptop mode and the offline tools. Flags and wiring only.

fn main() {}
