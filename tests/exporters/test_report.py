"""The data sheet: exact numbers, the same in every rendering; HTML that fetches nothing and runs nothing."""

import json
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.exporters.sheets import KG, S, job, job_sheet, node_sheet, product_sheet, products

from wattribute.agent.cli.report import render
from wattribute.agent.core.model import TERMS
from wattribute.agent.core.products import Product
from wattribute.agent.core.units import NG_PER_G, UJ_PER_KWH
from wattribute.exporters.report.data import to_dict
from wattribute.exporters.report.exact import (
    energy,
    grams,
    joules,
    json_text,
    kilograms,
    kwh,
    mass,
    percent,
    plain,
    rounded,
    tonnes,
)
from wattribute.exporters.report.html import html
from wattribute.exporters.report.markdown import markdown
from wattribute.exporters.report.outline import outline
from wattribute.exporters.report.sheet import Costs, Sheet
from wattribute.exporters.report.words import PRICE, duration

every_sheet = pytest.mark.parametrize(
    "sheet", [job_sheet(), product_sheet(), node_sheet()], ids=["job", "product", "node"]
)
nanograms = st.integers(-(10**30), 10**30)


@given(nanograms)
def test_grams_kilograms_and_tonnes_are_exact(mass_ng: int) -> None:
    assert Fraction(grams(mass_ng)) == Fraction(mass_ng, NG_PER_G)
    assert Fraction(kilograms(mass_ng)) == Fraction(mass_ng, NG_PER_G * 10**3)
    assert Fraction(tonnes(mass_ng)) == Fraction(mass_ng, NG_PER_G * 10**6)
    assert [Decimal(plain(unit(mass_ng))) for unit in (grams, kilograms, tonnes)] == [
        unit(mass_ng) for unit in (grams, kilograms, tonnes)
    ]


@given(st.integers(0, 2**63))
def test_every_microjoule_comes_back_from_kilowatt_hours(energy_uj: int) -> None:
    assert round(Fraction(kwh(energy_uj)) * UJ_PER_KWH) == energy_uj
    assert Fraction(joules(energy_uj)) * 10**6 == energy_uj


@given(st.fractions(min_value=-(10**9), max_value=10**9), st.integers(1, 20))
def test_rounding_is_to_the_nearest(value: Fraction, figures: int) -> None:
    off = abs(Fraction(rounded(value, figures)) - value)
    assert off * 2 * 10 ** (figures - 1) <= abs(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Decimal("0.000000000000001"), "0.000000000000001"),
        (Decimal("1E+5"), "100000"),
        (Decimal("1.500"), "1.5"),
        (Decimal("100"), "100"),
        (Decimal("0"), "0"),
        (7, "7"),
    ],
)
def test_numbers_have_no_exponent_and_no_zeros_at_the_end(value: Decimal | int, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(
    ("mass_ng", "text"),
    [
        (0, "0 g"),
        (1, "1 ng"),
        (999, "999 ng"),
        (1_000, "1 µg"),
        (-5_000_000, "-5 mg"),
        (192_333_883_553, "192.3 g"),
        (999_960 * NG_PER_G, "1000 kg"),
        (552_100_000 * NG_PER_G, "552.1 t"),
        (10**25, "10 Gt"),
    ],
)
def test_masses_for_readers(mass_ng: int, text: str) -> None:
    assert mass(mass_ng) == text


def test_energy_and_shares_for_readers() -> None:
    assert [energy(uj) for uj in (0, 5, 1_234_567, 7_200_000_000_000)] == ["0 J", "5 µJ", "1.235 J", "7.2 MJ"]
    assert [percent(*pair) for pair in ((0, 0), (0, 5), (1, 10**9), (1, 3), (-1, 4))] == [
        "", "0 %", "<0.1 %", "33.3 %", "-25 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 s"),
        (1_234_567_890, "1.234 s"),
        (60 * S, "1 min"),
        (3_661 * S, "1 h 1 min"),
        (5 * 86_400 * S + 5 * S, "5 d"),
    ],
)
def test_durations_for_readers(duration_ns: int, text: str) -> None:
    assert duration(duration_ns) == text


def test_json_has_every_digit_and_no_float() -> None:
    text = json_text(
        {"t": tonnes(1), "none": None, "many": [Decimal("0.1") + Decimal("0.2"), True, "\u2028ü"], "o": {}}
    )
    assert '"t": 0.000000000000001' in text
    assert "0.3," in text
    assert json.loads(text)["many"][2] == "\u2028ü"
    with pytest.raises(TypeError, match="a float"):
        json_text({"x": 0.1})


@every_sheet
def test_the_json_adds_up(sheet: Sheet) -> None:
    said = json.loads(json_text(to_dict(sheet)), parse_float=Decimal)
    grams_by = {name: Decimal(value) for name, value in said["total"]["gco2e"].items()}
    assert grams_by["operation"] + grams_by["cooling"] == grams_by["jsc"]
    assert grams_by["jsc"] + grams_by["platform"] + grams_by["retraining"] == grams_by["jsce"]
    assert grams_by["jsc"] + grams_by["hardware"] == grams_by["asc"]
    assert sum(grams_by[term] for term in TERMS) == grams_by["asce"]
    assert sum(Decimal(part["energy_j"]) for part in said["total"]["energy_j"]) * 10**6 == said["total"]["energy_uj"]
    assert PRICE in said["notes"]


@every_sheet
def test_all_renderings_say_the_same_figures(sheet: Sheet) -> None:
    page, text, said = html(sheet), markdown(sheet), json_text(to_dict(sheet))
    figures = [sheet.total.own_ng] if sheet.kind == "node" else list(sheet.total.sums_ng().values())
    for mass_ng in figures:
        assert plain(grams(mass_ng)) in page
        assert plain(grams(mass_ng)) in text
    assert plain(grams(sheet.total.sums_ng()["asc"])) in said
    assert "ASC^e is a price, not an inventory" in text
    assert "ASC^e is a price, not an inventory" in page


def test_the_sums_bounds_are_those_of_their_terms() -> None:
    sheet = job_sheet()
    whole = sheet.bounds_of("asce")
    assert whole is not None
    found = [sheet.bounds_of(term) for term in TERMS]
    assert whole.low == sum(bound.low for bound in found if bound)
    assert whole.high == sum(bound.high for bound in found if bound)


class _Reader(HTMLParser):
    """What a browser would make of a page: its tags in balance, what it would fetch or run, and its text."""

    void = ("meta", "br", "i")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wants: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        for name, value in attrs:
            fetches = name in ("src", "href", "srcset", "action", "data", "background", "xlink:href", "poster", "style")
            if fetches or name.startswith("on") or "url(" in (value or "").replace("url(#tip)", ""):
                self.wants.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@every_sheet
def test_the_page_is_whole_and_fetches_nothing(sheet: Sheet) -> None:
    page = html(sheet)
    reader = read(page)
    assert reader.wants == []
    assert not {"script", "link", "img", "iframe", "base", "object", "form"} & set(reader.tags)
    assert "@import" not in page and "url(" not in page.replace("url(#tip)", "")
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page and "@media print" in page


@every_sheet
def test_every_chart_has_a_title_and_a_table_beside_it(sheet: Sheet) -> None:
    page = html(sheet)
    labels = [part.split('"')[0] for part in page.split('aria-labelledby="c')[1:]]
    assert labels
    assert all(f'<title id="c{label}">' in page for label in labels)
    for section in outline(sheet):
        kinds = [type(block).__name__ for block in section.blocks]
        assert "Table" in kinds or not {"Stack", "Bars", "Graph", "Curve"} & set(kinds)


HOSTILE = "</title><script>alert(1)</script>\"'&amp;|`*_[x](javascript:1)\u202e🦊"


def test_what_users_typed_is_text() -> None:
    record = replace(
        job(HOSTILE), user=HOSTILE, phase=HOSTILE, nodes=(HOSTILE,), uses=(HOSTILE,), product_id=HOSTILE,
        taxes_ng={(HOSTILE, "platform"): 25_000_000_001},
    )  # fmt: skip
    reader = read(html(job_sheet(record)))
    assert "script" not in reader.tags
    assert reader.wants == []
    assert HOSTILE in reader.words
    text = markdown(job_sheet(record))
    assert "<script>" not in text
    assert "\\[x\\](" in text and "\\|" in text and "\\`" in text


def test_what_products_are_called_is_text() -> None:
    known = products()
    known[HOSTILE] = Product(id=HOSTILE, kind="dataset", epc_own_ng=KG)
    known["bert-tuned"] = replace(
        known["bert-tuned"], parents={**known["bert-tuned"].parents, HOSTILE: Fraction(1, 8)}, boundary=HOSTILE
    )
    reader = read(html(product_sheet(known)))
    assert "script" not in reader.tags
    assert reader.wants == []


def test_a_graph_of_very_many_products_isnt_drawn() -> None:
    known = products()
    many = {f"part-{number}": Product(id=f"part-{number}", kind="dataset", epc_own_ng=KG) for number in range(150)}
    known["bert-tuned"] = replace(known["bert-tuned"], parents=dict.fromkeys(many, Fraction(1)))
    page = html(product_sheet({**known, **many}))
    assert "Its 151 products are too many to be drawn" in page
    assert "part-149" in page


def test_a_missing_epc_is_unknown_and_never_nothing() -> None:
    known = products()
    known["bert-tuned"] = replace(known["bert-tuned"], parents={"nobody-knows": Fraction(1, 2)})
    sheet = product_sheet(known)
    text = markdown(sheet)
    assert "the EPC of nobody-knows" in text
    assert "| unknown |" in text
    said = to_dict(sheet)
    assert said["epc"]["gco2e"] is None
    assert said["epc"]["missing"] == ["nobody-knows"]
    assert "EPC unknown" in html(sheet)


def test_what_a_request_cost_is_told_with_and_without_idle() -> None:
    sheet = product_sheet()
    assert sheet.served is not None
    text, said = markdown(sheet), to_dict(sheet)["requests"]
    billed = sheet.served.billed
    assert said["requests"] == 78 and said["units"]["token"] == Decimal("78039.000078")
    one = Fraction(said["per_unit"]["request"]["asce_gco2e"])
    assert abs(one * 78 * NG_PER_G / billed.sums_ng()["asce"] - 1) < Fraction(1, 10**14)
    assert said["per_unit"]["request"]["with_idle"]["asce_gco2e"] > said["per_unit"]["request"]["asce_gco2e"]
    assert len(said["tenants"]) == 12 and said["stages"].keys() == {"prefill", "decode"}
    assert "| 1 request " in text and "| 1,000 token " in text and "| 1,000 image.large " in text
    assert "(2 more)" in text and "(all others)" in text and "a\\|b" in text and "| decode " in text
    assert plain(grams(billed.sums_ng()["asce"])) in text


def test_both_ways_to_write_a_product_off() -> None:
    sheet = product_sheet()
    assert sheet.amortised is not None and sheet.amortised.stock_ng is not None
    said = to_dict(sheet)["amortised"]
    assert said["units"]["gco2e_per_unit"] == rounded(Fraction(sheet.amortised.stock_ng, 10**9 * NG_PER_G), 15)
    assert said["units"]["due_gco2e"] == grams(sheet.amortised.stock_ng * 78_039_000_078 // 10**15)
    text = markdown(sheet)
    assert "| by time  | in force |" in text
    assert "78039.000078 of 1000000000 expected token were served so far by its own" in text
    over = replace(sheet.amortised, served_micro=2 * 10**15, in_force="units")
    assert over.by_units_ng == over.stock_ng
    text = markdown(replace(sheet, amortised=over))
    assert "More than expected" in text and "| by units | in force |" in text
    unknown = replace(over, expected_micro=None, by_time_ng=None)
    assert (unknown.by_units_ng, unknown.per_unit_by_units, unknown.per_unit_by_time) == (None, None, None)
    assert "unknown" in markdown(replace(sheet, amortised=unknown))


def test_nodes_whose_parts_dont_add_up_say_by_how_much() -> None:
    sheet = node_sheet()
    assert "add up to what the nodes used, exactly" in markdown(sheet)
    first = sheet.nodes[0]
    off = replace(first, terms_ng={**first.terms_ng, "cooling": first.terms_ng["cooling"] + 3})
    text = markdown(replace(sheet, nodes=(off, *sheet.nodes[1:])))
    assert "cooling +3 ng" in text
    assert "exactly" not in text.partition("What the nodes used")[2].partition("\n")[0]


def test_a_job_of_which_nothing_is_known_has_a_sheet() -> None:
    record = replace(job(), energy_uj={}, terms_ng={}, taxes_ng={}, ended_unix_ns=None, nodes=(), started_unix_ns=0)
    sheet = job_sheet(record, uncertainty=None, method={}, hardware=(), notes=())
    text = markdown(sheet)
    assert "No energy is known" in text
    assert "still runs" in text
    assert "| JSC   | operation + cooling                                  | unknown | unknown | unknown |" in text
    assert " 0 g " not in text.partition("### Terms")[0]
    read(html(sheet))
    said = to_dict(sheet)["total"]
    assert (said["energy_uj"], said["gco2e"]["operation"], said["gco2e"]["asce"]) == (None, None, None)
    for form in ("model-card", "sci", "ghg", "cyclonedx"):
        with pytest.raises(ValueError, match="no energy of"):
            render(sheet, form, None, None)


def test_a_job_whose_parts_differ_in_what_is_most_uncertain_has_a_sheet() -> None:
    sheet = job_sheet()
    assert sheet.uncertainty is not None
    assert "Its parts differ" in markdown(replace(sheet, uncertainty=replace(sheet.uncertainty, dominant="mixed")))


def test_corrections_and_lacking_nodes_are_noted() -> None:
    record = replace(
        job(), nodes=("gpu-1",), expected_nodes=4, corrections_ng={"operation": -5_000}, revision=3, provisional=True
    )
    text = markdown(job_sheet(record, revision=3, provisional=True))
    assert "operation -5 µg" in text
    assert "Only 1 of 4 nodes" in text
    assert "provisional" in text
    assert "| revision" in text


@given(st.lists(st.integers(-(10**18), 10**18), min_size=7, max_size=7))
def test_any_figures_can_be_drawn(amounts: list[int]) -> None:
    record = replace(job(), terms_ng=dict(zip(TERMS, amounts, strict=True)), taxes_ng={})
    sheet = job_sheet(record, uncertainty=None)
    page = html(sheet)
    assert "nan" not in page and "inf%" not in page
    assert 'width="-' not in page
    assert Costs.of([record, record]).sums_ng()["asce"] == 2 * sum(amounts)
