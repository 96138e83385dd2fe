//! What was read through a view, by whom, and how much of it had to be fetched: written to a file while it happens.
//!
//! A line is a JSON object. `{"input":NAME}`, at the start, is a store path that a restricted view shows. What a process
//! read of a file within a second is
//! `{"path":"NAME/inner","pid":1,"command":"cat","opens":0,"reads":1,"bytes":10,"fetched":10}`, and `{"lost":1}` tells
//! that so many such lines could not be kept or written. Bytes outside of ASCII, and what would not print, are escaped
//! as in a string literal.
//!
//! **What can be seen.** What the kernel asks of us. What it has read and kept, it gives out again by itself: so each page
//! of a file is counted when it comes into its memory, for the process that made it come. A file that is passed through is
//! read by the kernel alone: only that it was opened is seen.
//!
//! **Bounds.** [`PLACES_MAX`] names, [`PENDING_MAX`] lines, 32,768 events that are not counted yet. Written once a
//! second, each time whole lines in one write: a process that is killed loses the last second. A disk that is full loses
//! what it has no room for, which is counted.

mod report;

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::{File, OpenOptions},
    io::{self, Write as _},
    mem,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    observe::event,
    vfs::{Access, Ino, Observer},
};

pub use report::{Report, Sum};

/// Of how many inodes it is remembered where they are: some 30 MB.
pub const PLACES_MAX: usize = 262_144;

/// How many lines wait to be written: some 5 MB.
pub const PENDING_MAX: usize = 65_536;

/// How much waits to be counted: 1 MB.
const EVENTS_MAX: usize = 32_768;

/// How deep a path is followed.
const DEPTH_MAX: usize = 4096;

const WRITE_EVERY: Duration = Duration::from_secs(1);

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Line {
    /// A store path that can be seen.
    Input {
        /// Its base name.
        input: String,
    },
    /// What a process read of a file within a second.
    Read(Read),
    /// So many were not written.
    Lost {
        /// How many.
        lost: u64,
    },
}

/// What a process read of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The store path and the path in it; empty if that is not known any more.
    pub path: String,
    /// The process or thread; 0 if it is in no namespace of ours.
    pub pid: u32,
    /// Its command; empty if that is not known.
    pub command: String,
    /// How often the file was opened, as far as the kernel tells.
    pub opens: u64,
    /// How often the kernel asked for a part of it.
    pub reads: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// How many of them were not on this machine.
    pub fetched: u64,
}

/// Writes what happens to a file. What is pending is written when it is dropped.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    stop: Option<mpsc::Sender<()>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    file: File,
    /// Whether the readers are processes of this machine, whose commands can be found out.
    here: bool,
}

#[derive(Debug)]
struct State {
    /// Where inodes are: the directory and the name, of several places the last that was looked at.
    places: LruCache<Ino, (Ino, Box<[u8]>)>,
    /// What happened since it was last counted, at most [`EVENTS_MAX`] of it: to append costs a reader less than to count.
    events: Vec<(Ino, u32, Access)>,
    pending: HashMap<(Ino, u32), Counts>,
    /// The commands of those who read within this second.
    commands: HashMap<u32, String>,
    lost: u64,
    /// Whether the last write broke off, perhaps within a line.
    torn: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    opens: u64,
    reads: u64,
    bytes: u64,
    fetched: u64,
}

impl AccessLog {
    /// Begins the log in `path`, in place of what may be there. `here` tells whether the readers are processes of this
    /// machine; `inputs` are the store paths that can be seen, if that is restricted.
    pub fn create(
        path: &Path,
        here: bool,
        inputs: impl IntoIterator<Item = String>,
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.create(true).write(true).truncate(true).open(path)?;
        let mut text = Vec::new();
        inputs.into_iter().for_each(|input| write_line(&mut text, &Line::Input { input }));
        (&file).write_all(&text)?;
        let state = Mutex::new(State {
            places: LruCache::new(NonZeroUsize::new(PLACES_MAX).unwrap_or(NonZeroUsize::MIN)),
            events: Vec::new(),
            pending: HashMap::new(),
            commands: HashMap::new(),
            lost: 0,
            torn: false,
        });
        let shared = Arc::new(Shared { state, file, here });
        let (stop, stopped) = mpsc::channel::<()>();
        let writing = shared.clone();
        let writer = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            let mut told = false;
            loop {
                let ends =
                    stopped.recv_timeout(WRITE_EVERY) != Err(mpsc::RecvTimeoutError::Timeout);
                if let Err(error) = writing.write()
                    && !told
                {
                    told = true;
                    tracing::warn!(
                        event = event::ACCESS_LOG_LOST,
                        %error,
                        "some of the access log is lost"
                    );
                }
                if ends {
                    return;
                }
            }
        })?;
        Ok(AccessLog { shared, stop: Some(stop), writer: Some(writer) })
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Observer for AccessLog {
    fn placed(&self, parent: Ino, name: &[u8], ino: Ino) {
        self.shared.state.lock().places.put(ino, (parent, name.into()));
    }

    fn accessed(&self, ino: Ino, reader: u32, access: Access) {
        let mut state = self.shared.state.lock();
        if self.shared.here && reader != 0 && !state.commands.contains_key(&reader) {
            // It waits for us, so it is there. Others need not wait for this.
            drop(state);
            let command = std::fs::read(format!("/proc/{reader}/comm")).unwrap_or_default();
            state = self.shared.state.lock();
            if state.commands.len() < PENDING_MAX {
                state
                    .commands
                    .insert(reader, escape(command.strip_suffix(b"\n").unwrap_or(&command)));
            }
        }
        state.events.push((ino, reader, access));
        if state.events.len() >= EVENTS_MAX {
            let events = mem::take(&mut state.events);
            let State { pending, lost, .. } = &mut *state;
            count(events, pending, lost);
        }
    }
}

impl Shared {
    /// Writes what is pending. What cannot be written is lost, and counted.
    ///
    /// Who reads meanwhile waits for no more than the look at one name.
    fn write(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let events = mem::take(&mut state.events);
        let mut pending = mem::take(&mut state.pending);
        let commands = mem::take(&mut state.commands);
        let mut lost = mem::take(&mut state.lost);
        let torn = state.torn;
        drop(state);
        count(events, &mut pending, &mut lost);
        if pending.is_empty() && lost == 0 {
            return Ok(());
        }
        let count = pending.len() as u64;
        let mut text = Vec::new();
        if torn {
            text.push(b'\n');
        }
        let mut directories = HashMap::new();
        for ((ino, pid), counts) in pending {
            let Counts { opens, reads, bytes, fetched } = counts;
            let command = commands.get(&pid).cloned().unwrap_or_default();
            let path = self.path(ino, &mut directories);
            let read = Read { path, pid, command, opens, reads, bytes, fetched };
            write_line(&mut text, &Line::Read(read));
        }
        if lost > 0 {
            write_line(&mut text, &Line::Lost { lost });
        }
        let written = (&self.file).write_all(&text);
        let mut state = self.state.lock();
        state.torn = written.is_err();
        if written.is_err() {
            state.lost += lost + count;
        }
        written
    }

    /// The store path of an inode and its path there, escaped; empty if that is not known. `directories` are those that
    /// were found before.
    fn path(&self, ino: Ino, directories: &mut HashMap<Ino, String>) -> String {
        let Some((parent, mut path)) = self.place(ino) else { return String::new() };
        let directory = match directories.entry(parent) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => match self.directory(parent) {
                Some(directory) => unknown.insert(directory),
                None => return String::new(),
            },
        };
        path.insert_str(0, directory);
        path
    }

    /// The path of a directory with a slash after it; nothing for the root itself.
    fn directory(&self, mut ino: Ino) -> Option<String> {
        let mut names = Vec::new();
        while ino != Ino::ROOT {
            if names.len() == DEPTH_MAX {
                return None;
            }
            let (parent, name) = self.place(ino)?;
            names.push(name + "/");
            ino = parent;
        }
        names.reverse();
        Some(names.concat())
    }

    /// The directory that an inode is in, and its name there, escaped.
    fn place(&self, ino: Ino) -> Option<(Ino, String)> {
        let state = self.state.lock();
        let (parent, name) = state.places.peek(&ino)?;
        Some((*parent, escape(name)))
    }
}

/// Adds `events` to `pending`, as far as there is room in it; what is left out is `lost`.
fn count(
    events: Vec<(Ino, u32, Access)>,
    pending: &mut HashMap<(Ino, u32), Counts>,
    lost: &mut u64,
) {
    for (ino, reader, access) in events {
        let key = (ino, reader);
        if pending.len() >= PENDING_MAX && !pending.contains_key(&key) {
            *lost += 1;
            continue;
        }
        let counts = pending.entry(key).or_default();
        match access {
            Access::Open => counts.opens += 1,
            Access::Read { len, fetched } => {
                counts.reads += 1;
                counts.bytes += len;
                counts.fetched += if fetched { len } else { 0 };
            }
        }
    }
}

fn escape(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && !b"\"'\\".contains(byte);
    match str::from_utf8(bytes) {
        // As nearly all names are: many times as fast.
        Ok(name) if bytes.iter().all(is_plain) => name.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

fn write_line(text: &mut Vec<u8>, line: &Line) {
    match serde_json::to_writer(&mut *text, line) {
        Ok(()) => text.push(b'\n'),
        Err(error) => unreachable!("numbers and strings make JSON: {error}"),
    }
}

#[cfg(test)]
mod tests;
