//! How a command ends, as a number: the one place where an error becomes one. Scripts and units rely on them, so none ever
//! changes its meaning.

use anyhow::Error;

use super::{Absent, Usage, cache::NotPinned};
use crate::{
    compose::{self, config::ConfigError},
    nix::SignatureError,
    render::RenderError,
    serve::{TokensError, grpc::TlsError},
    service,
    transfer::TransferError,
    vfs,
};

/// Below the help of the program.
pub(super) const HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the store path is absent, \
                               4 a store is out of reach, 78 configuration, an address or a file named there is wrong.";

/// It failed, for no reason that has a number of its own.
const FAILED: u8 = 1;
/// Arguments that do not exist or do not go together.
const USAGE: u8 = 2;
/// What was asked for is not in the store.
const ABSENT: u8 = 3;
/// Whoever was asked cannot be reached, did not answer in time, or may not be asked. Later it may work.
const OUT_OF_REACH: u8 = 4;
/// What is configured is wrong: trying again does not help. It is the EX_CONFIG of sysexits(3).
const CONFIG: u8 = 78;

/// The number for an error.
pub(super) fn code(error: &Error) -> u8 {
    if error.is::<Absent>() || error.is::<NotPinned>() {
        return ABSENT;
    }
    if error.is::<Usage>() {
        return USAGE;
    }
    // Those further up say more: a store that cannot be opened because of its address is wrong, and not out of reach.
    error.chain().find_map(own_code).unwrap_or(FAILED)
}

type Link = dyn std::error::Error + 'static;

fn own_code(error: &Link) -> Option<u8> {
    let is_config = error.is::<ConfigError>()
        || error.is::<TokensError>()
        || error.is::<TlsError>()
        || error.is::<SignatureError>();
    if is_config {
        return Some(CONFIG);
    }
    if let Some(error) = error.downcast_ref::<compose::Error>() {
        return Some(of_compose(error));
    }
    service_error(error).and_then(of_service)
}

fn of_compose(error: &compose::Error) -> u8 {
    match error {
        // A disk, most often.
        compose::Error::Open { .. } => FAILED,
        _ => CONFIG,
    }
}

fn of_service(error: &service::Error) -> Option<u8> {
    match error {
        service::Error::Unavailable { .. }
        | service::Error::TimedOut { .. }
        | service::Error::Offline { .. } => Some(OUT_OF_REACH),
        service::Error::Corrupt { .. }
        | service::Error::Invalid(_)
        | service::Error::Unsupported { .. } => None,
    }
}

/// The error of a service, also where another shows it as its own.
fn service_error(error: &Link) -> Option<&service::Error> {
    if let Some(error) = error.downcast_ref::<service::Error>() {
        return Some(error);
    }
    if let Some(TransferError::Service(error)) = error.downcast_ref::<TransferError>() {
        return Some(error);
    }
    if let Some(vfs::Error::Service(error)) = error.downcast_ref::<vfs::Error>() {
        return Some(error);
    }
    match error.downcast_ref::<RenderError>() {
        Some(RenderError::Service(error)) => Some(error),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_reason_is_found_however_deep_it_is() {
        let away = || service::Error::unavailable("far", "down");
        let wrong = || service::Error::corrupt("far", "rubbish");
        let address = || {
            let error = "nonsense".parse::<compose::Address>().expect_err("no address");
            compose::Error::from(error)
        };
        let open = || compose::Error::Open { address: "here".to_owned(), source: away() };
        let cases: [(Error, u8); 10] = [
            (Error::msg("whatever"), FAILED),
            (Usage("no").into(), USAGE),
            (Absent("it".to_owned()).into(), ABSENT),
            (away().into(), OUT_OF_REACH),
            (TransferError::Service(away()).into(), OUT_OF_REACH),
            (RenderError::Service(away()).into(), OUT_OF_REACH),
            (vfs::Error::Service(away()).into(), OUT_OF_REACH),
            (wrong().into(), FAILED),
            (address().into(), CONFIG),
            (open().into(), FAILED),
        ];
        for (error, expected) in cases {
            let told = format!("{error:#}");
            assert_eq!(code(&error), expected, "{told}");
            assert_eq!(code(&Err::<(), _>(error).context("outside").expect_err("it is")), expected);
        }
    }
}
