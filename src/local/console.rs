//! What `toolgate local` says to its user: one writer, whole lines, no colours.

use std::io::Write;

use super::manifests::Problem;

/// Where the user reads.
pub struct Console {
    out: Box<dyn Write + Send>,
    told: Vec<Problem>,
}

impl Console {
    /// Writes to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, told: Vec::new() }
    }

    /// Writes a text and a line feed. A reader that went away does not stop the gateway.
    pub fn say(&mut self, text: impl AsRef<str>) {
        let _ = writeln!(self.out, "{}", text.as_ref());
        let _ = self.out.flush();
    }

    /// Tells the problems that were not told before, and that the last ones are gone.
    pub fn problems(&mut self, problems: Vec<Problem>) {
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            let _ = writeln!(self.out, "{problem}");
        }
        if problems.is_empty() && !self.told.is_empty() {
            let _ = writeln!(self.out, "all problems are solved");
        }
        let _ = self.out.flush();
        self.told = problems;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;
    use crate::policy::Severity;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_problem_is_told_once_and_its_end_too() {
        let seen = Shared::default();
        let mut console = Console::new(Box::new(seen.clone()));
        let problem = |line| Problem {
            file: "role.yaml".into(),
            line,
            severity: Severity::Error,
            message: "unknown field".to_owned(),
        };

        console.problems(vec![problem(1)]);
        console.problems(vec![problem(1), problem(2)]);
        console.problems(Vec::new());
        console.problems(Vec::new());

        let text = String::from_utf8(seen.0.lock().clone()).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.ends_with("all problems are solved\n"), "{text}");
    }
}
