//! Globs over names and URIs, and how they meet RFC 6570 templates.
//!
//! One sort of glob for servers, tools, prompts and resources: `*` is any run of characters (also `/`), `?` is one
//! character, `{a,b}` is either. There are no classes and no escapes: a name with such characters is matched with
//! `?`. Matching and the two questions about templates work on the same tokens, so a list and a call cannot
//! disagree. Cost is bounded by (length of the glob) × (length of the text).
//!
//! A glob over URIs and a template are brought to canonical form when they are parsed, and are compared with canonical
//! URIs alone (`uri`).

use super::uri;

/// Longest glob, in characters.
const GLOB_CHARS: usize = 512;
/// Most alternatives that the braces of one glob may come to.
const ALTERNATIVES: usize = 64;
/// Longest template that is looked at, in characters; a longer one is treated as if no rule named it.
const TEMPLATE_CHARS: usize = 512;

/// A compiled glob.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Glob {
    alternatives: Vec<Vec<Token>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Token {
    /// Exactly this character.
    Char(char),
    /// One character.
    One,
    /// Any run of characters, also none.
    Many,
}

impl Glob {
    /// Parses a glob. The error says what is wrong, in words for the author of the rule.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("glob is empty; write \"*\" for everything".to_owned());
        }
        if text.chars().count() > GLOB_CHARS {
            return Err(format!("glob is longer than {GLOB_CHARS} characters"));
        }
        let mut alternatives = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let options: Vec<Vec<Token>> = match c {
                '{' => choices(&mut chars, text)?.iter().map(|choice| tokens(choice)).collect::<Result<_, _>>()?,
                '}' => return Err(format!("glob {text:?} has \"}}\" without \"{{\"")),
                other => vec![vec![token(other)?]],
            };
            if alternatives.len().saturating_mul(options.len()) > ALTERNATIVES {
                return Err(format!(
                    "glob {text:?} stands for more than {ALTERNATIVES} alternatives; list them instead"
                ));
            }
            alternatives = alternatives
                .iter()
                .flat_map(|head| options.iter().map(move |tail| [head.as_slice(), tail.as_slice()].concat()))
                .collect();
        }
        Ok(Self { alternatives })
    }

    /// Parses a glob over URIs, and brings it to canonical form.
    pub(super) fn parse_uri(text: &str) -> Result<Self, String> {
        let Self { alternatives } = Self::parse(text)?;
        let canonical = alternatives.iter().map(|tokens| uri::canonical_pattern(tokens)).collect::<Result<_, _>>();
        let alternatives = canonical.map_err(|why| format!("glob {text:?} has no canonical form: {why}"))?;
        Ok(Self { alternatives })
    }

    /// Whether the glob names this text.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.alternatives.iter().any(|tokens| matches(tokens, text))
    }

    /// Whether the glob surely names every text. Errs towards no.
    pub(super) fn is_everything(&self) -> bool {
        self.alternatives.iter().any(|tokens| !tokens.is_empty() && tokens.iter().all(|token| *token == Token::Many))
    }

    /// Whether the glob names some URI that the template can expand to. Errs towards yes.
    pub(super) fn meets(&self, template: &Template) -> bool {
        self.alternatives.iter().any(|tokens| meet(tokens, &template.tokens))
    }

    /// Whether the glob surely names every URI that the template can expand to. Errs towards no.
    pub(super) fn covers(&self, template: &Template) -> bool {
        self.alternatives.iter().any(|tokens| covers(tokens, &template.tokens))
    }
}

/// An RFC 6570 template as a pattern of canonical URIs: an expression is any text.
#[derive(Clone, Debug)]
pub(super) struct Template {
    tokens: Vec<Token>,
}

impl Template {
    /// Reads a template; `None` if it is too long to look at.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.chars().count() > TEMPLATE_CHARS {
            return None;
        }
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            // RFC 6570 section 3.1: expansion percent-encodes a literal that no URI may hold, which its canonical form
            // undoes.
            let token = if c == '{' {
                // An unclosed expression swallows the rest, which is then any text.
                chars.by_ref().find(|&c| c == '}');
                Token::Many
            } else {
                Token::Char(c)
            };
            if (token, tokens.last()) != (Token::Many, Some(&Token::Many)) {
                tokens.push(token);
            }
        }
        Some(Self { tokens: uri::canonical_template(&tokens) })
    }
}

/// The choices of a brace group, up to its `}`.
fn choices(chars: &mut std::str::Chars<'_>, glob: &str) -> Result<Vec<String>, String> {
    let mut choices = vec![String::new()];
    for c in chars {
        match c {
            '}' => return Ok(choices),
            '{' => return Err(format!("glob {glob:?} has braces within braces")),
            ',' => choices.push(String::new()),
            other => choices.last_mut().into_iter().for_each(|choice| choice.push(other)),
        }
    }
    Err(format!("glob {glob:?} has \"{{\" without \"}}\""))
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    text.chars().map(token).collect()
}

fn token(c: char) -> Result<Token, String> {
    match c {
        '*' => Ok(Token::Many),
        '?' => Ok(Token::One),
        '[' | ']' | '\\' => {
            Err(format!("globs have no {c:?}; use \"?\" for one character, \"*\" for any, {{a,b}} for either"))
        }
        other => Ok(Token::Char(other)),
    }
}

/// Greedy matching with one point of return: the last `*`, which then takes one character more.
pub(super) fn matches(mut tokens: &[Token], text: &str) -> bool {
    let mut chars = text.chars();
    let mut retry: Option<(&[Token], std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = chars.clone();
        match (tokens, ahead.next()) {
            ([], None) => return true,
            ([Token::Many, rest @ ..], _) => {
                tokens = rest;
                retry = Some((rest, chars.clone()));
            }
            (_, None) => return false,
            ([Token::One, rest @ ..], Some(_)) => (tokens, chars) = (rest, ahead),
            ([Token::Char(want), rest @ ..], Some(got)) if *want == got => (tokens, chars) = (rest, ahead),
            _ => {
                let Some((after, from)) = &mut retry else { return false };
                from.next();
                (tokens, chars) = (after, from.clone());
            }
        }
    }
}

/// Whether two patterns have a text in common: `table[j]` says it of the rest of both, from the end backwards.
fn meet(a: &[Token], b: &[Token]) -> bool {
    // Row for the empty rest of `a`: the rest of `b` must be able to be empty.
    let mut below: Vec<bool> = vec![true];
    for token in b.iter().rev() {
        let empty = *token == Token::Many && below.last() == Some(&true);
        below.push(empty);
    }
    for left in a.iter().rev() {
        let empty = *left == Token::Many && below.first() == Some(&true);
        let mut row = vec![empty];
        // `row` and `below` run from the end of `b`; `below` is the row of `a` without `left`.
        for (right, diagonal_up) in b.iter().rev().zip(below.windows(2)) {
            let [diagonal, up] = *diagonal_up else { return true }; // `windows(2)` yields pairs.
            let side = row.last() == Some(&true);
            row.push(match (left, right) {
                (Token::Many, _) | (_, Token::Many) => up || side,
                (Token::One, _) | (_, Token::One) => diagonal,
                (Token::Char(x), Token::Char(y)) => x == y && diagonal,
            });
        }
        below = row;
    }
    below.last() == Some(&true)
}

/// Whether a glob swallows a template whole: only its `*` may take what the template leaves open.
fn covers(glob: &[Token], template: &[Token]) -> bool {
    let (mut g, mut t) = (glob, template);
    let mut retry: Option<(&[Token], &[Token])> = None;
    loop {
        match (g, t) {
            ([], []) => return true,
            ([Token::Many, rest @ ..], _) => {
                g = rest;
                retry = Some((g, t));
            }
            ([Token::One, grest @ ..], [Token::Char(_), trest @ ..]) => (g, t) = (grest, trest),
            ([Token::Char(x), grest @ ..], [Token::Char(y), trest @ ..]) if x == y => (g, t) = (grest, trest),
            _ => match retry {
                Some((after, [_, from @ ..])) => {
                    (g, t) = (after, from);
                    retry = Some((after, from));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> Glob {
        Glob::parse(text).unwrap()
    }

    #[test]
    fn star_crosses_slashes_and_question_mark_is_one_character() {
        assert!(glob("repo://acme/*").matches("repo://acme/a/b"));
        assert!(glob("*").matches(""));
        assert!(glob("a?c").matches("aéc"));
        assert!(!glob("a?c").matches("ac"));
        assert!(glob("*_file").matches("read_file_file"));
        assert!(!glob("*_file").matches("read_files"));
        assert!(glob("{get,list}_*").matches("list_x"));
        assert!(!glob("{get,list}_*").matches("set_x"));
        assert!(!glob("deploy").matches("Deploy"));
    }

    #[test]
    fn bad_globs_say_what_is_wrong() {
        for (text, part) in [
            ("", "empty"),
            ("[ab]", "no '['"),
            ("a\\*", "no '\\\\'"),
            ("{a", "without"),
            ("a}", "without"),
            ("{a,{b,c}}", "within braces"),
            ("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", "64 alternatives"),
        ] {
            let message = Glob::parse(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
        assert!(Glob::parse(&"a".repeat(513)).is_err());
    }

    #[test]
    fn templates_meet_globs_that_could_name_an_expansion() {
        let template = Template::parse("repo://{owner}/{name}/readme").unwrap();
        assert!(glob("repo://acme/*").meets(&template));
        assert!(glob("repo://acme/tool/readme").meets(&template));
        assert!(!glob("repo://acme/tool/license").meets(&template));
        assert!(!glob("file://*").meets(&template));
        assert!(Template::parse(&"x".repeat(513)).is_none());
    }

    #[test]
    fn only_a_star_covers_what_a_template_leaves_open() {
        let template = Template::parse("repo://{owner}/readme").unwrap();
        assert!(glob("repo://*").covers(&template));
        assert!(glob("repo://*/readme").covers(&template));
        assert!(glob("*").covers(&template));
        assert!(!glob("repo://acme/*").covers(&template));
        assert!(!glob("repo://?/readme").covers(&template));
    }

    fn slow(tokens: &[Token], text: &[char]) -> bool {
        match (tokens, text) {
            ([], []) => true,
            ([Token::Many, rest @ ..], _) => slow(rest, text) || matches!(text, [_, more @ ..] if slow(tokens, more)),
            ([Token::One, rest @ ..], [_, more @ ..]) => slow(rest, more),
            ([Token::Char(x), rest @ ..], [y, more @ ..]) => x == y && slow(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn fast_matching_equals_the_definition(pattern in "[ab*?]{1,8}", text in "[ab]{0,8}") {
            let tokens = tokens(&pattern).unwrap();
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(matches(&tokens, &text), slow(&tokens, &chars));
        }

        #[test]
        fn a_template_meets_every_glob_that_names_an_expansion(
            pattern in "[ab*?]{1,6}", template in "(a|b|\\{v\\}){0,4}", values in proptest::collection::vec("[ab]{0,3}", 4),
        ) {
            let mut values = values.into_iter();
            let mut uri = template.clone();
            while uri.contains("{v}") {
                uri = uri.replacen("{v}", &values.next().unwrap_or_default(), 1);
            }
            let (pattern, template) = (glob(&pattern), Template::parse(&template).unwrap());
            if pattern.matches(&uri) {
                prop_assert!(pattern.meets(&template));
            }
            if pattern.covers(&template) {
                prop_assert!(pattern.matches(&uri) && pattern.meets(&template));
            }
        }

        #[test]
        fn parsing_is_total(text in ".{0,40}") {
            let _ = Glob::parse(&text);
            let _ = Template::parse(&text);
        }
    }
}
