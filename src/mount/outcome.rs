//! What becomes of a request.

use std::pin::Pin;

use super::measured::Timer;
use crate::vfs::{Ino, LocalBlob};

/// A complete reply message, header included.
pub type Message = Vec<u8>;

/// What became of a request.
pub enum Outcome {
    /// The reply.
    Reply(Message),
    /// The reply is the range of this file: read it into the reply, and nowhere else.
    ReadLocal {
        /// What the reply is to be addressed to.
        unique: u64,
        /// What is read.
        ino: Ino,
        /// The file.
        blob: LocalBlob,
        /// Where to begin, in bytes.
        offset: u64,
        /// How many bytes; all of them must be there.
        len: usize,
        /// Who reads tells it when it has.
        timer: Timer,
    },
    /// The reply has to be waited for.
    Later {
        /// What the reply will be addressed to, and what an interrupt names.
        unique: u64,
        /// Yields the reply.
        reply: Pin<Box<dyn Future<Output = Message> + Send>>,
    },
    /// No reply is expected.
    Silence,
    /// The reader of the request `unique` was interrupted: that request is to be answered at once.
    Interrupt {
        /// Which request.
        unique: u64,
    },
    /// The kernel and we have no protocol in common, or it is done with us.
    End(Option<Message>),
}
