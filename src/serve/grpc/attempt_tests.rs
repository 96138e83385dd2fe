//! What a client does about answers that are late, missing, or none.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tonic::{
    Code, Request, Response, Status,
    codegen::http::{self, HeaderValue},
    transport::{Server, server::TcpIncoming},
};

use super::tests::{Running, link};
use crate::{
    castore::Node,
    nix::{NarHash, StorePathDigest},
    proto::{
        castore as castore_wire,
        store::{self as wire, path_info_service_server as server},
    },
    service::{
        Error, Result, Stores,
        grpc::{GrpcAddress, GrpcChannel, GrpcOptions},
        pathinfo::{NarCalculation, PathInfoService as _, backend::GrpcPathInfos},
        shelf::{Shelf, path_info},
    },
};

const DEADLINE: Duration = Duration::from_secs(2);

fn client(address: &GrpcAddress, deadline: Duration) -> GrpcPathInfos {
    let options = GrpcOptions { deadline, ..GrpcOptions::default() };
    GrpcPathInfos::new(GrpcChannel::connect(address, options).expect("an address"))
}

/// How a question is answered.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Silent,
    Refusing(Code),
}

/// Answers that there is nothing, but only once its moods are over.
#[derive(Debug, Clone, Default)]
struct Moody {
    moods: Arc<Mutex<VecDeque<Mood>>>,
    asked: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl server::PathInfoService for Moody {
    type ListStream = tokio_stream::Empty<Result<wire::PathInfo, Status>>;

    async fn get(
        &self,
        _: Request<wire::GetPathInfoRequest>,
    ) -> Result<Response<wire::PathInfo>, Status> {
        self.asked.fetch_add(1, SeqCst);
        let mood = self.moods.lock().pop_front();
        match mood {
            Some(Mood::Silent) => std::future::pending().await,
            Some(Mood::Refusing(code)) => Err(Status::new(code, "in no mood")),
            None => Err(Status::not_found("nothing")),
        }
    }

    async fn put(&self, _: Request<wire::PathInfo>) -> Result<Response<wire::PathInfo>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn calculate_nar(
        &self,
        _: Request<castore_wire::Node>,
    ) -> Result<Response<wire::CalculateNarResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list(
        &self,
        _: Request<wire::ListPathInfoRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A client of a server with `moods`, and how often it is asked.
async fn moody(moods: &[Mood]) -> (GrpcPathInfos, Arc<AtomicUsize>) {
    let moody = Moody::default();
    moody.moods.lock().extend(moods);
    let asked = moody.asked.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    // With details that are not what the protocol wants them to be.
    let bad_details = |mut answer: http::Response<tonic::body::Body>| {
        let value = HeaderValue::from_static("*not base64*");
        answer.headers_mut().insert("grpc-status-details-bin", value);
        answer
    };
    let layer = tower::util::MapResponseLayer::new(bad_details);
    tokio::spawn(
        Server::builder()
            .layer(layer)
            .add_service(server::PathInfoServiceServer::new(moody))
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    (client(&GrpcAddress::Http(url), DEADLINE), asked)
}

fn digest() -> StorePathDigest {
    [1; 20].into()
}

#[tokio::test]
async fn who_does_not_work_is_asked_again_and_who_has_answered_is_not() {
    let refusing = [Mood::Refusing(Code::Unavailable), Mood::Refusing(Code::ResourceExhausted)];
    let (path_infos, asked) = moody(&refusing).await;
    assert_eq!(path_infos.get(&digest()).await.expect("tried again"), None);
    assert_eq!(asked.load(SeqCst), 3);
    let (path_infos, asked) = moody(&[Mood::Refusing(Code::PermissionDenied)]).await;
    let refused = path_infos.get(&digest()).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(asked.load(SeqCst), 1);
    let (path_infos, asked) = moody(&[Mood::Refusing(Code::Unavailable); 10]).await;
    let refused = path_infos.get(&digest()).await;
    assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    assert_eq!(asked.load(SeqCst), 4);
}

#[tokio::test]
async fn a_question_that_is_lost_is_asked_a_second_time_at_half_of_the_deadline() {
    let (path_infos, asked) = moody(&[Mood::Silent]).await;
    let began = Instant::now();
    assert_eq!(path_infos.get(&digest()).await.expect("asked again"), None);
    assert!(began.elapsed() >= DEADLINE / 2 && began.elapsed() < DEADLINE);
    assert_eq!(asked.load(SeqCst), 2);
}

/// A server that takes what is sent to it and never says anything.
async fn silent() -> GrpcAddress {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    GrpcAddress::Http(url)
}

#[tokio::test]
async fn once_nobody_answers_a_thousand_readers_do_not_wait() {
    let path_infos = client(&silent().await, Duration::from_millis(500));
    path_infos.get(&digest()).await.expect_err("nobody answers");
    let began = Instant::now();
    for _ in 0..1000 {
        let refused = path_infos.get(&digest()).await;
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
}

#[tokio::test]
async fn one_question_that_takes_too_long_keeps_nobody_else_from_asking() {
    let (path_infos, _) = moody(&[Mood::Silent; 2]).await;
    let late = path_infos.get(&digest()).await;
    assert!(matches!(late, Err(Error::TimedOut { .. })), "{late:?}");
    // The server is tried, and answers.
    let began = Instant::now();
    while path_infos.get(&digest()).await.is_err() {
        assert!(began.elapsed() < DEADLINE / 2, "it is still refused");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calculates for longer than an answer may take.
#[derive(Debug)]
struct SlowNars;

#[tonic::async_trait]
impl NarCalculation for SlowNars {
    async fn calculate_nar(&self, _: &Node) -> Result<NarHash> {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        Ok(NarHash { size: 1, sha256: [1; 32] })
    }
}

#[tokio::test]
async fn work_that_takes_long_is_waited_for_while_the_peer_lives() {
    let stores = Stores { nars: Arc::new(SlowNars), ..Shelf::new().stores() };
    let server = Running::tcp(stores);
    let nar = client(&server.address, Duration::from_millis(300)).calculate_nar(&link()).await;
    assert_eq!(nar.expect("it is waited for").size, 1);
    server.stop().await;
}

#[tokio::test]
async fn work_that_takes_long_is_given_up_once_the_peer_is_silent() {
    let address = silent().await;
    let began = Instant::now();
    let nar = client(&address, Duration::from_millis(300)).calculate_nar(&link()).await;
    assert!(matches!(nar, Err(Error::Unavailable { .. })), "{nar:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// What a bad line may do to it is tested with the real thing, in `tests/remote`.
#[tokio::test]
async fn a_path_info_comes_with_its_digest() {
    let shelf = Shelf::new();
    let info = path_info(1, "one", link());
    shelf.path_infos.lock().insert(digest(), info.clone());
    let server = Running::tcp(shelf.stores());
    let path_infos = client(&server.address, DEADLINE);
    assert_eq!(path_infos.get(&digest()).await.expect("works"), Some(info));
    let mut plain = wire::path_info_service_client::PathInfoServiceClient::new(server.plain());
    let hash = bytes::Bytes::from_static(&[1; 20]);
    let by_what = Some(wire::get_path_info_request::ByWhat::ByOutputHash(hash));
    let answer = plain.get(wire::GetPathInfoRequest { by_what }).await.expect("works");
    let sent = answer.metadata().get_bin(crate::service::grpc::ANSWER_DIGEST_HEADER);
    let sent = sent.expect("it is sent").to_bytes().expect("base64");
    let message = prost::Message::encode_to_vec(answer.get_ref());
    assert_eq!(sent[..], crate::castore::Digest::of(&message).as_bytes()[..]);
    server.stop().await;
}
