//! Directories of a peer.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::{
    castore::{Digest, Directory, LeavesFirst, SizeRule},
    proto::castore as wire,
    service::{
        Error, Result,
        directory::{
            DirectoryPutter, DirectoryService, DirectoryStream, descendants,
            layer::{check_closure, check_digest},
        },
        grpc::{
            GrpcChannel, Opened, Upload,
            method::{DIRECTORY_GET, DIRECTORY_GET_CLOSURE, DIRECTORY_PUT},
        },
    },
};

/// Reads and writes the directories of the peer at the other end of a channel.
///
/// What is read is verified: each directory against its digest, closures for their order and their end.
#[derive(Debug, Clone)]
pub struct GrpcDirectories {
    channel: GrpcChannel,
}

impl GrpcDirectories {
    /// The directories of the peer.
    pub fn new(channel: GrpcChannel) -> Self {
        GrpcDirectories { channel }
    }

    /// The directories that the peer answers with. Some peers say by an empty stream that there are none.
    async fn ask(&self, digest: &Digest, recursive: bool) -> Result<Option<DirectoryStream>> {
        let digest = Bytes::copy_from_slice(digest.as_bytes());
        let by_what = Some(wire::get_directory_request::ByWhat::Digest(digest));
        let request = wire::GetDirectoryRequest { by_what, recursive };
        let method = if recursive { &DIRECTORY_GET_CLOSURE } else { &DIRECTORY_GET };
        let messages = match self.channel.download(method, request).await? {
            Opened::NotFound | Opened::Empty => return Ok(None),
            Opened::Messages(messages) => messages,
        };
        let endpoint = self.channel.endpoint().clone();
        Ok(Some(Box::pin(messages.map(move |message: Result<wire::Directory>| {
            Directory::try_from(message?)
                .map(Arc::new)
                .map_err(|error| Error::corrupt(&endpoint, error))
        }))))
    }

    async fn get_once(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        let Some(mut answer) = self.ask(digest, false).await? else { return Ok(None) };
        match answer.next().await {
            Some(directory) => check_digest(self.channel.endpoint(), digest, directory?).map(Some),
            None => Ok(None),
        }
    }

    fn check_root(&self, expected: Digest, answer: &wire::PutDirectoryResponse) -> Result<Digest> {
        if answer.root_digest == expected.as_bytes()[..] {
            return Ok(expected);
        }
        let got = answer.root_digest.escape_ascii();
        let what = format!("the closure of directory {expected} was stored as \"{got}\"");
        Err(Error::corrupt(self.channel.endpoint(), what))
    }
}

#[async_trait]
impl DirectoryService for GrpcDirectories {
    async fn get(&self, digest: &Digest) -> Result<Option<Arc<Directory>>> {
        self.channel.asking_others(|| self.get_once(digest)).await
    }

    fn get_local(&self, _: &Digest) -> Result<Option<Arc<Directory>>> {
        Ok(None)
    }

    async fn get_closure(&self, root: &Digest) -> Result<Option<DirectoryStream>> {
        let closure = self.ask(root, true).await?;
        let channel = self.channel.clone();
        Ok(closure.map(|closure| {
            let closure = check_closure(channel.endpoint().clone(), *root, closure);
            // Whoever asks again asks another.
            let blame = move |directory: &Result<Arc<Directory>>| {
                let _ = directory.as_ref().map_err(|error| channel.blames(error));
            };
            closure.inspect(blame).boxed()
        }))
    }

    /// The protocol wants all that a directory names in the same stream, so what the peer has already is read and
    /// sent again. Whoever has several directories to put should use [`DirectoryService::put_closure`].
    async fn put(&self, directory: Arc<Directory>) -> Result<()> {
        let mut order = LeavesFirst::new();
        let mut messages = Vec::new();
        let mut all = descendants(self, &directory).await?;
        all.push(directory.clone());
        for directory in all {
            if order.add(&directory).map_err(Error::invalid)? {
                messages.push(wire::Directory::from(&*directory));
            }
        }
        let answer = self.channel.upload_all(&DIRECTORY_PUT, messages).await?;
        self.check_root(directory.digest(), &answer).map(drop)
    }

    async fn put_closure(&self) -> Result<Box<dyn DirectoryPutter>> {
        Ok(Box::new(GrpcDirectoryPutter {
            directories: self.clone(),
            upload: None,
            order: LeavesFirst::new(),
        }))
    }

    async fn size_rule(&self) -> Result<SizeRule> {
        self.channel.size_rule().await
    }

    /// The peer does so itself before it stores a path info.
    async fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Sends a closure. What is wrong with it is found here, where it can be said clearly, before the peer sees it.
struct GrpcDirectoryPutter {
    directories: GrpcDirectories,
    /// Begun with the first directory.
    upload: Option<Upload<wire::Directory, wire::PutDirectoryResponse>>,
    order: LeavesFirst,
}

#[async_trait]
impl DirectoryPutter for GrpcDirectoryPutter {
    async fn put(&mut self, directory: Arc<Directory>) -> Result<()> {
        if !self.order.add(&directory).map_err(Error::invalid)? {
            return Ok(());
        }
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.directories.channel.upload(&DIRECTORY_PUT).await?),
        };
        upload.send(wire::Directory::from(&*directory)).await
    }

    async fn finish(self: Box<Self>) -> Result<Digest> {
        let root = self.order.finish().map_err(Error::invalid)?;
        let Some(upload) = self.upload else {
            return Err(Error::invalid(crate::castore::ClosureError::Empty));
        };
        let answer = upload.finish().await?;
        self.directories.check_root(root, &answer)
    }
}
