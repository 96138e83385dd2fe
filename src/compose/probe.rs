//! Asking a source whether it answers.

use std::time::{Duration, Instant};

use super::{Address, Common, SourcePlan, opener::Opener};
use crate::{
    nix::StorePathDigest,
    service::{Error, grpc::DEADLINE_DEFAULT},
    substitute::BinaryCache,
};

/// How long a source is waited for.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// What came of asking a source.
#[derive(Debug)]
pub struct Probe {
    /// How long it took.
    pub elapsed: Duration,
    /// What it is; or why it cannot be used, and what to do.
    pub outcome: Result<String, String>,
}

/// Asks a source for something that nobody has. A store directory is only looked at, and not made. Needs the context of a
/// tokio runtime.
pub async fn probe(source: &SourcePlan, common: &Common) -> Probe {
    let began = Instant::now();
    let asked = tokio::time::timeout(PROBE_MAX, ask(&source.address, common)).await;
    let outcome = asked.unwrap_or_else(|_| {
        let seconds = PROBE_MAX.as_secs();
        Err(format!("no answer within {seconds} s: is it running, and is the address right?"))
    });
    Probe { elapsed: began.elapsed(), outcome }
}

async fn ask(address: &Address, common: &Common) -> Result<String, String> {
    match address {
        Address::Memory => Ok("empty at first".to_owned()),
        Address::Local(dir) => {
            let dir = dir.as_ref().unwrap_or(&common.store_dir);
            match dir.metadata() {
                Ok(metadata) if metadata.is_dir() => Ok("there".to_owned()),
                Ok(_) => Err(format!("{} is no directory", dir.display())),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Ok("not there yet: it is made when it is first used".to_owned())
                }
                Err(error) => Err(format!("cannot look at {}: {error}", dir.display())),
            }
        }
        Address::Nix(caches) => {
            let mut told = Vec::new();
            for cache in caches {
                let deadline = cache.timeout.unwrap_or(DEADLINE_DEFAULT);
                let opened = BinaryCache::new(cache.options.clone(), deadline, common.offline);
                let opened = opened.map_err(|error| error.to_string())?;
                let priority = opened.reach().await.map_err(|error| advice(&error))?;
                told.push(format!("answers, priority {priority}"));
            }
            Ok(told.join("; "))
        }
        _ => ask_far(address, common).await,
    }
}

async fn ask_far(address: &Address, common: &Common) -> Result<String, String> {
    let mut opener = Opener::new(common);
    let source = opener.source(address).map_err(|error| error.to_string())?;
    let nobodys = StorePathDigest::from([0; 20]);
    if let Some(path_infos) = &source.path_infos {
        path_infos.get(&nobodys).await.map_err(|error| advice(&error))?;
    } else if let Some(directories) = &source.directories {
        let nobodys = crate::castore::Digest::from([0; 32]);
        directories.get(&nobodys).await.map_err(|error| advice(&error))?;
    }
    let Address::Grpc { .. } = address else { return Ok("answers".to_owned()) };
    let channel = opener.channel(address).map_err(|error| error.to_string())?;
    let dialect = channel.dialect().await.map_err(|error| advice(&error))?;
    Ok(format!("answers, dialect {dialect}"))
}

/// The error, and what may help.
fn advice(error: &Error) -> String {
    let advice = match error {
        Error::Unavailable { .. } | Error::TimedOut { .. } => {
            ": is it running, and are the address, certificates and tokens right?"
        }
        Error::Offline { .. } => ": leave out --offline to ask it",
        Error::Corrupt { .. } => ": is this the kind of store that the address says?",
        Error::Invalid(_) | Error::Unsupported { .. } => "",
    };
    format!("{error}{advice}")
}
