//! `vidur-sweep completions`.

use std::path::Path;
use std::process::ExitCode;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use super::CliResult;
use super::output::print_data;
use crate::catalog::Catalog;
use crate::network::nccl::Algorithm;
use crate::spec::columns::{objective_columns, target_columns, usual_side};
use crate::spec::keys::{request_slo_keys, run_key_paths, sweep_keys};
use crate::workload::embedded_files;

/// Print a completion script for a shell.
///
/// Completes commands, options and what can be said after them: models, devices,
/// engines, backends and schedulers of the catalog, keys of specifications after
/// --set, columns after --slo and --objectives.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vidur-sweep completions bash > ~/.local/share/bash-completion/completions/vidur-sweep
  vidur-sweep completions zsh > ~/.zfunc/_vidur-sweep
  vidur-sweep completions fish > ~/.config/fish/completions/vidur-sweep.fish")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: Args) -> CliResult {
    print_data(script(args.shell).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

const PROGRAM: &str = "vidur-sweep";
/// What the script for bash is made for: of names with a hyphen clap_complete (4.6) makes
/// one that knows no subcommands. Bash is told the right name at the end of the script.
const BASH_NAME: &str = "vidur_sweep";

/// The completion script for `shell`.
fn script(shell: Shell) -> String {
    let mut command = with_names(super::Cli::command());
    let name = match shell {
        Shell::Bash => BASH_NAME,
        _ => PROGRAM,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => whole_words(&script),
        _ => script,
    }
}

/// Words that can be said somewhere.
type Names = fn() -> Vec<String>;

/// Options and arguments whose values have names: command, argument, names.
const NAMED: [(&[&str], &str, Names); 21] = [
    (&["capacity"], "set", settings),
    (&["run"], "set", settings),
    (&["plan"], "set", settings),
    (&["validate"], "overrides", settings),
    (&["pareto"], "slo", targets),
    (&["pareto"], "objectives", objectives),
    (&["explain"], "model", models),
    (&["explain"], "device", devices),
    (&["explain"], "engine", engines),
    (&["explain"], "dtype", dtypes),
    (&["explain"], "kv_cache_dtype", dtypes),
    (&["catalog"], "name", entries),
    (&["profiles", "list"], "device", devices),
    (
        &["profiles", "import", "aiconfigurator"],
        "systems",
        devices,
    ),
    (&["network", "price"], "backend", network_backends),
    (&["network", "price"], "algorithm", algorithms),
    (&["topology", "generate"], "fabric", fabrics),
    (&["topology", "generate"], "gpu_type", devices),
    (&["simulate"], "replica_config_model_name", models),
    (&["simulate"], "replica_config_device", devices),
    (
        &["simulate"],
        "trace_request_length_generator_config_trace_file",
        traces,
    ),
];

/// The command with names that shells offer; anything else may be said as well.
fn with_names(command: Command) -> Command {
    NAMED
        .iter()
        .fold(command, |command, (path, argument, names)| {
            let change = |arg: Arg| arg.value_parser(Known(*names));
            at(command, path, &|command| command.mut_arg(argument, change))
        })
}

/// The command with a subcommand of it changed.
fn at(command: Command, path: &[&str], change: &dyn Fn(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [first, rest @ ..] => command.mut_subcommand(first, |inner| at(inner, rest, change)),
    }
}

/// Reads any text; shells offer the names.
#[derive(Clone)]
struct Known(Names);

impl TypedValueParser for Known {
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.0)().into_iter().map(PossibleValue::new)))
    }
}

fn models() -> Vec<String> {
    let models = Catalog::builtin().models().iter();
    models
        .flat_map(|model| std::iter::once(&model.name).chain(&model.aliases))
        .cloned()
        .collect()
}

fn devices() -> Vec<String> {
    let devices = Catalog::builtin().devices().iter();
    devices.map(|device| device.name.clone()).collect()
}

fn engines() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for engine in Catalog::builtin().engines() {
        if !names.contains(&engine.name) {
            names.push(engine.name.clone());
        }
    }
    names
}

/// Whatever `catalog` can show by name.
fn entries() -> Vec<String> {
    let versions = Catalog::builtin().engines().iter();
    let versions = versions.map(|engine| format!("{}-{}", engine.name, engine.version));
    let all = models().into_iter().chain(devices()).chain(engines());
    all.chain(versions)
        .chain(super::catalog::backends_and_schedulers())
        .chain(traces())
        .collect()
}

fn traces() -> Vec<String> {
    let stem = |path: &str| Some(Path::new(path).file_stem()?.to_str()?.to_owned());
    embedded_files()
        .iter()
        .filter_map(|(path, _)| stem(path))
        .collect()
}

fn dtypes() -> Vec<String> {
    super::explain::dtype_names().map(str::to_owned).to_vec()
}

fn network_backends() -> Vec<String> {
    crate::network::query::Backend::NAMED
        .map(|(name, _)| name.to_owned())
        .to_vec()
}

fn algorithms() -> Vec<String> {
    let algorithms = Algorithm::ALL.into_iter();
    algorithms
        .map(|algorithm| algorithm.name().to_owned())
        .collect()
}

fn fabrics() -> Vec<String> {
    crate::network::topology::Fabric::NAMED
        .map(|(name, _)| name.to_owned())
        .to_vec()
}

/// `ttft_p90_s=`, `total_gpus=max:`, `per_request.attainment=`.
fn targets() -> Vec<String> {
    let sides = ["min", "max"];
    let of_column = |column: &String| match usual_side(column) {
        Some(_) => vec![format!("{column}=")],
        None => sides.map(|side| format!("{column}={side}:")).to_vec(),
    };
    let columns = target_columns().into_iter();
    let columns = columns.flat_map(|column| of_column(&column));
    columns
        .chain(["per_request.attainment=".to_owned()])
        .collect()
}

/// `slo.ttft_p90_s=`, `slo.total_gpus.max=`, `slo.per_request.stall_s=`.
fn slo_settings() -> Vec<String> {
    let sides = ["min", "max"];
    let of_column = |column: &String| match usual_side(column) {
        Some(_) => vec![format!("slo.{column}=")],
        None => sides.map(|side| format!("slo.{column}.{side}=")).to_vec(),
    };
    let of_requests = request_slo_keys().iter();
    let of_requests = of_requests.map(|key| format!("slo.per_request.{}=", key.name));
    let columns = target_columns().into_iter();
    let columns = columns.flat_map(|column| of_column(&column));
    columns.chain(of_requests).collect()
}

/// `max:throughput_tokens_per_s`.
fn objectives() -> Vec<String> {
    let both = |column| [format!("max:{column}"), format!("min:{column}")];
    objective_columns().iter().flat_map(both).collect()
}

/// Keys of a specification: `qps=`, `axes.qps=`, `base.qps=`, `slo.ttft_p90_s=`.
fn settings() -> Vec<String> {
    let runs = run_key_paths().iter();
    let of_runs = runs.flat_map(|key| ["", "base.", "axes."].map(|place| format!("{place}{key}=")));
    let sweep = sweep_keys().iter().map(|key| format!("{}=", key.name));
    of_runs.chain(sweep).chain(slo_settings()).collect()
}

/// Bash takes `=` and `:` for ends of words, so `max:thr` and `--slo=ttft` come as three.
/// This puts words together before they are completed, takes away again what is there
/// already, and sets no blank after `=`.
const BASH_WHOLE_WORDS: &str = r#"
_vidur_sweep_whole_words() {
    local words=() word last=-1 glue=0
    local index=0
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ $index -gt 1 && ( $glue -eq 1 || $word == [=:]* ) && -n ${words[last]} ]]; then
            words[last]+=$word
        else
            last=$((last + 1))
            words[last]=$word
        fi
        case $word in *[=:]) glue=1 ;; *) glue=0 ;; esac
        index=$((index + 1))
    done
    local cur=${words[last]} prev=${words[last - 1]} typed=${COMP_WORDS[COMP_CWORD]}
    # --option=value is completed as --option value.
    if [[ $cur == --*=* ]]; then
        prev=${cur%%=*}
        cur=${cur#*=}
        words[last]=$prev
        last=$((last + 1))
        words[last]=$cur
    fi
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$last
    _vidur_sweep "$1" "$cur" "$prev"
    # Bash replaces what it takes for the last word.
    local before= there= nth
    case $typed in
        [=:]) there=$cur ;;
        *"$cur") before=${typed%"$cur"} ;;
        *) there=${cur%"$typed"} ;;
    esac
    for nth in "${!COMPREPLY[@]}"; do
        COMPREPLY[nth]=$before${COMPREPLY[nth]#"$there"}
    done
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=:.] ]]; then
        compopt -o nospace 2> /dev/null
    fi
}
"#;

/// The script with [`BASH_WHOLE_WORDS`] between the shell and what clap generates.
fn whole_words(script: &str) -> String {
    let last = format!(" {BASH_NAME}\n");
    let lines = script.lines().map(|line| {
        let registered = line.trim_start().starts_with("complete -F ");
        let line = format!("{line}\n");
        match registered {
            true => line
                .replace(
                    "complete -F _vidur_sweep ",
                    "complete -F _vidur_sweep_whole_words ",
                )
                .replace(&last, &format!(" {PROGRAM}\n")),
            false => line,
        }
    });
    format!("{BASH_WHOLE_WORDS}\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_the_names() {
        super::super::Cli::command().debug_assert();
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::Elvish,
            Shell::PowerShell,
        ] {
            let script = script(shell);
            // The others know options only.
            if matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish) {
                for name in [
                    "deepseek-671B",
                    "h200",
                    "sglang",
                    "ttft_p90_s",
                    "azure-conv-2023",
                    "sarathi",
                    "silicon",
                    "axes.qps",
                ] {
                    assert!(script.contains(name), "{name} for {shell}");
                }
            }
        }
        assert!(script(Shell::Bash).contains("complete -F _vidur_sweep_whole_words"));
    }
}
