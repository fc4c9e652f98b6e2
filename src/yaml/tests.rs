//! Positions, dialect and error messages of the YAML reader.

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Spec {
    name: String,
    #[serde(default)]
    seed: u64,
    base: Base,
    #[serde(default)]
    ratios: Vec<f64>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Base {
    replicas: u32,
    lengths: Lengths,
    backend: Backend,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Backend {
    Silicon,
    Roofline,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Lengths {
    Fixed { prefill_tokens: u32 },
    Trace { file: String, limits: Limits },
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Limits {
    max_tokens: u32,
}

const GOOD: &str = "\
name: demo
seed: 18446744073709551615
base:
  replicas: 4
  backend: silicon
  lengths: {type: trace, file: a.csv, limits: {max_tokens: 4096}}
ratios:
  - 0.5
  - 1
";

fn doc(text: &str) -> Document {
    parse(text, Path::new("s.yaml")).expect("valid YAML")
}

fn parse_error(text: &str) -> String {
    parse(text, Path::new("s.yaml"))
        .expect_err("must be rejected")
        .to_string()
}

/// `GOOD` with `from` replaced by `to`, which must make it invalid.
fn typed_error(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    from_document::<Spec>(&doc(&GOOD.replace(from, to)))
        .expect_err("must be rejected")
        .to_string()
}

#[test]
fn good_document_reads_exactly() {
    let spec: Spec = from_document(&doc(GOOD)).expect("valid");
    assert_eq!(spec.seed, u64::MAX);
    assert_eq!(spec.base.backend, Backend::Silicon);
    assert_eq!(spec.ratios, [0.5, 1.0]);
}

#[test]
fn positions_of_keys_and_values() {
    let d = doc(GOOD);
    assert_eq!(d.position("base.replicas"), Some((4, 13)));
    assert_eq!(d.key_position("base.replicas"), Some((4, 3)));
    assert_eq!(d.position("base.lengths.limits.max_tokens"), Some((6, 60)));
    assert_eq!(d.position("ratios[1]"), Some((9, 5)));
    assert_eq!(d.position("base.nothing"), None);
    assert_eq!(d.error("base.nothing.at.all", "x").position, Some((4, 3)));
}

#[test]
fn keys_with_dots_are_found() {
    let d = doc("axes:\n  workload.arrivals.clients: [1, {a: 2}]\n");
    let path = "axes.workload.arrivals.clients[1].a";
    assert_eq!(d.get(path), Some(&Value::from(2)));
    assert_eq!(d.position(path), Some((2, 38)));
}

#[test]
fn yaml_1_2_scalars() {
    let d = doc("a: no\nb: 0o17\nc: 1e-3\nd: ~\ne: '7'\nf: 1_000\ng: true\n");
    let expected = serde_json::json!(
        {"a": "no", "b": 15, "c": 1e-3, "d": null, "e": "7", "f": "1_000", "g": true}
    );
    assert_eq!(d.value, expected);
}

#[test]
fn anchors_and_merge_keys() {
    let d = doc("x: &x {a: 1, b: 2}\ny: *x\nz:\n  b: 9\n  <<: *x\n");
    assert_eq!(d.value["y"], serde_json::json!({"a": 1, "b": 2}));
    assert_eq!(d.value["z"], serde_json::json!({"a": 1, "b": 9}));
    assert_eq!(d.position("y"), Some((2, 4)));
    assert_eq!(d.position("z.b"), Some((4, 6)));
    assert_eq!(d.position("z.a"), Some((1, 11)));
}

#[test]
fn rejected_documents() {
    let cases = [
        (
            "a: 1\nb: 2\na: 3\n",
            "s.yaml:3:1: not valid YAML: duplicated key",
        ),
        ("a: [1, 2\nb: 3\n", "s.yaml:2:"),
        ("a: .nan\n", "s.yaml:1:4: key `a`: a number must be finite"),
        (
            "a: 1\n---\nb: 2\n",
            "s.yaml:3:1: more than one YAML document",
        ),
        (
            "a: !x {b: 1}\n",
            "s.yaml:1:4: key `a`: YAML tags are not supported",
        ),
        ("a:\n  <<: 3\n", "s.yaml:2:7: key `a`: `<<` needs a mapping"),
        (
            "a: !!str 1\n",
            "s.yaml:1:4: key `a`: YAML tags are not supported",
        ),
        (
            "a: &a [1, *a]\n",
            "s.yaml:1:11: key `a[1]`: an alias stands within what it stands for",
        ),
        ("", "s.yaml: the file is empty"),
        ("# only a comment\n", "the file is empty"),
    ];
    for (text, message) in cases {
        let found = parse_error(text);
        assert!(found.contains(message), "{text:?}: {found}");
    }
}

#[test]
fn merged_entries_yield_to_those_written_wherever_they_stand() {
    let d = doc("x: &x {a: 1, b: {c: 2}}\nz: {<<: [*x, {d: 4, a: 9}], b: 3}\n");
    assert_eq!(d.value["z"], serde_json::json!({"a": 1, "b": 3, "d": 4}));
    let keys: Vec<_> = d.value["z"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["a", "b", "d"]);
    assert_eq!(d.position("z.b"), Some((2, 32)));
    assert_eq!(d.position("z.b.c"), None);
    assert_eq!(d.position("z.d"), Some((2, 18)));
}

/// Ten times as much takes about ten times as long, or is refused: nothing here takes
/// a second even in a build without optimisation, nor overflows the stack.
#[test]
fn files_made_to_harm_end_soon() {
    let aliases = (1..10).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let nine = vec![format!("*a{}", level - 1); 9].join(",");
        text + &format!("a{level}: &a{level} [{nine}]\n")
    });
    let levels = |open: &str, close: &str| {
        let (open, close) = (open.repeat(10_000), close.repeat(10_000));
        format!("a:\n  x: {open}1{close}\n")
    };
    let too_deep = "nested too deeply: allowed are 64 mappings and lists inside one another";
    let blocks: String = (0..1000)
        .map(|i| format!("{}a:\n", " ".repeat(i)))
        .collect();
    let cases = [
        (levels("[", "]"), "s.yaml:2:", too_deep),
        (levels("{a: ", "}"), "s.yaml:2:", too_deep),
        (
            format!("a:\n  {}1\n", "- ".repeat(10_000)),
            "s.yaml:2:129: ",
            too_deep,
        ),
        (blocks, "s.yaml:65:65: ", too_deep),
        (aliases, "s.yaml:", "stands for more than 2000000 values"),
    ];
    for (text, place, message) in cases {
        let found = parse_error(&text);
        assert!(
            found.starts_with(place) && found.contains(message),
            "{found}"
        );
    }
    let anchors: String = (0..20_000).map(|i| format!("k{i}: &a{i} {i}\n")).collect();
    assert_eq!(doc(&anchors).value["k19999"], 19_999);
    let merges: String = (0..5_000)
        .map(|i| format!("k{i}: {{<<: *x, v: {i}}}\n"))
        .collect();
    let merges = doc(&format!("x: &x {{w: 1}}\n{merges}"));
    assert_eq!(
        merges.value["k4999"],
        serde_json::json!({"w": 1, "v": 4999})
    );
    assert_eq!(merges.position("k4999.w"), Some((1, 11)));
    let long = "x".repeat(3_000_000);
    assert_eq!(doc(&format!("a: {long}\n")).value["a"], long);
}

#[test]
fn unknown_keys_name_the_nearest() {
    assert_eq!(
        typed_error("  replicas", "  replcas"),
        "s.yaml:4:3: unknown key `replcas` in `base`; allowed: replicas, lengths, backend; \
         did you mean `replicas`?"
    );
    // Inside an internally tagged enum, where serde loses the path.
    assert_eq!(
        typed_error("max_tokens", "max_token"),
        "s.yaml:6:48: unknown key `max_token` in `base.lengths.limits`; allowed: max_tokens; \
         did you mean `max_tokens`?"
    );
    assert_eq!(
        typed_error("name: demo", "name: demo\nxyz: 1"),
        "s.yaml:2:1: unknown key `xyz`; allowed: name, seed, base, ratios"
    );
}

#[test]
fn wrong_values_say_what_is_allowed() {
    assert_eq!(
        typed_error("replicas: 4", "replicas: four"),
        "s.yaml:4:13: key `base.replicas`: value `four` is not allowed; \
         expected a whole number from 0 to 4294967295"
    );
    assert_eq!(
        typed_error("replicas: 4", "replicas: -4"),
        "s.yaml:4:13: key `base.replicas`: value `-4` is not allowed; \
         expected a whole number from 0 to 4294967295"
    );
    assert_eq!(
        typed_error("max_tokens: 4096", "max_tokens: 1.5"),
        "s.yaml:6:60: key `base.lengths.limits.max_tokens`: value `1.5` is not allowed; \
         expected a whole number from 0 to 4294967295"
    );
    assert_eq!(
        typed_error("  - 0.5", "  - half"),
        "s.yaml:8:5: key `ratios[0]`: value `half` is not allowed; expected a number"
    );
    assert_eq!(
        typed_error("backend: silicon", "backend: silcon"),
        "s.yaml:5:12: key `base.backend`: value `silcon` is not allowed; \
         allowed: silicon, roofline; did you mean `silicon`?"
    );
    assert_eq!(
        typed_error("type: trace", "type: trce"),
        "s.yaml:6:19: key `base.lengths.type`: value `trce` is not allowed; \
         allowed: fixed, trace; did you mean `trace`?"
    );
}

#[test]
fn missing_keys_name_their_parent() {
    assert_eq!(
        typed_error("  replicas: 4\n", ""),
        "s.yaml:4:3: missing key `replicas` in `base`"
    );
    assert_eq!(
        typed_error("name: demo\n", ""),
        "s.yaml:1:1: missing key `name`"
    );
    assert_eq!(
        typed_error("file: a.csv, ", ""),
        "s.yaml:6:12: missing key `file` in `base.lengths`"
    );
}

#[test]
fn unreadable_file_is_named() {
    let error = read(Path::new("does/not/exist.yaml")).expect_err("no such file");
    let message = error.to_string();
    assert!(
        message.starts_with("does/not/exist.yaml: cannot read"),
        "{message}"
    );
}
