"""The lines of the control socket: bytes to a Request, an answer to bytes, and what is wrong said in words."""

import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from wattribute.agent.identity import problem
from wattribute.agent.requests import JobStart, JobUpdate, Request

LINE_BYTES = 64 << 10

_OPS: dict[str, type[msgspec.Struct]] = {
    str(struct.__struct_config__.tag): struct for struct in typing.get_args(Request)
}
_UNKNOWN_KEY = re.compile(r"unknown field `(.*)`", re.DOTALL)
_decode = msgspec.json.Decoder(Request).decode
_encode = msgspec.json.Encoder().encode


class BadLine(Exception):
    """A line that isn't a request. `id` is the one it came with, where that much could be read."""

    def __init__(self, code: str, why: str, request_id: object = None) -> None:
        super().__init__(why)
        self.code = code
        self.id = request_id if isinstance(request_id, int | str) and not isinstance(request_id, bool) else None


def parse(line: bytes) -> Request:
    """One line, without its newline, as a request. Raises BadLine."""
    try:
        request: Request = _decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's own errors and UnicodeDecodeError are ValueErrors
        raise _bad(line, error) from None
    for what, name in _names(request):
        wrong = problem(name)
        if wrong is not None:
            raise BadLine("bad-request", f"{what} {ascii(name)[:80]}: {wrong}", request.id)
    return request


def _names(request: Request) -> Iterator[tuple[str, str]]:
    if isinstance(request, JobStart):
        yield "job_id", request.job_id
        yield "product_id", request.product_id
        if request.parent_job_id is not None:
            yield "parent_job_id", request.parent_job_id
        if request.phase:
            yield "phase", request.phase
        for product in request.uses:
            yield "uses", product
    if isinstance(request, JobStart | JobUpdate):
        for key, value in request.labels.items():
            yield "label", key
            if value and not value.isprintable():
                raise BadLine("bad-request", f"the value of label {key!r} can't be printed", request.id)


def _bad(line: bytes, error: Exception) -> BadLine:
    try:
        loose = msgspec.json.decode(line)
    except (ValueError, RecursionError):
        loose = None
    if not isinstance(loose, dict):
        return BadLine("bad-request", f"not a JSON object on one line: {error}")
    request_id, op = loose.get("id"), loose.get("op")
    if isinstance(op, str) and op not in _OPS:
        return BadLine("unknown-op", f"unknown op {op[:64]!r}{_nearest(op, _OPS)}", request_id)
    unknown = _UNKNOWN_KEY.search(str(error))
    if unknown is not None and isinstance(op, str):
        keys = ("op", *_OPS[op].__struct_fields__)
        key = unknown[1]
        return BadLine("bad-request", f"{op} has no key {key[:64]!r}{_nearest(key, keys)}", request_id)
    return BadLine("bad-request", str(error), request_id)


def _nearest(word: str, choices: Iterable[str]) -> str:
    near = difflib.get_close_matches(word[:64], list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(choices))}"


def encoded(rows: list[dict[str, Any]]) -> bytes:
    """A part of a long list that an answer holds: see `joined`."""
    return _encode(rows)[1:-1]


def joined(parts: Iterable[bytes]) -> msgspec.Raw:
    """The list that parts come to, to stand in an answer."""
    return msgspec.Raw(b"[" + b",".join(part for part in parts if part) + b"]")


def answer(request_id: object, fields: Mapping[str, object]) -> bytes:
    """The line that says yes."""
    return _encode({"id": request_id, "ok": True, **fields}) + b"\n"


def refusal(request_id: object, code: str, why: str) -> bytes:
    """The line that says no, and why."""
    return _encode({"id": request_id, "ok": False, "code": code, "error": why}) + b"\n"
