"""What can be wrong with [[engine]] tables whose single values are fine, and how an engine is named."""

from collections.abc import Iterator, Sequence

from wattribute.agent.config.schema import Engine
from wattribute.agent.identity import problem
from wattribute.collectors.engines import ABORTED, IN_FLIGHT, STAGES, parse, split_url

_NO_UNITS = {ABORTED, IN_FLIGHT, *STAGES}


def name_of(engine: Engine) -> str:
    """Its own name, or host and port of its address."""
    return engine.name or split_url(engine.url).netloc


def problems(engines: Sequence[Engine]) -> Iterator[tuple[str, str]]:
    """(key, sentence) for each."""
    names: set[str] = set()
    urls: set[str] = set()
    for number, engine in enumerate(engines):
        for why in _problems(engine, names, urls):
            yield "engine", f"engine[{number}]{why}"


def _problems(engine: Engine, names: set[str], urls: set[str]) -> Iterator[str]:
    try:
        url = split_url(engine.url).geturl()
    except ValueError as error:
        yield f'.url = "{engine.url}": {error}; "http://127.0.0.1:8000/metrics" is one'
        return
    if url in urls:
        yield f'.url = "{engine.url}" is read already: what it served would be counted twice'
    elif (name := name_of(engine)) in names:
        yield f': two engines are named "{name}"; give each a name = "..."'
    urls.add(url)
    names.add(name_of(engine))
    for key, value in (("name", engine.name), ("product", engine.product), ("job", engine.job)):
        if value and (why := problem(value)):
            yield f".{key} can't be {value!r}: {why}"
    for unit, selector in engine.counters.items():
        if why := problem(unit):
            yield f".counters: a unit can't be {unit!r}: {why}"
        try:
            parse(selector)
        except ValueError as error:
            yield f".counters.{unit} = '{selector}': {error}"
    if engine.kind == "other" and not engine.counters.keys() - _NO_UNITS:
        yield ': kind = "other" needs counters, e.g. counters = { request = "my_requests_total" }'
