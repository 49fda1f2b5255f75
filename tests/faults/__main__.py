"""Causes every fault and prints what came of it, as the table in docs/faults.md.

    python -m tests.faults [PART ...] [--every=N]

A PART is a module of this folder with a function `rows(every)`; all without one.
EVERY=10 tries each tenth moment or case, and of programs only those that end quickly.
"""

import argparse
import importlib
import sys

#: First those that fork: later, this process has threads.
PARTS = (
    *("kills", "disk", "parquet"),
    *("catalogues", "fuzzing", "concurrency", "soak"),
)


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("part", nargs="*", default=PARTS)
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    print("| fault | tried | lost | what the user sees |\n|---|---:|---:|---|")
    failures = []
    for part in args.part:
        for row in importlib.import_module(f"tests.faults.{part}").rows(args.every):
            print(row, flush=True)
            failures += [f"{row.fault}: {what}" for what in row.lost]
    print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
