//! The canonical form of globs and templates, so that they meet the canonical form of URIs.
//!
//! Wildcards travel through as marks: short names that no rule of a URI touches. A mark that is lost or moved, and a
//! wildcard where the form depends on what it stands for (a port, half an escape), mean that there is no canonical form.
//! The author is told, because a Deny rule that never matches is worse than none.

use super::{Parts, is_special, scheme, spelling};
use crate::policy::glob::Token::{self, Char, Many, One};
use crate::policy::glob::matches as fits;

/// Schemes that stand for all others where a wildcard stands for the scheme: special with and without a default port
/// of that number, with and without a host, and not special.
const EXAMPLES: [&str; 5] = ["https", "http", "ftp", "file", "x"];
/// Default ports of the special schemes.
const PORTS: [(&str, &str); 5] = [("http", "80"), ("ws", "80"), ("https", "443"), ("wss", "443"), ("ftp", "21")];

/// The canonical form of one alternative of a glob, or why there is none, in words for the author of the rule.
pub(in crate::policy) fn canonical(tokens: &[Token]) -> Result<Vec<Token>, String> {
    let escape = |window: &[Token]| {
        let [first, rest @ ..] = window else { return false };
        *first == Char('%') && rest.iter().any(|token| !matches!(token, Char(_)))
    };
    if tokens.windows(3).chain(tokens.windows(2)).any(escape) {
        return Err("a wildcard stands in a percent-escape; write \"%25\" for a percent sign".to_owned());
    }
    match known_scheme(tokens) {
        Some(name) => of_scheme(&name, tokens.get(name.len() + 1..).unwrap_or_default()),
        None => floating(tokens),
    }
}

/// The canonical form of whatever a template expands to (RFC 6570), apart from values that are dot segments: its
/// expressions are `Many`. Where it depends on their values, any text.
pub(in crate::policy) fn canonical_template(tokens: &[Token]) -> Vec<Token> {
    let special = known_scheme(tokens).filter(|name| is_special(name));
    let opened = special.and_then(|name| {
        let start = name.len() + "://".len();
        let (before, rest) = tokens.split_at_checked(start)?;
        let end = rest.iter().position(|token| *token == Char('/')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at_checked(end)?;
        // A value may be a port or a host in another spelling, or end the authority.
        authority.contains(&Many).then(|| [before, &[Many], path].concat())
    });
    canonical(opened.as_deref().unwrap_or(tokens)).unwrap_or_else(|_| vec![Many])
}

/// The scheme, if no wildcard can be part of it; as it is written.
fn known_scheme(tokens: &[Token]) -> Option<String> {
    let letters = tokens.iter().map_while(|token| if let Char(c) = token { Some(*c) } else { None });
    scheme(&letters.collect::<String>()).map(|(scheme, _)| scheme.to_owned())
}

fn of_scheme(name: &str, rest: &[Token]) -> Result<Vec<Token>, String> {
    let name = name.to_ascii_lowercase();
    let head = || name.chars().chain([':']).map(Char);
    let special = is_special(&name);
    let mut rest = rest.to_vec();
    let mut ends_open = false;
    if special {
        let slashes = rest.iter().take_while(|token| matches!(token, Char('/' | '\\'))).count();
        // A third slash of a file begins its path; of the others it means nothing.
        let slashes = if name == "file" { slashes.min(2) } else { slashes };
        match rest.get(slashes) {
            // It may stand for the host and all that follows.
            Some(Many) if slashes < 2 => return Ok(head().chain(spelled(&rest)?).collect()),
            Some(One) if slashes < 2 => return Err("a wildcard stands before the host; write out \"//\"".to_owned()),
            _ => {}
        }
        let end = rest.iter().skip(slashes).position(|token| matches!(token, Char('/' | '\\' | '#')));
        let end = end.map_or(rest.len(), |end| slashes + end);
        let end = if name == "file" && slashes < 2 { slashes } else { end };
        let authority = rest.get_mut(slashes..end).unwrap_or_default();
        check_authority(&name, authority)?;
        // What ends with `*` in its authority goes on; all else of a special scheme has a path.
        ends_open = end == rest.len() && rest.last() == Some(&Many);
    }
    let marks = Marks::unlike(&rest);
    let text: String = head().chain(rest.iter().copied()).map(|token| marks.text(token)).collect();
    let parts = Parts::canonical(&text).ok_or_else(|| {
        "it is no URI, whatever its wildcards stand for; a port is a number, and a host is written out".to_owned()
    })?;
    let mut canonical = marks.tokens(&parts.text());
    if ends_open && canonical.last() == Some(&Char('/')) {
        canonical.pop();
    }
    let wildcards =
        |tokens: &[Token]| -> Vec<Token> { tokens.iter().copied().filter(|token| !matches!(token, Char(_))).collect() };
    if wildcards(&canonical) != wildcards(&rest) {
        return Err("a wildcard stands before a dot segment; write out what is meant".to_owned());
    }
    Ok(canonical)
}

/// Refuses a wildcard whose text would come to cover ports, and reads `?::1?` as the address `[::1]`: brackets
/// cannot be written in a glob.
fn check_authority(scheme: &str, authority: &mut [Token]) -> Result<(), String> {
    let at = authority.iter().rposition(|token| *token == Char('@')).map_or(0, |at| at + 1);
    let host = authority.get_mut(at..).unwrap_or_default();
    let digits = host.iter().rev().take_while(|token| matches!(token, Char('0'..='9'))).count();
    let (before, port) = host.split_at_mut(host.len() - digits);
    let port: String = port.iter().filter_map(|token| if let Char(c) = token { Some(*c) } else { None }).collect();
    let has_port = before.last() == Some(&Char(':')) && before.len() > 1;
    let host = if has_port { before.split_last_mut().map_or(&mut [][..], |(_, host)| host) } else { host };
    if scheme == "file" && host.contains(&One) | host.contains(&Many) && fits(host, "localhost") && !fits(host, "") {
        return Err(
            "its host may be \"localhost\", which canonical URIs of files leave out; leave it out here too".to_owned()
        );
    }
    let dotted = host.last() == Some(&Char('.'));
    let last = if dotted { host.iter().rev().nth(1) } else { host.last() };
    let left_out = dotted || (has_port && PORTS.contains(&(scheme, port.as_str())));
    if left_out && last == Some(&Many) {
        let what = if dotted { "dot at the end" } else { "port" };
        return Err(format!("\"*\" stands before a {what} that canonical URIs leave out; leave it out here too"));
    }
    let encoded = |label: &[Token]| {
        label.iter().any(|token| matches!(token, Char(c) if !c.is_ascii() || *c == '%'))
            && label.iter().any(|token| !matches!(token, Char(_)))
    };
    if host.split(|token| *token == Char('.')).any(encoded) {
        return Err(
            "a wildcard stands in a part of its host with characters beyond ASCII; write that part out".to_owned()
        );
    }
    let is_address = |tokens: &[Token]| {
        tokens.iter().filter(|token| **token == Char(':')).count() > 1
            && tokens.iter().all(|token| matches!(token, Char(c) if c.is_ascii_hexdigit() || *c == ':' || *c == '.'))
    };
    if let [first @ One, inner @ .., last @ One] = host
        && is_address(inner)
    {
        (*first, *last) = (Char('['), Char(']'));
    }
    Ok(())
}

/// A glob that begins with a wildcard, or has no scheme: its text may stand anywhere.
fn floating(tokens: &[Token]) -> Result<Vec<Token>, String> {
    let opening = [Char(':'), Char('/'), Char('/')];
    let in_scheme = |token: &&Token| match token {
        Char(c) => c.is_ascii_alphanumeric() || "+-.".contains(*c),
        One | Many => true,
    };
    let colon = tokens.iter().take_while(in_scheme).count();
    let rest = tokens.get(colon..).unwrap_or_default();
    if rest.starts_with(&opening) {
        let rest = rest.get(1..).unwrap_or_default();
        let mut tails = EXAMPLES.iter().filter_map(|example| match of_scheme(example, rest) {
            Err(_) if *example == "file" => None, // Its hosts have no ports.
            result => Some(result.map(|tokens| tokens.get(example.len()..).unwrap_or_default().to_vec())),
        });
        let first = tails.next().unwrap_or_else(|| Ok(Vec::new()))?;
        for tail in tails {
            if tail? != first {
                return Err("its canonical form depends on the scheme; write the scheme out".to_owned());
            }
        }
        return Ok(tokens.iter().take(colon).copied().chain(first).collect());
    }
    let spelled = spelled(tokens)?;
    let mut literals = spelled.split(|token| !matches!(token, Char(_)));
    let has = |literal: &[Token]| {
        let text: String =
            literal.iter().filter_map(|token| if let Char(c) = token { Some(*c) } else { None }).collect();
        text.contains("/./")
            || text.contains("/../")
            || PORTS.iter().any(|(_, port)| text.contains(&format!(":{port}/")))
    };
    if literals.any(has) {
        return Err("it holds a dot segment or a default port, which canonical URIs leave out; write the scheme out, \
                    or leave them out here too"
            .to_owned());
    }
    Ok(spelled)
}

/// Every literal run in its one spelling.
fn spelled(tokens: &[Token]) -> Result<Vec<Token>, String> {
    let mut out = Vec::with_capacity(tokens.len());
    for run in tokens.split_inclusive(|token| !matches!(token, Char(_))) {
        let literal: String =
            run.iter().filter_map(|token| if let Char(c) = token { Some(*c) } else { None }).collect();
        let spelled = spelling::spell(literal.as_bytes()).ok_or("it holds a control character, which no URI may")?;
        out.extend(spelled.chars().map(Char));
        out.extend(run.last().filter(|token| !matches!(token, Char(_))));
    }
    Ok(out)
}

/// Names that stand for wildcards: valid in every part of a URI, the same in every case and spelling.
struct Marks {
    one: String,
    many: String,
}

impl Marks {
    /// Marks that do not occur in the literals. No mark can overlap another or a literal: they begin and end with
    /// letters that differ.
    fn unlike(tokens: &[Token]) -> Self {
        let text: String =
            tokens.iter().filter_map(|token| if let Char(c) = token { Some(*c) } else { None }).collect();
        let text = text.to_lowercase();
        let marks = |number: usize| Self { one: format!("z{number}o"), many: format!("z{number}m") };
        let free = |marks: &Self| !text.contains(&marks.one) && !text.contains(&marks.many);
        // A glob is shorter than the number of marks that are tried, so one is free.
        (0..=tokens.len()).map(marks).find(free).unwrap_or_else(|| marks(0))
    }

    fn text(&self, token: Token) -> String {
        match token {
            Char(c) => c.to_string(),
            One => self.one.clone(),
            Many => self.many.clone(),
        }
    }

    fn tokens(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let mark = [(&self.one, One), (&self.many, Many)];
            let found = mark.into_iter().find_map(|(mark, token)| Some((rest.strip_prefix(mark.as_str())?, token)));
            let (after, token) = found.unwrap_or_else(|| (rest.get(c.len_utf8()..).unwrap_or_default(), Char(c)));
            tokens.push(token);
            rest = after;
        }
        tokens
    }
}

#[cfg(test)]
mod tests;
