//! CRDs.
use super::*;
#[test]
fn show() {
    for d in schema::definitions() {
        println!("{}", serde_json::to_string_pretty(&d.crd).unwrap());
    }
}
