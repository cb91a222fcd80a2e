//! Any text of a manifest gives findings or objects, never a panic, and the same text gives the same findings.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use toolgate::local::manifests::parse_text;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    // Files that are not UTF-8 are refused before; see the tests of `local::manifests`.
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    let problems = parse_text("fuzz.yaml", text);
    // YAML ends a line at LF, CRLF or CR (YAML 1.2.2, section 5.4).
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count();

    for problem in &problems {
        assert!(problem.line <= lines, "{problem}: beyond the end, line {lines}");
        assert!(!problem.message.trim().is_empty());
        assert!(!problem.to_string().contains('\n'), "one finding, one line: {problem}");
    }
    assert_eq!(parse_text("fuzz.yaml", text), problems);
    Corpus::Keep
});
