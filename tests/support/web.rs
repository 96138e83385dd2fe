//! A web server for binary caches: files of a folder or of memory, with what can go wrong between them and whoever asks.
#![allow(dead_code)] // Each binary uses its part.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use tokio::runtime::Runtime;

/// What is wrong with a file.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// This is answered instead.
    Status(u16),
    /// It is elsewhere.
    Redirect(String),
    /// No answer comes.
    Silence,
    /// So many bytes come, and then nothing.
    Stall(usize),
    /// So many bytes come, and then the connection breaks, the first so many times.
    Break { after: usize, times: usize },
    /// A byte comes every so often.
    Trickle(Duration),
    /// It comes over and over again, without end.
    Endless,
}

#[derive(Debug, Default)]
struct Served {
    folder: Option<PathBuf>,
    files: BTreeMap<String, Vec<u8>>,
    troubles: HashMap<String, Trouble>,
    /// What must stand in `Authorization`.
    authorization: Option<String>,
    /// Whether ranges are answered.
    ranges: bool,
    asked: Vec<(String, HeaderMap)>,
}

/// A server of its own, gone with this.
#[derive(Debug)]
pub struct HttpServer {
    served: Arc<Mutex<Served>>,
    address: SocketAddr,
    _runtime: Runtime,
}

impl HttpServer {
    /// Serves nothing yet.
    pub fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let served = Arc::new(Mutex::new(Served { ranges: true, ..Served::default() }));
        let router = Router::new().fallback(answer).with_state(served.clone());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("it listens");
        runtime.spawn(async move { axum::serve(listener, router).await });
        HttpServer { served, address, _runtime: runtime }
    }

    /// Serves what is in a folder.
    pub fn of(folder: impl Into<PathBuf>) -> Self {
        let server = Self::new();
        server.served().folder = Some(folder.into());
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn served(&self) -> std::sync::MutexGuard<'_, Served> {
        self.served.lock().expect("nobody panicked")
    }

    /// `http://…`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Serves a file from memory, in place of one that may be there.
    pub fn put(&self, name: &str, contents: impl Into<Vec<u8>>) {
        self.served().files.insert(name.to_owned(), contents.into());
    }

    pub fn trouble(&self, name: &str, trouble: Trouble) {
        self.served().troubles.insert(name.to_owned(), trouble);
    }

    pub fn heal(&self) {
        self.served().troubles.clear();
    }

    pub fn require(&self, authorization: &str) {
        self.served().authorization = Some(authorization.to_owned());
    }

    pub fn without_ranges(&self) {
        self.served().ranges = false;
    }

    /// How often files were asked for whose names contain `part`.
    pub fn asked(&self, part: &str) -> usize {
        self.served().asked.iter().filter(|(name, _)| name.contains(part)).count()
    }

    /// What stood in the header of each question for the file.
    pub fn headers(&self, name: &str, header: header::HeaderName) -> Vec<Option<String>> {
        let served = self.served();
        let questions = served.asked.iter().filter(|(asked, _)| asked == name);
        let text = |headers: &HeaderMap| Some(headers.get(&header)?.to_str().ok()?.to_owned());
        questions.map(|(_, headers)| text(headers)).collect()
    }
}

async fn answer(State(served): State<Arc<Mutex<Served>>>, request: Request) -> Response {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let (contents, trouble, ranges) = {
        let mut served = served.lock().expect("nobody panicked");
        served.asked.push((name.clone(), request.headers().clone()));
        let said = request.headers().get(header::AUTHORIZATION);
        if let Some(wanted) = &served.authorization
            && said.is_none_or(|said| said != wanted.as_str())
        {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let trouble = match served.troubles.get_mut(&name) {
            Some(Trouble::Break { times: 0, .. }) => None,
            Some(trouble @ Trouble::Break { .. }) => {
                let now = trouble.clone();
                if let Trouble::Break { times, .. } = trouble {
                    *times -= 1;
                }
                Some(now)
            }
            trouble => trouble.cloned(),
        };
        let contents = match (served.files.get(&name), &served.folder) {
            (Some(contents), _) => Some(contents.clone()),
            (None, Some(folder)) => std::fs::read(folder.join(&name)).ok(),
            (None, None) => None,
        };
        (contents, trouble, served.ranges)
    };
    let Some(contents) = contents else {
        return match trouble {
            Some(trouble) => troubled(trouble, Vec::new()).await,
            None => StatusCode::NOT_FOUND.into_response(),
        };
    };
    let range = request.headers().get(header::RANGE).filter(|_| ranges);
    let start = range.and_then(|range| {
        range.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
    });
    let total = contents.len();
    let (status, contents) = match start {
        Some(start) => (StatusCode::PARTIAL_CONTENT, contents[start.min(total)..].to_vec()),
        None => (StatusCode::OK, contents),
    };
    let mut response = match trouble {
        Some(trouble) => troubled(trouble, contents).await,
        None => contents.into_response(),
    };
    if response.status() == StatusCode::OK {
        *response.status_mut() = status;
        if let Some(start) = start {
            let range = format!("bytes {start}-{}/{total}", total - 1);
            response.headers_mut().insert(header::CONTENT_RANGE, range.parse().expect("ASCII"));
        }
    }
    response
}

async fn troubled(trouble: Trouble, contents: Vec<u8>) -> Response {
    let len = contents.len();
    let piece = |bytes: Vec<u8>| Ok::<_, std::io::Error>(bytes);
    let body = match trouble {
        Trouble::Status(status) => {
            return StatusCode::from_u16(status).expect("a status").into_response();
        }
        Trouble::Redirect(to) => {
            return (StatusCode::FOUND, [(header::LOCATION, to)]).into_response();
        }
        Trouble::Silence => std::future::pending().await,
        Trouble::Stall(after) => {
            let begin = contents[..after.min(len)].to_vec();
            Body::from_stream(stream::iter([piece(begin)]).chain(stream::pending()))
        }
        Trouble::Break { after, .. } => {
            let begin = contents[..after.min(len)].to_vec();
            let broken = Err(std::io::Error::other("broken"));
            // What was sent must have left before the connection breaks.
            let pause = stream::once(async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                broken
            });
            Body::from_stream(stream::iter([piece(begin)]).chain(pause))
        }
        Trouble::Trickle(pause) => {
            let bytes = stream::iter(contents).then(move |byte| async move {
                tokio::time::sleep(pause).await;
                piece(vec![byte])
            });
            Body::from_stream(bytes)
        }
        Trouble::Endless => Body::from_stream(stream::repeat_with(move || piece(contents.clone()))),
    };
    Body::into_response(body)
}
