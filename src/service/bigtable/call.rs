//! One call, however often it is tried, within one deadline; and what a status of the service means.

use std::{fmt, future::Future, sync::Arc, time::SystemTime};

use bigtable_rs::bigtable::{BigTable, BigTableConnection, RoutingMetadata};
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::{Code, Request, Status, metadata::MetadataValue};

use super::{BigtableOptions, requests::Names, table::CELL_LEN_MAX};
use crate::{
    observe::{Span, event},
    service::{
        Cause, Error, Result,
        circuit::{Circuit, News, try_until_it_answers},
        grpc::{Failure, failure},
        pause::Attempts,
    },
};

/// How often a call is tried at most.
const ATTEMPTS_MAX: u32 = 4;
/// The longest message that is read, in bytes: a cell of the longest kind, and what goes around it.
const MESSAGE_LEN_MAX: usize = CELL_LEN_MAX + (4 << 20);

/// The methods that are called.
pub(super) const READ_ROWS: &str = "/google.bigtable.v2.Bigtable/ReadRows";
pub(super) const CHECK_AND_MUTATE_ROW: &str = "/google.bigtable.v2.Bigtable/CheckAndMutateRow";

/// Why an attempt came to nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The service said so, or the connection did.
    Status(Status),
    /// What came is no legal answer.
    Wrong(String),
    /// Nothing came in time.
    TimedOut,
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Failed::Status(status)
    }
}

/// The connection to a table: made when it is first needed, and again whenever it must be.
pub(super) struct Connection {
    options: BigtableOptions,
    endpoint: Arc<str>,
    pub(super) names: Names,
    client: OnceCell<BigTable>,
    circuit: Circuit,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Connection {
    /// Not connected yet.
    pub(super) fn new(options: BigtableOptions) -> Self {
        let endpoint = options.endpoint();
        let BigtableOptions { project, instance, table, .. } = &options;
        let names = Names {
            table: format!("projects/{project}/instances/{instance}/tables/{table}"),
            family: options.family.clone(),
            app_profile: options.app_profile.clone(),
        };
        let circuit = Circuit::new(endpoint.clone(), options.deadline);
        Connection { options, endpoint, names, client: OnceCell::new(), circuit }
    }

    pub(super) fn options(&self) -> &BigtableOptions {
        &self.options
    }

    pub(super) fn endpoint(&self) -> &Arc<str> {
        &self.endpoint
    }

    /// Makes `call`, of a method, until it is answered, or there is no more time. It gets a client and when it has to have an answer.
    /// Every call must be such that making it twice is as good as once.
    pub(super) async fn attempt<T, F>(
        self: &Arc<Self>,
        (method, what): (&'static str, &'static str),
        call: impl Fn(BigTable, Instant) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        if self.options.is_offline {
            return Err(Error::Offline { endpoint: self.endpoint.clone(), what: what.into() });
        }
        let deadline = Instant::now() + self.options.deadline;
        let mut attempts = Attempts::until(deadline);
        loop {
            self.circuit.enter()?;
            let (error, may_pass, is_news) =
                match self.attempt_once((method, what), &call, deadline).await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => failed,
                };
            let next = attempts.next(ATTEMPTS_MAX).filter(|_| may_pass);
            let Some(next) = next else {
                if is_news {
                    tracing::warn!(
                        event = event::CALL_FAILED,
                        %error,
                        what,
                        "a call to Bigtable failed"
                    );
                }
                return Err(error);
            };
            tracing::debug!(%error, what, "trying again");
            sleep_until(next).await;
        }
    }

    /// The answer; or why there is none, whether another attempt may have one, and whether it is to be logged.
    async fn attempt_once<T, F>(
        self: &Arc<Self>,
        (method, what): (&'static str, &'static str),
        call: &impl Fn(BigTable, Instant) -> F,
        deadline: Instant,
    ) -> Result<T, (Error, bool, bool)>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        let began = Instant::now();
        let span = Span::grpc_client(method, self.options.server());
        let answer = match span.covers(timeout_at(deadline, self.client())).await {
            Ok(Ok(client)) => span.covers(call(client, deadline)).await,
            Ok(Err(error)) => {
                span.fail(&error);
                return Err((error, true, true));
            }
            Err(_) => Err(Failed::TimedOut),
        };
        let failed = match answer {
            Ok(answer) => {
                self.circuit.answered();
                return Ok(answer);
            }
            Err(failed) => failed,
        };
        if let Failed::Status(status) = &failed {
            span.record("rpc.grpc.status_code", status.code() as u64);
        }
        let kind = match &failed {
            Failed::Status(status) => failure(status),
            Failed::Wrong(_) => Failure::None,
            Failed::TimedOut => Failure::Unreachable,
        };
        let error = self.error(what, failed);
        span.fail(&error);
        if kind != Failure::Unreachable {
            self.circuit.answered();
            return Err((error, kind == Failure::Passing, true));
        }
        let news = self.circuit.failed(began, &error);
        if news == News::Opened {
            try_until_it_answers(self, |connection| async move {
                let deadline = Instant::now() + connection.options.deadline;
                let answers = connection.is_answering(deadline).await;
                if answers {
                    connection.circuit.answered();
                }
                answers
            });
        }
        Err((error, true, news == News::Failure))
    }

    async fn is_answering(&self, deadline: Instant) -> bool {
        let ask = async {
            let mut client = self.client().await.map_err(drop)?;
            let request = self.routed(self.names.read_nothing()).map_err(drop)?;
            match client.get_client().read_rows(request).await {
                Ok(_) => Ok(()),
                Err(status) if failure(&status) != Failure::Unreachable => Ok(()),
                Err(_) => Err(()),
            }
        };
        matches!(timeout_at(deadline, ask).await, Ok(Ok(())))
    }

    /// A client of its own for each call: they share the connections.
    async fn client(&self) -> Result<BigTable> {
        let client = self.client.get_or_try_init(|| async {
            let BigtableOptions { project, instance, channels, is_read_only, .. } = &self.options;
            let connection = match &self.options.emulator {
                Some(host) => BigTableConnection::new_with_emulator(
                    host,
                    project,
                    instance,
                    *is_read_only,
                    *channels,
                    None,
                ),
                None => {
                    BigTableConnection::new(project, instance, *is_read_only, *channels, None).await
                }
            };
            let mut client = connection
                .map_err(|error| {
                    let what = format!(
                        "no credentials for it: {error}; set GOOGLE_APPLICATION_CREDENTIALS, or BIGTABLE_EMULATOR_HOST for an emulator"
                    );
                    Error::unavailable(&self.endpoint, what)
                })?
                .client();
            client.configure_inner_client(|inner| inner.max_decoding_message_size(MESSAGE_LEN_MAX));
            Ok(client)
        });
        client.await.cloned()
    }

    /// A request with the header by which the service finds the table.
    pub(super) fn routed<R: RoutingMetadata>(&self, message: R) -> Result<Request<R>, Failed> {
        let header = message.get_routing_header();
        let value = MetadataValue::try_from(header)
            .map_err(|_| Failed::Wrong("the name of the table makes no header".to_owned()))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("x-goog-request-params", value);
        Ok(request)
    }

    pub(super) fn corrupt(&self, what: impl Into<String>) -> Error {
        Error::corrupt(&self.endpoint, what.into())
    }

    pub(super) fn timed_out(&self, what: &'static str) -> Error {
        Error::TimedOut { endpoint: self.endpoint.clone(), what: what.into() }
    }

    /// The error that nothing is said of our side by: what the service refuses is never the fault of who asks us.
    fn error(&self, what: &'static str, failed: Failed) -> Error {
        let status = match failed {
            Failed::Wrong(wrong) => return self.corrupt(wrong),
            Failed::TimedOut => return self.timed_out(what),
            Failed::Status(status) => status,
        };
        let endpoint = self.endpoint.clone();
        let code = status.code();
        let hint = self.hint(code, status.message());
        let source = Cause::new(Refusal { what, status, hint });
        match code {
            Code::DeadlineExceeded => self.timed_out(what),
            // The latter is what a message is called here that is longer than any legal one.
            Code::DataLoss | Code::OutOfRange => Error::Corrupt { endpoint, source },
            Code::Ok
            | Code::NotFound
            | Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::Aborted
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::ResourceExhausted => Error::Unavailable { endpoint, source },
        }
    }

    /// What to do about a status. Empty if that is not known.
    fn hint(&self, code: Code, message: &str) -> String {
        let names_family = message.to_ascii_lowercase().contains("family");
        match code {
            Code::NotFound | Code::FailedPrecondition | Code::InvalidArgument | Code::Unknown
                if names_family =>
            {
                let family = &self.options.family;
                format!(
                    "; the table has no column family {family:?}: name another family_name, or make it with `cbt -project {} -instance {} createfamily {} {family}`",
                    self.options.project, self.options.instance, self.options.table
                )
            }
            Code::NotFound => {
                format!("; if there is no such table, make it with {}", self.options.how_to_make())
            }
            Code::PermissionDenied | Code::Unauthenticated => {
                "; the credentials need the role Bigtable User, or Bigtable Reader with is_read_only=true"
                    .to_owned()
            }
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => String::new(),
        }
    }
}

/// The time, in microseconds since 1970.
pub(super) fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// What the service said instead of an answer.
#[derive(Debug)]
struct Refusal {
    what: &'static str,
    status: Status,
    hint: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, message) = (self.status.code(), self.status.message());
        write!(f, "to {} was answered {code:?}: {message}{}", self.what, self.hint)
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.status)
    }
}
