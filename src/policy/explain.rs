//! Why may, or may not, this identity use that: every rule that was looked at, in words.
