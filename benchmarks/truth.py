"""The truth bench: what the agent and three peers' formulas say of jobs whose energy is known.

    python -m benchmarks.truth [--only NAME]... [--seed N] [--json]

Prints a table in Markdown. Exit code 1 where the ledger and the counters' own files differ by a microjoule.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.truthbench.play import Played, play
from benchmarks.truthbench.scenarios import SCENARIOS
from benchmarks.truthbench.table import as_json, markdown
from tests.doubles.nvml import MissingCompiler, in_process


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the scenarios, print what came of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth", description=__doc__.partition("\n")[0])
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="; ".join(names))
    parser.add_argument("--seed", type=int, help="another seed for every scenario, instead of its own")
    parser.add_argument("--json", action="store_true", help="all figures, for programs")
    options = parser.parse_args(arguments)
    played: list[Played] = []
    for scenario in SCENARIOS:
        if options.only and scenario.name not in options.only:
            continue
        if options.seed is not None:
            scenario = replace(scenario, seed=options.seed)
        try:
            driver = in_process() if scenario.gpus else None
        except MissingCompiler as missing:
            print(f"{scenario.name}: {missing}", file=sys.stderr)
            continue
        played.append(play(scenario, driver))
    if options.json:
        print(json.dumps(as_json(played), indent=1))
    else:
        print(markdown(played), end="")
    return int(any(one.conservation_uj for one in played))


if __name__ == "__main__":
    logging.getLogger("wattribute").setLevel(logging.ERROR)
    sys.exit(main())
