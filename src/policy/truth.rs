//! Three-valued logic: what a rule says when it cannot be evaluated.

/// True, false, or not to be told (a missing path, another type, an error).
///
/// An Allow rule matches only if it is `True`, a Deny rule unless it is `False`: whatever cannot be told denies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    /// Conjunction (Kleene): one `False` decides, as in CEL.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}
