//! Names into what they stand for.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use toml::Spanned;

use super::{
    ABSENT_TTL_DEFAULT, Config, ConfigError, Settings, WHOLE_LEN_MAX_DEFAULT,
    source::source,
    tables::{OneOrMore, ServiceTable, StoreTable},
};
use crate::compose::{
    CachePlan, Kind, Misfit, Part, Plan, Route, SourcePlan,
    size::{parse_cache_size, parse_whole_size},
};

/// How deep stores may contain each other.
const DEPTH_MAX: usize = 16;

/// How long what is absent may be remembered at most, in seconds.
const ABSENT_TTL_MAX: f64 = 86_400.0;

struct Resolver<'c> {
    config: &'c Config,
    settings: &'c Settings,
    sources: BTreeMap<String, Arc<SourcePlan>>,
    stores: BTreeMap<String, Arc<Plan>>,
    /// The stores that are being resolved, each within the one before it.
    within: Vec<String>,
}

pub(super) fn all(config: &Config, settings: &Settings) -> Result<Vec<Arc<Plan>>, ConfigError> {
    let mut resolver = Resolver::new(config, settings);
    for name in config.tables.source.keys() {
        resolver.source(name)?;
    }
    for (name, table) in &config.tables.source {
        check_name(config, name, &table.span())?;
    }
    let mut dirs: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (name, table) in &config.tables.cache {
        check_name(config, name, &table.span())?;
        let dir = named_cache(config, settings, name)?.dir.clone();
        if let Some(other) = dirs.insert(dir, name) {
            let message = format!("cache {other} has the same dir: let both be one cache");
            return Err(config.at(&table.as_ref().dir.span(), message));
        }
    }
    config.tables.store.keys().map(|name| resolver.store(name)).collect()
}

pub(super) fn store(
    config: &Config,
    settings: &Settings,
    name: &str,
) -> Result<Arc<Plan>, ConfigError> {
    let mut resolver = Resolver::new(config, settings);
    if config.tables.store.contains_key(name) {
        return resolver.store(name);
    }
    if config.tables.source.contains_key(name) {
        return resolver.lone(name);
    }
    let names: Vec<_> =
        config.tables.store.keys().chain(config.tables.source.keys()).map(String::as_str).collect();
    let hint = match names.is_empty() {
        true => String::new(),
        false => format!(": it has {} (choose one with --store NAME)", names.join(", ")),
    };
    Err(ConfigError::NoStore { file: config.file.clone(), name: name.to_owned(), hint })
}

/// The cache of a store that says `own` of it.
pub(super) fn cache(
    config: &Config,
    settings: &Settings,
    own: Option<&Spanned<String>>,
    span: Option<&Range<usize>>,
) -> Result<Option<Arc<CachePlan>>, ConfigError> {
    let plan = |dir| Arc::new(CachePlan { dir, size_max: settings.cache_size_max });
    if let Some(given) = &settings.cache {
        return Ok(given.clone().map(plan));
    }
    let caches = &config.tables.cache;
    let names = || caches.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    match own.map(|own| (own.as_ref().as_str(), own.span())) {
        Some(("none", _)) => Ok(None),
        Some((name, _)) if caches.contains_key(name) => {
            named_cache(config, settings, name).map(Some)
        }
        Some((name, span)) => {
            let there = match caches.is_empty() {
                true => format!("add [cache.{name}] with a dir"),
                false => format!("there are {}", names()),
            };
            Err(config.at(&span, format!("there is no [cache.{name}]: {there}, or \"none\"")))
        }
        None => match caches.keys().next() {
            None => Ok(settings.cache_default.clone().map(plan)),
            Some(only) if caches.len() == 1 => named_cache(config, settings, only).map(Some),
            Some(first) => {
                let span = span.cloned().unwrap_or_else(|| caches[first].span());
                let names = names();
                let message = format!("there are several caches: add cache = NAME, one of {names}");
                Err(config.at(&span, message))
            }
        },
    }
}

fn named_cache(
    config: &Config,
    settings: &Settings,
    name: &str,
) -> Result<Arc<CachePlan>, ConfigError> {
    let table = config.tables.cache[name].as_ref();
    let (dir, span) = (table.dir.as_ref(), table.dir.span());
    if !dir.is_absolute() {
        return Err(config.at(&span, format!("dir of cache {name}: expected an absolute path")));
    }
    let given = settings.cache_size_max;
    let size = table.size.as_ref().map(|size| {
        parse_cache_size(&size.as_ref().text())
            .map_err(|why| config.at(&size.span(), format!("size of cache {name}: {why}")))
    });
    let size_max = given.or(size.transpose()?);
    Ok(Arc::new(CachePlan { dir: dir.clone(), size_max }))
}

/// Names must differ from addresses, and from what is no name.
fn check_name(config: &Config, name: &str, span: &Range<usize>) -> Result<(), ConfigError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name == "none" || name.is_empty() || !name.chars().all(is_legal) {
        let message =
            format!("{name:?} is no name: take letters, digits, dots and dashes, but not none");
        return Err(config.at(span, message));
    }
    Ok(())
}

impl<'c> Resolver<'c> {
    fn new(config: &'c Config, settings: &'c Settings) -> Self {
        let (sources, stores, within) = Default::default();
        Resolver { config, settings, sources, stores, within }
    }

    fn source(&mut self, name: &str) -> Result<Arc<SourcePlan>, ConfigError> {
        if let Some(source) = self.sources.get(name) {
            return Ok(source.clone());
        }
        let resolved = source(self.config, self.settings, name)?;
        self.sources.insert(name.to_owned(), resolved.clone());
        Ok(resolved)
    }

    /// A source as a store of its own.
    fn lone(&mut self, name: &str) -> Result<Arc<Plan>, ConfigError> {
        let part = Part::Source(self.source(name)?);
        let route = Route::alone(part);
        let cache = self.config.cache(self.settings)?;
        let mut plan = Plan::new(format!("source {name}"), route, cache);
        plan.whole_len_max = self.settings.whole_len_max.unwrap_or(WHOLE_LEN_MAX_DEFAULT);
        plan.absent_ttl = self.settings.absent_ttl.unwrap_or(ABSENT_TTL_DEFAULT);
        let span = self.config.tables.source[name].as_ref().address.span();
        plan.check().map_err(|misfit| self.config.at(&span, misfit.error.to_string()))?;
        Ok(Arc::new(plan))
    }

    fn store(&mut self, name: &str) -> Result<Arc<Plan>, ConfigError> {
        if let Some(plan) = self.stores.get(name) {
            return Ok(plan.clone());
        }
        let spanned = &self.config.tables.store[name];
        let (table, span) = (spanned.as_ref(), spanned.span());
        check_name(self.config, name, &span)?;
        if self.config.tables.source.contains_key(name) {
            let message = format!("a source is called {name} as well: names must differ");
            return Err(self.config.at(&span, message));
        }
        self.within.push(name.to_owned());
        let plan = Plan {
            blobs: self.route(name, table, &span, Kind::Blobs)?,
            directories: self.route(name, table, &span, Kind::Directories)?,
            path_infos: self.route(name, table, &span, Kind::PathInfos)?,
            cache: cache(self.config, self.settings, table.cache.as_ref(), Some(&span))?,
            sign_keys: self.sign_keys(name, table)?,
            whole_len_max: self.whole_len_max(name, table)?,
            absent_ttl: self.absent_ttl(name, table)?,
            name: format!("store {name}"),
        };
        self.within.pop();
        plan.check().map_err(|misfit| self.misfit(table, &span, misfit))?;
        let plan = Arc::new(plan);
        self.stores.insert(name.to_owned(), plan.clone());
        Ok(plan)
    }

    fn route(
        &mut self,
        name: &str,
        table: &StoreTable,
        span: &Range<usize>,
        kind: Kind,
    ) -> Result<Route, ConfigError> {
        let own = own_table(table, kind).map(Spanned::as_ref);
        let read = own.and_then(|own| own.read.as_ref()).or(table.read.as_ref());
        let read = read.ok_or_else(|| {
            let what = kind.plural();
            let message =
                format!("store {name} has nowhere to read {what} from: add read = [\"SOURCE\"]");
            self.config.at(span, message)
        })?;
        let parts = self.parts(read)?;
        // Whoever says where a service is read says with it that it is written elsewhere than the others.
        let write = match own {
            Some(own) if own.read.is_some() || own.write.is_some() => own.write.as_ref(),
            _ => table.write.as_ref(),
        };
        let write = match (write, &parts[..]) {
            (Some(write), _) if write.as_ref() == "none" => None,
            (Some(write), _) => Some(self.part(write.as_ref(), &write.span())?),
            (None, [_]) => Route::alone(parts[0].clone()).write,
            (None, _) => None,
        };
        Ok(Route { read: parts, write })
    }

    fn parts(&mut self, read: &Spanned<OneOrMore>) -> Result<Vec<Part>, ConfigError> {
        let (names, span) = (read.as_ref().words(), read.span());
        if names.is_empty() {
            return Err(self.config.at(&span, "name at least one source"));
        }
        if let Some(twice) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
            let message = format!("{} stands here twice: leave out one", names[twice]);
            return Err(self.config.at(&self.word(&span, &names[twice]), message));
        }
        names.iter().map(|name| self.part(name, &self.word(&span, name))).collect()
    }

    fn part(&mut self, name: &str, span: &Range<usize>) -> Result<Part, ConfigError> {
        let tables = &self.config.tables;
        if tables.source.contains_key(name) {
            return self.source(name).map(Part::Source);
        }
        if !tables.store.contains_key(name) {
            let names: Vec<_> =
                tables.source.keys().chain(tables.store.keys()).map(String::as_str).collect();
            let message = match name.contains(':') {
                true => "this is an address: give it a name, [source.NAME] with address = …, and name that here".to_owned(),
                false => format!("there is no [source.{name}]: there are {}", names.join(", ")),
            };
            return Err(self.config.at(span, message));
        }
        if let Some(first) = self.within.iter().position(|outer| outer == name) {
            let circle = self.within[first..].join(" → ");
            let message = format!("stores contain each other: {circle} → {name}");
            return Err(self.config.at(span, message));
        }
        if self.within.len() >= DEPTH_MAX {
            return Err(self
                .config
                .at(span, format!("more than {DEPTH_MAX} stores in each other")));
        }
        self.store(name).map(Part::Store)
    }

    /// Where a word stands within a list of them.
    fn word(&self, span: &Range<usize>, word: &str) -> Range<usize> {
        let text = self.config.text.get(span.clone()).unwrap_or_default();
        let quoted = [format!("\"{word}\""), format!("'{word}'")];
        let at = quoted.iter().find_map(|quoted| text.find(quoted.as_str()));
        at.map_or(span.clone(), |at| span.start + at..span.end)
    }

    fn misfit(&self, table: &StoreTable, span: &Range<usize>, misfit: Misfit) -> ConfigError {
        let Misfit { kind, part, is_target, error } = misfit;
        let own = own_table(table, kind).map(Spanned::as_ref);
        let place = if is_target {
            let write = own.and_then(|own| own.write.as_ref()).or(table.write.as_ref());
            write.map(Spanned::span)
        } else {
            let read = own.and_then(|own| own.read.as_ref()).or(table.read.as_ref());
            let name = part.strip_prefix("store ").unwrap_or(&part);
            read.map(|read| self.word(&read.span(), name))
        };
        let place = place.unwrap_or(span.clone());
        self.config.at(&place, format!("{} of {part}: {error}", kind.plural()))
    }

    fn sign_keys(&self, name: &str, table: &StoreTable) -> Result<Vec<PathBuf>, ConfigError> {
        let files = table.sign_key_files.iter().map(|file| match file.as_ref().is_absolute() {
            true => Ok(file.as_ref().clone()),
            false => {
                let message = format!("sign-key-files of store {name}: expected absolute paths");
                Err(self.config.at(&file.span(), message))
            }
        });
        files.collect()
    }

    fn whole_len_max(&self, name: &str, table: &StoreTable) -> Result<u64, ConfigError> {
        let own = table.fetch_whole_up_to.as_ref().map(|size| {
            parse_whole_size(&size.as_ref().text()).map_err(|why| {
                self.config.at(&size.span(), format!("fetch-whole-up-to of store {name}: {why}"))
            })
        });
        let own = own.transpose()?;
        Ok(self.settings.whole_len_max.or(own).unwrap_or(WHOLE_LEN_MAX_DEFAULT))
    }

    fn absent_ttl(&self, name: &str, table: &StoreTable) -> Result<Duration, ConfigError> {
        let own = table.absent_ttl.as_ref().map(|seconds| {
            let number = seconds.as_ref().text().parse::<f64>().ok();
            let within = number.filter(|number| (0.0..=ABSENT_TTL_MAX).contains(number));
            within.map(Duration::from_secs_f64).ok_or_else(|| {
                let message =
                    format!("absent-ttl of store {name}: expected seconds, from 0 to 86400");
                self.config.at(&seconds.span(), message)
            })
        });
        let own = own.transpose()?;
        Ok(self.settings.absent_ttl.or(own).unwrap_or(ABSENT_TTL_DEFAULT))
    }
}

fn own_table(table: &StoreTable, kind: Kind) -> Option<&Spanned<ServiceTable>> {
    match kind {
        Kind::Blobs => table.blobs.as_ref(),
        Kind::Directories => table.directories.as_ref(),
        Kind::PathInfos => table.path_infos.as_ref(),
    }
}
