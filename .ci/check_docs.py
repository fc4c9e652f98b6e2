"""Runs the SQL and Python of README and docs on results that are there.

usage: check_docs.py FOLDER

FOLDER holds what the documents speak of: results/deepseek, and a run of `simulate` in
simulator_output. SQL is DuckDB's; blocks of one document share their Python names.
"""

import os
import re
import sys
from pathlib import Path

import duckdb
import matplotlib

matplotlib.use("Agg")
BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    repository = Path(__file__).resolve().parent.parent
    documents = [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]
    os.chdir(sys.argv[1])
    run, broken = 0, 0
    for document in documents:
        text, names = document.read_text(), {}
        for block in BLOCK.finditer(text):
            kind, code = block.groups()
            if kind not in ("sql", "python"):
                continue
            run += 1
            try:
                run_sql(code) if kind == "sql" else exec(code, names)
            except Exception as error:
                broken += 1
                line = text.count("\n", 0, block.start()) + 1
                print(f"{document.relative_to(repository)}:{line}: {error}", file=sys.stderr)
    print(f"{run} blocks of SQL and Python run")
    sys.exit(1 if broken or run < 5 else 0)


def run_sql(code):
    database = duckdb.connect()
    for statement in duckdb.extract_statements(code):
        database.execute(statement).fetchall()


if __name__ == "__main__":
    main()
