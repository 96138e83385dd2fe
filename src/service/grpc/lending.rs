//! Files that a daemon lends to a client on the same machine, which then reads them as it would its own.
//!
//! A client may open a connection to the unix socket of a daemon with [`GREETING`] in place of the preface of HTTP/2. A
//! daemon of our make answers with the same; any other one does not, and is not asked again. From then on the client
//! sends the digest of a blob, and gets the digest and 8 bytes, little-endian: the length of the blob, and with them, as
//! `SCM_RIGHTS`, a file that is open for reading and has the contents of the blob; or [`NOT_LENT`], and nothing. One
//! question is answered after the other.
//!
//! No byte of such a file is checked here. So it is borrowed only from who could change our own files just as well: root,
//! or the user we run as. Both the socket and the file must be theirs, and nobody else may write to the file.

use std::{
    fs::File,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    fs::OFlags,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags},
    process::geteuid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    sync::Mutex,
    time::timeout,
};

use crate::{
    castore::Digest,
    service::blob::{LocalBlob, LocalPlace},
};

/// With this a client begins, and a daemon answers.
pub(crate) const GREETING: [u8; 16] = *b"lazystore-lends\n";

/// The length of a question in bytes: a digest.
pub(crate) const QUESTION_LEN: usize = 32;

/// The length of an answer in bytes: the question, and the length of the blob.
pub(crate) const ANSWER_LEN: usize = QUESTION_LEN + 8;

/// In place of the length, if the blob cannot be lent: it is not here, or not as a file of its own.
pub(crate) const NOT_LENT: u64 = u64::MAX;

/// How long borrowing may take. The file lies on this machine, and there is another way to its contents.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long a daemon is left alone that took longer, or could not be reached.
const REST: Duration = Duration::from_secs(5);

/// The file system of a file that another process answers for, and may leave unanswered (`FUSE_SUPER_MAGIC`).
const FUSE_MAGIC: u64 = 0x6573_5546;

/// Asks a daemon for files.
#[derive(Debug)]
pub(crate) struct Borrower {
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing is known, or a question was given up half-way.
    Unconnected,
    Connected(UnixStream),
    /// Nobody is asked before that.
    Resting(Instant),
    /// It does not lend, or not to us.
    Never,
}

/// Why nothing was borrowed this time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it does not lend files")]
    Unknown,
    #[error("it is run by user {0}, who could change what is read")]
    Stranger(u32),
    #[error("it lent a file that is not to be trusted: {0}")]
    Untrusted(&'static str),
    #[error("it answered something else than it was asked")]
    Confused,
}

impl Borrower {
    /// Borrows from the daemon that listens on the unix socket. Connects when it is first used.
    pub(crate) fn new(socket: PathBuf) -> Self {
        Borrower { socket, state: Mutex::new(State::Unconnected) }
    }

    /// The blob as an open file, if the daemon lends it. Never an error: it is read otherwise then.
    pub(crate) async fn borrow(&self, digest: &Digest) -> Option<LocalBlob> {
        let mut state = self.state.lock().await;
        let connected = match &mut *state {
            State::Never => return None,
            State::Resting(until) if Instant::now() < *until => return None,
            // Whoever is dropped while it waits leaves the connection unusable, and nothing behind.
            state => std::mem::replace(state, State::Unconnected),
        };
        let asked = timeout(PATIENCE, async {
            let socket = match connected {
                State::Connected(socket) => socket,
                _ => self.connect().await?,
            };
            let lent = ask(&socket, digest).await?;
            Ok((socket, lent))
        });
        let failure = match asked
            .await
            .unwrap_or_else(|_| Err(Failure::Io(io::ErrorKind::TimedOut.into())))
        {
            Ok((socket, lent)) => {
                *state = State::Connected(socket);
                return lent;
            }
            Err(failure) => failure,
        };
        tracing::debug!(socket = %self.socket.display(), %failure, "no file can be borrowed");
        *state = match failure {
            Failure::Io(_) | Failure::Confused => State::Resting(Instant::now() + REST),
            Failure::Unknown | Failure::Stranger(_) | Failure::Untrusted(_) => State::Never,
        };
        None
    }

    /// Whether the daemon lends files to us.
    pub(crate) async fn is_lent_to(&self) -> bool {
        // Nobody has a file for it, but there is an answer.
        self.borrow(&Digest::EMPTY).await;
        matches!(*self.state.lock().await, State::Connected(_))
    }

    async fn connect(&self) -> Result<UnixStream, Failure> {
        let mut socket = UnixStream::connect(&self.socket).await?;
        let peer = socket.peer_cred()?.uid();
        if !is_trusted(peer) {
            return Err(Failure::Stranger(peer));
        }
        socket.write_all(&GREETING).await?;
        let mut answer = [0; GREETING.len()];
        socket.read_exact(&mut answer).await?;
        match answer == GREETING {
            true => Ok(socket),
            false => Err(Failure::Unknown),
        }
    }
}

/// Whether a user could change our own files.
fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

async fn ask(socket: &UnixStream, digest: &Digest) -> Result<Option<LocalBlob>, Failure> {
    let question = digest.as_bytes();
    let sent = socket.async_io(Interest::WRITABLE, || socket.try_write(question)).await?;
    if sent != question.len() {
        return Err(Failure::Confused);
    }
    let (answer, file) = socket.async_io(Interest::READABLE, || receive(socket)).await?;
    let (echo, size) = answer.split_at(QUESTION_LEN);
    let size = u64::from_le_bytes(size.try_into().expect("an answer ends with 8 bytes"));
    match file {
        _ if echo != question => Err(Failure::Confused),
        None if size == NOT_LENT => Ok(None),
        None => Err(Failure::Confused),
        Some(file) => {
            let file = File::from(file);
            check(&file, size)?;
            Ok(Some(LocalBlob { file: Arc::new(file), place: LocalPlace::Whole, size }))
        }
    }
}

/// An answer, and the file that came with it.
fn receive(socket: &UnixStream) -> io::Result<([u8; ANSWER_LEN], Option<OwnedFd>)> {
    let mut answer = [0; ANSWER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [IoSliceMut::new(&mut answer)];
    let received = rustix::net::recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    // All that came is taken, so that nothing stays open.
    let mut files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.next().and_then(|mut files| files.next());
    if received.bytes != ANSWER_LEN || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((answer, file))
}

/// Whether only those can change the file who could change our own as well, and reading it waits for nobody.
fn check(file: &File, size: u64) -> Result<(), Failure> {
    let metadata = file.metadata()?;
    let flags = rustix::fs::fcntl_getfl(file).map_err(io::Error::from)?;
    let untrusted = |why| Err(Failure::Untrusted(why));
    if !metadata.is_file() {
        return untrusted("it is no plain file");
    }
    if metadata.len() != size {
        return untrusted("it has another length than was told");
    }
    if !is_trusted(metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return untrusted("others may write to it");
    }
    if flags.intersection(OFlags::RWMODE) != OFlags::RDONLY {
        return untrusted("it is open for writing");
    }
    let system = rustix::fs::fstatfs(file).map_err(io::Error::from)?;
    if system.f_type as u64 == FUSE_MAGIC {
        return untrusted("another process answers for it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;

    #[test]
    fn only_a_file_that_nobody_else_may_change_is_taken() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("blob");
        fs::write(&path, b"contents").expect("it writes");
        fs::set_permissions(&path, Permissions::from_mode(0o444)).expect("ours");
        let open = || File::open(&path).expect("it opens");
        check(&open(), 8).expect("it is as it should be");

        let why = |file: &File, size| check(file, size).expect_err("it is not").to_string();
        assert!(why(&open(), 9).contains("another length"));
        assert!(why(&File::open(dir.path()).expect("it opens"), 8).contains("no plain file"));
        for mode in [0o464, 0o446] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("ours");
            assert!(why(&open(), 8).contains("others may write"), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        let both = File::options().read(true).write(true).open(&path).expect("it opens");
        assert!(why(&both, 8).contains("open for writing"));
    }

    #[tokio::test]
    async fn a_daemon_that_greets_otherwise_is_not_asked_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).expect("it binds");
        let borrower = Borrower::new(path);
        let (lent, _socket) = tokio::join!(borrower.borrow(&Digest::EMPTY), async {
            let (mut socket, _) = listener.accept().await.expect("it connects");
            socket.write_all(&[0; 64]).await.expect("it takes it");
            socket
        });
        assert!(lent.is_none());
        drop(listener);
        assert!(borrower.borrow(&Digest::EMPTY).await.is_none());
        assert!(matches!(*borrower.state.lock().await, State::Never));
    }

    #[tokio::test]
    async fn whoever_gives_up_half_way_gets_no_answer_of_before() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("socket");
        let listener = tokio::net::UnixListener::bind(&path).expect("it binds");
        let borrower = Borrower::new(path);
        let serve = async {
            let (mut first, _) = listener.accept().await.expect("it connects");
            first.write_all(&GREETING).await.expect("it takes it");
            // The first question is given up before its answer; the second comes on a new connection.
            let (mut second, _) = listener.accept().await.expect("it connects");
            second.write_all(&GREETING).await.expect("it takes it");
            let mut answer = [0xff; ANSWER_LEN];
            answer[..QUESTION_LEN].copy_from_slice(Digest::of(b"2").as_bytes());
            second.write_all(&answer).await.expect("it takes it");
            (first, second)
        };
        let ask = async {
            let early = Duration::from_millis(50);
            assert!(timeout(early, borrower.borrow(&Digest::of(b"1"))).await.is_err());
            assert!(borrower.borrow(&Digest::of(b"2")).await.is_none());
        };
        let (_sockets, ()) = tokio::join!(serve, ask);
        assert!(matches!(*borrower.state.lock().await, State::Connected(_)));
    }
}
