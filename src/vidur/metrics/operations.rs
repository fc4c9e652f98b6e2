//! Times of single operators.

use std::collections::BTreeMap;

use super::batches::{BATCH_ID, quantiles};
use super::frame::{Frame, Values};
use super::sketch::Sketch;
use super::{ClusterFacts, MetricsConfig};
use crate::execution_time::PricedOperator;
use crate::number::whole_u64;
use crate::simulator::{Compat, StageFact};

/// Vidur's operators in the order of its files, with the names of the predictor.
/// The two sums over the tensor-parallel ranks are one operator there.
const OPERATORS: [(&str, &str); 15] = [
    ("mlp_up_proj", "mlp_up_proj"),
    ("mlp_activation", "mlp_act"),
    ("mlp_down_proj", "mlp_down_proj"),
    ("mlp_down_proj_all_reduce", ALL_REDUCE),
    ("attn_pre_proj", "attn_pre_proj"),
    ("attn_post_proj", "attn_post_proj"),
    ("attn_post_proj_all_reduce", ALL_REDUCE),
    ("attn_prefill", "attn_prefill"),
    ("attn_kv_cache_save", "attn_kv_cache_save"),
    ("attn_decode", "attn_decode"),
    ("attn_rope", "attn_rope"),
    ("pipeline_send_recv", "send_recv"),
    ("add", ADD),
    ("input_layernorm", "input_layernorm"),
    ("post_attention_layernorm", "post_attention_layernorm"),
];
const ALL_REDUCE: &str = "all_reduce";
const ADD: &str = "add";

/// Host operators, likewise.
const HOST_OPERATORS: [(&str, &str); 6] = [
    ("schedule", "schedule"),
    ("sample_e2e", "sampler_e2e"),
    ("prepare_inputs_e2e", "prepare_inputs_e2e"),
    (MODEL, MODEL),
    ("process_model_outputs", "process_model_outputs"),
    ("ray_comm_time", "ray_comm_time"),
];
/// A whole stage without host work.
pub(super) const MODEL: &str = "model_execution_e2e";

#[derive(Debug)]
pub(super) struct Operations {
    compat: Compat,
    /// Costs by replica.
    pool_of: Vec<usize>,
    kept_per_batch: bool,
    metrics: Vec<Metric>,
    /// Where the metrics of an operator are, by its name in the price.
    places: BTreeMap<String, Vec<usize>>,
}

#[derive(Debug)]
struct Metric {
    name: String,
    host: bool,
    sketch: Sketch,
    /// Batch, sum of its samples, their number; if kept.
    batches: Vec<(u64, f64, f64)>,
}

impl Operations {
    pub(super) fn new(config: &MetricsConfig, facts: &ClusterFacts) -> Self {
        let pools = facts.pools.iter().enumerate();
        let mut operations = Self {
            compat: facts.compat,
            pool_of: pools
                .flat_map(|(index, pool)| (0..pool.replicas).map(move |_| index))
                .collect(),
            kept_per_batch: config.keep_individual_batch_metrics,
            metrics: Vec::new(),
            places: BTreeMap::new(),
        };
        for (name, price) in OPERATORS {
            operations.add_metric(name, price, false);
        }
        for (name, price) in HOST_OPERATORS {
            operations.add_metric(name, price, true);
        }
        operations
    }

    fn add_metric(&mut self, name: &str, price: &str, host: bool) {
        let places = self.places.entry(price.to_owned()).or_default();
        places.push(self.metrics.len());
        self.metrics.push(Metric {
            name: name.to_owned(),
            host,
            sketch: Sketch::new(),
            batches: Vec::new(),
        });
    }

    pub(super) fn stage_started(&mut self, fact: &StageFact<'_>, facts: &ClusterFacts) {
        let pool = &facts.pools[self.pool_of[fact.replica as usize]];
        let operators = pool.cost.explain_stage(fact.stage, fact.shape);
        match self.compat {
            Compat::None => self.put_operators(fact.batch_id, &operators),
            _ => self.put_as_vidur(fact.batch_id, &operators),
        }
        let model = self.places[MODEL][0];
        self.put(model, fact.batch_id, fact.time.model_s * 1e3, 1.0);
    }

    /// One sample for every run of every operator.
    fn put_operators(&mut self, batch_id: u64, operators: &[PricedOperator]) {
        for operator in operators {
            if !self.places.contains_key(&operator.name) {
                self.add_metric(&operator.name, &operator.name, false);
            }
            let places = self.places[&operator.name].clone();
            let count = operator.count / places.len() as f64;
            let time_ms = operator.time_s * 1e3 / operator.count;
            for place in places {
                self.put(place, batch_id, time_ms, count);
            }
        }
    }

    /// One sample a layer of everything, 0 where there is no such operator, and
    /// the residual addition twice as long as it takes.
    fn put_as_vidur(&mut self, batch_id: u64, operators: &[PricedOperator]) {
        let find = |name: &str| operators.iter().find(|operator| operator.name == name);
        let layers = find("attn_pre_proj").map_or(0.0, |operator| operator.count);
        for (place, (_, name)) in OPERATORS.iter().chain(&HOST_OPERATORS).enumerate() {
            let time_ms = find(name).map_or(0.0, |priced| priced.time_s * 1e3 / priced.count);
            let (value, count) = match *name {
                MODEL => continue,
                "attn_prefill" | "attn_decode" if time_ms == 0.0 => continue,
                "send_recv" => (time_ms, 1.0),
                _ if place >= OPERATORS.len() => (time_ms, 1.0),
                ADD => (time_ms * 2.0, layers),
                _ => (time_ms, layers),
            };
            self.put(place, batch_id, value, count);
        }
    }

    fn put(&mut self, place: usize, batch_id: u64, time_ms: f64, count: f64) {
        let metric = &mut self.metrics[place];
        metric.sketch.insert(time_ms, whole_u64(count.round()));
        if self.kept_per_batch {
            metric.batches.push((batch_id, time_ms * count, count));
        }
    }

    /// Quantiles of every operator's time.
    pub(super) fn distributions(&self) -> Vec<(String, Frame)> {
        let sampled = self.metrics.iter().filter(|m| !m.sketch.is_empty());
        sampled
            .map(|metric| {
                let frame = quantiles(&metric.name, &metric.sketch, self.compat);
                (format!("{}_execution_time", metric.name), frame)
            })
            .collect()
    }

    /// Total time of every operator, ms.
    pub(super) fn totals(&self) -> Vec<(String, f64)> {
        let total = |metric: &Metric| (metric.name.clone(), metric.sketch.sum());
        self.metrics.iter().map(total).collect()
    }

    /// Mean time by batch, by number, of every operator that ran.
    pub(super) fn per_batch(&self) -> Vec<(String, Frame)> {
        let means = self.metrics.iter().map(|m| (m, m.means()));
        means
            .filter(|(_, means)| !means.is_empty())
            .map(|(metric, means)| {
                let (ids, values): (Vec<u64>, Vec<f64>) = means.into_iter().unzip();
                let frame = Frame {
                    index: Some((0..ids.len() as u64).collect()),
                    columns: vec![
                        (BATCH_ID.to_owned(), Values::Ints(ids)),
                        (metric.name.clone(), Values::Floats(values)),
                    ],
                };
                (format!("{}_per_batch", metric.name), frame)
            })
            .collect()
    }

    /// `operation_metrics.csv`, or `cpu_operation_metrics.csv`.
    pub(super) fn table(&self, host: bool) -> Frame {
        let metrics: Vec<&Metric> = self.metrics.iter().filter(|m| m.host == host).collect();
        let mut ids: Vec<u64> = (metrics.iter())
            .flat_map(|metric| metric.batches.iter().map(|(id, ..)| *id))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let mut columns = vec![(BATCH_ID.to_owned(), Values::Ints(ids.clone()))];
        for metric in metrics {
            let mut values = vec![f64::NAN; ids.len()];
            let mut row = 0;
            for (id, mean) in metric.means() {
                while ids[row] < id {
                    row += 1;
                }
                values[row] = mean;
            }
            columns.push((metric.name.clone(), Values::Floats(values)));
        }
        Frame {
            index: None,
            columns,
        }
    }
}

impl Metric {
    /// Batches by number with the mean of their samples.
    fn means(&self) -> Vec<(u64, f64)> {
        let mut batches = self.batches.clone();
        batches.sort_by_key(|(id, ..)| *id);
        batches.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                first.1 += next.1;
                first.2 += next.2;
            }
            same
        });
        (batches.into_iter())
            .map(|(id, sum, count)| (id, sum / count))
            .collect()
    }
}
