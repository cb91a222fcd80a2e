//! What is said when, and that nothing is said twice.
