//! Reading SimAI's topology files.

use std::path::Path;

use super::{Link, NodeKind, Topology};
use crate::input_file::{self, InputKind, tame_line};
use crate::limits::{LATENCY_NS_MAX, LINK_GBPS_MAX, TOPOLOGY_NODES_MAX};

/// A topology file that cannot be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {}", place(*position), tame_line(message))]
pub struct TopologyError {
    /// File, as named to the user.
    pub file: String,
    /// Line and column, from 1; none: the file as a whole.
    pub position: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

fn place(position: Option<(usize, usize)>) -> String {
    position.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"))
}

impl TopologyError {
    /// Reads a file, or says that it cannot be read.
    pub(crate) fn read(path: &Path, kind: InputKind) -> Result<String, Self> {
        input_file::read_text(path, kind).map_err(|error| Self {
            file: path.display().to_string(),
            position: None,
            message: format!("cannot be read: {error}"),
        })
    }
}

/// A word of the file and its place.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    line: usize,
    column: usize,
}

/// The words of a file, one by one; line ends do not matter, as in SimAI.
struct Words<'a> {
    file: &'a str,
    words: Vec<Word<'a>>,
    next: usize,
    last_line: usize,
}

impl<'a> Words<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        let mut words = Vec::new();
        for (index, line) in text.lines().enumerate() {
            // Characters are counted from word to word: a line may have very many.
            let (mut from, mut column) = (0, 1);
            for text in line.split_whitespace() {
                let at = from + line[from..].find(text).unwrap_or(0);
                column += line[from..at].chars().count();
                words.push(Word {
                    text,
                    line: index + 1,
                    column,
                });
                column += text.chars().count();
                from = at + text.len();
            }
        }
        let last_line = text.lines().count().max(1);
        Self {
            file,
            words,
            next: 0,
            last_line,
        }
    }

    fn error(&self, word: Option<Word<'_>>, message: String) -> TopologyError {
        let end = (self.last_line, 1);
        TopologyError {
            file: self.file.to_owned(),
            position: Some(word.map_or(end, |word| (word.line, word.column))),
            message,
        }
    }

    fn word(&mut self, what: &str) -> Result<Word<'a>, TopologyError> {
        let word = self.words.get(self.next).copied();
        self.next += 1;
        word.ok_or_else(|| self.error(None, format!("the file ends where {what} should follow")))
    }

    fn number(&mut self, what: &str) -> Result<(u32, Word<'a>), TopologyError> {
        let word = self.word(what)?;
        match word.text.parse() {
            Ok(number) => Ok((number, word)),
            Err(_) => Err(self.error(
                Some(word),
                format!(
                    "`{}` is no whole number, but {what} belongs here",
                    word.text
                ),
            )),
        }
    }

    /// A number with a unit, in the unit whose factor is 1, and of that at most `limit`
    /// (and what that is in words).
    fn quantity(
        &mut self,
        what: &str,
        units: &[(&str, f64)],
        (limit, limit_said): (f64, &str),
    ) -> Result<f64, TopologyError> {
        let word = self.word(what)?;
        let lower = word.text.to_ascii_lowercase();
        let found = units.iter().find_map(|(unit, factor)| {
            let number: f64 = lower.strip_suffix(unit)?.parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number * factor)
        });
        let Some(quantity) = found else {
            let known: Vec<&str> = units.iter().map(|(unit, _)| *unit).collect();
            let known = known.join(", ");
            let message = format!(
                "`{}` is no {what} (a number with one of: {known})",
                word.text
            );
            return Err(self.error(Some(word), message));
        };
        if quantity > limit {
            let message = format!(
                "{what} `{}` is not allowed; allowed is at most {limit_said}",
                word.text
            );
            return Err(self.error(Some(word), message));
        }
        Ok(quantity)
    }
}

/// To gigabits per second. Longer suffixes first: `gbps` ends in `bps`.
const BANDWIDTHS: [(&str, f64); 9] = [
    ("tbps", 1e3),
    ("gbps", 1.0),
    ("mbps", 1e-3),
    ("kbps", 1e-6),
    ("gb/s", 1.0),
    ("mb/s", 1e-3),
    ("kb/s", 1e-6),
    ("bps", 1e-9),
    ("b/s", 1e-9),
];
/// To nanoseconds.
const LATENCIES: [(&str, f64); 4] = [("ns", 1.0), ("us", 1e3), ("ms", 1e6), ("s", 1e9)];

impl Topology {
    /// Reads a topology from a file.
    pub fn load(path: &Path) -> Result<Self, TopologyError> {
        Self::parse(
            &TopologyError::read(path, InputKind::Topology)?,
            &path.display().to_string(),
        )
    }

    /// Reads a topology in SimAI's format: a line of counts (`nodes
    /// gpus_per_server nvswitches switches links gpu_type`), the ids of
    /// NVSwitches and switches, then `from to bandwidth latency error_rate` for
    /// every link. `file` is for messages.
    pub fn parse(text: &str, file: &str) -> Result<Self, TopologyError> {
        let mut words = Words::new(file, text);
        let (nodes, nodes_word) = words.number("the number of nodes")?;
        if nodes == 0 || nodes > TOPOLOGY_NODES_MAX {
            let message = format!("{nodes} nodes; a topology has 1 to {TOPOLOGY_NODES_MAX}");
            return Err(words.error(Some(nodes_word), message));
        }
        let (gpus_per_server, servers_word) = words.number("the number of GPUs per server")?;
        let (nvswitches, _) = words.number("the number of NVSwitches")?;
        let (switches, _) = words.number("the number of switches")?;
        let (link_count, links_word) = words.number("the number of links")?;
        let gpu_type = words.word("the GPU type")?.text.to_owned();

        let mut kinds = vec![NodeKind::Gpu; nodes as usize];
        let mut switch_order = Vec::new();
        for index in 0..u64::from(nvswitches) + u64::from(switches) {
            let (id, word) = words.number("the id of a switch")?;
            let kind = if index < u64::from(nvswitches) {
                NodeKind::NvSwitch
            } else {
                NodeKind::Switch
            };
            match kinds.get_mut(id as usize) {
                Some(slot @ NodeKind::Gpu) => *slot = kind,
                Some(_) => {
                    return Err(words.error(Some(word), format!("switch {id} is listed twice")));
                }
                None => {
                    let message = format!("switch {id}, but there are {nodes} nodes");
                    return Err(words.error(Some(word), message));
                }
            }
            switch_order.push(id);
        }
        let gpus = kinds
            .iter()
            .take_while(|&&kind| kind == NodeKind::Gpu)
            .count();
        if kinds[gpus..].contains(&NodeKind::Gpu) {
            let message = "GPUs must have the lowest ids: a switch id is missing or too low";
            return Err(words.error(Some(nodes_word), message.into()));
        }
        if gpus_per_server == 0 || gpus % gpus_per_server as usize != 0 {
            let message = format!("{gpus} GPUs do not fill servers of {gpus_per_server}");
            return Err(words.error(Some(servers_word), message));
        }
        let links = read_links(&mut words, nodes, link_count, links_word)?;
        Ok(Self::new(
            gpu_type,
            gpus_per_server,
            kinds,
            switch_order,
            links,
        ))
    }
}

fn read_links(
    words: &mut Words<'_>,
    nodes: u32,
    link_count: u32,
    links_word: Word<'_>,
) -> Result<Vec<Link>, TopologyError> {
    let mut links = Vec::new();
    while words.next < words.words.len() {
        let mut end = || {
            let (id, word) = words.number("the end of a link")?;
            if id < nodes {
                return Ok(id);
            }
            let message = format!(
                "node {id}, but there are {nodes} nodes (0 to {})",
                nodes - 1
            );
            Err(words.error(Some(word), message))
        };
        let (from, to) = (end()?, end()?);
        let bandwidth_gbps =
            words.quantity("bandwidth", &BANDWIDTHS, (LINK_GBPS_MAX, "10^9 Gbps"))?;
        let latency_ns = words.quantity("latency", &LATENCIES, (LATENCY_NS_MAX, "1 s"))?;
        let error_rate = words.quantity("error rate", &[("", 1.0)], (1.0, "1"))?;
        links.push(Link {
            from,
            to,
            bandwidth_gbps,
            latency_ns,
            error_rate,
        });
    }
    if links.len() != link_count as usize {
        let message = format!("{link_count} links announced, {} follow", links.len());
        return Err(words.error(Some(links_word), message));
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: &str = "\
3 2 1 0 2 H100
2 
0 2 2880Gbps 0.000025ms 0
1 2 2.88Tbps 25ns 0
";

    #[test]
    fn a_pair_of_gpus() {
        let topology = Topology::parse(PAIR, "pair").unwrap();
        assert_eq!(topology.gpus(), 2);
        assert_eq!(topology.kind(2), NodeKind::NvSwitch);
        assert_eq!(topology.links()[0].latency_ns, 25.0);
        assert_eq!(topology.links()[1].bandwidth_gbps, 2880.0);
        let again = Topology::parse(&topology.to_string(), "again").unwrap();
        assert_eq!(again, topology);
    }

    #[test]
    fn errors_have_a_place() {
        let complaint = |text: String| Topology::parse(&text, "t").unwrap_err().to_string();
        let cases = [
            (
                "1 2 2.88Tbps",
                "1 7 2.88Tbps",
                "t:4:3: node 7, but there are 3 nodes (0 to 2)",
            ),
            (
                "25ns",
                "25",
                "t:4:14: `25` is no latency (a number with one of: ns, us, ms, s)",
            ),
            (
                "25ns",
                "1e32ms",
                "t:4:14: latency `1e32ms` is not allowed; allowed is at most 1 s",
            ),
            (
                "2.88Tbps",
                "1e300bps",
                "t:4:5: bandwidth `1e300bps` is not allowed; allowed is at most 10^9 Gbps",
            ),
            ("0 2 H100", "0 3 H100", "t:1:9: 3 links announced, 2 follow"),
            ("3 2 1", "3 0 1", "t:1:3: 2 GPUs do not fill servers of 0"),
            ("\n2 ", "\n9 ", "t:2:1: switch 9, but there are 3 nodes"),
        ];
        for (from, to, expected) in cases {
            let text = PAIR.replacen(from, to, 1);
            assert_ne!(text, PAIR);
            assert_eq!(complaint(text), expected);
        }
        assert_eq!(
            complaint("3 2".into()),
            "t:1:1: the file ends where the number of NVSwitches should follow"
        );
    }
}
