//! How verbose a shared child logs, and which session gets which of its log messages.
//!
//! Pure. The server has one level: the most verbose that some session wants. A session that asked for none leaves it
//! to the server (MCP 2025-11-25, logging): as long as nobody asked, the server decides; once it was told a level for
//! somebody, such a session counts as one that wants [`Level::DEFAULT`], so that others make it neither loud nor silent.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gateway::protocol::json::members;

/// Severity of a log message (RFC 5424), most verbose first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    const ALL: [Self; 8] = [
        Self::Debug,
        Self::Info,
        Self::Notice,
        Self::Warning,
        Self::Error,
        Self::Critical,
        Self::Alert,
        Self::Emergency,
    ];
    /// What a session gets that asked for none while another asked.
    pub(super) const DEFAULT: Self = Self::Info;

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// A level as JSON text, with its quotes.
    pub(super) fn parse(raw: &str) -> Option<Self> {
        let text: String = serde_json::from_str(raw).ok()?;
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }

    /// The level of `notifications/message`. What has none that is known counts as the most verbose: only who asked
    /// for everything gets it.
    pub(super) fn of_message(params: &str) -> Self {
        let level = members(params).and_then(|all| all.into_iter().find(|(key, _)| key == "level"));
        level.and_then(|(_, raw)| Self::parse(raw.get())).unwrap_or(Self::Debug)
    }
}

/// The levels that the sessions of one child asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct LogLevels {
    sessions: HashMap<Arc<str>, Option<Level>>,
    /// What the server was told last.
    told: Option<Level>,
    /// It accepted that.
    is_confirmed: bool,
}

impl LogLevels {
    /// A session begins.
    pub(super) fn join(&mut self, session: &Arc<str>) {
        self.sessions.entry(session.clone()).or_default();
    }

    /// A session is over.
    pub(super) fn leave(&mut self, session: &Arc<str>) {
        self.sessions.remove(session);
    }

    /// A session asks for a level. The level that the server is to be told on its behalf, which then counts as told;
    /// `None` if the server knows already.
    pub(super) fn ask(&mut self, session: &Arc<str>, level: Level) -> Option<Level> {
        self.sessions.insert(session.clone(), Some(level));
        let wanted = self.wanted();
        if self.told == wanted && self.is_confirmed {
            return None;
        }
        (self.told, self.is_confirmed) = (wanted, false);
        wanted
    }

    /// What a session asked for.
    pub(super) fn of(&self, session: &str) -> Option<Level> {
        self.sessions.get(session).copied().flatten()
    }

    /// The server accepted a level.
    pub(super) fn accepted(&mut self, level: Level) {
        self.is_confirmed |= self.told == Some(level);
    }

    /// The server refused what it was told for this session, which has again what it had `before`.
    pub(super) fn refused(&mut self, session: &Arc<str>, before: Option<Level>) {
        if let Some(level) = self.sessions.get_mut(session) {
            *level = before;
        }
        (self.told, self.is_confirmed) = (None, false);
    }

    /// Whether a session, or with `None` a caller without one, gets a message of this level.
    pub(super) fn admits(&self, session: Option<&str>, level: Level) -> bool {
        match (session.and_then(|session| self.of(session)), self.told) {
            (Some(asked), _) => level >= asked,
            (None, Some(_)) => level >= Level::DEFAULT,
            (None, None) => true, // The server decides.
        }
    }

    /// The level that the server has to be told by the gateway itself; it counts as told.
    pub(super) fn take_owed(&mut self) -> Option<Level> {
        let owed = self.owed()?;
        (self.told, self.is_confirmed) = (Some(owed), false);
        Some(owed)
    }

    /// Whether the server has to be told something.
    pub(super) fn is_owing(&self) -> bool {
        self.owed().is_some()
    }

    fn owed(&self) -> Option<Level> {
        self.wanted().filter(|wanted| self.told != Some(*wanted))
    }

    /// The most verbose level that some session wants; `None` as long as the server decides.
    fn wanted(&self) -> Option<Level> {
        if self.sessions.values().all(Option::is_none) {
            return self.told.map(|_| Level::DEFAULT);
        }
        self.sessions.values().map(|asked| asked.unwrap_or(Level::DEFAULT)).min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> Arc<str> {
        name.into()
    }

    #[test]
    fn the_server_has_the_most_verbose_level_and_each_session_its_own() {
        let mut levels = LogLevels::default();
        let (a, b) = (id("a"), id("b"));

        assert_eq!(levels.ask(&a, Level::Error), Some(Level::Error));
        levels.accepted(Level::Error);
        assert_eq!(levels.ask(&b, Level::Debug), Some(Level::Debug));
        levels.accepted(Level::Debug);
        assert_eq!(levels.ask(&a, Level::Warning), None, "the server logs more already");
        assert!(levels.admits(Some("a"), Level::Warning) && !levels.admits(Some("a"), Level::Notice));
        assert!(levels.admits(Some("b"), Level::Debug));

        levels.leave(&b);
        assert_eq!(levels.take_owed(), Some(Level::Warning), "the verbose one has left");
        assert_eq!(levels.take_owed(), None);
    }

    #[test]
    fn a_session_that_asked_for_nothing_is_neither_flooded_nor_silenced_by_others() {
        let mut levels = LogLevels::default();
        let (a, b) = (id("a"), id("b"));
        levels.join(&a);
        levels.join(&b);
        assert!(levels.admits(Some("b"), Level::Debug), "the server decides as long as nobody asks");
        assert_eq!(levels.take_owed(), None);

        assert_eq!(levels.ask(&a, Level::Emergency), Some(Level::DEFAULT));
        assert!(levels.admits(Some("b"), Level::Info) && !levels.admits(Some("a"), Level::Alert));

        assert_eq!(levels.ask(&a, Level::Debug), Some(Level::Debug));
        assert!(!levels.admits(Some("b"), Level::Debug) && !levels.admits(None, Level::Debug));
        levels.leave(&a);
        assert_eq!(levels.take_owed(), Some(Level::DEFAULT));
    }

    #[test]
    fn a_refused_level_leaves_everything_as_it_was() {
        let mut levels = LogLevels::default();
        let a = id("a");
        levels.join(&a);
        assert_eq!(levels.ask(&a, Level::Debug), Some(Level::Debug));
        levels.refused(&a, None);

        assert_eq!((levels.of("a"), levels.take_owed()), (None, None));
        assert!(levels.admits(Some("a"), Level::Debug));
    }

    #[test]
    fn a_message_without_a_known_level_is_the_most_verbose() {
        assert_eq!(Level::of_message(r#"{"level":"err\u006fr"}"#), Level::Error);
        for params in [r#"{"level":"ERROR"}"#, r#"{"level":7}"#, "{}", "[]"] {
            assert_eq!(Level::of_message(params), Level::Debug, "{params}");
        }
    }

    proptest! {
        #[test]
        fn no_session_is_told_less_than_it_asked_for_or_more(
            steps in prop::collection::vec((0u8..4, 0usize..3, 0usize..8), 0..40)
        ) {
            let sessions = [id("a"), id("b"), id("c")];
            let mut levels = LogLevels::default();
            let mut server = None;
            for (what, session, level) in steps {
                let (who, level) = (&sessions[session], Level::ALL[level]);
                match what {
                    0 => levels.join(who),
                    1 | 2 => {
                        if let Some(told) = levels.ask(who, level) {
                            server = Some(told);
                            levels.accepted(told);
                        }
                    }
                    _ => levels.leave(who),
                }
                if let Some(told) = levels.take_owed() {
                    server = Some(told);
                    levels.accepted(told);
                }
                let asked: Vec<Level> = sessions.iter().filter_map(|session| levels.of(session)).collect();
                if let Some(most) = asked.iter().min() {
                    prop_assert!(server.is_some_and(|server| server <= *most), "somebody gets less than it asked for");
                    let most = if asked.len() < levels.sessions.len() { (*most).min(Level::DEFAULT) } else { *most };
                    prop_assert_eq!(server, Some(most), "nobody asked for that much");
                }
                for session in &sessions {
                    for message in Level::ALL {
                        let gets = levels.admits(Some(session), message);
                        if let Some(asked) = levels.of(session) {
                            prop_assert_eq!(gets, message >= asked);
                        }
                    }
                }
            }
        }
    }
}
