//! Serves clients that call a unix socket by its path.
//!
//! Clients built on the C core of gRPC (Python's, for one) send the path of the socket as `:authority`, with its
//! slashes percent-encoded. The HTTP/2 library refuses such a request before we see it. We have no use for the
//! authority, so on its way in each percent sign in it becomes a dash: one byte for one byte, so that no length and
//! no compression table changes. See RFC 9113 §4.1 and §6.2 for the frames, RFC 7541 §5 and §6 for the headers.
//!
//! What is not understood passes as it is: then the library refuses it, as it would have before. Only names in plain
//! text are seen, which is how these clients write them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What a client sends before its first frame.
const PREFACE_LEN: usize = 24;
const FRAME_HEADER_LEN: usize = 9;
const FRAME_HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
/// The index of `:authority` in the static table.
const AUTHORITY_INDEX: usize = 1;

/// A connection whose incoming bytes are read over.
#[derive(Debug)]
pub(super) struct AuthorityFilter<S> {
    socket: S,
    scanner: Scanner,
}

impl<S> AuthorityFilter<S> {
    pub(super) fn new(socket: S) -> Self {
        AuthorityFilter { socket, scanner: Scanner::new() }
    }
}

/// Where the bytes stand that come next. Holds nothing but positions, so that bytes may come in any portions.
#[derive(Debug)]
struct Scanner {
    frame_header: [u8; FRAME_HEADER_LEN],
    frame_header_len: usize,
    /// How many bytes are left of the frame, or of the preface.
    left: usize,
    /// How many of them come before the headers, or are to be passed over in them.
    skip: usize,
    /// How many of them are padding, behind the headers.
    padding: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// To the end of the frame, nothing is of interest.
    Pass,
    /// The length of the padding; then headers begin.
    PaddingLength { priority: bool },
    /// The first byte of a header.
    Header,
    /// More of an integer, whose value is `value` so far; `shift` more bits are known.
    Integer { value: usize, shift: u32, then: Then },
    /// The length of a string begins.
    Length { of: Part },
    /// A string passes, of which `skip` bytes are left.
    Text { of: Part },
    /// The authority passes, of which `left` bytes are left.
    Authority { left: usize },
}

/// What an integer is.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// A header, or a table size, of which nothing follows.
    NextHeader,
    /// The index of a name, whose value follows.
    Name,
    /// The length of a string.
    String { of: Part, plain: bool },
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Name,
    Value,
    AuthorityValue,
}

impl Scanner {
    fn new() -> Self {
        Scanner {
            frame_header: [0; FRAME_HEADER_LEN],
            frame_header_len: 0,
            left: PREFACE_LEN,
            skip: 0,
            padding: 0,
            state: State::Pass,
        }
    }

    /// Reads over the bytes that come next, and mends them.
    fn mend(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let passing = match (self.left, self.state) {
                (0, _) => 0,
                (left, State::Pass) => left,
                _ if self.left <= self.padding => self.left,
                _ => self.skip.min(self.left - self.padding),
            };
            if passing > 0 {
                let count = passing.min(bytes.len());
                self.left -= count;
                self.skip = self.skip.saturating_sub(count);
                bytes = &mut bytes[count..];
                continue;
            }
            let (first, rest) = bytes.split_at_mut(1);
            if self.left == 0 {
                self.frame_header_byte(first[0]);
            } else {
                self.left -= 1;
                self.header_byte(&mut first[0]);
            }
            bytes = rest;
        }
    }

    fn frame_header_byte(&mut self, byte: u8) {
        self.frame_header[self.frame_header_len] = byte;
        self.frame_header_len += 1;
        if self.frame_header_len < FRAME_HEADER_LEN {
            return;
        }
        self.frame_header_len = 0;
        let [a, b, c, kind, flags, ..] = self.frame_header;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.padding = 0;
        let priority = flags & FLAG_PRIORITY != 0;
        self.skip = if priority { 5 } else { 0 };
        self.state = match kind {
            FRAME_HEADERS if flags & FLAG_PADDED != 0 => {
                self.skip = 0;
                State::PaddingLength { priority }
            }
            FRAME_HEADERS => State::Header,
            // A name that begins in a continuation is not seen; requests are not that long before their authority.
            _ => State::Pass,
        };
    }

    fn header_byte(&mut self, byte: &mut u8) {
        // The end of a string is the beginning of what follows it.
        if let State::Text { of } = self.state {
            self.state = match of {
                Part::Name => State::Length { of: Part::Value },
                Part::Value | Part::AuthorityValue => State::Header,
            };
        }
        self.state = match self.state {
            State::Pass | State::Text { .. } => State::Pass,
            State::PaddingLength { priority } => {
                self.padding = usize::from(*byte);
                self.skip = if priority { 5 } else { 0 };
                State::Header
            }
            State::Header => match *byte {
                byte if byte & 0x80 != 0 => self.integer(byte, 7, Then::NextHeader),
                byte if byte & 0x40 != 0 => self.integer(byte, 6, Then::Name),
                byte if byte & 0x20 != 0 => self.integer(byte, 5, Then::NextHeader),
                byte => self.integer(byte, 4, Then::Name),
            },
            State::Length { of } => {
                self.integer(*byte, 7, Then::String { of, plain: *byte & 0x80 == 0 })
            }
            State::Integer { value, shift, then } => {
                let value = value.saturating_add(usize::from(*byte & 0x7f) << shift);
                match *byte & 0x80 {
                    0 => self.integer_done(value, then),
                    _ if shift >= 21 => State::Pass,
                    _ => State::Integer { value, shift: shift + 7, then },
                }
            }
            State::Authority { left } => {
                if *byte == b'%' {
                    *byte = b'-';
                }
                if left > 1 { State::Authority { left: left - 1 } } else { State::Header }
            }
        };
    }

    fn integer(&mut self, byte: u8, prefix_bits: u32, then: Then) -> State {
        let most = (1u8 << prefix_bits) - 1;
        let value = byte & most;
        if value == most {
            return State::Integer { value: value.into(), shift: 0, then };
        }
        self.integer_done(value.into(), then)
    }

    fn integer_done(&mut self, value: usize, then: Then) -> State {
        match then {
            Then::NextHeader => State::Header,
            Then::Name if value == 0 => State::Length { of: Part::Name },
            Then::Name if value == AUTHORITY_INDEX => State::Length { of: Part::AuthorityValue },
            Then::Name => State::Length { of: Part::Value },
            Then::String { of: Part::AuthorityValue, plain: true } if value > 0 => {
                State::Authority { left: value }
            }
            Then::String { of, .. } => {
                self.skip = value;
                State::Text { of }
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityFilter<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(context, buffer);
        this.scanner.mend(&mut buffer.filled_mut()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AuthorityFilter<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

impl<S: Connected> Connected for AuthorityFilter<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.socket.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        [&[first, value.len() as u8], value].concat()
    }

    #[test]
    fn a_percent_sign_is_mended_in_the_authority_and_nowhere_else() {
        let other = [&[0x40][..], &literal(0x05, b"x%2Fy")[1..], b"\x03%%%"].concat();
        let headers = |authority: &[u8]| {
            [
                &[0x83, 0x3f, 0xe1, 0x1f],
                &literal(0x44, b"/a%2Fb")[..],
                &literal(0x41, authority),
                &[0x82],
            ]
            .concat()
        };
        let with_other = |authority: &[u8]| [&headers(authority)[..], &other].concat();
        let stream = |authority: &[u8]| {
            let padded = [&[2][..], &with_other(authority), b"%%"].concat();
            let both = [&[3, 0, 0, 0, 0, 9][..], &headers(authority), b"%%%"].concat();
            [
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                frame(4, 0, &[0, 3, 0, 0, 0, 1]),
                frame(FRAME_HEADERS, 4, &with_other(authority)),
                frame(0, 0, b"A\x03%2F%"),
                frame(FRAME_HEADERS, 4 | FLAG_PADDED, &padded),
                frame(FRAME_HEADERS, 4 | FLAG_PADDED | FLAG_PRIORITY, &both),
            ]
            .concat()
        };
        let (odd, mended) = (stream(b"tmp%2Fstore.sock"), stream(b"tmp-2Fstore.sock"));
        for portion in [1, 2, 7, 64, odd.len()] {
            let mut scanner = Scanner::new();
            let mut bytes = odd.clone();
            bytes.chunks_mut(portion).for_each(|portion| scanner.mend(portion));
            assert_eq!(bytes, mended, "in portions of {portion}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nonsense_passes_without_a_panic(bytes: Vec<u8>) {
            let mut scanner = Scanner::new();
            scanner.left = 0;
            let mut mended = bytes.clone();
            mended.chunks_mut(3).for_each(|portion| scanner.mend(portion));
            proptest::prop_assert_eq!(bytes.len(), mended.len());
        }
    }
}
