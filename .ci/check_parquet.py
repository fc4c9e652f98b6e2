"""Opens result directories with DuckDB and pandas and checks what must hold.

usage: check_parquet.py RESULT_DIR...
"""

import json
import sys
from pathlib import Path

import duckdb
import pandas

METRICS = ("ttft", "tbt", "e2e", "scheduling_delay")
LADDER = ("p50", "p90", "p95", "p99", "max")
STATUSES = {"ok", "infeasible", "failed"}
REMARKS = ("memory_check warn", "max_model_len")
# A run that is offered more than it could serve says so.
OVERLOAD = r"requests/s are offered, [0-9.]+ (?:times|are served)"
DECIDED = "num_requests - not_arrived - undecided"


class Checks:
    """Counts what was checked and collects what did not hold."""

    def __init__(self):
        self.done = 0
        self.broken = []

    def that(self, holds, what):
        self.done += 1
        if not holds:
            self.broken.append(what)


def main():
    folders = [Path(name) for name in sys.argv[1:]]
    if not folders:
        sys.exit(__doc__)
    checks = Checks()
    for folder in folders:
        check_folder(folder, checks)
    for what in checks.broken:
        print(f"does not hold: {what}", file=sys.stderr)
    print(f"{checks.done} properties of {len(folders)} result directories checked")
    sys.exit(1 if checks.broken else 0)


def check_folder(folder, checks):
    def check(holds, what):
        checks.that(bool(holds), f"{folder.name}: {what}")

    manifest = json.loads((folder / "manifest.json").read_text())
    db = duckdb.connect()
    for table in ("summary", "pareto", "timing"):
        db.execute(f"CREATE VIEW {table} AS FROM read_parquet('{folder}/{table}.parquet')")

    def value(query):
        return db.execute(query).fetchone()[0]

    check_summary(value, pandas.read_parquet(folder / "summary.parquet"), check)
    check_metrics(value, check)
    check_verdicts(value, manifest, check)
    if (folder / "requests").is_dir():
        db.execute(f"CREATE VIEW requests AS FROM read_parquet('{folder}/requests/*.parquet')")
        check_requests(value, check)
        check(manifest["request_rows"] == value("SELECT count(*) FROM requests"),
              "the manifest counts the request rows")
    check_manifest(folder, manifest, value, check)


def check_summary(value, frame, check):
    rows = value("SELECT count(*) FROM summary")
    check(rows > 0 and rows == len(frame), "DuckDB and pandas see the same, non-empty summary")
    check(set(frame["status"]) <= STATUSES, f"status is one of {sorted(STATUSES)}")
    check((frame["status"] == "ok").any(), "at least one run was simulated")
    check(not (frame["status"] == "failed").any(), "no run failed")
    check(value("SELECT count(*) FROM summary WHERE run_id IS NULL OR run_id = ''") == 0,
          "every row has a run_id")
    notes = frame.loc[frame["status"] == "ok", "reason"].dropna()
    check((notes.str.startswith(REMARKS) | notes.str.contains(OVERLOAD)).all(), "ok rows have no reason but remarks")
    check(frame.loc[frame["status"] != "ok", "reason"].str.len().gt(0).all(),
          "rows that were not simulated say why")
    ok = frame[(frame["status"] == "ok") & (frame["completed"] > 0)]
    for column in ("total_gpus", "num_requests", "completed", "duration_s",
                   "throughput_requests_per_s", "throughput_tokens_per_s",
                   "throughput_tokens_per_s_per_gpu", "slo_met", "pareto"):
        check(ok[column].notna().all(), f"{column} is known for every simulated run")
    check((ok["completed"] <= ok["num_requests"]).all(), "no more completed than requested")
    check((ok["duration_s"] > 0).all(), "time passed in every run")
    per_gpu = ok["throughput_tokens_per_s"] / ok["total_gpus"]
    check(((per_gpu - ok["throughput_tokens_per_s_per_gpu"]).abs() <= 1e-9 * per_gpu).all(),
          "throughput per GPU is throughput by GPUs")
    for column in ("gpu_busy_fraction", "kv_cache_utilization", "mfu"):
        share = ok[column].dropna()
        check(share.between(0, 1 + 1e-9).all(), f"{column} is a share")


def check_metrics(value, check):
    finished = "status = 'ok' AND completed > 0"
    for metric in METRICS:
        for lower, upper in zip(LADDER, LADDER[1:]):
            bad = value(f"""SELECT count(*) FROM summary WHERE {finished}
                AND {metric}_{lower}_s > {metric}_{upper}_s * (1 + 1e-12)""")
            check(bad == 0, f"{metric}: {lower} <= {upper}")
        bad = value(f"""SELECT count(*) FROM summary WHERE {finished}
            AND NOT ({metric}_mean_s BETWEEN 0 AND {metric}_max_s * (1 + 1e-9))""")
        check(bad == 0, f"{metric}: mean is between 0 and the maximum")
    bad = value(f"SELECT count(*) FROM summary WHERE {finished} AND ttft_p99_s > e2e_max_s")
    check(bad == 0, "no first token after the last completion")


    for metric in METRICS:
        for figure in ("mean", *LADDER[:-1]):
            name = f"{metric}_{figure}"
            bad = value(f"""SELECT count(*) FROM summary WHERE {name}_low_s > {name}_s * (1 + 1e-12)
                OR {name}_high_s < {name}_s * (1 - 1e-12)""")
            check(bad == 0, f"{name}_s is within its interval")


def check_requests(value, check):
    orphans = value("SELECT count(*) FROM requests WHERE run_id NOT IN (SELECT run_id FROM summary)")
    check(orphans == 0, "every request belongs to a run")
    # All requests of a run are kept, or every 16th.
    rows = """SELECT s.simulated_requests AS wanted, count(r.run_id) AS rows
        FROM summary s LEFT JOIN requests r USING (run_id) WHERE s.status = 'ok'
        GROUP BY s.run_index, s.simulated_requests"""
    for_all = value(f"SELECT count(*) FROM ({rows}) WHERE rows <> wanted")
    for_sampled = value(f"SELECT count(*) FROM ({rows}) WHERE rows <> ceil(wanted / 16)")
    check(for_all == 0 or for_sampled == 0,
          "every simulated run has a row for each of its requests, or for every 16th")
    bad = value("""SELECT count(*) FROM requests WHERE request_num_prefill_tokens < 1
        OR request_num_decode_tokens < 1
        OR request_num_tokens <> request_num_prefill_tokens + request_num_decode_tokens""")
    check(bad == 0, "prompt and output tokens add up")
    bad = value("SELECT count(*) FROM requests WHERE request_e2e_time < prefill_e2e_time - 1e-9")
    check(bad == 0, "no request ends before its first token")
    bad = value("""SELECT count(*) FROM (
        SELECT any_value(s.e2e_max_s) AS summarised, max(r.request_e2e_time) AS seen,
            any_value(s.num_requests) = count(*) AS kept_all
        FROM summary s JOIN requests r USING (run_id)
        WHERE s.status = 'ok' AND s.completed = s.num_requests AND r.measured
        GROUP BY s.run_id)
        WHERE seen > summarised * (1 + 1e-9) OR (kept_all AND seen < summarised * (1 - 1e-9))""")
    check(bad == 0, "the longest request of each run is its e2e_max_s")


def check_verdicts(value, manifest, check):
    check(value("SELECT count(*) FROM summary WHERE slo_met IS NULL OR pareto IS NULL") == 0,
          "every row has its verdicts")
    bounds = [f"coalesce({name}, 0) <= {limit}" for name, limit in manifest["slo"].items()]
    served = ["completed > 0", f"completed = {DECIDED}"]
    meets = " AND ".join(["status = 'ok'", *served, *bounds])
    check(value(f"SELECT count(*) FROM summary WHERE slo_met AND NOT ({meets})") == 0,
          "what meets the targets has figures that do")
    check(value("SELECT count(*) FROM summary WHERE slo_met <> (slo_verdict = 'meets')") == 0,
          "slo_met is its verdict")
    check(value("SELECT count(*) FROM summary WHERE slo_met AND load_verdict <> 'stable'") == 0,
          "what meets the targets keeps up with its load")
    check(value("""SELECT count(*) FROM summary WHERE (slo_probability >= 0.975) <
        (slo_verdict = 'meets') OR (slo_probability <= 0.025) <> (slo_verdict = 'misses')""") == 0,
          "verdicts follow from probabilities")
    front = value("SELECT count(*) FROM pareto")
    check(front > 0, "the frontier is not empty")
    counted = "completed + rejected + unfinished + not_arrived"
    check(value(f"SELECT count(*) FROM summary WHERE num_requests <> {counted}") == 0,
          "every request is counted once")
    check(front == value("SELECT count(*) FROM summary WHERE pareto"),
          "pareto.parquet holds the rows of summary that say so")
    check(value("SELECT count(*) FROM pareto ANTI JOIN summary USING (run_index, run_id)") == 0,
          "every frontier row is a run")
    if any(axis["name"] == "replication" for axis in manifest["axes"]):
        return  # Configurations are compared by their means, not run by run.
    objectives = [(name, ">") for name in manifest["objectives"]["maximize"]]
    objectives += [(name, "<") for name in manifest["objectives"]["minimize"]]
    # Those without a value in any run are left out.
    objectives = [(name, sign) for name, sign in objectives
                  if value(f"SELECT count({name}) FROM summary") > 0]
    check(objectives, "an objective has values")
    no_worse = " AND ".join(f"q.{name} {sign}= p.{name}" for name, sign in objectives)
    better = " OR ".join(f"q.{name} {sign} p.{name}" for name, sign in objectives)
    dominated = value(f"""SELECT count(*) FROM pareto p WHERE EXISTS
        (SELECT 1 FROM pareto q WHERE {no_worse} AND ({better}))""")
    check(dominated == 0, "no frontier row is dominated by another")


def check_manifest(folder, manifest, value, check):
    check(manifest["complete"] and manifest["version"], "the manifest is of a finished sweep")
    rows = value("SELECT count(*) FROM summary")
    check(manifest["runs"]["total"] == rows, "the manifest counts the runs")
    check(value("SELECT count(*) FROM timing") == rows, "every run has its wall time")
    for entry in manifest["files"]:
        path = folder / entry["path"]
        check(path.stat().st_size == entry["bytes"], f"{entry['path']} has the size it was written with")


if __name__ == "__main__":
    main()
