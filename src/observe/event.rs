//! The names of events. Each line of the log has one in its field `event`: whatever its words become, that stays.
//! `docs/metrics.md` has the same, and a test compares both with what the source logs.

/// Something that is logged.
macro_rules! events {
    ($($name:ident $text:literal $what:literal)*) => {
        $(#[doc = $what] pub const $name: &str = $text;)*

        /// All of them, each with what happened.
        pub const ALL: &[(&str, &str)] = &[$(($text, $what)),*];
    };
}

events! {
    SLOW_OPERATION "slow_operation" "An operation took longer than --slow-log says."
    CIRCUIT_OPENED "circuit_opened" "A far store is out of reach; it is tried now and then."
    CIRCUIT_CLOSED "circuit_closed" "A far store that was out of reach answers again."
    METRICS "metrics" "Numbers are told at an address."
    METRICS_ENDED "metrics_ended" "Numbers are told no longer at an address."
    MALFORMED_REQUEST "malformed_request" "A kernel, or that of a guest, asked for something that makes no sense."
    CALL_FAILED "call_failed" "A request to a far store failed."
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_name_is_there_twice() {
        let names: BTreeSet<_> = ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), ALL.len());
        let is_word = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(names.iter().all(|name| is_word(name)));
    }
}
