//! The peers that have one store, one of which is asked.
//!
//! Asked is the first, as long as it answers. When it fails the next takes its place, and keeps it until it fails itself,
//! or until one before it, after it was given up, answers again.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tonic::{codegen::http::uri::PathAndQuery, transport::Channel};

use super::{GrpcAddress, GrpcOptions, method::Lane, open};
use crate::service::{Result, circuit::Circuit};

/// One of the peers, by its place among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerId(usize);

/// Who is called, and by which name the method is.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) peer: PeerId,
    pub(super) path: PathAndQuery,
}

/// One peer.
#[derive(Debug)]
struct Peer {
    circuit: Circuit,
    /// A connection a lane. Readers that are slow to take contents close the window of theirs, a closure or the ranges
    /// of a long blob fill a slow line for a while: none of them must keep others from looking up a path, or from
    /// reading a short file.
    questions: Channel,
    closures: Channel,
    contents: Channel,
    ranges: Channel,
}

/// All of them: at least one.
#[derive(Debug)]
pub(super) struct Peers {
    all: Box<[Peer]>,
    /// Which one is asked.
    current: AtomicUsize,
}

impl Peer {
    fn open(address: &GrpcAddress, options: &GrpcOptions) -> Result<Self> {
        let endpoint: Arc<str> = address.to_string().into();
        Ok(Peer {
            circuit: Circuit::new(endpoint, options.deadline),
            questions: open(address, options)?,
            closures: open(address, options)?,
            contents: open(address, options)?,
            ranges: open(address, options)?,
        })
    }
}

impl Peers {
    /// Those at `address`, which are not connected yet.
    pub(super) fn open(address: &GrpcAddress, options: &GrpcOptions) -> Result<Self> {
        let all: Box<[_]> = match address {
            GrpcAddress::Http(_) | GrpcAddress::Unix(_) => [Peer::open(address, options)?].into(),
            GrpcAddress::Several(urls) => {
                let urls = urls.iter().cloned().map(GrpcAddress::Http);
                urls.map(|url| Peer::open(&url, options)).collect::<Result<_>>()?
            }
        };
        if all.is_empty() {
            return Err(crate::service::Error::invalid("an address without a server"));
        }
        Ok(Peers { all, current: AtomicUsize::new(0) })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    fn current(&self) -> PeerId {
        PeerId(self.current.load(Relaxed))
    }

    /// Those from `first` on, each once.
    fn from(&self, first: PeerId) -> impl Iterator<Item = PeerId> {
        let len = self.all.len();
        (0..len).map(move |step| PeerId((first.0 + step) % len))
    }

    /// Whom to ask. An error, of the one whose turn it is, if nobody is worth asking.
    pub(super) fn choose(&self) -> Result<PeerId> {
        let current = self.current();
        let refusal = match self.circuit(current).enter() {
            Ok(()) => return Ok(current),
            Err(refusal) => refusal,
        };
        let another = self.from(current).find(|peer| self.circuit(*peer).enter().is_ok());
        let another = another.ok_or(refusal)?;
        self.current.store(another.0, Relaxed);
        Ok(another)
    }

    /// Whom to ask beside `peer`: another, if one is worth it.
    pub(super) fn beside(&self, peer: PeerId) -> PeerId {
        let mut others = self.from(peer).skip(1);
        others.find(|other| self.circuit(*other).enter().is_ok()).unwrap_or(peer)
    }

    /// A peer has failed: it is the next one's turn.
    pub(super) fn turn_from(&self, peer: PeerId) {
        let next = (peer.0 + 1) % self.all.len();
        // Somebody else may have done so already.
        let _ = self.current.compare_exchange(peer.0, next, Relaxed, Relaxed);
    }

    /// Whoever was asked last has sent something wrong: it is the next one's turn. `false` if there is no other.
    pub(super) fn blame(&self) -> bool {
        self.turn_from(self.current());
        self.all.len() > 1
    }

    /// A peer that was given up answers again.
    pub(super) fn is_back(&self, peer: PeerId) {
        self.circuit(peer).answered();
        self.current.fetch_min(peer.0, Relaxed);
    }

    pub(super) fn circuit(&self, peer: PeerId) -> &Circuit {
        &self.all[peer.0].circuit
    }

    pub(super) fn lane(&self, peer: PeerId, lane: Lane) -> Channel {
        let peer = &self.all[peer.0];
        match lane {
            Lane::Questions => peer.questions.clone(),
            Lane::Closures => peer.closures.clone(),
            Lane::Contents => peer.contents.clone(),
            Lane::Ranges => peer.ranges.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::service::Error;

    fn peers(count: usize) -> Peers {
        let urls = (0..count).map(|port| format!("http://host:{}", port + 1)).collect();
        Peers::open(&GrpcAddress::Several(urls), &GrpcOptions::default()).expect("legal")
    }

    fn give_up(peers: &Peers, peer: PeerId) {
        for _ in 0..4 {
            peers.circuit(peer).failed(Instant::now(), &Error::unavailable("test", "down"));
        }
        peers.circuit(peer).enter().expect_err("it is given up");
    }

    #[tokio::test]
    async fn the_next_takes_the_place_of_one_that_fails_and_the_first_takes_it_back() {
        let peers = peers(3);
        let turn = || peers.choose().map(|peer| peer.0);
        assert_eq!(turn().ok(), Some(0));
        peers.turn_from(PeerId(0));
        // Those who failed together turn it once.
        peers.turn_from(PeerId(0));
        assert_eq!(turn().ok(), Some(1));
        assert_eq!(peers.beside(PeerId(1)), PeerId(2));
        give_up(&peers, PeerId(1));
        give_up(&peers, PeerId(2));
        assert_eq!(turn().ok(), Some(0));
        assert_eq!(peers.beside(PeerId(0)), PeerId(0), "there is no other");
        give_up(&peers, PeerId(0));
        assert!(turn().expect_err("all are down").to_string().contains("http://host:1"));
        peers.is_back(PeerId(2));
        assert_eq!(turn().ok(), Some(2));
        peers.is_back(PeerId(1));
        assert_eq!(turn().ok(), Some(1), "those before go first");
        peers.is_back(PeerId(2));
        assert_eq!(turn().ok(), Some(1));
    }

    #[tokio::test]
    async fn one_alone_is_always_asked() {
        let peers = peers(1);
        peers.turn_from(PeerId(0));
        assert_eq!(peers.choose().ok(), Some(PeerId(0)));
        assert_eq!(peers.beside(PeerId(0)), PeerId(0));
    }
}
