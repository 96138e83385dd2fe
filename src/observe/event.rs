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
    MOUNTED "mounted" "A store is mounted, and answers."
    UNMOUNTED "unmounted" "It is not mounted any more."
    MOUNT_IN_USE "mount_in_use" "A mount is to be unmounted, and a process uses it."
    MOUNT_DETACHED "mount_detached" "A mount in use was taken out of the tree of files, and is served for a while."
    MOUNT_LEFT "mount_left_behind" "A dead mount could not be taken away."
    STALE_MOUNT "stale_mount_detached" "A dead mount that an earlier process had left was taken away."
    NO_CRASH_GUARD "no_crash_guard" "The process that takes the mount away after a crash cannot be started."
    CANNOT_BE_ASKED "cannot_be_asked" "A mount has no socket on which `lazystore status` could ask it."
    NO_PASSTHROUGH "no_passthrough" "The kernel does not read the store's files itself."
    VIEW_RESTRICTED "view_restricted" "Only some store paths are shown."
    ACCESS_LOG_LOST "access_log_lost" "Some of the access log cannot be written."
    KERNEL_TOO_OLD "kernel_too_old" "The kernel's FUSE protocol is too old."
    KERNEL_FAILED "kernel_failed" "The kernel takes no reply, or gives no request."
    MALFORMED_REQUEST "malformed_request" "A kernel, or that of a guest, asked for something that makes no sense."
    GUEST_CONNECTED "guest_connected" "A guest's monitor has connected."
    GUEST_GONE "guest_gone" "A guest's monitor is gone."
    GUEST_FAILED "guest_failed" "A guest cannot be served, or makes no sense."
    LISTENING "listening" "A server or virtiofs takes connections."
    STOPPING "stopping" "It was told to stop, and finishes what is under way."
    RELOADING "reloading" "It was told to read its files again."
    RELOADED "reloaded" "It has read its files again."
    RELOAD_FAILED "reload_failed" "Its files cannot be read again; it goes on with what it has read before."
    CONNECTIONS_CUT "connections_cut" "Requests that were under way were given up at the end."
    ACCEPT_FAILED "accept_failed" "A connection cannot be taken."
    SIGNING "signing" "A cache signs with a key."
    STORE_PATH_ADDED "store_path_added" "A client has brought a store path."
    IMPORTED "imported" "A file or directory was imported."
    REQUEST_REFUSED "request_refused" "A client may not do what it asked for."
    REQUEST_FAILED "request_failed" "A request of a client or kernel could not be answered."
    CLIENT_GIVEN_UP "client_given_up" "A client that takes nothing was given up."
    LENDING_FAILED "lending_failed" "A blob's file cannot be lent to another process."
    SUPERVISOR_LOST "supervisor_lost" "The supervisor cannot be told anything."
    SOCKETS_IGNORED "sockets_ignored" "Sockets that were passed are for another process."
    NO_PROGRESS "no_progress" "It makes no progress, and does not tell the supervisor that it does."
    METRICS "metrics" "Numbers are told at an address."
    METRICS_ENDED "metrics_ended" "Numbers are told no longer at an address."
    SLOW_OPERATION "slow_operation" "An operation took longer than --slow-log says."
    CIRCUIT_OPENED "circuit_opened" "A far store is out of reach; it is tried now and then."
    CIRCUIT_CLOSED "circuit_closed" "A far store that was out of reach answers again."
    OTLP "otlp" "Traces or metrics are sent to a collector."
    OTLP_FAILED "otlp_failed" "Neither traces nor metrics can be sent to a collector."
    COLLECTOR_LOST "collector_lost" "A collector takes nothing of what it is sent."
    COLLECTOR_BACK "collector_back" "A collector that took nothing does so again."
    CALL_FAILED "call_failed" "A request to a far store failed."
    SOURCE_REFUSED "source_refused" "A source refused a request; the next one is asked."
    CORRUPT "corrupt" "A far store sent something wrong."
    STORE_INCOMPLETE "store_incomplete" "Something that a directory names is nowhere."
    DISK_FAILED "disk_failed" "The local disk cannot be read or written."
    NO_CACHE "no_cache" "The cache cannot be opened; nothing is kept."
    CACHE_FAILED "cache_failed" "The cache does not take or give something; it goes without."
    CACHE_DAMAGED "cache_damaged" "Something in the cache was damaged; it is fetched again."
    TIDIED "tidied" "What a process that died had left was tidied up."
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        path::{Path, PathBuf},
    };

    use super::*;

    /// What each call of a macro that logs to users begins with, in the source without its tests and comments.
    fn logged(source: &str) -> Vec<String> {
        let code = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = lines.flat_map(|line| [line.trim(), " "]).collect();
        let mut found = Vec::new();
        for (at, _) in code.match_indices("!(") {
            let name: String =
                code[..at].chars().rev().take_while(|c| c.is_alphanumeric()).collect();
            if ["ofni", "nraw", "rorre"].contains(&name.as_str()) {
                found.push(code[at + 2..].trim_start().chars().take(60).collect());
            }
        }
        found
    }

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("src can be read") {
            let path = entry.expect("src can be read").path();
            match path.is_dir() {
                true => sources(&path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_line_that_is_logged_has_an_event_and_every_event_is_logged() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        sources(&folder.join("src"), &mut files);
        let own = fs::read_to_string(folder.join(file!())).expect("this file");
        let mut used = BTreeSet::new();
        let mut lines = 0;
        for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
            let source = fs::read_to_string(file).expect("a source can be read");
            for begin in logged(&source) {
                lines += 1;
                let name =
                    begin.strip_prefix("event = event::").and_then(|rest| rest.split(',').next());
                let name =
                    name.unwrap_or_else(|| panic!("{}: {begin} has no event", file.display()));
                used.insert(name.to_owned());
            }
        }
        assert!(lines > 90, "only {lines} lines were found");
        for (event, _) in ALL {
            let line = own.lines().find(|line| line.contains(&format!(" \"{event}\" ")));
            let name = line.and_then(|line| line.trim().split(' ').next()).expect("it stands here");
            assert!(used.remove(name), "nothing logs {name}");
        }
        assert!(used.is_empty(), "not in this file: {used:?}");
    }

    #[test]
    fn the_document_has_every_event() {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
        let document = fs::read_to_string(document).expect("the document");
        let (_, table) =
            document.split_once("| event | what happened |\n| --- | --- |\n").expect("a table");
        let rows = table.lines().map_while(|line| line.strip_prefix("| `")?.strip_suffix(" |"));
        let told: Vec<_> = rows.filter_map(|row| row.split_once("` | ")).collect();
        assert_eq!(told, ALL);
    }

    #[test]
    fn no_name_is_there_twice() {
        let names: BTreeSet<_> = ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), ALL.len());
        let is_word = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(names.iter().all(|name| is_word(name)));
    }
}
