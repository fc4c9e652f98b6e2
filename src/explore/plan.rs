//! A sweep as a numbered list of runs that is never written down.
//!
//! Run `i` is computed from `i`: grid search reads it as a mixed-radix number
//! (last axis fastest, replications faster still), random search sends it
//! through a seeded permutation of the grid first, list search takes a row.
//! A plan of a hundred thousand million points costs what its axes cost.
//!
//! Numbers are positions in the space before constraints, so they stay what
//! they are whichever runs are excluded, completed before, or done elsewhere.
//! An excluded number yields no row; it is counted. Random search is different
//! in one respect: whoever asks for 500 samples wants 500 that satisfy the
//! constraints, so points that violate them are passed over while drawing, and
//! the ones drawn are remembered (8 bytes each).

use serde_json::{Map, Value};

use super::columns::SharedColumns;
use super::executor::{Task, Tasks};
use crate::number::narrow;
use crate::permutation::Permutation;
use crate::results::{AxisColumn, ColumnRole, ColumnType, REPLICATION_COLUMN};
use crate::spec::{Constraint, RunConfig, SearchConfig, SweepSpec};

/// Stream of the sweep seed that random search draws from.
const SAMPLING_STREAM: u64 = 0x0073_616d_706c_6573;

/// Draws after which random search settles for the samples it has found: so
/// many, or so many per sample asked for, whichever is more.
const DRAWS_LIMIT: u64 = 100_000;
const DRAWS_PER_SAMPLE_LIMIT: u64 = 100;

/// A sweep as runs by number.
#[derive(Debug, Clone)]
pub struct Plan {
    spec: SweepSpec,
    /// Names of the axes.
    axes: Vec<String>,
    /// Columns of the result tables that tell runs apart.
    axis_columns: Vec<AxisColumn>,
    /// These, those of labels before them, and those of what runs share after them.
    columns: Vec<AxisColumn>,
    shared: SharedColumns,
    /// What a row of a list has where a cell is empty: as in `base`.
    in_base: Vec<Value>,
    constraints: Vec<Constraint>,
    points: Points,
}

/// Where the points of a plan come from.
#[derive(Debug, Clone)]
enum Points {
    /// All points of the grid.
    Grid(Grid),
    /// The first `samples` points in a seeded order.
    Random {
        grid: Grid,
        order: Permutation,
        samples: Samples,
    },
    /// Rows of a file, of which a cell may be left empty.
    List(Vec<Vec<Option<Value>>>),
}

/// Which positions of the seeded order are samples.
#[derive(Debug, Clone)]
enum Samples {
    /// The first so many: there is nothing they could violate.
    First(u64),
    /// These: the first that satisfy the constraints.
    Satisfying {
        positions: Vec<u64>,
        passed_over: u64,
    },
}

/// A value for every axis; none: as in `base`.
type Point<'a> = Vec<Option<&'a Value>>;

/// The point of a row.
fn point_of(row: &[Option<Value>]) -> Point<'_> {
    row.iter().map(Option::as_ref).collect()
}

/// The cross product of some axes.
#[derive(Debug, Clone)]
struct Grid {
    axes: Vec<Vec<Value>>,
    len: u64,
}

impl Grid {
    /// The cross product of `axes`; none if it has more than 2^63 points.
    fn new(axes: Vec<Vec<Value>>) -> Option<Self> {
        let len = axes
            .iter()
            .try_fold(1u64, |product, axis| product.checked_mul(axis.len() as u64))
            .filter(|&len| len <= i64::MAX as u64)?;
        Some(Self { axes, len })
    }

    /// The values of point `index`, in the order of the axes; last axis fastest.
    fn point(&self, index: u64) -> Point<'_> {
        let mut rest = index;
        let mut values: Point<'_> = self
            .axes
            .iter()
            .rev()
            .map(|axis| {
                let digit = rest % axis.len() as u64;
                rest /= axis.len() as u64;
                Some(&axis[narrow::<usize, _>(digit)])
            })
            .collect();
        values.reverse();
        values
    }

    /// Points that together have every value of every axis.
    fn representatives(&self) -> Vec<Point<'_>> {
        if self.len == 0 {
            return Vec::new();
        }
        let first = self.point(0);
        let mut points = vec![first.clone()];
        for (axis, values) in self.axes.iter().enumerate() {
            for value in &values[1..] {
                let mut point = first.clone();
                point[axis] = Some(value);
                points.push(point);
            }
        }
        points
    }
}

impl Plan {
    /// The runs of `spec`. Fails on spaces that are too large.
    pub fn new(spec: SweepSpec) -> Result<Self, String> {
        spec.check_size().map_err(|(_, message)| message)?;
        let (axes, points) = match &spec.search {
            SearchConfig::Grid | SearchConfig::Capacity { .. } => {
                (axis_names(&spec), Points::Grid(grid(&spec)?))
            }
            SearchConfig::Random { samples } => {
                let grid = grid(&spec)?;
                let order = Permutation::new(grid.len, spec.seed, SAMPLING_STREAM);
                let samples = Samples::First(grid.len.min(*samples));
                let points = Points::Random {
                    grid,
                    order,
                    samples,
                };
                (axis_names(&spec), points)
            }
            SearchConfig::List { .. } => list(&spec)?,
        };
        let constraints = spec
            .constraints
            .iter()
            .map(|text| Constraint::parse(text))
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let in_base: Vec<Value> = axes.iter().map(|axis| value_in(&spec.base, axis)).collect();
        let axis_columns = axis_columns(&axes, &points, &in_base, spec.replications);
        let shared = SharedColumns::new(&spec, &axes);
        let labels = spec.points.iter().flat_map(|points| &points.label_columns);
        let labels = labels.map(|name| AxisColumn {
            name: name.clone(),
            column_type: ColumnType::Text,
            role: ColumnRole::Label,
        });
        let columns = labels
            .chain(axis_columns.iter().cloned())
            .chain(shared.columns())
            .collect();
        let mut plan = Self {
            spec,
            axes,
            axis_columns,
            columns,
            shared,
            in_base,
            constraints,
            points,
        };
        plan.draw_satisfying_samples();
        Ok(plan)
    }

    /// Names of the axes.
    pub fn axes(&self) -> &[String] {
        &self.axes
    }

    /// Columns of the result tables that tell runs apart: the axes, and the
    /// replication if there are several.
    pub fn axis_columns(&self) -> &[AxisColumn] {
        &self.axis_columns
    }

    /// All columns of the result tables that say what a run is of: labels of a list, the
    /// axes, and what runs have in common.
    pub fn columns(&self) -> &[AxisColumn] {
        &self.columns
    }

    /// Runs, excluded ones included: one more than the last index.
    pub fn num_runs(&self) -> u64 {
        self.num_points() * self.replications()
    }

    /// Values of [`Self::axis_columns`] for a run.
    fn row_values(&self, point: &Point<'_>, replication: u32) -> Vec<Value> {
        let values = point.iter().zip(&self.in_base);
        let values = values.map(|(value, in_base)| value.unwrap_or(in_base).clone());
        let replication = (self.axis_columns.len() > point.len()).then(|| replication.into());
        values.chain(replication).collect()
    }

    /// Values of [`Self::columns`] for run `index`.
    fn column_values(
        &self,
        index: u64,
        point: &Point<'_>,
        replication: u32,
        config: Option<&RunConfig>,
    ) -> Vec<Value> {
        let row = narrow::<usize, _>(index / self.replications());
        let labels = self
            .spec
            .points
            .iter()
            .flat_map(|points| points.labels(row));
        let labels = labels.map(|label| Value::from(label.as_str()));
        labels
            .chain(self.row_values(point, replication))
            .chain(self.shared.values(config))
            .collect()
    }

    /// The sweep this plan is of.
    pub fn spec(&self) -> &SweepSpec {
        &self.spec
    }

    /// Points before constraints, replications not counted.
    pub fn num_points(&self) -> u64 {
        match &self.points {
            Points::Grid(grid) => grid.len,
            Points::Random { samples, .. } => samples.len(),
            Points::List(rows) => rows.len() as u64,
        }
    }

    /// Points that random search passed over because constraints exclude them.
    pub fn passed_over(&self) -> u64 {
        match &self.points {
            Points::Random {
                samples: Samples::Satisfying { passed_over, .. },
                ..
            } => *passed_over,
            _ => 0,
        }
    }

    /// The point and the replication of run `index`, which must be below the length.
    fn point(&self, index: u64) -> (Point<'_>, u32) {
        let (point, replication) = (index / self.replications(), index % self.replications());
        let point = match &self.points {
            Points::Grid(grid) => grid.point(point),
            Points::Random {
                grid,
                order,
                samples,
            } => grid.point(order.at(samples.position(point))),
            Points::List(rows) => point_of(&rows[narrow::<usize, _>(point)]),
        };
        (point, narrow::<u32, _>(replication))
    }

    /// The configuration of run `index`, whether or not constraints exclude it.
    pub fn config(&self, index: u64) -> Result<RunConfig, String> {
        let (point, replication) = self.point(index);
        self.config_of(&point, replication)
    }

    fn replications(&self) -> u64 {
        u64::from(self.spec.replications)
    }

    fn config_of(&self, point: &Point<'_>, replication: u32) -> Result<RunConfig, String> {
        let set = self.axes.iter().zip(point);
        let settings: Vec<_> = set
            .filter_map(|(axis, value)| Some((axis.as_str(), (*value)?)))
            .collect();
        let mut config = self
            .spec
            .config_with(&settings)
            .map_err(|error| error.message)?;
        config.replication = replication;
        Ok(config)
    }

    /// Whether a constraint excludes `config`. An error names the constraint that
    /// cannot be decided.
    fn is_excluded(&self, config: &RunConfig) -> Result<bool, String> {
        for constraint in &self.constraints {
            match constraint.holds(config) {
                Ok(true) => {}
                Ok(false) => return Ok(true),
                Err(why) => return Err(format!("constraint `{}`: {why}", constraint.text())),
            }
        }
        Ok(false)
    }

    /// The configuration to run at `point`; none if constraints exclude it.
    fn admitted(&self, point: &Point<'_>, replication: u32) -> Result<Option<RunConfig>, String> {
        let config = self.config_of(point, replication)?;
        let excluded = self.is_excluded(&config)?;
        Ok((!excluded).then_some(config))
    }

    /// Configurations that together have every value of every axis: of a grid,
    /// each value with the others at their first; of a list, every row.
    pub fn representatives(&self) -> impl Iterator<Item = Result<RunConfig, String>> {
        let points: Vec<Point<'_>> = match &self.points {
            Points::List(rows) => rows.iter().map(|row| point_of(row)).collect(),
            Points::Grid(grid) | Points::Random { grid, .. } => grid.representatives(),
        };
        points.into_iter().map(|point| self.config_of(&point, 0))
    }

    /// Replaces "the first so many" samples by the first so many that satisfy
    /// the constraints, if there are constraints.
    fn draw_satisfying_samples(&mut self) {
        let Points::Random {
            grid,
            order,
            samples: Samples::First(wanted),
        } = &self.points
        else {
            return;
        };
        if self.spec.constraints.is_empty() {
            return;
        }
        let per_sample = wanted.saturating_mul(DRAWS_PER_SAMPLE_LIMIT);
        let draws_limit = per_sample.max(DRAWS_LIMIT).min(grid.len);
        let (mut positions, mut passed_over) = (Vec::new(), 0);
        for position in 0..draws_limit {
            if positions.len() as u64 == *wanted {
                break;
            }
            match self.admitted(&grid.point(order.at(position)), 0) {
                Ok(None) => passed_over += 1,
                // What is not understood is reported when its turn comes.
                Ok(Some(_)) | Err(_) => positions.push(position),
            }
        }
        let drawn = Samples::Satisfying {
            positions,
            passed_over,
        };
        if let Points::Random { samples, .. } = &mut self.points {
            *samples = drawn;
        }
    }
}

impl Samples {
    fn len(&self) -> u64 {
        match self {
            Self::First(samples) => *samples,
            Self::Satisfying { positions, .. } => positions.len() as u64,
        }
    }

    /// Position of sample `number` in the seeded order.
    fn position(&self, number: u64) -> u64 {
        match self {
            Self::First(_) => number,
            Self::Satisfying { positions, .. } => positions[narrow::<usize, _>(number)],
        }
    }
}

impl Tasks for Plan {
    fn len(&self) -> u64 {
        self.num_runs()
    }

    fn task(&self, index: u64) -> Task {
        let (point, replication) = self.point(index);
        match self.admitted(&point, replication) {
            Ok(None) => Task::Excluded,
            Ok(Some(config)) => Task::Run {
                axes: self.column_values(index, &point, replication, Some(&config)),
                config: Box::new(config),
            },
            Err(reason) => Task::Invalid {
                reason,
                axes: self.column_values(index, &point, replication, None),
            },
        }
    }
}

/// Typed by what each axis can be.
fn axis_columns(
    axes: &[String],
    points: &Points,
    in_base: &[Value],
    replications: u32,
) -> Vec<AxisColumn> {
    let column = |(axis, name): (usize, &String)| match points {
        Points::Grid(grid) | Points::Random { grid, .. } => {
            AxisColumn::infer(name, &grid.axes[axis])
        }
        Points::List(rows) => {
            let cells = rows
                .iter()
                .map(|row| row[axis].as_ref().unwrap_or(&in_base[axis]));
            AxisColumn::infer(name, cells)
        }
    };
    let mut columns: Vec<AxisColumn> = axes.iter().enumerate().map(column).collect();
    if replications > 1 {
        columns.push(AxisColumn {
            name: REPLICATION_COLUMN.to_owned(),
            column_type: ColumnType::Int,
            role: ColumnRole::Axis,
        });
    }
    columns
}

/// The value at a dotted key of `base`; null where there is none.
fn value_in(base: &Map<String, Value>, key: &str) -> Value {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let found = base.get(first);
    let keys = rest.split('.').filter(|key| !key.is_empty());
    let found = keys.fold(found, |value, key| value?.get(key));
    found.cloned().unwrap_or_default()
}

fn axis_names(spec: &SweepSpec) -> Vec<String> {
    spec.axes.keys().cloned().collect()
}

fn grid(spec: &SweepSpec) -> Result<Grid, String> {
    let axes = spec.axis_values().map(|(_, values)| values.to_vec());
    // Loading a specification says so in more detail.
    Grid::new(axes.collect()).ok_or_else(|| "the axes span too many points".to_owned())
}

/// The columns and rows of the list that was read with the specification.
fn list(spec: &SweepSpec) -> Result<(Vec<String>, Points), String> {
    let points = spec
        .points
        .as_ref()
        .ok_or("the list of points was not read")?;
    let rows = (0..points.len()).map(|index| points.cells(index).to_vec());
    let rows = rows.collect();
    Ok((points.columns.clone(), Points::List(rows)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn spec(search: Value, constraints: &[&str]) -> SweepSpec {
        serde_json::from_value(json!({
            "name": "test",
            "seed": 3,
            "base": {
                "model": "m", "device": "d",
                "workload": {
                    "lengths": {"type": "fixed", "prefill_tokens": 10, "decode_tokens": 5},
                    "arrivals": {"type": "poisson"},
                },
            },
            "axes": {
                "tensor_parallel": [1, 2, 4],
                "qps": [0.5, 1.0],
                "workload.lengths.prefill_tokens": [16, 32, 64, 128],
                "replicas": [1, 2, 3, 4, 5],
            },
            "search": search,
            "constraints": constraints,
            "replications": 2,
        }))
        .expect("a sweep")
    }

    fn plan(search: Value, constraints: &[&str]) -> Plan {
        Plan::new(spec(search, constraints)).expect("a plan")
    }

    fn grid_plan() -> Plan {
        plan(json!({"type": "grid"}), &[])
    }

    #[test]
    fn grid_counts_with_the_last_axis_fastest_and_replications_faster_still() {
        let plan = grid_plan();
        assert_eq!(plan.num_points(), 3 * 2 * 4 * 5);
        assert_eq!(plan.len(), 240);
        let at = |index| {
            let (point, replication) = plan.point(index);
            plan.row_values(&point, replication)
        };
        assert_eq!(at(0), [json!(1), json!(0.5), json!(16), json!(1), json!(0)]);
        assert_eq!(at(1), [json!(1), json!(0.5), json!(16), json!(1), json!(1)]);
        assert_eq!(at(2), [json!(1), json!(0.5), json!(16), json!(2), json!(0)]);
        assert_eq!(
            at(10),
            [json!(1), json!(0.5), json!(32), json!(1), json!(0)]
        );
        assert_eq!(
            at(239),
            [json!(4), json!(1.0), json!(128), json!(5), json!(1)]
        );
        let columns: Vec<_> = plan
            .axis_columns()
            .iter()
            .map(|c| c.name.as_str())
            .collect();
        assert_eq!(
            columns[2..],
            ["workload.lengths.prefill_tokens", "replicas", "replication"]
        );
    }

    #[test]
    fn a_configuration_has_its_axis_values_the_seed_and_the_replication() {
        let config = grid_plan().config(239).expect("a configuration");
        assert_eq!(config.tensor_parallel, 4);
        assert_eq!(config.replicas, 5);
        assert_eq!(config.qps, Some(1.0));
        assert_eq!((config.seed, config.replication), (3, 1));
        let lengths = serde_json::to_value(&config.workload.lengths).expect("JSON");
        assert_eq!(lengths["prefill_tokens"], 128);
        assert_eq!(lengths["decode_tokens"], 5);
    }

    fn points(plan: &Plan) -> Vec<String> {
        (0..plan.len())
            .step_by(2)
            .map(|index| format!("{:?}", plan.point(index).0))
            .collect()
    }

    #[test]
    fn random_search_draws_without_repetition_and_repeats_itself() {
        let draw = |seed, samples| {
            let search = json!({"type": "random", "samples": samples});
            let spec = SweepSpec {
                seed,
                ..spec(search, &[])
            };
            points(&Plan::new(spec).expect("a plan"))
        };
        let some = draw(3, 50);
        assert_eq!(some.len(), 50);
        assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), 50);
        assert_eq!(some, draw(3, 50));
        assert_ne!(some, draw(4, 50));
        assert_eq!(
            some[..20],
            draw(3, 20),
            "more samples keep the earlier ones"
        );
        let all: BTreeSet<String> = draw(3, 1000).into_iter().collect();
        assert_eq!(all, points(&grid_plan()).into_iter().collect());
    }

    #[test]
    fn constraints_exclude_numbers_without_moving_the_others() {
        let constrained = plan(json!({"type": "grid"}), &["total_gpus <= 8"]);
        let free = grid_plan();
        assert_eq!(constrained.len(), free.len());
        let mut excluded = 0;
        for index in 0..free.len() {
            let config = free.config(index).expect("a configuration");
            let total_gpus = config.tensor_parallel * config.replicas;
            match constrained.task(index) {
                Task::Excluded => {
                    excluded += 1;
                    assert!(total_gpus > 8);
                }
                Task::Run { config: same, .. } => {
                    assert!(total_gpus <= 8);
                    assert_eq!(*same, config);
                }
                Task::Invalid { reason, .. } => panic!("{reason}"),
            }
        }
        // Of each 15 (tensor_parallel, replicas): 2x5, 4x3, 4x4, 4x5.
        assert_eq!(excluded, 4 * 2 * 4 * 2);
    }

    #[test]
    fn random_search_passes_over_what_constraints_exclude() {
        let search = json!({"type": "random", "samples": 70});
        let plan = plan(search, &["total_gpus <= 8"]);
        assert_eq!(plan.num_points(), 70);
        assert!(plan.passed_over() > 0);
        for index in 0..plan.len() {
            assert!(matches!(plan.task(index), Task::Run { .. }));
        }
    }

    #[test]
    fn random_search_settles_for_what_there_is() {
        let search = json!({"type": "random", "samples": 1000});
        let plan = plan(search, &["total_gpus <= 8"]);
        assert_eq!(plan.num_points(), 120 - 32);
        assert_eq!(plan.passed_over(), 32);
    }

    fn huge(axes: usize, search: Value) -> Result<Plan, String> {
        let values: Vec<u32> = (1..=1000).collect();
        let names = ["tensor_parallel", "pipeline_parallel", "replicas", "qps"];
        let more = ["workload.requests", "expert_parallel", "gpus_per_node"];
        let mut spec = spec(search, &[]);
        spec.axes = names
            .iter()
            .chain(&more)
            .take(axes)
            .map(|name| ((*name).to_owned(), json!(values)))
            .collect();
        Plan::new(spec)
    }

    #[test]
    fn spaces_of_any_size_cost_nothing() {
        let random = json!({"type": "random", "samples": 10_000_000});
        for (axes, search) in [(3, json!({"type": "grid"})), (4, random)] {
            let start = Instant::now();
            let plan = huge(axes, search).expect("a plan");
            let config = plan.config(plan.len() - 1).expect("a configuration");
            assert!(config.tensor_parallel <= 1000);
            assert!(start.elapsed().as_millis() < 500);
        }
        let error = huge(4, json!({"type": "grid"})).expect_err("too large");
        assert_eq!(
            error,
            "key `axes`: the axes span 1000 x 1000 x 1000 x 1000 points, 2000000000000 runs with 2 \
             replications of each; allowed are at most 100000000000 runs; `search: {type: random, \
             samples: N}` draws N of the points"
        );
        let error = huge(7, json!({"type": "random", "samples": 1})).expect_err("too large");
        assert!(
            error.ends_with("more than can be numbered (2^63)"),
            "{error}"
        );
    }
}
