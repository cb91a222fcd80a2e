use super::*;
#[test]
fn tmp() {
    crate::local::crds::write(Path::new("crds")).unwrap();
    let mut out = Vec::new();
    crate::local::validate::validate(Path::new("/tmp/mm"), &mut out).unwrap();
    println!("{}", String::from_utf8(out).unwrap());
}
