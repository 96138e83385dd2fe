//! What is sent while it is made.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream::BoxStream};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    observe::{event, span::carried},
    render::RenderError,
};

/// How long a client may take nothing of what is ready for it, before it is given up.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);

/// How many pieces wait for the client to take them.
const PIECES_WAITING_MAX: usize = 1;

/// Makes a body of `pieces`, which are made by a task of its own, at most as fast as the client takes them. It ends, and
/// `held` is dropped, when the client is gone or takes nothing any more. A body that ends early ends the connection,
/// so that no client takes it for the whole.
pub(super) fn paced<T: Send + 'static>(
    pieces: BoxStream<'static, Result<Bytes, RenderError>>,
    held: T,
) -> Body {
    let (sender, receiver) = mpsc::channel(PIECES_WAITING_MAX);
    tokio::spawn(carried(async move {
        // Also what is asked for at this moment is given up.
        tokio::select! {
            () = send_all(pieces, &sender) => {}
            () = sender.closed() => {}
        }
        drop(held);
    }));
    Body::from_stream(Paced { receiver, is_whole: false })
}

enum Message {
    Piece(Bytes),
    Failed(RenderError),
    End,
}

async fn send_all(
    mut pieces: BoxStream<'static, Result<Bytes, RenderError>>,
    sender: &mpsc::Sender<Message>,
) {
    loop {
        let message = match pieces.next().await {
            Some(Ok(piece)) => Message::Piece(piece),
            Some(Err(error)) => {
                tracing::error!(event = event::REQUEST_FAILED, %error, "an answer breaks off");
                Message::Failed(error)
            }
            None => Message::End,
        };
        let is_last = !matches!(message, Message::Piece(_));
        match timeout(STANDSTILL_MAX, sender.send(message)).await {
            Ok(Ok(())) if !is_last => {}
            Ok(_) => return,
            Err(_) => {
                tracing::info!(
                    event = event::CLIENT_GIVEN_UP,
                    "a client that takes nothing any more is given up"
                );
                return;
            }
        }
    }
}

struct Paced {
    receiver: mpsc::Receiver<Message>,
    is_whole: bool,
}

impl Stream for Paced {
    type Item = Result<Bytes, RenderError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.receiver.poll_recv(context)) {
            Some(Message::Piece(piece)) => Some(Ok(piece)),
            Some(Message::Failed(error)) => Some(Err(error)),
            Some(Message::End) => {
                self.is_whole = true;
                None
            }
            None => Some(Err(RenderError::Stopped)),
        })
    }
}
