"""Rows, their summary, and how they are shown: Markdown for people, JSON for programs. Errors: parts of the truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.truthbench.play import Played

AIMS = {"host": 0.01, "gpu": 0.03}
"""The largest error aimed at where the law is linear: of the host by CPU time, of GPUs sampled every 100 ms."""

PUBLISHED = ("Kepler", "Scaphandre", "CEEMS")
TOOLS = ("wattribute", *PUBLISHED, "CEEMS less idle")
WORTH_A_WORD = 0.001
REMOVED = "the kernel takes the counter away with the cgroup: what was used since the last tick is nobody's"


@dataclass(frozen=True, slots=True)
class Row:
    """One job's energy of one kind. `found_j` by tool; a tool that has no formula for it is absent."""

    scenario: str
    job: str
    group: str
    truth_j: float
    found_j: dict[str, float]
    idle_j: float
    overhead_j: float
    aim: float | None  # None: the law isn't linear, nothing is aimed at
    bound: float
    cause: str

    def error(self, tool: str) -> float | None:
        """(found - truth) / truth."""
        return self.found_j[tool] / self.truth_j - 1 if tool in self.found_j else None

    @property
    def ours(self) -> float:
        return self.found_j["wattribute"] / self.truth_j - 1

    @property
    def nearer(self) -> list[str]:
        """The tools, as published, that came nearer to the truth than we did, where that is worth a word."""
        off = abs(self.ours)
        errors = ((tool, self.error(tool)) for tool in PUBLISHED)
        return [tool for tool, error in errors if error is not None and abs(error) < off and off > WORTH_A_WORD]

    @property
    def remark(self) -> str:
        words = []
        if abs(self.ours) > WORTH_A_WORD and self.cause:
            words.append(self.cause)
        if abs(self.ours) > self.bound:
            words.append(f"**beyond {self.bound:.1%}**")
        if self.nearer:
            words.append(f"nearer: {', '.join(self.nearer)}")
        return "; ".join(words)


def rows(played: Played) -> list[Row]:
    """A scenario's rows, in the order in which its jobs stand."""
    scenario = played.scenario
    jobs = {job.name: job for job in scenario.jobs}
    order = list(jobs)
    made = []
    for key in sorted(played.truth_j, key=lambda key: (order.index(key[0]), key[1] == "gpu")):
        name, group = key
        aim = AIMS[group] if group not in scenario.bounds else None
        about_gpu = any(law.context_w or law.exponent != 1.0 or law.slices for law in scenario.gpus)
        cause = scenario.cause if (group == "gpu") == about_gpu else ""
        if jobs[name].runs == "cgroup":
            cause = "; ".join(filter(None, (cause, REMOVED)))
        made.append(
            Row(
                scenario=scenario.name,
                job=name,
                group=group,
                truth_j=played.truth_j[key],
                found_j={
                    "wattribute": played.ours_j.get(key, 0.0),
                    **{tool: found[key] for tool, found in played.peers_j.items() if key in found},
                },
                idle_j=played.idle_j.get(key, 0.0),
                overhead_j=played.overhead_j.get(key, 0.0),
                aim=aim,
                bound=scenario.bounds.get(group, AIMS[group]),
                cause=cause,
            )
        )
    return made


def summary(all_rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Median and worst absolute error of each tool over the rows that it has a formula for."""
    found: dict[str, dict[str, float]] = {}
    for tool in TOOLS:
        errors = [abs(error) for row in all_rows if (error := row.error(tool)) is not None]
        if errors:
            found[tool] = {"rows": len(errors), "median": median(errors), "worst": max(errors)}
    return found


def markdown(played: Sequence[Played]) -> str:
    """The table, one row per job and kind, and the summary under it."""
    tools = " | ".join(f"{tool} %" for tool in TOOLS[1:])
    lines = [
        f"| scenario | job | truth J | ours J | ours % | {tools} | idle J | overhead J | conservation uJ | remark |",
        f"|---|---|---:|---:|---:|{'---:|' * (len(TOOLS) - 1)}---:|---:|---:|---|",
    ]
    all_rows: list[Row] = []
    for one in played:
        made = rows(one)
        all_rows += made
        if not made:
            cells = ["-"] * (len(TOOLS) + 5)
            lines.append(_line([one.scenario.name, *cells, str(one.conservation_uj), "nothing to bill"]))
        for i, row in enumerate(made):
            lines.append(
                _line(
                    [
                        row.scenario if i == 0 else "",
                        row.job + (", GPU" if row.group == "gpu" else ""),
                        f"{row.truth_j:,.1f}",
                        f"{row.found_j['wattribute']:,.1f}",
                        *(_percent(row.error(tool)) for tool in TOOLS),
                        f"{row.idle_j:,.0f}",
                        f"{row.overhead_j:,.1f}",
                        str(one.conservation_uj) if i == 0 else "",
                        row.remark,
                    ]
                )
            )
    lines += ["", "| over the whole table | rows | median error | worst error |", "|---|---:|---:|---:|"]
    for tool, figures in summary(all_rows).items():
        errors = [f"{_percent(figures[each], '')} %" for each in ("median", "worst")]
        lines.append(_line([tool, f"{figures['rows']:.0f}", *errors]))
    lines += ["", *(f"- {one.scenario.name}: {one.scenario.about}" for one in played)]
    return "\n".join(lines) + "\n"


def as_json(played: Sequence[Played]) -> dict[str, Any]:
    """The same as plain values, with what nobody pays for."""
    all_rows = [row for one in played for row in rows(one)]
    return {
        "scenarios": [
            {
                "name": one.scenario.name,
                "seed": one.scenario.seed,
                "about": one.scenario.about,
                "linear": one.scenario.linear,
                "conservation_uj": one.measured.conservation_uj,
                "unattributed_j": one.measured.unattributed_j,
            }
            for one in played
        ],
        "rows": [
            {
                "scenario": row.scenario,
                "job": row.job,
                "group": row.group,
                "truth_j": row.truth_j,
                "found_j": row.found_j,
                "errors": {tool: row.error(tool) for tool in row.found_j},
                "idle_j": row.idle_j,
                "overhead_j": row.overhead_j,
                "aim": row.aim,
                "bound": row.bound,
                "remark": row.remark,
            }
            for row in all_rows
        ],
        "summary": summary(all_rows),
    }


def _percent(error: float | None, sign: str = "+") -> str:
    if error is None:
        return "-"
    percent = error * 100
    if abs(percent) < 0.005:
        return "0.00"
    return f"{percent:{sign}.2f}" if abs(percent) < 10 else f"{percent:{sign},.0f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
