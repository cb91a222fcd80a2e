use proptest::prelude::*;

use crate::policy::glob::{Glob, Template};
use crate::policy::uri::readings;
use crate::policy::uri::tests::twins;

fn names(glob: &str, uri: &str) -> bool {
    let glob = Glob::parse_uri(glob).unwrap_or_else(|error| panic!("{error}"));
    readings(uri).unwrap().iter().all(|reading| glob.matches(reading))
}

#[test]
fn a_glob_in_any_spelling_names_a_uri_in_any_spelling() {
    for (glob, uri) in [
        ("https://h:443/*", "https://h/x"),
        ("https://h./*", "https://h:443/x"),
        ("HTTPS://H/*", "https://h./x"),
        ("https://h", "https://h:443"),
        ("https://h*", "https://h:443/x"),
        ("https://h*", "https://h.example:8443/x"),
        ("https://*", "https://h/x"),
        ("https://*.example/*", "https://A.Example/x"),
        ("https://*.münchen.example/*", "https://a.xn--mnchen-3ya.example/x"),
        ("https://{a,B}.example:443/*", "https://b.example/x"),
        ("https:*", "https://h/x"),
        ("http*://h/*", "https://h/x"),
        ("*://h/*", "repo://h/x"),
        ("file://localhost/data/*", "file:///data/x"),
        ("file:///data/*", "file://localhost/data/x"),
        ("file:/data/*", "file:///data/x"),
        ("file://*", "file:///data/x"),
        ("file:*", "file://host/data/x"),
        ("file:///*", "file:/data/x"),
        ("file:///C|/*", "file:///C:/x"),
        ("file:///my docs/*", "file:///my%20docs/x"),
        ("file:///my%20docs/*", "file:///my docs/x"),
        ("file:///caf?/*", "file:///caf%c3%a9/x"),
        ("file:///a?b", "file:///a%20b"),
        ("*café*", "repo://acme/caf%C3%A9s"),
        ("repo://acme/%7e*", "repo://acme/~x"),
        ("repo://acme/x/../*", "repo://acme/y"),
        ("REPO://Acme/*", "repo://Acme/x"),
        ("mem:*", "MEM:x"),
        ("http://?::1?:8080/*", "http://[0:0::1]:8080/x"),
        ("https://u@h:443/*", "https://u@h/x"),
        ("https://h/x?q='*", "https://h/x?q=%27a"),
        ("*", "file:///srv/a%2Fb%2E%5Cc"),
        ("https://127.0.0.*/x", "https://0x7f.1/x"),
    ] {
        assert!(names(glob, uri), "{glob} {uri}");
    }
}

#[test]
fn a_glob_names_nothing_that_is_read_elsewhere() {
    for (glob, uri) in [
        ("repo://acme/pub/*", "repo://acme/pub%2F..%2Fkey"),
        ("repo://acme/pub/*", "repo://acme/pub/..%2fkey"),
        ("repo://acme/pub/*", "repo://acme/pub/..%252Fkey"),
        ("repo://acme/pub/*", "repo://acme/pub/..\\key"),
        ("file:///pub/*", "file:///pub/..;/etc/passwd"),
        ("x://h/a?p=pub/*", "x://h/a?p=pub/../key"),
        ("repo://Acme/*", "repo://acme/x"),
        ("https://h/*", "https://h:8443/x"),
        ("https://h/*", "https://h%2F@evil.example/x"),
    ] {
        assert!(!names(glob, uri), "{glob} {uri}");
    }
}

#[test]
fn a_glob_without_a_canonical_form_says_why() {
    for (glob, part) in [
        ("https://h:*/x", "a port is a number"),
        ("https://h:80?0/x", "a port is a number"),
        ("https://*:443/x", "\"*\" stands before a port"),
        ("https://*./x", "\"*\" stands before a dot"),
        ("https://mün*.example/x", "beyond ASCII"),
        ("repo://acme/*/../x", "dot segment"),
        ("repo://acme/100%*", "percent-escape"),
        ("repo://acme/%2?", "percent-escape"),
        ("*://h:443/x", "write the scheme out"),
        ("*://Example.com/x", "write the scheme out"),
        ("*/../x", "dot segment or a default port"),
        ("*h:443/x", "dot segment or a default port"),
        ("https:?h/x", "write out"),
        ("file://local*/x", "localhost"),
        ("https://a b/*", "no URI"),
        ("repo://acme/a\u{1}*", "no URI"),
        ("https://{h,h:*}/x", "a port is a number"),
    ] {
        let message = Glob::parse_uri(glob).expect_err(glob);
        assert!(message.contains(part) && message.contains("no canonical form"), "{glob}: {message}");
    }
}

#[test]
fn templates_meet_globs_in_any_spelling() {
    for (template, glob) in [
        ("https://H:443/{x}", "https://h/*"),
        ("https://{host}/x", "https://h:443/x"),
        ("https://h:{port}/x", "https://h:443/x"),
        ("file://localhost/{+path}", "file:///data/*"),
        ("file://{+path}", "file:///data/*"),
        ("file:///my docs/{x}", "file:///my%20docs/*"),
        ("repo://acme/caf%c3%a9/{x}", "repo://acme/café/*"),
        ("{scheme}://H:443/x", "https://h/x"),
        ("repo://acme/{x}/../y", "repo://acme/y"),
    ] {
        let (glob, parsed) = (Glob::parse_uri(glob).unwrap(), Template::parse(template).unwrap());
        assert!(glob.meets(&parsed), "{template}");
    }
    let covered = Template::parse("https://h:443/secret/{x}").unwrap();
    assert!(Glob::parse_uri("https://H/secret/*").unwrap().covers(&covered));
    assert!(!Glob::parse_uri("https://H/secret/a").unwrap().covers(&covered));
}

proptest! {
    #[test]
    fn a_glob_that_spells_a_uri_names_it((one, two, glob) in twins()) {
        let all = readings(&one).unwrap();
        let glob = glob.replace('\\', "/"); // Which a glob cannot hold.
        let exact = Glob::parse_uri(&glob).unwrap();
        prop_assert!(exact.matches(&all[0]), "{} {} {}", one, two, glob);
        if let Some((folder, _)) = glob.rsplit_once('/') {
            // Cut where a segment begins that stays.
            let folder = folder.trim_end_matches("/q").trim_end_matches("/.");
            if folder.matches('/').count() >= 3 && !folder.ends_with("/..") && !folder.ends_with("/q") {
                let wide = Glob::parse_uri(&format!("{folder}/*")).unwrap();
                prop_assert!(wide.matches(&all[0]), "{} {}/*", one, folder);
            }
        }
    }

    #[test]
    fn parsing_is_total(text in "(https?|file|x|\\*|\\?)?:?/{0,3}[a-zA-Z0-9.:@%*?{},é/-]{0,24}") {
        let _ = Glob::parse_uri(&text);
        let _ = Template::parse(&text);
    }
}
