//! The addresses of Bigtables, and what is there.

use std::{env, sync::Arc};

use super::{
    Error,
    address::duration,
    opener::Opener,
    source::{Place, Source},
};
use crate::service::{
    bigtable::{BigtableOptions, BigtableTable, CHANNELS_DEFAULT, DEADLINE_DEFAULT},
    directory::backend::BigtableDirectories,
    pathinfo::backend::BigtablePathInfos,
};

/// Where an emulator listens, by the convention of all clients of Bigtable.
const EMULATOR_VARIABLE: &str = "BIGTABLE_EMULATOR_HOST";

/// How many connections an address may ask for.
const CHANNELS_MAX: usize = 256;

const FORM: &str = "expected bigtable://instance?project_id=…&table_name=…&family_name=…";

/// Takes what comes after `bigtable:`.
pub(super) fn parse_bigtable(rest: &str) -> Result<BigtableOptions, String> {
    let (instance, query) = rest.split_once('?').ok_or(FORM)?;
    let instance = instance.strip_prefix("//").ok_or(FORM)?.trim_end_matches('/');
    let mut options = BigtableOptions {
        project: String::new(),
        instance: name("instance", instance)?,
        table: String::new(),
        family: String::new(),
        app_profile: String::new(),
        channels: CHANNELS_DEFAULT,
        deadline: DEADLINE_DEFAULT,
        is_read_only: false,
        emulator: None,
        is_offline: false,
    };
    for option in query.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("project_id", id)) => options.project = name("project_id", id)?,
            Some(("table_name", table)) => options.table = name("table_name", table)?,
            Some(("family_name", family)) => options.family = name("family_name", family)?,
            Some(("app_profile_id", id)) => options.app_profile = name("app_profile_id", id)?,
            Some(("channel_size", number)) => {
                let channels = number.parse().ok().filter(|n| (1..=CHANNELS_MAX).contains(n));
                options.channels = channels.ok_or_else(|| {
                    format!("channel_size is a number from 1 to {CHANNELS_MAX}, not {number:?}")
                })?;
            }
            Some(("timeout", seconds)) => options.deadline = duration(seconds)?,
            Some(("is_read_only", "true" | "1")) => options.is_read_only = true,
            Some(("is_read_only", "false" | "0")) => options.is_read_only = false,
            Some(("is_read_only", _)) => return Err("is_read_only is true or false".to_owned()),
            _ => return Err(format!("the option {option:?} is unknown")),
        }
    }
    let needed = [
        ("project_id", &options.project),
        ("table_name", &options.table),
        ("family_name", &options.family),
    ];
    match needed.iter().find(|(_, value)| value.is_empty()) {
        Some((missing, _)) => Err(format!("{missing} is missing: {FORM}")),
        None => Ok(options),
    }
}

/// What the service takes for a name of any kind, and nothing that means something in a request or a pattern.
fn name(what: &str, text: &str) -> Result<String, String> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match text {
        "" => Err(format!("{what} is empty: {FORM}")),
        text if text.len() <= 128 && text.chars().all(is_legal) => Ok(text.to_owned()),
        text => Err(format!(
            "{what} {text:?} is no name: expected up to 128 letters, digits, and of -_.: what is needed"
        )),
    }
}

impl Opener<'_> {
    /// The directories and path infos of a table. They check what they read themselves.
    pub(super) fn bigtable(&self, address: &BigtableOptions) -> Result<Source, Error> {
        let options = BigtableOptions {
            emulator: env::var(EMULATOR_VARIABLE).ok(),
            is_offline: self.common.offline,
            ..address.clone()
        };
        let table = BigtableTable::open(options).map_err(|source| Error::Open {
            address: format!("bigtable://{}", address.instance),
            source,
        })?;
        table.connect_ahead();
        Ok(Source {
            blobs: None,
            directories: Some(Arc::new(BigtableDirectories::new(table.clone()))),
            path_infos: Some(Arc::new(BigtablePathInfos::new(table))),
            nars: None,
            place: Place::Far,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::compose::{Address, CloudAddress};

    #[test]
    fn every_option_is_understood() {
        let text = "bigtable://inst-1?project_id=a.com:p&table_name=t&family_name=cf.1&app_profile_id=x\
                    &channel_size=7&timeout=4s&is_read_only=true";
        let expected = BigtableOptions {
            project: "a.com:p".to_owned(),
            instance: "inst-1".to_owned(),
            table: "t".to_owned(),
            family: "cf.1".to_owned(),
            app_profile: "x".to_owned(),
            channels: 7,
            deadline: Duration::from_secs(4),
            is_read_only: true,
            emulator: None,
            is_offline: false,
        };
        assert_eq!(text.parse(), Ok(Address::Cloud(CloudAddress::Bigtable(expected))));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        for (text, reason) in [
            ("bigtable:", "expected bigtable://instance?"),
            ("bigtable://i", "expected bigtable://instance?"),
            ("bigtable://?project_id=p&table_name=t&family_name=f", "instance is empty"),
            ("bigtable://i?table_name=t&family_name=f", "project_id is missing"),
            ("bigtable://i?project_id=p&family_name=f", "table_name is missing"),
            ("bigtable://i?project_id=p&table_name=t", "family_name is missing"),
            ("bigtable://i?project_id=p/q&table_name=t&family_name=f", "\"p/q\" is no name"),
            ("bigtable://i?project_id=p&table_name=t&family_name=.*", "\".*\" is no name"),
            ("bigtable://i?channel_size=0", "number from 1 to 256"),
            ("bigtable://i?timeout=0", "is no time"),
            ("bigtable://i?is_read_only=maybe", "true or false"),
            ("bigtable://i?colour=red", "\"colour=red\" is unknown"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(reason) && error.contains(text), "{text}: {error}");
        }
    }
}
