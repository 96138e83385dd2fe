//! Log lines for journald.
//!
//! What a service writes to standard error reaches the journal line by line. A line that begins with `<N>` has the
//! priority N there; see sd-daemon(3). The journal knows the time, and colours by priority itself.
//!
//! Deliberately absent: journald's own protocol. It would take the fields of an event apart, so that `journalctl -u` shows
//! the message without what it speaks of; programs that want fields have `--log-format json`.

use std::{fmt, os::fd::AsFd};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

/// Names the device and inode of the stream to the journal that a service was started with.
const STREAM_VARIABLE: &str = "JOURNAL_STREAM";

/// The priority of an error. syslog(3) lists them all.
pub const PRIORITY_ERROR: u8 = 3;

/// Whether `stderr` goes to the journal: whoever redirects it elsewhere leaves the variable as it was.
pub fn is_journal(stderr: impl AsFd, stream: Option<&str>) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else {
        return false;
    };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else {
        return false;
    };
    rustix::fs::fstat(stderr).is_ok_and(|stat| stat.st_dev == device && stat.st_ino == inode)
}

/// As [`is_journal`], of this process.
pub fn stderr_is_journal() -> bool {
    is_journal(std::io::stderr(), std::env::var(STREAM_VARIABLE).ok().as_deref())
}

/// A text for people with the priority before each of its lines.
pub fn with_priority(priority: u8, text: &str) -> String {
    text.lines().map(|line| format!("<{priority}>{line}\n")).collect()
}

/// Formats events as lines with a priority.
pub(super) struct JournalFormat(Format<Full, ()>);

impl JournalFormat {
    pub(super) fn new() -> Self {
        let format = tracing_subscriber::fmt::format().without_time();
        JournalFormat(format.with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for JournalFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        self.0.format_event(context, Writer::new(&mut text), event)?;
        writer.write_str(&with_priority(priority(*event.metadata().level()), &text))
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => PRIORITY_ERROR,
        Level::WARN => 4,
        Level::INFO => 6,
        // Nothing is less than 7, debug.
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::observe::written::Written;

    #[test]
    fn a_stream_is_known_by_its_device_and_inode() {
        let (_reader, writer) = io::pipe().expect("a pipe");
        let stat = rustix::fs::fstat(&writer).expect("it is open");
        let (device, inode) = (stat.st_dev, stat.st_ino);
        let own = format!("{device}:{inode}");
        assert!(is_journal(&writer, Some(&own)));
        for other in [
            format!("{device}:{}", inode + 1),
            format!("{}:{inode}", device + 1),
            String::new(),
            ":".to_owned(),
            format!("{own}:1"),
            format!("{device}:99999999999999999999999999"),
        ] {
            assert!(!is_journal(&writer, Some(&other)), "{other:?}");
        }
        assert!(!is_journal(&writer, None));
    }

    #[test]
    fn each_line_has_its_priority_and_no_message_can_give_itself_another() {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .event_format(JournalFormat::new())
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(path = "/x", "cannot");
            tracing::warn!("two\n<0>lines");
            tracing::info!(number = 7, "told");
            tracing::debug!("seldom");
            tracing::trace!("never");
        });
        let text = written.text();
        assert!(text.starts_with("<3>cannot path=\"/x\"\n<4>two"), "{text}");
        assert!(text.ends_with("<6>told number=7\n<7>seldom\n<7>never\n"), "{text}");
        assert!(
            text.lines().all(|line| line.starts_with('<') && !line.starts_with("<0>")),
            "{text}"
        );
    }
}
