//! A TCP proxy that does to a connection what networks do: it delays, stalls, cuts, trickles and damages what passes.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// How much is read from a socket at once, in bytes.
const PORTION: usize = 64 << 10;

/// What happens to the bytes that come from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// They pass.
    #[default]
    Fair,
    /// Nothing passes, in either direction, and nobody is told.
    Stalled,
    /// This many pass a second.
    Trickle(u64),
    /// Connections are refused, and those that were there are cut.
    Down,
}

#[derive(Debug, Default)]
struct State {
    weather: Weather,
    /// How long each direction takes: half of a round trip.
    delay: Duration,
    /// Connections are cut once this many more bytes have come from the server.
    cut_after: Option<u64>,
    /// The byte that comes from the server after so many others is damaged by so many bits.
    flip: Option<(u64, u8)>,
    /// Both ends of each connection.
    connections: HashMap<usize, [TcpStream; 2]>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ended: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
    from_server: AtomicU64,
    to_server: AtomicU64,
}

/// The proxy, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Passes on to `server`.
    pub fn new(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("it binds");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let state = shared.clone();
        thread::spawn(move || accept(&listener, server, &state));
        Proxy { address, shared }
    }

    /// The address of a store behind the proxy, with `?options`.
    pub fn store(&self, options: &str) -> String {
        format!("grpc+http://{}{options}", self.address)
    }

    /// Changes the weather, for connections that are there as well.
    pub fn weather(&self, weather: Weather) {
        let mut state = self.state();
        state.weather = weather;
        if weather == Weather::Down {
            cut(&mut state);
        }
        self.shared.changed.notify_all();
    }

    /// From now on each round trip takes `round_trip` longer.
    pub fn delay(&self, round_trip: Duration) {
        self.state().delay = round_trip / 2;
    }

    /// Cuts every connection once `bytes` more have come from the server. New ones are not.
    pub fn cut_after(&self, bytes: u64) {
        self.state().cut_after = Some(bytes);
    }

    /// Damages the byte that comes from the server after `bytes` others.
    pub fn flip_after(&self, bytes: u64, bits: u8) {
        self.state().flip = Some((bytes, bits));
    }

    /// Whether a byte that was to be damaged has passed.
    pub fn has_flipped(&self) -> bool {
        self.state().flip.is_none()
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        cut(&mut self.state());
    }

    /// How many bytes have come from the server.
    pub fn received(&self) -> u64 {
        self.shared.from_server.load(SeqCst)
    }

    /// How many bytes went to the server.
    pub fn sent(&self) -> u64 {
        self.shared.to_server.load(SeqCst)
    }

    /// How many requests went to the server: each is one round trip, if it waits for the one before.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(SeqCst)
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics here")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        cut(&mut self.state());
        self.shared.changed.notify_all();
        // So that it looks up.
        let _ = TcpStream::connect(self.address);
    }
}

fn cut(state: &mut State) {
    for (_, ends) in state.connections.drain() {
        shut(&ends);
    }
}

fn shut(ends: &[TcpStream; 2]) {
    for end in ends {
        // It may have been shut by whoever had it.
        let _ = end.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        if shared.ended.load(SeqCst) {
            return;
        }
        let mut state = shared.state.lock().expect("no test panics here");
        if state.weather == Weather::Down {
            continue;
        }
        let Ok(server) = TcpStream::connect(server) else { continue };
        let id = shared.connections.fetch_add(1, SeqCst);
        for end in [&client, &server] {
            end.set_nodelay(true).expect("it is TCP");
        }
        let again = |end: &TcpStream| end.try_clone().expect("a descriptor");
        state.connections.insert(id, [again(&client), again(&server)]);
        pass(again(&client), again(&server), id, false, shared.clone());
        pass(server, client, id, true, shared.clone());
    }
}

/// Passes one direction, by two threads: one notes when bytes came, the other lets them go when it is time.
fn pass(mut from: TcpStream, mut to: TcpStream, id: usize, is_answer: bool, shared: Arc<Shared>) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    let reader = shared.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; PORTION];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            let delay = reader.state.lock().expect("no test panics here").delay;
            if send.send((Instant::now() + delay, buffer[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        let mut frames = Frames::new();
        for (when, bytes) in receive {
            thread::sleep(when.saturating_duration_since(Instant::now()));
            if !is_answer {
                shared.requests.fetch_add(frames.requests(&bytes), SeqCst);
            }
            if !let_go(&mut to, bytes, is_answer, &shared) {
                break;
            }
        }
        let ends = shared.state.lock().expect("no test panics here").connections.remove(&id);
        ends.iter().for_each(shut);
    });
}

/// Writes what is due. `false` once there is nobody to write to.
fn let_go(to: &mut TcpStream, mut bytes: Vec<u8>, is_answer: bool, shared: &Shared) -> bool {
    let counter = if is_answer { &shared.from_server } else { &shared.to_server };
    while !bytes.is_empty() {
        let (len, pause) = {
            let mut state = shared.state.lock().expect("no test panics here");
            while state.weather == Weather::Stalled && !shared.ended.load(SeqCst) {
                state = shared.changed.wait(state).expect("no test panics here");
            }
            match state.weather {
                Weather::Trickle(bytes_a_second) if is_answer => {
                    // Timers are not fine enough for single bytes.
                    let len = bytes.len().min((bytes_a_second / 100).max(1) as usize);
                    (len, Duration::from_secs(1) * len as u32 / bytes_a_second as u32)
                }
                _ => (bytes.len(), Duration::ZERO),
            }
        };
        let rest = bytes.split_off(len);
        let mut portion = std::mem::replace(&mut bytes, rest);
        if is_answer && !suffer(&mut portion, &mut shared.state.lock().expect("no panic here")) {
            return false;
        }
        if to.write_all(&portion).is_err() {
            return false;
        }
        counter.fetch_add(portion.len() as u64, SeqCst);
        thread::sleep(pause);
    }
    true
}

/// Damages what is to be damaged. `false` once the connection is to be cut.
fn suffer(portion: &mut [u8], state: &mut State) -> bool {
    let len = portion.len() as u64;
    if let Some((after, bits)) = state.flip {
        if after < len {
            portion[after as usize] ^= bits;
            state.flip = None;
        } else {
            state.flip = Some((after - len, bits));
        }
    }
    match state.cut_after {
        Some(after) if after < len => {
            state.cut_after = None;
            cut(state);
            false
        }
        Some(after) => {
            state.cut_after = Some(after - len);
            true
        }
        None => true,
    }
}

/// Follows the HTTP/2 frames of a client: its preface, then headers of nine bytes with a length and a type.
struct Frames {
    left: usize,
    header: Vec<u8>,
}

impl Frames {
    fn new() -> Self {
        Frames { left: 24, header: Vec::new() }
    }

    /// How many requests begin in the bytes that come next.
    fn requests(&mut self, mut bytes: &[u8]) -> usize {
        let mut requests = 0;
        while !bytes.is_empty() {
            let passing = self.left.min(bytes.len());
            self.left -= passing;
            bytes = &bytes[passing..];
            let (header, rest) = bytes.split_at((9 - self.header.len()).min(bytes.len()));
            self.header.extend(header);
            bytes = rest;
            if let [a, b, c, kind, ..] = self.header[..]
                && self.header.len() == 9
            {
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                requests += usize::from(kind == 1);
                self.header.clear();
            }
        }
        requests
    }
}
