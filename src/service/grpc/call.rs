//! The kinds of calls: a question with one answer, a stream from the peer, a stream to the peer.

use std::{future::Future, marker::PhantomData, time::Duration};

use bytes::Bytes;
use futures::{
    Stream, StreamExt as _,
    future::try_join_all,
    stream::{self, BoxStream},
};
use prost::Message;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    CancellationHandle, Code, Request, Status, Streaming, client::Grpc, codec::CompressionEncoding,
};

use super::{
    ANSWER_DIGEST_HEADER, FOUND_HEADER, GrpcChannel, MESSAGE_LEN_MAX,
    attempts::Answer,
    codec::RawCodec,
    guard::{Arrived, Guarded},
    method::{Lane, Method},
    peers::{PeerId, Target},
    status::{Failure, failure},
};
use crate::{
    castore::Digest,
    observe::span::carried,
    service::{Error, Result, patience::Patience},
};

/// How many messages of an upload wait for the network.
const UPLOAD_MESSAGES_MAX: usize = 4;

/// How the answer to a call that streams begins.
pub(crate) enum Opened<R> {
    /// The peer says that there is no such thing.
    NotFound,
    /// The stream ended without a message.
    Empty,
    /// At least one message.
    Messages(BoxStream<'static, Result<R>>),
}

/// A stream of which the first message has come.
struct Begun {
    peer: PeerId,
    first: Option<Bytes>,
    rest: Streaming<Bytes>,
    arrived: Arrived,
}

impl GrpcChannel {
    /// Asks one question. `None` if the peer finds nothing.
    pub(crate) async fn unary<M, R>(&self, method: &'static Method, message: M) -> Result<Option<R>>
    where
        M: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let ask = |target| self.ask(method, method.lane, target, message.clone());
        match self.attempt(method, ask).await? {
            Ok(answer) => self.read(method, answer).map(Some),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.error(method, status)),
        }
    }

    /// Makes one attempt to ask `message` on each connection, so that they are there, and it is known how the peer
    /// speaks.
    pub(super) async fn greet<M>(&self, method: &'static Method, message: M)
    where
        M: Message + Clone + 'static,
    {
        let greet = |lane| {
            let message = message.clone();
            let ask = move |target| self.ask(method, lane, target, message.clone());
            async move { self.attempt_first(method, ask).await }
        };
        let lanes = [Lane::Questions, Lane::Closures, Lane::Contents, Lane::Ranges].map(greet);
        if let Err(error) = try_join_all(lanes).await {
            tracing::debug!(%error, "cannot connect ahead");
        }
    }

    /// Asks a question that is answered with a stream, and waits for the first message: only that tells absent from
    /// present.
    pub(crate) async fn download<M, R>(
        &self,
        method: &'static Method,
        message: M,
    ) -> Result<Opened<R>>
    where
        M: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let began = Instant::now();
        let call = |target| self.begin(method, method.lane, target, message.clone());
        let Begun { peer, first, rest, arrived } = match self.attempt(method, call).await? {
            Ok(begun) => begun,
            Err(status) if status.code() == Code::NotFound => return Ok(Opened::NotFound),
            Err(status) => return Err(self.error(method, status)),
        };
        let Some(first) = first else { return Ok(Opened::Empty) };
        let first = self.read(method, first)?;
        let patience = Patience::new(self.0.options.deadline, began.elapsed(), arrived.0);
        let state = Some((self.clone(), rest, patience));
        let rest = stream::unfold(state, move |state| async move {
            let (channel, mut messages, mut patience) = state?;
            let began = Instant::now();
            let message = match patience.wait(messages.message()).await {
                Some(Ok(Some(message))) => {
                    channel.0.peers.circuit(peer).answered();
                    channel.read(method, message)
                }
                Some(Ok(None)) => return None,
                Some(Err(status)) => Err(channel.error(method, contradiction(status))),
                None => {
                    let error = channel.timed_out(method);
                    channel.failed(peer, began, &error);
                    Err(error)
                }
            };
            let goes_on = message.is_ok();
            Some((message, goes_on.then_some((channel, messages, patience))))
        });
        Ok(Opened::Messages(stream::iter([Ok(first)]).chain(rest).boxed()))
    }

    /// Sends messages that are at hand, and waits for the answer.
    pub(crate) async fn upload_all<M, R>(
        &self,
        method: &'static Method,
        messages: Vec<M>,
    ) -> Result<R>
    where
        M: Message + Clone + 'static,
        R: Message + Default + 'static,
    {
        let send = |target| self.send(method, target, Request::new(stream::iter(messages.clone())));
        match self.attempt(method, send).await? {
            Ok(answer) => self.read(method, answer),
            Err(status) => Err(self.error(method, status)),
        }
    }

    /// Begins a stream of messages to the peer.
    pub(crate) async fn upload<M, R>(&self, method: &'static Method) -> Result<Upload<M, R>>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        self.check_online(method)?;
        // What was sent cannot be sent again in the other dialect.
        let path = method.path(self.dialect().await?);
        let target = Target { peer: self.0.peers.choose()?, path };
        let (sender, receiver) = mpsc::channel(UPLOAD_MESSAGES_MAX);
        let mut request = Request::new(ReceiverStream::new(receiver));
        let cancel = Some(request.cancellation_handle());
        let channel = self.clone();
        let answer =
            tokio::spawn(carried(async move { channel.send(method, target, request).await }));
        Ok(Upload {
            channel: self.clone(),
            method,
            sender: Some(sender),
            answer: Some(answer),
            cancel,
            answers: PhantomData,
        })
    }

    /// One question and its one answer.
    pub(super) async fn ask<M: Message + 'static>(
        &self,
        method: &'static Method,
        lane: Lane,
        target: Target,
        message: M,
    ) -> Answer<Bytes> {
        let begun = self.begin(method, lane, target, message).await?;
        let answer = begun.first.ok_or_else(|| Status::internal("an answer without a message"))?;
        end(begun.rest).await?;
        Ok(answer)
    }

    /// One question, and the beginning of its answer.
    async fn begin<M: Message + 'static>(
        &self,
        method: &'static Method,
        lane: Lane,
        target: Target,
        message: M,
    ) -> Answer<Begun> {
        let Target { peer, path } = target;
        let mut grpc = self.ready(peer, lane).await?;
        let codec = RawCodec::<M>::new();
        let answer = grpc.server_streaming(Request::new(message), path, codec).await?;
        let arrived = answer.extensions().get::<Arrived>().cloned().unwrap_or_default();
        let digest = answer.metadata().get_bin(ANSWER_DIGEST_HEADER);
        let digest = digest.and_then(|digest| digest.to_bytes().ok());
        let is_found = answer.metadata().contains_key(FOUND_HEADER);
        let mut rest = answer.into_inner();
        let first = rest.message().await?;
        if first.is_none() && is_found {
            return Err(Status::data_loss("the messages that were announced did not come"));
        }
        if let (Some(first), Some(digest)) = (&first, digest)
            && digest != Digest::of(first).as_bytes()[..]
        {
            let what = format!("the answer of {} was damaged on its way", method.name);
            return Err(Status::data_loss(what));
        }
        Ok(Begun { peer, first, rest, arrived })
    }

    /// A stream of messages and its one answer.
    async fn send<M: Message + 'static>(
        &self,
        method: &'static Method,
        target: Target,
        messages: Request<impl Stream<Item = M> + Send + 'static>,
    ) -> Answer<Bytes> {
        let Target { peer, path } = target;
        let mut grpc = self.ready(peer, method.lane).await?;
        let codec = RawCodec::<M>::new();
        let mut rest = grpc.streaming(messages, path, codec).await?.into_inner();
        let answer = rest.message().await?;
        end(rest).await?;
        answer.ok_or_else(|| Status::internal("an answer without a message"))
    }

    async fn ready(&self, peer: PeerId, lane: Lane) -> Answer<Grpc<Guarded>> {
        let token = self.0.options.token.clone();
        let peers = &self.0.peers;
        let (channel, endpoint) = (peers.lane(peer, lane), peers.circuit(peer).endpoint().clone());
        let grpc = Grpc::new(Guarded { channel, endpoint, token });
        // The bound is that of a message as it is read, whatever its length was on the line.
        let mut grpc = grpc.max_decoding_message_size(MESSAGE_LEN_MAX);
        if self.0.options.compress {
            let zstd = CompressionEncoding::Zstd;
            grpc = grpc.send_compressed(zstd).accept_compressed(zstd);
        }
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    fn read<R: Message + Default>(&self, method: &Method, message: Bytes) -> Result<R> {
        R::decode(message).map_err(|error| {
            let what = format!("{} was answered with no legal message: {error}", method.name);
            Error::corrupt(self.endpoint(), what)
        })
    }

    async fn within<T>(
        &self,
        time: Duration,
        method: &Method,
        call: impl Future<Output = T>,
    ) -> Result<T> {
        tokio::time::timeout(time, call).await.map_err(|_| self.timed_out(method))
    }
}

/// Waits for the end of an answer after its only message.
async fn end(mut rest: Streaming<Bytes>) -> Answer<()> {
    match rest.message().await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(Status::data_loss("more than one message came where one was due")),
        Err(status) => Err(contradiction(status)),
    }
}

/// What a status means that comes after messages. One that would be an answer of its own, such as that nothing was
/// found, cannot be believed any more.
fn contradiction(status: Status) -> Status {
    match (failure(&status), status.code()) {
        (Failure::None, Code::DataLoss | Code::DeadlineExceeded) => status,
        (Failure::None, code) => {
            Status::data_loss(format!("{code:?} after messages: {}", status.message()))
        }
        (Failure::Passing | Failure::Unreachable, _) => status,
    }
}

/// A stream of messages to a peer. Dropped before [`Upload::finish`], it is reset, so that the peer does not take
/// what was sent for all there is.
pub(crate) struct Upload<M, R> {
    channel: GrpcChannel,
    method: &'static Method,
    sender: Option<mpsc::Sender<M>>,
    /// Nothing once it has been taken.
    answer: Option<JoinHandle<Answer<Bytes>>>,
    /// Nothing once the stream may end.
    cancel: Option<CancellationHandle>,
    answers: PhantomData<fn() -> R>,
}

impl<M: Send + 'static, R: Message + Default> Upload<M, R> {
    /// Sends the next message, as soon as there is room.
    pub(crate) async fn send(&mut self, message: M) -> Result<()> {
        let deadline = self.channel.0.options.deadline;
        if let Some(sender) = &self.sender
            && self.channel.within(deadline, self.method, sender.send(message)).await?.is_ok()
        {
            return Ok(());
        }
        // The peer has answered although it has not seen the end.
        self.sender = None;
        match self.answer(deadline).await? {
            Ok(_) => Err(Error::unavailable(
                self.channel.endpoint(),
                format!("{} was answered before its end", self.method.name),
            )),
            Err(status) => Err(self.channel.error(self.method, status)),
        }
    }

    /// Ends the stream and waits for the answer.
    pub(crate) async fn finish(mut self) -> Result<R> {
        self.cancel = None;
        self.sender = None;
        match self.answer(self.channel.time_for_long_work()).await? {
            Ok(answer) => self.channel.read(self.method, answer),
            Err(status) => Err(self.channel.error(self.method, status)),
        }
    }

    async fn answer(&mut self, time: Duration) -> Result<Answer<Bytes>> {
        let Some(mut answer) = self.answer.take() else {
            let why = format!("{} has failed before", self.method.name);
            return Err(Error::unavailable(self.channel.endpoint(), why));
        };
        match tokio::time::timeout(time, &mut answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(panic)) => Err(Error::unavailable(self.channel.endpoint(), panic)),
            Err(_) => {
                answer.abort();
                Err(self.channel.timed_out(self.method))
            }
        }
    }
}

impl<M, R> Drop for Upload<M, R> {
    fn drop(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
        }
        if let Some(answer) = &self.answer {
            answer.abort();
        }
    }
}
