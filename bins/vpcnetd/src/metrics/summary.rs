//! Summaries without quantiles, which the `prometheus` crate does not make: a sum and a count for each set of labels. The AWS VPC
//! CNI has one, and dashboards divide its `_sum` by its `_count`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType, Summary};
use prometheus::{Error, Registry};

use crate::logging::lock;

/// A family of summaries. Cheap to clone.
#[derive(Clone)]
pub struct Summaries(Arc<Inner>);

struct Inner {
    desc: Desc,
    sums: Mutex<BTreeMap<Vec<String>, Sum>>,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: u64,
    sum: f64,
}

impl Summaries {
    /// Makes and registers it.
    ///
    /// # Errors
    /// A malformed or taken name.
    pub(super) fn new(r: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<Self, Error> {
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        let made = Self(Arc::new(Inner {
            desc: Desc::new(name.to_owned(), help.to_owned(), labels, HashMap::new())?,
            sums: Mutex::default(),
        }));
        r.register(Box::new(made.clone()))?;
        Ok(made)
    }

    /// Notes one value. As many label values as there are labels, in their order; those that are too many are not shown.
    pub fn observe(&self, labels: &[&str], value: f64) {
        let labels = labels.iter().map(|l| (*l).to_owned()).collect();
        let mut sums = lock(&self.0.sums);
        let sum = sums.entry(labels).or_default();
        sum.count = sum.count.saturating_add(1);
        sum.sum += value;
    }
}

impl Collector for Summaries {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let desc = &self.0.desc;
        let sums = lock(&self.0.sums);
        let metrics = sums.iter().map(|(values, sum)| {
            let pair = |(name, value): (&String, &String)| {
                let mut pair = LabelPair::default();
                pair.set_name(name.clone());
                pair.set_value(value.clone());
                pair
            };
            let labels = desc.variable_labels.iter().zip(values).map(pair).collect();
            let mut summary = Summary::default();
            summary.set_sample_count(sum.count);
            summary.set_sample_sum(sum.sum);
            let mut metric = Metric::from_label(labels);
            metric.set_summary(summary);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.collect());
        vec![family]
    }
}
