//! Metrics made and registered in one step.

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

fn registered<C: Collector + Clone + 'static>(r: &Registry, metric: C) -> Result<C, Error> {
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, Error> {
    registered(r, IntGauge::new(name, help)?)
}

pub(super) fn float(r: &Registry, name: &str, help: &str) -> Result<Gauge, Error> {
    registered(r, Gauge::new(name, help)?)
}

pub(super) fn floats(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
    registered(r, GaugeVec::new(Opts::new(name, help), labels)?)
}

pub(super) fn gauges(r: &Registry, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, Error> {
    registered(r, IntGaugeVec::new(Opts::new(name, help), &[label])?)
}

pub(super) fn counter(r: &Registry, name: &str, help: &str) -> Result<IntCounter, Error> {
    registered(r, IntCounter::new(name, help)?)
}

pub(super) fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, Error> {
    registered(r, IntCounterVec::new(Opts::new(name, help), labels)?)
}

pub(super) fn histogram(r: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, Error> {
    registered(
        r,
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?,
    )
}

pub(super) fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: Vec<f64>,
) -> Result<HistogramVec, Error> {
    registered(
        r,
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?,
    )
}
