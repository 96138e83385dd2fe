//! Sources: addresses, with their options as keys.

use std::{fmt::Write as _, sync::Arc};

use super::{
    Config, ConfigError, Settings,
    tables::{SourceTable, VerifyWord},
};
use crate::{
    compose::{Address, SourcePlan},
    service::blob::layer::Verify,
};

/// The source of this name, which is there.
pub(super) fn source(
    config: &Config,
    settings: &Settings,
    name: &str,
) -> Result<Arc<SourcePlan>, ConfigError> {
    let table = config.tables.source[name].as_ref();
    let address = address(config, name, table)?;
    let verify = match (settings.is_strict, table.verify) {
        (true, _) | (false, Some(VerifyWord::Strict)) => Some(Verify::Strict),
        (false, Some(VerifyWord::Source)) => Some(Verify::Source),
        (false, None) => None,
    };
    Ok(Arc::new(SourcePlan { name: name.to_owned(), address, verify }))
}

/// The address with its options behind it. Whichever of them is the first to make it wrong is what errors point at.
fn address(config: &Config, name: &str, table: &SourceTable) -> Result<Address, ConfigError> {
    let mut texts = table.address.as_ref().words().to_vec();
    let whole = |texts: &[String]| texts.join(" ").parse::<Address>();
    let given = || {
        let words = texts.iter().flat_map(|text| text.split_whitespace());
        let queries = words.filter_map(|word| word.split_once('?'));
        queries.flat_map(|(_, query)| query.split('&')).map(|o| o.split('=').next().unwrap_or(o))
    };
    let options = table.address_options();
    if let Some((twice, _, span)) = options.iter().find(|(name, ..)| given().any(|g| g == *name)) {
        let message =
            format!("{twice} stands in the address of source {name} as well: leave out one");
        return Err(config.at(span, message));
    }
    // Binary caches are believed nothing without keys, so the address alone may lack something: it is only parsed here.
    let mut parsed =
        whole(&texts).map_err(|error| config.at(&table.address.span(), error.to_string()))?;
    for (option, value, span) in options {
        for text in &mut texts {
            *text = text
                .split_whitespace()
                .map(|one| with_option(one, option, &value))
                .collect::<Vec<_>>()
                .join(" ");
        }
        parsed = whole(&texts).map_err(|error| {
            config.at(&span, format!("{option} of source {name}: {}", error.reason))
        })?;
    }
    Ok(parsed)
}

fn with_option(address: &str, option: &str, value: &str) -> String {
    let mut text = address.to_owned();
    text.push(if address.contains('?') { '&' } else { '?' });
    text.push_str(option);
    text.push('=');
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'/'
            | b':'
            | b'='
            | b'+'
            | b',' => text.push(byte.into()),
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}
