"""A Hugging Face model card's `co2_eq_emissions`: YAML front matter, emissions in GRAMS of CO2e.

Keys: https://huggingface.co/docs/hub/model-cards-co2. What trackers write there is operation with cooling, and so is
this (JSC); hardware and inherited cost are the data sheet's.
"""

from collections.abc import Iterator

from wattribute.exporters.report.exact import grams, plain
from wattribute.exporters.report.sheet import Costs, Sheet


def model_card(sheet: Sheet) -> str:
    """The front matter of a job's or a product's card: of a product, the emissions of its creation jobs.

    What isn't known is left out: a key without a value would be read as one. Raises ValueError where no job made the
    product, or the sheet is a node's.
    """
    return "---\n" + "\n".join(_lines(sheet)) + "\n---\n"


def _lines(sheet: Sheet) -> Iterator[str]:
    costs = emissions(sheet)
    yield "co2_eq_emissions:"
    yield f"  emissions: {plain(grams(costs.sums_ng()['jsc']))}"
    yield f"  source: {_quoted(_source(sheet, costs))}"
    kind = _training_type(sheet)
    if kind:
        yield f"  training_type: {_quoted(kind)}"
    if sheet.intensity.zone:
        yield f"  geographical_location: {_quoted(sheet.intensity.zone)}"
    if sheet.hardware:
        yield f"  hardware_used: {_quoted('; '.join(sheet.hardware))}"


def emissions(sheet: Sheet) -> Costs:
    """What a card is about: the job's costs, or those of a product's creation jobs. Raises ValueError."""
    if sheet.kind == "node":
        raise ValueError("a node has no model card: ask for one of a job or a product")
    if sheet.kind == "job":
        return sheet.total
    made = [group.costs for group in sheet.groups if group.role == "creation"]
    if not made:
        raise ValueError(f"no creation job of product {sheet.id!r} is known, so a model card has nothing to say")
    return Costs.of(made)


def _source(sheet: Sheet, costs: Costs) -> str:
    count = "one creation job" if costs.jobs == 1 else f"{costs.jobs} creation jobs"
    what = count if sheet.kind == "product" else "one job"
    return f"wattribute {sheet.version}: operation and cooling (JSC) of {what}, grams CO2e; hardware not included"


def _training_type(sheet: Sheet) -> str:
    """`fine-tuning` where the product inherits from another, `pre-training` where it is known not to."""
    if sheet.product is None or (sheet.job is not None and sheet.job.role != "creation"):
        return ""
    if sheet.product.kind != "model":
        return ""
    return "fine-tuning" if sheet.product.parents else "pre-training"


def _quoted(text: str) -> str:
    """A double-quoted YAML scalar: what doesn't print, or would end a line, is escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


__all__ = ["emissions", "model_card"]
