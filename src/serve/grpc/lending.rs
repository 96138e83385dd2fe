//! Lends files to clients on the same machine: see [`crate::service::grpc::lending`] for what is spoken.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _, future::ready};
use rustix::{
    fs::OFlags,
    net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
    sync::watch,
};

use crate::{
    castore::Digest,
    observe::event,
    service::{
        blob::{BlobService, LocalBlob, LocalPlace},
        grpc::lending::{ANSWER_LEN, GREETING, NOT_LENT, QUESTION_LEN},
        local::offload,
    },
};

/// How many connections may be silent at the same time before others are looked at.
const SILENT_MAX: usize = 1024;
/// How long a connection may be silent, before its first byte and within its greeting.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Passes on the connections that begin like HTTP/2, and lends `blobs` on those that ask for that, until `closed` has
/// no sender any more.
pub(super) fn lend(
    incoming: impl Stream<Item = io::Result<UnixStream>>,
    blobs: Arc<dyn BlobService>,
    closed: watch::Receiver<()>,
) -> impl Stream<Item = io::Result<UnixStream>> {
    incoming
        .map(move |socket| sort(socket, blobs.clone(), closed.clone()))
        .buffer_unordered(SILENT_MAX)
        .filter_map(ready)
}

async fn sort(
    socket: io::Result<UnixStream>,
    blobs: Arc<dyn BlobService>,
    mut closed: watch::Receiver<()>,
) -> Option<io::Result<UnixStream>> {
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return Some(Err(error)),
    };
    let first = tokio::time::timeout(SILENCE_MAX, first_byte(&socket)).await.ok()?;
    if first.ok()? != Some(GREETING[0]) {
        return Some(Ok(socket));
    }
    tokio::spawn(async move {
        tokio::select! {
            ended = lend_to(socket, blobs) => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a client that borrows files is gone");
                }
            }
            // There is no other news than that the sender is gone.
            _ = closed.changed() => {}
        }
    });
    None
}

/// The first byte that comes, which stays where it is. `None` if the other side is gone.
async fn first_byte(socket: &UnixStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let peek = || Ok(rustix::net::recv(socket, &mut byte, RecvFlags::PEEK)?.0);
    let len = socket.async_io(Interest::READABLE, peek).await?;
    Ok((len == 1).then_some(byte[0]))
}

async fn lend_to(mut socket: UnixStream, blobs: Arc<dyn BlobService>) -> io::Result<()> {
    let mut greeting = [0; GREETING.len()];
    tokio::time::timeout(SILENCE_MAX, socket.read_exact(&mut greeting)).await??;
    if greeting != GREETING {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it greets in an unknown way"));
    }
    socket.write_all(&GREETING).await?;
    let mut question = [0; QUESTION_LEN];
    loop {
        match socket.read_exact(&mut question).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        let blob = lendable(blobs.clone(), Digest::from(question)).await;
        socket.async_io(Interest::WRITABLE, || answer(&socket, &question, blob.as_ref())).await?;
    }
}

/// The blob, if it is here as a file of its own that whoever has it can only read.
async fn lendable(blobs: Arc<dyn BlobService>, digest: Digest) -> Option<LocalBlob> {
    // A cache may have to hash it first.
    let opened = offload("the store", move || blobs.open_local(&digest)).await;
    let blob = opened
        .inspect_err(|error| {
            tracing::warn!(
                event = event::LENDING_FAILED,
                %digest,
                %error,
                "a blob cannot be lent"
            )
        })
        .ok()
        .flatten()?;
    let is_whole = matches!(blob.place, LocalPlace::Whole);
    let flags = rustix::fs::fcntl_getfl(&blob.file).ok()?;
    (is_whole && flags.intersection(OFlags::RWMODE) == OFlags::RDONLY).then_some(blob)
}

fn answer(
    socket: &UnixStream,
    question: &[u8; QUESTION_LEN],
    blob: Option<&LocalBlob>,
) -> io::Result<()> {
    let mut answer = [0; ANSWER_LEN];
    answer[..QUESTION_LEN].copy_from_slice(question);
    let size = blob.map_or(NOT_LENT, |blob| blob.size);
    answer[QUESTION_LEN..].copy_from_slice(&size.to_le_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let file = blob.map(|blob| [blob.file.as_fd()]);
    if let Some(file) = &file {
        let fits = control.push(SendAncillaryMessage::ScmRights(file));
        debug_assert!(fits, "there is room for one");
    }
    let sent =
        rustix::net::sendmsg(socket, &[IoSlice::new(&answer)], &mut control, SendFlags::NOSIGNAL)?;
    match sent == ANSWER_LEN {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}
