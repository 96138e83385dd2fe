//! `lazystore config`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use clap::{Args, Subcommand};
use futures::future::join_all;
use indicatif::BinaryBytes;

use super::GlobalOptions;
use crate::{
    compose::{self, Kind, Part, Plan, Probe, Route, SourcePlan, config},
    service::blob::layer::Verify,
};

/// Look at configuration files.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lazystore config check
  lazystore config show --config ./lazystore.toml

Exit codes: 0 all is well, 1 a source does not answer or cannot be used, 2 wrong usage, 78 the file is wrong.")]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a file, and ask each source whether it answers, but with --offline
    Check(File),
    /// Print which stores there are, and from what each is put together. Nobody is asked
    Show(File),
}

#[derive(Debug, Args)]
struct File {
    /// The file [default: that of --config]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What is to be looked at: the stores of a file, or that which the options mean.
struct Subject {
    plans: Vec<Arc<Plan>>,
    sources: Vec<Arc<SourcePlan>>,
}

impl Config {
    pub(super) async fn run(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        match &self.command {
            Command::Check(file) => file.check(options).await,
            Command::Show(file) => file.show(options),
        }
    }
}

impl File {
    fn subject(&self, options: &GlobalOptions) -> anyhow::Result<Subject> {
        let config = match &self.file {
            Some(file) => Some(config::Config::read(file)?),
            None => options.config()?,
        };
        let Some(config) = config else {
            let plan = options.plan()?;
            plan.check().map_err(|misfit| misfit.error)?;
            return Ok(Subject { sources: sources(&plan), plans: vec![Arc::new(plan)] });
        };
        let settings = options.settings();
        Ok(Subject { plans: config.all(&settings)?, sources: config.sources(&settings)? })
    }

    fn show(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let mut text = String::new();
        for plan in self.subject(options)?.plans {
            store(&mut text, &plan)?;
        }
        Ok(io::stdout().write_all(text.as_bytes())?)
    }

    async fn check(&self, options: &GlobalOptions) -> anyhow::Result<()> {
        let (subject, common) = (self.subject(options)?, options.common()?);
        let mut out = io::stdout().lock();
        let (stores, count) = (subject.plans.len(), subject.sources.len());
        writeln!(out, "{stores} stores and {count} sources are as they should be")?;
        if common.offline {
            return Ok(());
        }
        let probes = join_all(subject.sources.iter().map(|source| compose::probe(source, &common)));
        let mut silent = 0;
        for (source, Probe { elapsed, outcome }) in subject.sources.iter().zip(probes.await) {
            let (name, address) = (&source.name, &source.address);
            let millis = elapsed.as_secs_f64() * 1e3;
            match outcome {
                Ok(what) => writeln!(out, "{name}: {address}: {what} ({millis:.1} ms)")?,
                Err(why) => {
                    silent += 1;
                    writeln!(out, "{name}: {address}: FAILED: {why}")?;
                }
            }
        }
        anyhow::ensure!(silent == 0, "{silent} of {count} sources cannot be used");
        Ok(())
    }
}

/// All sources of a plan, each once.
fn sources(plan: &Plan) -> Vec<Arc<SourcePlan>> {
    let mut found = BTreeMap::new();
    for kind in Kind::ALL {
        let route = plan.route(kind);
        for part in route.read.iter().chain(&route.write) {
            if let Part::Source(source) = part {
                found.insert(source.name.clone(), source.clone());
            }
        }
    }
    found.into_values().collect()
}

/// A store as a tree. Files are named, but nothing that is in them.
fn store(text: &mut String, plan: &Plan) -> std::fmt::Result {
    writeln!(text, "{}", plan.name)?;
    let names = |route: &Route| {
        let read: Vec<_> = route.read.iter().map(Part::name).collect();
        (read.join(" "), route.write.as_ref().map(|part| part.name().to_owned()))
    };
    let same = names(&plan.blobs) == names(&plan.directories)
        && names(&plan.blobs) == names(&plan.path_infos);
    match same {
        true => service(text, "everything", &plan.blobs)?,
        false => {
            for kind in Kind::ALL {
                service(text, kind.plural(), plan.route(kind))?;
            }
        }
    }
    match &plan.cache {
        Some(cache) => {
            let size = match cache.size_max {
                Some(size) => format!("{}", BinaryBytes(size)),
                None => "a tenth of the disk".to_owned(),
            };
            writeln!(text, "├─ cache: {}, up to {size}", cache.dir.display())?;
        }
        None => writeln!(text, "├─ cache: none")?,
    }
    for file in &plan.sign_keys {
        writeln!(text, "├─ signs what is written by the key in {}", file.display())?;
    }
    let (whole, ttl) = (BinaryBytes(plan.whole_len_max), plan.absent_ttl.as_secs_f64());
    writeln!(text, "└─ files come whole up to {whole}; what is absent is remembered for {ttl} s")
}

fn service(text: &mut String, what: &str, route: &Route) -> std::fmt::Result {
    writeln!(text, "├─ {what}")?;
    for (at, part) in route.read.iter().enumerate() {
        write!(text, "│  ├─ read {}: {}", at + 1, part.name())?;
        match part {
            Part::Source(source) => {
                write!(text, ", {}", source.address)?;
                match source.verify {
                    Some(Verify::Source) => write!(text, ", its lists of chunks are believed")?,
                    Some(Verify::Strict) => write!(text, ", nothing is believed without proof")?,
                    None => {}
                }
                writeln!(text)?;
            }
            Part::Store(_) => writeln!(text)?,
        }
    }
    match &route.write {
        Some(part) => writeln!(text, "│  └─ written: {}", part.name()),
        None => writeln!(text, "│  └─ written: nowhere"),
    }
}
