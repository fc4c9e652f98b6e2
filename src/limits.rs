//! How large what a user writes may be: every limit that keeps a slip of the pen, or a
//! file made to harm, from taking the machine's memory or days of its time. All are far
//! beyond what exists; each is checked before anything is allocated or run, by
//! `validate`, `plan` and `run` alike, and `docs/spec.md` lists them.
//!
//! At the bottom of the module order: uses nothing.

/// Runs of a sweep: points of a grid or rows of a list, times replications. What is
/// done of so many is remembered in 100 MB; at ten thousand runs a second they take a
/// hundred machines a day.
pub const RUNS_MAX: u64 = 100_000_000_000;
/// Points that are remembered one by one: samples of a random search, rows of a list.
pub const POINTS_MAX: u64 = 10_000_000;
/// Columns of a list of points. There are about a hundred run keys.
pub const LIST_COLUMNS_MAX: usize = 1_000;
/// Characters of a sweep's name, which names a directory.
pub const NAME_CHARACTERS_MAX: usize = 128;
/// Errors that are told of one file. More tell no more.
pub const ERRORS_MAX: usize = 100;
/// GPUs of one deployment, all replicas together.
pub const GPUS_MAX: u64 = 10_000_000;

/// Most requests of a run: they are held in memory.
pub const MOST_REQUESTS: u32 = 100_000_000;

/// Most tokens of a request, prompt and output together: 2^24, more than any model's
/// context, and far from where sums of a run overflow.
pub const MOST_TOKENS: u32 = 1 << 24;

/// Latest arrival, seconds: up to it, double precision tells times that are two
/// microseconds apart from each other.
pub const LATEST_ARRIVAL_S: f64 = 1e10;

/// Mappings and lists inside one another in a YAML or JSON file. Specifications have
/// about 6, files of checkpoints about 8.
pub const YAML_DEPTH_MAX: usize = 64;
/// Values in a YAML or JSON file, aliases counted as what they stand for.
pub const YAML_NODES_MAX: usize = 2_000_000;
/// Characters of a constraint.
pub const CONSTRAINT_CHARACTERS_MAX: usize = 4096;
/// Parentheses, signs and `not`s inside one another in a constraint: far from what would
/// overflow the stack.
pub const CONSTRAINT_DEPTH_MAX: usize = 64;

/// Layers of a model. Published ones have 126 at most.
pub const LAYERS_MAX: u32 = 10_000;
/// Width of a model's residual stream, of an MLP, or rank of a projection. Published
/// models have 53,248 at most.
pub const WIDTH_MAX: u32 = 1 << 20;
/// Heads of an attention layer, and width of a head.
pub const HEADS_MAX: u32 = 1 << 12;
/// Experts of a layer.
pub const EXPERTS_MAX: u32 = 1 << 16;
/// Entries of a vocabulary.
pub const VOCABULARY_MAX: u32 = 1 << 26;
/// Tokens of a sequence, of a step, or requests of a batch.
pub const SEQUENCE_TOKENS_MAX: u32 = 1 << 30;
/// Billions of parameters of a model.
pub const PARAMETERS_B_MAX: f64 = 1e9;

/// GPUs of a node, ways in which a model is cut.
pub const NODE_GPUS_MAX: u32 = 1024;
/// Bytes of device memory: a pebibyte.
pub const MEMORY_BYTES_MAX: u64 = 1 << 50;
/// Throughputs, bandwidths, power and price of a device, each in its unit.
pub const DEVICE_FIGURE_MAX: f64 = 1e9;
/// Least of those that something is divided by.
pub const DEVICE_FIGURE_MIN: f64 = 1e-6;
/// Tokens of a KV cache block.
pub const BLOCK_TOKENS_MAX: u32 = 65_536;
/// KV cache blocks of an attention rank.
pub const KV_BLOCKS_MAX: u64 = 1 << 40;
/// Time of a step, or of a part of one, that a file gives: eleven days, in seconds.
pub const STEP_TIME_S_MAX: f64 = 1e6;
/// Host time of a step, seconds.
pub const HOST_OVERHEAD_S_MAX: f64 = 3600.0;

/// Latency of a link, and what a flow takes to start: a second, in nanoseconds.
pub const LATENCY_NS_MAX: f64 = 1e9;
/// Bandwidth of a link, gigabits per second.
pub const LINK_GBPS_MAX: f64 = 1e9;
/// Payload of a packet, bytes.
pub const PACKET_BYTES_MAX: u64 = 1 << 30;
/// Bytes of a collective: a pebibyte.
pub const COLLECTIVE_BYTES_MAX: u64 = 1 << 50;
/// Nodes of a topology.
pub const TOPOLOGY_NODES_MAX: u32 = 4_000_000;
/// Links of a topology that is generated.
pub const TOPOLOGY_LINKS_MAX: u64 = 20_000_000;
