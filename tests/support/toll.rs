//! What stands between a client and an HTTP server, counts requests and their bytes, and makes trouble when it is told to.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use tokio::runtime::Runtime;

/// What is done with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    /// They pass.
    #[default]
    None,
    /// This is answered instead.
    Status(u16),
    /// No answer comes.
    Silence,
}

/// Requests and bytes since the last time somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paid {
    pub gets: u64,
    pub heads: u64,
    pub puts: u64,
    pub others: u64,
    /// How many bytes of bodies were sent.
    pub sent: u64,
    /// How many were received.
    pub received: u64,
}

impl Paid {
    pub fn requests(&self) -> u64 {
        self.gets + self.heads + self.puts + self.others
    }
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    client: reqwest::Client,
    paid: Mutex<Paid>,
    trouble: Mutex<(Trouble, u32)>,
}

/// The proxy, until it is dropped.
#[derive(Debug)]
pub struct Toll {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    /// Ends with it.
    _runtime: Runtime,
}

impl Toll {
    /// Passes on to `server`.
    pub fn new(server: SocketAddr) -> Self {
        // Another may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Runtime::new().expect("a runtime");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (paid, trouble) = Default::default();
        let shared = Arc::new(Shared { server, client, paid, trouble });
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("it binds");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().fallback(pass).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Toll { address, shared, _runtime: runtime }
    }

    /// What was paid since the last time.
    pub fn paid(&self) -> Paid {
        std::mem::take(&mut self.shared.paid.lock().expect("no test panics here"))
    }

    /// What happens to requests from now on: to all of them,
    pub fn trouble(&self, trouble: Trouble) {
        self.trouble_for(trouble, u32::MAX);
    }

    /// or to so many.
    pub fn trouble_for(&self, trouble: Trouble, requests: u32) {
        *self.shared.trouble.lock().expect("no test panics here") = (trouble, requests);
    }
}

impl Shared {
    fn next_trouble(&self) -> Trouble {
        let mut trouble = self.trouble.lock().expect("no test panics here");
        match trouble.1.checked_sub(1) {
            Some(left) => {
                trouble.1 = left;
                trouble.0
            }
            None => Trouble::None,
        }
    }

    fn pay(&self, pay: impl FnOnce(&mut Paid)) {
        pay(&mut self.paid.lock().expect("no test panics here"));
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    shared.pay(|paid| {
        paid.sent += body.len() as u64;
        match head.method {
            Method::GET => paid.gets += 1,
            Method::HEAD => paid.heads += 1,
            Method::PUT => paid.puts += 1,
            _ => paid.others += 1,
        }
    });
    match shared.next_trouble() {
        Trouble::None => {}
        Trouble::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            return (status, "told to").into_response();
        }
        Trouble::Silence => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
        }
    }
    let url = format!("http://{}{}", shared.server, head.uri);
    let asked = shared.client.request(head.method, url).headers(head.headers).body(body);
    let Ok(answer) = asked.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, headers) = (answer.status(), answer.headers().clone());
    let Ok(body) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
    shared.pay(|paid| paid.received += body.len() as u64);
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
