//! What the environment says of spans. The SDK reads it, and takes what it does not understand for nothing said, so that a
//! word with a typing error would have every request recorded; and a queue may have any length.

use std::time::Duration;

use super::{Error, settings::milliseconds};

/// The longest queue: some 50 MB of spans.
const QUEUE_LEN_MAX: usize = 1 << 16;

/// The longest time that spans wait, and that sending them takes.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

const SAMPLERS: [&str; 3] = ["always_on", "always_off", "traceidratio"];

/// An error if the SDK would not understand what is said.
pub(super) fn check(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<(), Error> {
    for name in ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT"] {
        milliseconds(variable, &[name], Duration::from_millis(1)..=TIME_MAX)?;
    }
    for name in ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"] {
        let Some(value) = variable(name) else { continue };
        let is_legal = value.parse().is_ok_and(|len| (1..=QUEUE_LEN_MAX).contains(&len));
        if !is_legal {
            return Err(Error::Spans { variable: name, value, max: QUEUE_LEN_MAX });
        }
    }
    let Some(sampler) = variable("OTEL_TRACES_SAMPLER") else { return Ok(()) };
    let kind = sampler.strip_prefix("parentbased_").unwrap_or(&sampler);
    if !SAMPLERS.contains(&kind) {
        return Err(Error::Sampler(sampler));
    }
    match variable("OTEL_TRACES_SAMPLER_ARG") {
        Some(part) if kind == "traceidratio" => match part.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
            _ => Err(Error::SamplerArgument(part)),
        },
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(variables: &[(&str, &str)]) -> Result<(), String> {
        let variable = |name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        check(&variable).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_sdk_understands_is_legal() {
        for variables in [
            vec![],
            vec![("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_TRACES_SAMPLER_ARG", "x")],
            vec![
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
            ],
            vec![("OTEL_TRACES_SAMPLER", "traceidratio")],
            vec![("OTEL_BSP_MAX_QUEUE_SIZE", "65536"), ("OTEL_BSP_SCHEDULE_DELAY", "1")],
        ] {
            assert_eq!(checked(&variables), Ok(()), "{variables:?}");
        }
    }

    #[test]
    fn anything_else_is_named() {
        for (variables, expected) in [
            (
                vec![("OTEL_TRACES_SAMPLER", "traceIdRatio")],
                "OTEL_TRACES_SAMPLER is \"traceIdRatio\"",
            ),
            (vec![("OTEL_TRACES_SAMPLER", "jaeger_remote")], "expected always_on"),
            (
                vec![("OTEL_TRACES_SAMPLER", "parentbased_parentbased_always_on")],
                "expected always_on",
            ),
            (
                vec![("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "1%")],
                "OTEL_TRACES_SAMPLER_ARG is \"1%\"",
            ),
            (
                vec![("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "NaN")],
                "from 0 to 1",
            ),
            (vec![("OTEL_BSP_MAX_QUEUE_SIZE", "999999999999")], "from 1 to 65536"),
            (vec![("OTEL_BSP_MAX_QUEUE_SIZE", "0")], "OTEL_BSP_MAX_QUEUE_SIZE"),
            (vec![("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1")], "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
            (vec![("OTEL_BSP_SCHEDULE_DELAY", "5s")], "OTEL_BSP_SCHEDULE_DELAY"),
        ] {
            let error = checked(&variables).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
