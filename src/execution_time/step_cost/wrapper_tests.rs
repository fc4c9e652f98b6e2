//! Cost models that wrap another pass every question on: with the same answer where
//! they change nothing, and changed everywhere alike where they do.

use std::sync::{Arc, Mutex};

use super::{HostOverhead, HostedCost, PeerCost};
use crate::execution_time::aicb::CompatAicb;
use crate::execution_time::formula::{FormulaConfig, FormulaCost};
use crate::execution_time::vidur::RecordedCost;
use crate::execution_time::{
    Operator, PrefillChunk, PricedOperator, Provenance, StageRun, StageTime, StepCost, StepShape,
};

const STAGES: u32 = 2;

/// Answers every question in a way of its own, and keeps the step it was asked about.
#[derive(Default)]
struct Spy {
    asked: Mutex<Vec<(&'static str, StepShape)>>,
}

impl Spy {
    fn note(&self, question: &'static str, shape: &StepShape) {
        self.asked.lock().unwrap().push((question, shape.clone()));
    }
}

fn time(model_s: f64) -> StageTime {
    StageTime {
        model_s,
        host_s: 0.25,
    }
}

fn row(stage: u32, name: &str) -> PricedOperator {
    PricedOperator {
        stage,
        name: name.into(),
        operator: Operator::Host { requests: 1 },
        count: 1.0,
        time_s: 1.0,
        provenance: Provenance::Measured,
    }
}

impl StepCost for Spy {
    fn stages(&self) -> u32 {
        STAGES
    }
    fn stage_time(&self, stage: u32, shape: &StepShape) -> StageTime {
        self.note("stage_time", shape);
        time(10.0 + f64::from(stage))
    }
    fn stage_time_of(&self, run: StageRun, shape: &StepShape) -> StageTime {
        self.note("stage_time_of", shape);
        time(1000.0 * f64::from(run.replica) + 100.0 * run.nth_batch as f64 + f64::from(run.stage))
    }
    fn tells_runs_apart(&self) -> bool {
        true
    }
    fn stage_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.note("stage_times", shape);
        times.fill(time(20.0));
    }
    fn decode_times(&self, shape: &StepShape, times: &mut [StageTime]) {
        self.note("decode_times", shape);
        times.fill(time(30.0));
    }
    fn explain(&self, shape: &StepShape) -> Vec<PricedOperator> {
        self.note("explain", shape);
        vec![row(0, "first"), row(1, "second")]
    }
    fn explain_stage(&self, stage: u32, shape: &StepShape) -> Vec<PricedOperator> {
        self.note("explain_stage", shape);
        vec![row(stage, "of_stage")]
    }
}

fn step() -> StepShape {
    StepShape {
        prefills: vec![PrefillChunk {
            new_tokens: 64,
            context_tokens: 8,
        }],
        decode_requests: 3,
        decode_context_tokens: 300,
        sampled_tokens: 4,
    }
}

fn times_of(steps: usize) -> Vec<StageTime> {
    vec![StageTime::default(); steps * STAGES as usize]
}

/// Asks `wrapper`, which is around `spy`, everything: `step` is what the spy has to be
/// asked about, and `host_s` what is to be added to the first stage's host time.
fn every_question_is_passed_on(wrapper: &dyn StepCost, spy: &Spy, asked: &StepShape, host_s: f64) {
    let on = |stage: u32, model_s: f64| StageTime {
        model_s,
        host_s: 0.25 + if stage == 0 { host_s } else { 0.0 },
    };
    let heard = |question: &str| {
        let (heard, shape) = spy.asked.lock().unwrap().pop().expect("asked");
        assert_eq!((heard, &shape), (question, asked));
    };
    let own = &step();
    assert_eq!(wrapper.stages(), STAGES);
    assert!(wrapper.tells_runs_apart());
    for stage in 0..STAGES {
        let model_s = 10.0 + f64::from(stage);
        assert_eq!(wrapper.stage_time(stage, own), on(stage, model_s));
        heard("stage_time");
        let run = StageRun {
            replica: 4,
            nth_batch: 7,
            stage,
        };
        let model_s = 4700.0 + f64::from(stage);
        assert_eq!(wrapper.stage_time_of(run, own), on(stage, model_s));
        heard("stage_time_of");
    }
    let mut times = times_of(1);
    wrapper.stage_times(own, &mut times);
    assert_eq!(times, [on(0, 20.0), on(1, 20.0)]);
    heard("stage_times");
    let mut times = times_of(2);
    wrapper.decode_times(own, &mut times);
    assert_eq!(times, [on(0, 30.0), on(1, 30.0), on(0, 30.0), on(1, 30.0)]);
    heard("decode_times");
    let names = |rows: Vec<PricedOperator>| -> Vec<String> {
        rows.into_iter().map(|row| row.name).collect()
    };
    let with_host = |mut names: Vec<&'static str>| {
        names.extend((host_s > 0.0).then_some("host"));
        names
    };
    assert_eq!(
        names(wrapper.explain(own)),
        with_host(vec!["first", "second"])
    );
    heard("explain");
    assert_eq!(
        names(wrapper.explain_stage(0, own)),
        with_host(vec!["of_stage"])
    );
    heard("explain_stage");
    assert_eq!(names(wrapper.explain_stage(1, own)), ["of_stage"]);
    heard("explain_stage");
}

#[test]
fn a_replica_among_peers_asks_for_the_step_of_all() {
    let spy = Arc::new(Spy::default());
    let chunk = step().prefills[0];
    let of_all = StepShape {
        prefills: vec![chunk; 4],
        decode_requests: 12,
        decode_context_tokens: 1200,
        sampled_tokens: 16,
    };
    let peers = PeerCost::new(Arc::clone(&spy) as _, 4);
    every_question_is_passed_on(&peers, &spy, &of_all, 0.0);
}

#[test]
fn a_host_delays_the_first_stage_of_whatever_is_asked() {
    let spy = Arc::new(Spy::default());
    let host = HostOverhead {
        per_step_s: 0.5,
        per_request_s: 0.125,
    };
    let hosted = HostedCost::new(Arc::clone(&spy) as _, host);
    every_question_is_passed_on(&hosted, &spy, &step(), 1.0);
    let nothing = StepShape::default();
    assert_eq!(hosted.stage_time(0, &nothing), time(10.0));
}

/// The answers of any cost model agree with each other.
pub(crate) fn answers_agree(cost: &dyn StepCost, what: &str) {
    let stages = cost.stages();
    let steps = 3;
    let decodes = StepShape {
        prefills: Vec::new(),
        sampled_tokens: 3,
        ..step()
    };
    let mut later = decodes.clone();
    let mut times = vec![StageTime::default(); steps * stages as usize];
    cost.decode_times(&decodes, &mut times);
    for of_step in times.chunks(stages as usize) {
        for (stage, time) in (0..).zip(of_step) {
            assert_eq!(cost.stage_time(stage, &later), *time, "{what}");
        }
        later.decode_context_tokens += u64::from(later.decode_requests);
    }
    let run = |stage| StageRun {
        replica: 0,
        nth_batch: 0,
        stage,
    };
    for shape in [step(), decodes] {
        let mut times = vec![StageTime::default(); stages as usize];
        cost.stage_times(&shape, &mut times);
        for (stage, time) in (0..).zip(times) {
            assert_eq!(cost.stage_time(stage, &shape), time, "{what}");
            if !cost.tells_runs_apart() {
                assert_eq!(cost.stage_time_of(run(stage), &shape), time, "{what}");
            }
            let mut of_stage = cost.explain(&shape);
            of_stage.retain(|row| row.stage == stage);
            assert_eq!(cost.explain_stage(stage, &shape), of_stage, "{what}");
        }
    }
}

#[test]
fn replayed_runs_and_the_originals_files_answer_alike() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("times.csv");
    let rows = "nth_batch,replica_id,stage_id,execution_time\n0,0,0,0.5\n0,0,1,0.25\n";
    std::fs::write(&file, rows).expect("a file");
    let recorded = Arc::new(RecordedCost::read(&file, STAGES).expect("times"));
    answers_agree(&*recorded, "recorded");
    let host = HostOverhead {
        per_step_s: 1e-3,
        per_request_s: 1e-5,
    };
    let hosted = Arc::new(HostedCost::new(recorded, host));
    answers_agree(&*hosted, "recorded, with a host");
    let peers = PeerCost::new(hosted, 2);
    answers_agree(&peers, "recorded, with a host, of peers");
    let run = StageRun {
        replica: 0,
        nth_batch: 0,
        stage: 1,
    };
    assert_eq!(peers.stage_time_of(run, &step()).model_s, 0.25);
    answers_agree(&CompatAicb::new(Vec::new(), 4, 800.0), "without files");
    let formula = FormulaConfig {
        step_s: 0.1,
        prefill_token_s: 1e-5,
        decode_request_s: 1e-3,
        decode_context_token_s: 1e-6,
    };
    answers_agree(&FormulaCost::new(formula, 3), "in closed form");
}

#[test]
fn a_formula_answers_alike() {
    let formula = FormulaConfig {
        step_s: 0.004,
        prefill_token_s: 1e-5,
        decode_request_s: 0.001,
        decode_context_token_s: 1e-6,
    };
    for stages in [1, STAGES] {
        let cost = FormulaCost::new(formula, stages);
        answers_agree(&cost, "a formula");
        let host = HostOverhead {
            per_step_s: 1e-3,
            per_request_s: 1e-5,
        };
        answers_agree(
            &HostedCost::new(Arc::new(cost), host),
            "a formula, with a host",
        );
    }
}

/// A new cost model is to be tried with [`answers_agree`], a new wrapper also with
/// [`every_question_is_passed_on`]; then it may be named here.
#[test]
fn every_cost_model_of_the_crate_is_tried() {
    const TRIED: [&str; 11] = [
        "AicbCost",
        "CompatAicb",
        "Composed<T>",
        "FormulaCost",
        "GraphCost",
        "HostedCost",
        "PeerCost",
        "RecordedCost",
        "Spy",
        "TableCost",
        "VidurCost",
    ];
    let mut found = Vec::new();
    let mut folders = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("source text");
            for line in text.lines().filter(|line| line.starts_with("impl")) {
                if let Some((_, name)) = line.split_once(" StepCost for ") {
                    found.push(name.trim_end_matches(" {").to_owned());
                }
            }
        }
    }
    found.sort();
    assert_eq!(found, TRIED);
}
