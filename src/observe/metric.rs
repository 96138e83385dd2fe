//! What a metric is.

/// What runs: each command that can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `lazystore mount`.
    Mount,
    /// `lazystore virtiofs`.
    Virtiofs,
    /// `lazystore daemon`.
    Daemon,
    /// `lazystore serve`.
    Serve,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Mount, Role::Virtiofs, Role::Daemon, Role::Serve];

    /// The name of the command.
    pub fn name(self) -> &'static str {
        match self {
            Role::Mount => "mount",
            Role::Virtiofs => "virtiofs",
            Role::Daemon => "daemon",
            Role::Serve => "serve",
        }
    }
}

/// How the numbers of a metric behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from the start of the process on.
    Counter,
    /// It is what it is at this moment.
    Gauge,
    /// How many values there were up to each of some bounds.
    Histogram,
}

impl Kind {
    /// What Prometheus calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// A metric: its name, which ends in its unit, and what it is.
#[derive(Debug)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// How its numbers behave.
    pub kind: Kind,
    /// What it counts, in a sentence.
    pub help: &'static str,
    /// The names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Which commands have it.
    pub roles: &'static [Role],
}
