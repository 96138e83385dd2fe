//! Calls with deadlines.

use std::{future::Future, time::Duration};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use prost::Message;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    CancellationHandle, Code, Request, Response, Status, client::Grpc, transport::Channel,
};
use tonic_prost::ProstCodec;

use super::{Dialect, GrpcChannel, MESSAGE_LEN_MAX, method::Method, status::from_status};
use crate::service::{Error, Result};

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

type Answer<R> = Result<R, Status>;

impl GrpcChannel {
    /// Asks one question. `None` if the peer finds nothing.
    pub(crate) async fn unary<M, R>(&self, method: &'static Method, message: M) -> Result<Option<R>>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let dialect = self.dialect().await?;
        match self.unary_in(dialect, method, message).await? {
            Ok(answer) => Ok(Some(answer)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.error(method, status)),
        }
    }

    /// Asks one question, and leaves the status to the caller.
    pub(super) async fn unary_in<M, R>(
        &self,
        dialect: Dialect,
        method: &'static Method,
        message: M,
    ) -> Result<Answer<R>>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.ready(method).await?;
            let request = Request::new(message);
            let codec = ProstCodec::default();
            grpc.unary(request, method.path(dialect), codec).await.map(Response::into_inner)
        };
        self.within(self.0.options.call_timeout, method, call).await
    }

    /// Asks a question that is answered with a stream, and waits for the first message: only that tells absent from
    /// present.
    pub(crate) async fn download<M, R>(
        &self,
        method: &'static Method,
        message: M,
    ) -> Result<Opened<R>>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let dialect = self.dialect().await?;
        let call = async {
            let mut grpc = self.ready(method).await?;
            let codec = ProstCodec::<M, R>::default();
            let answer = grpc.server_streaming(Request::new(message), method.path(dialect), codec);
            let mut messages = answer.await?.into_inner();
            let first = messages.message().await?;
            Ok::<_, Status>((first, messages))
        };
        let (first, messages) = match self.within(self.0.options.call_timeout, method, call).await?
        {
            Ok((Some(first), messages)) => (first, messages),
            Ok((None, _)) => return Ok(Opened::Empty),
            Err(status) if status.code() == Code::NotFound => return Ok(Opened::NotFound),
            Err(status) => return Err(self.error(method, status)),
        };
        let state = Some((self.clone(), messages));
        let rest = stream::unfold(state, move |state| async move {
            let (channel, mut messages) = state?;
            let idle_timeout = channel.0.options.idle_timeout;
            match channel.within(idle_timeout, method, messages.message()).await {
                Ok(Ok(Some(message))) => Some((Ok(message), Some((channel, messages)))),
                Ok(Ok(None)) => None,
                Ok(Err(status)) => Some((Err(channel.error(method, status)), None)),
                Err(error) => Some((Err(error), None)),
            }
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
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let dialect = self.dialect().await?;
        let call = self.send(dialect, method, Request::new(stream::iter(messages)));
        let answer = self.within(self.0.options.call_timeout, method, call).await?;
        answer.map_err(|status| self.error(method, status))
    }

    /// Begins a stream of messages to the peer.
    pub(crate) async fn upload<M, R>(&self, method: &'static Method) -> Result<Upload<M, R>>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let dialect = self.dialect().await?;
        let (sender, receiver) = mpsc::channel(UPLOAD_MESSAGES_MAX);
        let mut request = Request::new(ReceiverStream::new(receiver));
        let cancel = Some(request.cancellation_handle());
        let channel = self.clone();
        let answer = tokio::spawn(async move { channel.send(dialect, method, request).await });
        Ok(Upload {
            channel: self.clone(),
            method,
            sender: Some(sender),
            answer: Some(answer),
            cancel,
        })
    }

    async fn send<M, R>(
        &self,
        dialect: Dialect,
        method: &'static Method,
        messages: Request<impl Stream<Item = M> + Send + 'static>,
    ) -> Answer<R>
    where
        M: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = self.ready(method).await?;
        let codec = ProstCodec::default();
        let answer = grpc.client_streaming(messages, method.path(dialect), codec).await;
        answer.map(Response::into_inner)
    }

    async fn ready(&self, method: &Method) -> Answer<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.lane(method.lane)).max_decoding_message_size(MESSAGE_LEN_MAX);
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    async fn within<T>(
        &self,
        timeout: Duration,
        method: &Method,
        call: impl Future<Output = T>,
    ) -> Result<T> {
        tokio::time::timeout(timeout, call).await.map_err(|_| self.timed_out(method))
    }

    fn timed_out(&self, method: &Method) -> Error {
        Error::TimedOut { endpoint: self.endpoint().clone(), what: method.name.into() }
    }

    pub(super) fn error(&self, method: &Method, status: Status) -> Error {
        from_status(self.endpoint(), method, status)
    }
}

/// A stream of messages to a peer. Dropped before [`Upload::finish`], it is reset, so that the peer does not take
/// what was sent for all there is.
pub(crate) struct Upload<M, R> {
    channel: GrpcChannel,
    method: &'static Method,
    sender: Option<mpsc::Sender<M>>,
    /// Nothing once it has been taken.
    answer: Option<JoinHandle<Answer<R>>>,
    /// Nothing once the stream may end.
    cancel: Option<CancellationHandle>,
}

impl<M: Send + 'static, R> Upload<M, R> {
    /// Sends the next message, as soon as there is room.
    pub(crate) async fn send(&mut self, message: M) -> Result<()> {
        if let Some(sender) = &self.sender {
            let idle_timeout = self.channel.0.options.idle_timeout;
            if self.channel.within(idle_timeout, self.method, sender.send(message)).await?.is_ok() {
                return Ok(());
            }
        }
        // The peer has answered although it has not seen the end.
        self.sender = None;
        match self.answer().await? {
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
        let answer = self.answer().await?;
        answer.map_err(|status| self.channel.error(self.method, status))
    }

    async fn answer(&mut self) -> Result<Answer<R>> {
        let Some(mut answer) = self.answer.take() else {
            let why = format!("{} has failed before", self.method.name);
            return Err(Error::unavailable(self.channel.endpoint(), why));
        };
        let call_timeout = self.channel.0.options.call_timeout;
        match tokio::time::timeout(call_timeout, &mut answer).await {
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
