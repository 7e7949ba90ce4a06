"""Selectors, in the words of PromQL."""

import pytest

from wattribute.collectors.engines import MAPPINGS
from wattribute.collectors.engines.selectors import parse


def test_terms_and_matchers() -> None:
    (first, second) = parse(r' a:b_total{x="1", y!="2" ,z=~"p|q.*",} + c{}')
    assert (first.name, second.name) == ("a:b_total", "c")
    assert first.fits({"x": "1", "z": "quite"})
    assert not first.fits({"x": "1", "y": "2", "z": "p"})
    assert not first.fits({"x": "1", "z": "xp"})
    assert not first.fits({"z": "p"})
    assert second.fits({"any": "thing"})
    assert parse(r'a{x="q\"\\"}')[0].fits({"x": 'q"\\'})
    assert parse('a{x="."}')[0].fits({"x": "."})
    assert not parse('a{x="."}')[0].fits({"x": "y"})
    assert parse('a{x!~".+"}')[0].fits({})


@pytest.mark.parametrize(
    "text", ["", "1a", "a +", "a b", "a{", "a{x}", 'a{x="1"', 'a{x=~"("}', "a{} b", "sum(a)", "a;"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|stands|pattern"):
        parse(text)


def test_all_declared_ones_can_be_read() -> None:
    for told in MAPPINGS.values():
        for selectors in told.values():
            assert [parse(selector) for selector in selectors]
