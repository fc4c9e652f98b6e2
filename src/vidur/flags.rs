//! The flags of Vidur and Vidur-AlibabaCloud: names, types, defaults, and where
//! each is in `config.json`.
//!
//! Names and defaults: microsoft/vidur at 7d475133, `vidur/config/config.py`, and
//! the same file of aliyun/SimAI 1.7, `vidur-alibabacloud`. A
//! flag is its group's prefix and its own name; in `config.json` it is a key of
//! its own name in the group's section. Groups that are alternatives share a
//! section, whose key `name` tells which one it holds.

use Kind::{Bool, Bools, Choice, Counts, Float, Text, Whole};
use Range::{Any, Fraction, FromZero, Positive, Share};

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A whole number from a least value on.
    Whole(u64),
    /// A number.
    Float(Range),
    /// Any text.
    Text,
    /// `--x` or `--no-x`.
    Bool,
    /// One of some words.
    Choice(&'static [&'static str]),
    /// Several whole numbers.
    Counts,
    /// Several of true and false.
    Bools,
}

/// Numbers allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// All.
    Any,
    /// Zero and more.
    FromZero,
    /// More than zero.
    Positive,
    /// From zero to below one.
    Fraction,
    /// More than zero, up to one.
    Share,
}

impl Range {
    pub(super) fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Any => true,
                FromZero => x >= 0.0,
                Positive => x > 0.0,
                Fraction => (0.0..1.0).contains(&x),
                Share => x > 0.0 && x <= 1.0,
            }
    }

    pub(super) fn allowed(self) -> &'static str {
        match self {
            Any => "a number",
            FromZero => "a number from 0 on",
            Positive => "a number greater than 0",
            Fraction => "a number from 0 to below 1",
            Share => "a number greater than 0 and at most 1",
        }
    }
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Name within its group.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Default, as JSON; `null` if none.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    /// Why it has no effect, if it has none.
    pub dead: Option<&'static str>,
}

/// Flags with a common prefix.
#[derive(Debug)]
pub struct Group {
    /// Heading in the help.
    pub title: &'static str,
    /// Prefix of the names, its last underscore included.
    pub prefix: &'static str,
    /// Section of `config.json`.
    pub section: &'static [&'static str],
    /// Value of the section's `name` if it is of this group.
    pub variant: Option<&'static str>,
    /// The flags, in parts that groups share.
    pub flags: &'static [&'static [Flag]],
}

impl Group {
    /// Its flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|part| part.iter())
    }

    /// Full name of one of its flags, without dashes.
    pub fn full_name(&self, flag: &Flag) -> String {
        format!("{}{}", self.prefix, flag.name)
    }
}

/// A flag whose value is the `name` of a section.
#[derive(Debug)]
pub struct Selector {
    /// Name of the flag.
    pub flag: &'static str,
    /// Section of `config.json`.
    pub section: &'static [&'static str],
    /// Words allowed.
    pub choices: &'static [&'static str],
    /// The original's default.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag {
        name,
        kind,
        default,
        help,
        dead: None,
    }
}

const fn dead(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
    why: &'static str,
) -> Flag {
    Flag {
        name,
        kind,
        default,
        help,
        dead: Some(why),
    }
}

/// Replica schedulers.
const CLUSTER: &str = "cluster_config";
const REQUESTS: &str = "request_generator_config";
const SCHEDULER: &[&str] = &[CLUSTER, "replica_scheduler_config"];
const LENGTHS: &[&str] = &[REQUESTS, "length_generator_config"];
const INTERVALS: &[&str] = &[REQUESTS, "interval_generator_config"];
const PREDICTOR: &[&str] = &["execution_time_predictor_config"];

/// Flags that choose among groups.
pub const SELECTORS: [Selector; 6] = [
    Selector {
        flag: "global_scheduler_config_type",
        section: &[CLUSTER, "global_scheduler_config"],
        choices: &["round_robin", "random", "lor", "split_wise"],
        default: "round_robin",
        help: "How requests are given to replicas",
    },
    Selector {
        flag: "replica_scheduler_config_type",
        section: SCHEDULER,
        choices: &[
            "sarathi",
            "vllm",
            "orca",
            "faster_transformer",
            "lightllm",
            "split_wise",
        ],
        default: "sarathi",
        help: "How a replica forms batches",
    },
    Selector {
        flag: "request_generator_config_type",
        section: &[REQUESTS],
        choices: &["synthetic", "trace_replay"],
        default: "synthetic",
        help: "Where requests come from",
    },
    Selector {
        flag: "length_generator_config_type",
        section: LENGTHS,
        choices: &["fixed", "uniform", "zipf", "trace"],
        default: "fixed",
        help: "Lengths of synthetic requests",
    },
    Selector {
        flag: "interval_generator_config_type",
        section: INTERVALS,
        choices: &["poisson", "gamma", "static", "trace"],
        default: "poisson",
        help: "Gaps between synthetic requests",
    },
    Selector {
        flag: "execution_time_predictor_config_type",
        section: PREDICTOR,
        choices: &["random_forrest", "linear_regression", "interpolation"],
        default: "random_forrest",
        help: "How execution times are estimated from profiles. Not given: interpolation, which \
               is exact between samples and needs no fitting, with the options of \
               random_forrest; with --compat, random_forrest",
    },
];

const NOT_READ: &str = "the original never reads it";
const NO_DRAWS: &str = "the original never reads it: intervals and lengths that draw from \
                        Python's stream use the generator's seed";
const NO_WANDB: &str = "results are files here, nothing is uploaded";

const TOP: &[Flag] = &[
    flag("seed", Whole(0), "42", "Seed of random routing"),
    dead("log_level", Text, "\"info\"", "Logging level", NOT_READ),
    flag(
        "time_limit",
        Float(FromZero),
        "0",
        "Simulated seconds after which the run stops; 0: none",
    ),
];

const REPLICA: &[Flag] = &[
    flag(
        "model_name",
        Text,
        "\"meta-llama/Llama-2-7b-hf\"",
        "Model: a name of `catalog models`, a YAML file or a Hugging Face config.json",
    ),
    flag(
        "memory_margin_fraction",
        Float(Fraction),
        "0.1",
        "Share of device memory kept free",
    ),
    flag("num_pipeline_stages", Whole(1), "1", "Pipeline stages"),
    flag(
        "tensor_parallel_size",
        Whole(1),
        "1",
        "Tensor-parallel ways",
    ),
    flag(
        "device",
        Text,
        "\"a100\"",
        "Device: a40, a100, h100 or any other of `catalog devices`",
    ),
    flag(
        "network_device",
        Text,
        "\"a100_pairwise_nvlink\"",
        "Node: a40_pairwise_nvlink (8 GPUs), a100_pairwise_nvlink (4), h100_pairwise_nvlink (4), \
         a100_dgx (8), h100_dgx (8), or any folder of profiling/network",
    ),
];

/// Formats a KV cache may be sent in.
const TRANSFER_DTYPES: &[&str] = &[
    "float16", "bfloat16", "float32", "fp8", "int8", "int16", "int32",
];

/// Added by Vidur-AlibabaCloud.
const DISAGGREGATION: &[Flag] = &[
    flag(
        "pd_p2p_comm_bandwidth",
        Float(Positive),
        "800",
        "KV cache transfer from prefill to decode, of a replica and direction, Gb/s",
    ),
    flag(
        "nvlink_bandwidth",
        Float(Positive),
        "1600",
        "NVLink per GPU and direction, Gb/s; not given: the device's",
    ),
    flag(
        "rdma_bandwidth",
        Float(Positive),
        "800",
        "NIC per GPU and direction, Gb/s; not given: the device's",
    ),
    flag(
        "pd_p2p_comm_dtype",
        Choice(TRANSFER_DTYPES),
        "\"float16\"",
        "Format in which a KV cache is sent; fp8: in which it is kept, too",
    ),
    flag(
        "pd_node_ratio",
        Float(Share),
        "1",
        "Share of replicas that only prefill; 1: no disaggregation; not given: 0.5 with split_wise, \
         but for --compat vidur-alibabacloud",
    ),
    flag(
        "expert_model_parallel_size",
        Whole(1),
        "1",
        "Ways experts are spread, over the replicas of a pool too; 1: as many as it has GPUs",
    ),
    flag(
        "prefill_tensor_parallel_size",
        Whole(1),
        "null",
        "Tensor-parallel ways of prefill replicas",
    ),
    flag(
        "decode_tensor_parallel_size",
        Whole(1),
        "null",
        "Tensor-parallel ways of decode replicas",
    ),
    flag(
        "prefill_num_pipeline_stages",
        Whole(1),
        "null",
        "Pipeline stages of prefill replicas",
    ),
    flag(
        "decode_num_pipeline_stages",
        Whole(1),
        "null",
        "Pipeline stages of decode replicas",
    ),
    flag(
        "num_prefill_replicas",
        Whole(1),
        "null",
        "Prefill replicas, instead of the share",
    ),
];

/// Added by Vidur-AlibabaCloud.
const BACKENDS: &[Flag] = &[
    flag(
        "backend",
        Choice(&["vidur", "aicb", "simai_analytical", "simai_simulation"]),
        "\"vidur\"",
        "Where execution times come from",
    ),
    flag(
        "simai_dir",
        Text,
        "\"../\"",
        "Folder of a SimAI checkout; AICB's files are looked for in its aicb/results/workload",
    ),
    flag(
        "simai_simulation_topo",
        Text,
        "\"../example/topo\"",
        "SimAI topology file",
    ),
    flag(
        "simai_simulation_config",
        Text,
        "\"../astra-sim-alibabacloud/inputs/config/SimAI.conf\"",
        "SimAI configuration file",
    ),
    flag(
        "aicb_force_bs1",
        Bool,
        "false",
        "Use AICB's files of batch size 1 for all",
    ),
];

const BLOCKS: &[Flag] = &[
    flag(
        "batch_size_cap",
        Whole(1),
        "128",
        "Most requests in flight on a replica",
    ),
    flag("block_size", Whole(1), "16", "Tokens of a KV cache block"),
    flag(
        "watermark_blocks_fraction",
        Float(Fraction),
        "0.01",
        "Share of blocks kept free for running requests",
    ),
    flag(
        "num_blocks",
        Whole(1),
        "null",
        "KV cache blocks of a replica, instead of what fits",
    ),
];

const MAX_TOKENS_IN_BATCH: Flag = flag(
    "max_tokens_in_batch",
    Whole(1),
    "4096",
    "Token budget of a prefill batch",
);

const LENGTH_SEED: Flag = flag("seed", Whole(0), "42", "Seed of the lengths");
const DEAD_SEED: Flag = dead("seed", Whole(0), "42", "Seed", NO_DRAWS);
const MAX_TOKENS: Flag = flag(
    "max_tokens",
    Whole(2),
    "4096",
    "Longest request, prompt and output together; memory is planned for it",
);
const MIN_TOKENS: Flag = flag("min_tokens", Whole(2), "1024", "Shortest request");
const RATIO: Flag = flag(
    "prefill_to_decode_ratio",
    Float(Positive),
    "20.0",
    "Prompt tokens per output token",
);
const PREFILL_SCALE: Flag = flag(
    "prefill_scale_factor",
    Float(Positive),
    "1.0",
    "Factor on prompt lengths",
);
const DECODE_SCALE: Flag = flag(
    "decode_scale_factor",
    Float(Positive),
    "1.0",
    "Factor on output lengths",
);
const TIME_SCALE: Flag = flag(
    "time_scale_factor",
    Float(Positive),
    "1.0",
    "Factor on arrival times",
);

const FILES: &[Flag] = &[
    flag(
        "compute_input_file",
        Text,
        "\"./data/profiling/compute/{DEVICE}/{MODEL}/mlp.csv\"",
        "Profile of projections, norms and activations",
    ),
    flag(
        "attention_input_file",
        Text,
        "\"./data/profiling/compute/{DEVICE}/{MODEL}/attention.csv\"",
        "Profile of attention",
    ),
    flag(
        "all_reduce_input_file",
        Text,
        "\"./data/profiling/network/{NETWORK_DEVICE}/all_reduce.csv\"",
        "Profile of all-reduce",
    ),
    flag(
        "send_recv_input_file",
        Text,
        "\"./data/profiling/network/{NETWORK_DEVICE}/send_recv.csv\"",
        "Profile of transfers between stages",
    ),
    flag(
        "cpu_overhead_input_file",
        Text,
        "\"./data/profiling/cpu_overhead/{NETWORK_DEVICE}/{MODEL}/cpu_overheads.csv\"",
        "Profile of host time",
    ),
];

const TABLES: &str = "prices go on beyond the profile here; there are no tables to size";

const PREDICTION: &[Flag] = &[
    flag(
        "k_fold_cv_splits",
        Whole(2),
        "10",
        "Folds of the search for parameters",
    ),
    flag(
        "no_cache",
        Bool,
        "false",
        "Fit anew instead of taking a stored fit",
    ),
    flag(
        "kv_cache_prediction_granularity",
        Whole(1),
        "64",
        "Contexts are rounded up to a multiple of this, with --compat",
    ),
    dead(
        "prediction_max_prefill_chunk_size",
        Whole(1),
        "4096",
        "Largest prompt chunk of the original's tables",
        TABLES,
    ),
    dead(
        "prediction_max_batch_size",
        Whole(1),
        "128",
        "Largest decode batch of the original's tables",
        TABLES,
    ),
    dead(
        "prediction_max_tokens_per_request",
        Whole(1),
        "4096",
        "Longest context of the original's tables",
        TABLES,
    ),
    flag(
        "attention_decode_batching_overhead_fraction",
        Float(FromZero),
        "0.1",
        "Added to decode attention of several requests, grouped-query models",
    ),
    flag(
        "attention_prefill_batching_overhead_fraction",
        Float(FromZero),
        "0.1",
        "Added to prompt attention of several requests, grouped-query models",
    ),
    flag(
        "nccl_cpu_launch_overhead_ms",
        Float(FromZero),
        "0.02",
        "Host time of a collective, ms",
    ),
    flag(
        "nccl_cpu_skew_overhead_per_device_ms",
        Float(FromZero),
        "0.0",
        "Wait for the slowest rank of a collective, ms, times ranks^1.25",
    ),
    dead(
        "num_training_job_threads",
        Float(Any),
        "-1",
        "Threads of a fit",
        "fits use all cores",
    ),
    flag(
        "skip_cpu_overhead_modeling",
        Bool,
        "true",
        "Leave host time out",
    ),
];

const FOREST: &[Flag] = &[
    flag(
        "num_estimators",
        Counts,
        "[250, 500, 750]",
        "Forest sizes tried",
    ),
    flag("max_depth", Counts, "[8, 16, 32]", "Tree depths tried"),
    flag(
        "min_samples_split",
        Counts,
        "[2, 5, 10]",
        "Smallest nodes that are split, tried",
    ),
];

const REGRESSION: &[Flag] = &[
    flag(
        "polynomial_degree",
        Counts,
        "[1, 2, 3, 4, 5]",
        "Degrees tried",
    ),
    flag(
        "polynomial_include_bias",
        Bools,
        "[true, false]",
        "Whether a column of ones is among the features, tried",
    ),
    flag(
        "polynomial_interaction_only",
        Bools,
        "[true, false]",
        "Whether only products of different features are taken, tried",
    ),
    flag(
        "fit_intercept",
        Bools,
        "[true, false]",
        "Whether an intercept is fitted, tried",
    ),
];

const METRICS: &[Flag] = &[
    flag(
        "write_metrics",
        Bool,
        "true",
        "Write anything but config.json",
    ),
    flag(
        "write_json_trace",
        Bool,
        "false",
        "Write event_trace.json and cluster.json",
    ),
    dead("wandb_project", Text, "null", "Project", NO_WANDB),
    dead("wandb_group", Text, "null", "Group", NO_WANDB),
    dead("wandb_run_name", Text, "null", "Run name", NO_WANDB),
    dead("wandb_sweep_id", Text, "null", "Sweep", NO_WANDB),
    dead("wandb_run_id", Text, "null", "Run", NO_WANDB),
    flag(
        "enable_chrome_trace",
        Bool,
        "true",
        "Write chrome_trace.json",
    ),
    dead(
        "save_table_to_wandb",
        Bool,
        "false",
        "Upload tables",
        NO_WANDB,
    ),
    flag(
        "store_plots",
        Bool,
        "true",
        "Draw plots as PNG and HTML beside their CSV files",
    ),
    flag(
        "store_operation_metrics",
        Bool,
        "false",
        "Keep times of single operators",
    ),
    flag(
        "store_token_completion_metrics",
        Bool,
        "false",
        "Keep when tokens were done",
    ),
    flag(
        "store_request_metrics",
        Bool,
        "true",
        "Keep metrics of requests",
    ),
    flag(
        "store_batch_metrics",
        Bool,
        "true",
        "Keep metrics of batches",
    ),
    flag(
        "store_utilization_metrics",
        Bool,
        "true",
        "Keep memory use, busy time and MFU",
    ),
    flag(
        "keep_individual_batch_metrics",
        Bool,
        "false",
        "Write one row per batch",
    ),
    flag(
        "subsamples",
        Whole(1),
        "null",
        "Keep every that many-th point of a time series",
    ),
    flag(
        "min_batch_index",
        Whole(0),
        "null",
        "Leave out batches before this one",
    ),
    flag(
        "max_batch_index",
        Whole(0),
        "null",
        "Leave out batches after this one",
    ),
    flag(
        "output_dir",
        Text,
        "\"simulator_output\"",
        "Folder in which the run's folder is made",
    ),
    flag(
        "cache_dir",
        Text,
        "\"cache\"",
        "Folder in which fits of profiles are kept",
    ),
];

/// All flags but the selectors.
pub const GROUPS: [Group; 21] = [
    Group {
        title: "Simulation",
        prefix: "",
        section: &[],
        variant: None,
        flags: &[TOP],
    },
    Group {
        title: "Cluster",
        prefix: "cluster_config_",
        section: &[CLUSTER],
        variant: None,
        flags: &[&[flag("num_replicas", Whole(1), "1", "Replicas")]],
    },
    Group {
        title: "Replica",
        prefix: "replica_config_",
        section: &[CLUSTER, "replica_config"],
        variant: None,
        flags: &[REPLICA, DISAGGREGATION],
    },
    Group {
        title: "Replica scheduler split_wise",
        prefix: "split_wise_replica_scheduler_config_",
        section: SCHEDULER,
        variant: Some("split_wise"),
        flags: &[BLOCKS, &[MAX_TOKENS_IN_BATCH]],
    },
    Group {
        title: "Replica scheduler sarathi",
        prefix: "sarathi_scheduler_config_",
        section: SCHEDULER,
        variant: Some("sarathi"),
        flags: &[
            BLOCKS,
            &[flag(
                "chunk_size",
                Whole(1),
                "512",
                "Token budget of a step",
            )],
        ],
    },
    Group {
        title: "Replica scheduler vllm",
        prefix: "vllm_scheduler_config_",
        section: SCHEDULER,
        variant: Some("vllm"),
        flags: &[BLOCKS, &[MAX_TOKENS_IN_BATCH]],
    },
    Group {
        title: "Replica scheduler orca",
        prefix: "orca_scheduler_config_",
        section: SCHEDULER,
        variant: Some("orca"),
        flags: &[BLOCKS],
    },
    Group {
        title: "Replica scheduler faster_transformer",
        prefix: "faster_transformer_scheduler_config_",
        section: SCHEDULER,
        variant: Some("faster_transformer"),
        flags: &[BLOCKS],
    },
    Group {
        title: "Replica scheduler lightllm",
        prefix: "lightllm_scheduler_config_",
        section: SCHEDULER,
        variant: Some("lightllm"),
        flags: &[
            BLOCKS,
            &[
                MAX_TOKENS_IN_BATCH,
                flag(
                    "max_waiting_iters",
                    Whole(1),
                    "10",
                    "Decode steps between looks at the queue",
                ),
            ],
        ],
    },
    Group {
        title: "Requests: synthetic",
        prefix: "synthetic_request_generator_config_",
        section: &[REQUESTS],
        variant: Some("synthetic"),
        flags: &[&[
            flag("seed", Whole(0), "42", "Seed of arrivals and lengths"),
            flag("num_requests", Whole(1), "128", "How many"),
            flag(
                "duration",
                Float(Positive),
                "null",
                "Seconds of arrivals, instead of a number of requests",
            ),
        ]],
    },
    Group {
        title: "Requests: trace_replay",
        prefix: "trace_request_generator_config_",
        section: &[REQUESTS],
        variant: Some("trace_replay"),
        flags: &[&[
            dead("seed", Whole(0), "42", "Seed", NOT_READ),
            flag(
                "trace_file",
                Text,
                "\"data/processed_traces/splitwise_conv.csv\"",
                "Trace of arrivals and lengths",
            ),
            PREFILL_SCALE,
            DECODE_SCALE,
            TIME_SCALE,
            MAX_TOKENS,
        ]],
    },
    Group {
        title: "Lengths: fixed",
        prefix: "fixed_request_length_generator_config_",
        section: LENGTHS,
        variant: Some("fixed"),
        flags: &[&[
            DEAD_SEED,
            MAX_TOKENS,
            flag("prefill_tokens", Whole(1), "2048", "Prompt tokens"),
            flag("decode_tokens", Whole(1), "512", "Output tokens"),
        ]],
    },
    Group {
        title: "Lengths: uniform",
        prefix: "uniform_request_length_generator_config_",
        section: LENGTHS,
        variant: Some("uniform"),
        flags: &[&[DEAD_SEED, MAX_TOKENS, MIN_TOKENS, RATIO]],
    },
    Group {
        title: "Lengths: zipf",
        prefix: "zipf_request_length_generator_config_",
        section: LENGTHS,
        variant: Some("zipf"),
        flags: &[&[
            LENGTH_SEED,
            MAX_TOKENS,
            flag("theta", Float(FromZero), "0.6", "Skew"),
            flag(
                "scramble",
                Bool,
                "false",
                "Spread the frequent lengths over the range",
            ),
            MIN_TOKENS,
            RATIO,
        ]],
    },
    Group {
        title: "Lengths: trace",
        prefix: "trace_request_length_generator_config_",
        section: LENGTHS,
        variant: Some("trace"),
        flags: &[&[
            LENGTH_SEED,
            MAX_TOKENS,
            flag(
                "trace_file",
                Text,
                "\"data/processed_traces/sharegpt_8k_filtered_stats_llama2_tokenizer.csv\"",
                "Trace of lengths",
            ),
            PREFILL_SCALE,
            DECODE_SCALE,
        ]],
    },
    Group {
        title: "Intervals: poisson",
        prefix: "poisson_request_interval_generator_config_",
        section: INTERVALS,
        variant: Some("poisson"),
        flags: &[&[
            DEAD_SEED,
            flag("qps", Float(Positive), "0.5", "Requests per second"),
        ]],
    },
    Group {
        title: "Intervals: gamma",
        prefix: "gamma_request_interval_generator_config_",
        section: INTERVALS,
        variant: Some("gamma"),
        flags: &[&[
            DEAD_SEED,
            flag("qps", Float(Positive), "0.2", "Requests per second"),
            flag("cv", Float(Positive), "0.5", "Coefficient of variation"),
        ]],
    },
    Group {
        title: "Intervals: static",
        prefix: "static_request_interval_generator_config_",
        section: INTERVALS,
        variant: Some("static"),
        flags: &[&[DEAD_SEED]],
    },
    Group {
        title: "Intervals: trace",
        prefix: "trace_request_interval_generator_config_",
        section: INTERVALS,
        variant: Some("trace"),
        flags: &[&[
            DEAD_SEED,
            flag(
                "trace_file",
                Text,
                "\"data/processed_traces/AzureFunctionsInvocationTraceForTwoWeeksJan2021Processed.csv\"",
                "Trace of arrivals",
            ),
            flag(
                "start_time",
                Text,
                "\"1970-01-04 12:00:00\"",
                "Only arrivals after this time",
            ),
            flag(
                "end_time",
                Text,
                "\"1970-01-04 15:00:00\"",
                "Only arrivals before this time",
            ),
            TIME_SCALE,
        ]],
    },
    Group {
        title: "Execution times: random forest (and interpolation)",
        prefix: "random_forrest_execution_time_predictor_config_",
        section: PREDICTOR,
        variant: Some("random_forrest"),
        flags: &[FILES, PREDICTION, FOREST, BACKENDS],
    },
    Group {
        title: "Execution times: linear regression",
        prefix: "linear_regression_execution_time_predictor_config_",
        section: PREDICTOR,
        variant: Some("linear_regression"),
        flags: &[FILES, PREDICTION, REGRESSION],
    },
];

/// Written to `metrics_config`.
pub const METRICS_GROUP: Group = Group {
    title: "Outputs",
    prefix: "metrics_config_",
    section: &["metrics_config"],
    variant: None,
    flags: &[METRICS],
};

/// All groups.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    GROUPS.iter().chain(std::iter::once(&METRICS_GROUP))
}

/// Whether there is a flag of this name, without dashes.
pub fn is_flag(name: &str) -> bool {
    let of_group = |group: &Group| {
        let rest = name.strip_prefix(group.prefix);
        rest.is_some_and(|rest| group.flags().any(|flag| flag.name == rest))
    };
    groups().any(of_group) || SELECTORS.iter().any(|selector| selector.flag == name)
}
