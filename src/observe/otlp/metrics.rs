//! The numbers of `--metrics`, to a collector: the same ones under the same names.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::{
    tonic::{
        collector::metrics::v1::{
            ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
        },
        common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
        metrics::v1::{
            AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric as Sent,
            NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
            number_data_point::Value,
        },
        resource::v1::Resource as SentResource,
    },
    transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::Resource;
use tokio::time::{MissedTickBehavior, interval_at};
use tonic::{Request, Status, metadata::MetadataMap, transport::Channel};

use super::{Error, collector::Collector, health::Health};
use crate::observe::{
    BOUNDS, Kind, Metric, Scrape, Snapshot,
    scrape::{metrics_of_role, scrape},
};

/// Sends metrics. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: MetricsServiceClient<Channel>,
    headers: MetadataMap,
    resource: SentResource,
    began: SystemTime,
    health: Health,
}

impl Metrics {
    /// To `collector`. Needs the context of a tokio runtime.
    pub(super) fn open(collector: &Collector, resource: &Resource) -> Result<Self, Error> {
        Ok(Metrics(Arc::new(Inner {
            client: MetricsServiceClient::new(collector.connect()?),
            headers: MetadataMap::from_headers(collector.headers.clone()),
            resource: SentResource {
                attributes: ResourceAttributesWithSchema::from(resource).attributes.0,
                ..Default::default()
            },
            began: SystemTime::now(),
            health: Health::new("metrics"),
        })))
    }

    /// Sends them again and again.
    pub(super) async fn run(self, every: Duration) {
        let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.send().await;
        }
    }

    /// Sends them once.
    pub(super) async fn send(&self) {
        let Inner { client, headers, resource, began, health } = &*self.0;
        let told = ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "lazystore".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..Default::default()
                }),
                metrics: metrics(&scrape(), *began, SystemTime::now()),
                ..Default::default()
            }],
            ..Default::default()
        };
        let message = ExportMetricsServiceRequest { resource_metrics: vec![told] };
        let mut request = Request::new(message);
        *request.metadata_mut() = headers.clone();
        let outcome: Result<(), Status> = client.clone().export(request).await.map(drop);
        health.note(&outcome);
    }
}

/// What is sent of each metric that has numbers.
fn metrics(scrape: &Scrape, began: SystemTime, now: SystemTime) -> Vec<Sent> {
    let times = Times { began: nanos(began), now: nanos(now) };
    let sent = metrics_of_role().filter_map(|metric| times.metric(scrape, metric));
    sent.collect()
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// From when to when is counted.
struct Times {
    began: u64,
    now: u64,
}

impl Times {
    fn metric(&self, scrape: &Scrape, metric: &'static Metric) -> Option<Sent> {
        let numbers =
            || scrape.numbers_of(metric).map(|(labels, value)| self.number(metric, labels, value));
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let data = match metric.kind {
            Kind::Gauge => Data::Gauge(Gauge { data_points: numbers().collect() }),
            Kind::Counter => Data::Sum(Sum {
                data_points: numbers().collect(),
                aggregation_temporality,
                is_monotonic: true,
            }),
            Kind::Histogram => Data::Histogram(Histogram {
                data_points: scrape
                    .durations_of(metric)
                    .map(|(labels, value)| self.durations(metric, labels, value))
                    .collect(),
                aggregation_temporality,
            }),
        };
        let is_empty = match &data {
            Data::Gauge(gauge) => gauge.data_points.is_empty(),
            Data::Sum(sum) => sum.data_points.is_empty(),
            Data::Histogram(histogram) => histogram.data_points.is_empty(),
            Data::ExponentialHistogram(_) | Data::Summary(_) => true,
        };
        (!is_empty).then(|| Sent {
            name: metric.name.to_owned(),
            description: metric.help.to_owned(),
            unit: unit(metric.name).to_owned(),
            data: Some(data),
            ..Default::default()
        })
    }

    fn number(&self, metric: &Metric, labels: &[String], value: f64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(metric, labels),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            value: Some(Value::AsDouble(value)),
            ..Default::default()
        }
    }

    fn durations(
        &self,
        metric: &Metric,
        labels: &[String],
        value: &Snapshot,
    ) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes: attributes(metric, labels),
            start_time_unix_nano: self.began,
            time_unix_nano: self.now,
            count: value.count(),
            sum: Some(value.seconds()),
            bucket_counts: value.places().to_vec(),
            explicit_bounds: BOUNDS.iter().map(|(_, nanos)| *nanos as f64 / 1e9).collect(),
            ..Default::default()
        }
    }
}

fn attributes(metric: &Metric, labels: &[String]) -> Vec<KeyValue> {
    let pairs = metric.labels.iter().zip(labels);
    let attribute = |(key, value): (&&str, &String)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.clone())) }),
        ..Default::default()
    };
    pairs.map(attribute).collect()
}

/// The unit that a name ends in, as the Unified Code for Units of Measure writes it.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe;

    static DURATIONS: Metric = Metric {
        name: "lazystore_test_duration_seconds",
        kind: Kind::Histogram,
        help: "A test.",
        labels: &["operation"],
        roles: &[],
    };

    #[test]
    fn a_histogram_is_sent_with_its_bounds() {
        let histogram = observe::Histogram::new();
        for nanos in [900, 2_000_000, 40_000_000_000] {
            histogram.note(Duration::from_nanos(nanos));
        }
        let mut scrape = Scrape::default();
        scrape.durations(&DURATIONS, &["re\"ad"], &histogram.snapshot());
        let times = Times { began: 1, now: 2 };
        let sent = times.metric(&scrape, &DURATIONS).expect("there is something");
        let Some(Data::Histogram(Histogram { data_points, .. })) = sent.data else {
            panic!("it is a histogram")
        };
        let [point] = &data_points[..] else { panic!("there is one") };
        assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
        let at = |bound: f64| {
            let place = point.explicit_bounds.iter().position(|b| (b - bound).abs() < 1e-12);
            point.bucket_counts[place.expect("a bound")]
        };
        assert_eq!((at(1e-6), at(2.5e-3), point.bucket_counts.last()), (1, 1, Some(&1)));
        assert_eq!((point.count, sent.unit.as_str()), (3, "s"));
        let label = point.attributes[0].value.as_ref().and_then(|value| value.value.as_ref());
        assert_eq!(label, Some(&any_value::Value::StringValue("re\"ad".to_owned())));
    }
}
