"""Which series tell a thing: `name{label="value",other=~"a|b"} + name`, as in PromQL; their values are added up."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Matcher:
    """What a label must be, or mustn't; a label that isn't there is empty. The pattern is anchored at both ends."""

    label: str
    pattern: re.Pattern[str]
    wanted: bool


@dataclass(frozen=True, slots=True)
class Term:
    """The series of one name that fit all matchers."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def fits(self, labels: Mapping[str, str]) -> bool:
        """Whether a series of this name, with these labels, is one of them."""
        return all((m.pattern.fullmatch(labels.get(m.label, "")) is not None) is m.wanted for m in self.matchers)


Selector = tuple[Term, ...]


def parse(text: str) -> Selector:
    """The terms of a selector. Raises ValueError, with what is wrong and where."""
    terms: list[Term] = []
    at = 0
    while True:
        name = _NAME.match(text, at)
        if name is None:
            raise ValueError(f"a series' name is expected at {text[at : at + 20]!r}")
        at = name.end()
        matchers, at = _matchers(text, at + 1) if text[at : at + 1] == "{" else ((), at)
        terms.append(Term(name[1], matchers))
        if at == len(text):
            return tuple(terms)
        if text[at] != "+":
            raise ValueError(f"{text[at : at + 20]!r} stands where only `+` may")
        at += 1


def _matchers(text: str, at: int) -> tuple[tuple[Matcher, ...], int]:
    found: list[Matcher] = []
    while not (end := re.compile(r"\s*\}\s*").match(text, at)):
        label = _LABEL.match(text, at)
        if label is None:
            raise ValueError(f'label="value" is expected at {text[at : at + 20]!r}')
        name, how, value = label.groups()
        value = _ESCAPE.sub(r"\1", value) if "~" not in how else value
        try:
            pattern = re.compile(value if "~" in how else re.escape(value))
        except re.error as error:
            raise ValueError(f"{value!r} is no pattern: {error}") from error
        found.append(Matcher(name, pattern, wanted=how.startswith("=")))
        at = label.end()
        if text[at : at + 1] == ",":
            at += 1
    return tuple(found), end.end()
