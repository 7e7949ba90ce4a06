"""The `/metrics` page: text format 0.0.4 and OpenMetrics 1.0, plain or gzipped, rendered when asked for.

Integers are printed with an exponent (`1234567e-6`): exact, legal in both formats and four times cheaper than a
float. Names and labels become templates for `%`, kept for as long as their owner is on the page.
"""

import math
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from wattribute.agent.core.model import Snapshot
from wattribute.agent.core.units import NS_PER_S
from wattribute.exporters.batch import Exemplar, Labels, Number, Owner, cleaned
from wattribute.exporters.families import batches
from wattribute.exporters.metric import Metric
from wattribute.exporters.metrics import METRICS
from wattribute.exporters.negotiation import Format

CONTENT_TYPE: dict[Format, str] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
GZIP_LEVEL = 1  # level 9 costs ten times as much for 20 % fewer bytes
EXEMPLAR_LABEL = "request_id"
EXEMPLAR_CHARACTERS = 128  # OpenMetrics 1.0: names and values of an exemplar's labels together
_STEPS_AT_ONCE, _STEPS_TO_MAKE = 1000, 20  # a step finds an owner's templates; making them takes as long as 20
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # with 16 zlib writes gzip's header and trailer

Templates: TypeAlias = tuple[str, ...]
"""An owner's lines by family, with a place for each number."""


def _header(metric: Metric, form: Format) -> str:
    if form == "text":
        return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.type}\n"
    unit = f"# UNIT {metric.family} {metric.unit}\n" if metric.unit else ""
    return f"# TYPE {metric.family} {metric.type}\n{unit}# HELP {metric.family} {metric.help}\n"


_HEADERS: dict[Format, dict[str, str]] = {
    "text": {metric.name: _header(metric, "text") for metric in METRICS},
    "openmetrics": {metric.name: _header(metric, "openmetrics") for metric in METRICS},
}


def _number(metric: Metric) -> str:
    if metric.exponent is None:
        return "%r"
    return f"%de{metric.exponent}" if metric.exponent else "%d"


def _line(metric: Metric, values: Labels) -> str:
    """One series as a template that takes its number; a histogram's lines, theirs."""
    number = _number(metric)
    if not metric.labels:
        return f"{metric.name} {number}\n"
    pairs = []
    for label, value in zip(metric.labels, values, strict=True):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%")
        pairs.append(f'{label}="{escaped}"')
    labels = ",".join(pairs)
    if metric.buckets:
        # A bucket's number may bring its exemplar along: text.
        buckets = "".join([f'{metric.name}_bucket{{{labels},le="{end}"}} %s\n' for end in metric.le])
        return f"{buckets}{metric.name}_count{{{labels}}} %d\n{metric.name}_sum{{{labels}}} {number}\n"
    return f"{metric.name}{{{labels}}} {number}\n"


def _with_exemplars(column: Sequence[Number], exemplars: Mapping[int, Exemplar]) -> list[Number | str]:
    """A histogram's numbers, those of buckets with the request that each names."""
    numbers: list[Number | str] = list(column)
    for place, (request_id, energy_uj, at_ns) in exemplars.items():
        if _is_nameable(request_id):
            at = f"{at_ns // NS_PER_S}.{at_ns % NS_PER_S:09d}"
            numbers[place] = f'{column[place]} # {{{EXEMPLAR_LABEL}="{request_id}"}} {energy_uj}e-6 {at}'
    return numbers


def _is_nameable(request_id: str) -> bool:
    """Whether an exemplar can name it as it is: what would have to be cut or replaced would name no request.

    Quotes and backslashes could be escaped, but prometheus_client's parser (0.26) loses the page over them.
    """
    fits = len(EXEMPLAR_LABEL) + len(request_id) <= EXEMPLAR_CHARACTERS
    return fits and cleaned((request_id,)) == (request_id,) and not set(request_id) & set('"\\\n')


def _templates(metrics: Sequence[Metric], owner: Owner) -> Templates:
    families = zip(metrics, owner.series(), strict=True)
    return tuple(["".join([_line(metric, labels) for labels in series]) for metric, series in families])


class Rendering:
    """One variant of a snapshot's page, made a few milliseconds at a time by whoever asks for it."""

    def __init__(self, pieces: Iterator[str], *, compressed: bool) -> None:
        self._pieces = pieces
        self._gzip = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW) if compressed else None
        self._parts: list[bytes] = []
        self._page: bytes | None = None
        self._error: Exception | None = None

    def go_on(self, for_s: float = math.inf) -> bytes | None:
        """Make more of it, for so long; the page, once it is whole. Raises what its making raised, each time."""
        if self._error is not None:
            raise self._error
        if self._page is None:
            try:
                self._make(time.perf_counter() + for_s)
            except Exception as error:
                self._error = error
                raise
        return self._page

    def _make(self, until_s: float) -> None:
        for piece in self._pieces:
            part = piece.encode()
            self._parts.append(part if self._gzip is None else self._gzip.compress(part))
            if time.perf_counter() > until_s:
                return
        if self._gzip is not None:
            self._parts.append(self._gzip.flush())
        self._page = b"".join(self._parts)
        self._parts = []


class PrometheusPage:
    """An Exporter whose page is rendered by the scraper's request, at most once per snapshot and variant.

    Publishing only swaps a reference, so it costs nothing at any rate. Before the first snapshot the page is empty.
    With `exemplars` the buckets of histograms name single requests, in OpenMetrics.
    """

    def __init__(self, *, exemplars: bool = False) -> None:
        self._exemplars = exemplars
        self._current: tuple[Snapshot | None, dict[tuple[Format, bool], Rendering]] = (None, {})
        self._templates: dict[str, dict[Owner, Templates]] = {}

    @property
    def snapshot(self) -> Snapshot | None:
        """What the page shows now."""
        return self._current[0]

    def publish(self, snapshot: Snapshot) -> None:
        """Show this snapshot from now on; never blocks or raises."""
        self._current = (snapshot, {})

    def close(self) -> None:
        """Nothing is held open; the last page stays readable."""

    def text(self, *, compressed: bool = False) -> bytes:
        """The page in Prometheus' text format 0.0.4, gzipped if `compressed`."""
        return self.page("text", compressed=compressed)

    def openmetrics(self, *, compressed: bool = False) -> bytes:
        """The page in OpenMetrics 1.0, gzipped if `compressed`."""
        return self.page("openmetrics", compressed=compressed)

    def page(self, form: Format, *, compressed: bool) -> bytes:
        """The page in the form that content negotiation chose, at once."""
        page = self.rendering(form, compressed=compressed).go_on()
        assert page is not None
        return page

    def rendering(self, form: Format, *, compressed: bool) -> Rendering:
        """The page as it is to be from now on, for who has something else to do meanwhile."""
        snapshot, renderings = self._current
        rendering = renderings.get((form, compressed))
        if rendering is None:
            rendering = renderings[form, compressed] = Rendering(self._pieces(snapshot, form), compressed=compressed)
        return rendering

    def _pieces(self, snapshot: Snapshot | None, form: Format) -> Iterator[str]:
        """Each family with its header, and nothing where templates take long; those of owners that left are dropped."""
        kept: dict[str, dict[Owner, Templates]] = {}
        for batch in batches(snapshot) if snapshot is not None else ():
            batch_name = batch.metrics[0].name  # owners of different batches may be equal as tuples
            known = self._templates.get(batch_name, {})
            kept[batch_name] = lines = {}
            steps = 0
            for owner in batch.owners:
                templates = known.get(owner)
                if templates is None:
                    templates = _templates(batch.metrics, owner)
                    steps += _STEPS_TO_MAKE
                lines[owner] = templates
                steps += 1
                if steps > _STEPS_AT_ONCE:
                    yield ""
                    steps = 0
            by_family = zip(*lines.values(), strict=True)  # nothing where there are no owners
            for metric, formats, column in zip(batch.metrics, by_family, batch.columns, strict=False):
                if column:
                    yield _HEADERS[form][metric.name]
                    numbers: Iterable[Number | str] = column
                    if batch.exemplars and self._exemplars and form == "openmetrics":
                        numbers = _with_exemplars(column, batch.exemplars)
                    yield "".join(formats) % tuple(numbers)  # a family is one format: the loop over series runs in C
        self._templates = kept
        if form == "openmetrics":
            yield "# EOF\n"
