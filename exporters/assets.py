"""The files that the agent's page is made of: read once, when somebody first asks, and kept with their gzipped form.

Their names stay the same, so a browser asks each time whether it still has the right one; the answer is a 304.
"""

import hashlib
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from wattribute.exporters.messages import RequestHead, Response
from wattribute.exporters.negotiation import accepts_gzip

FOLDER = Path(__file__).with_name("page_assets")
CONTENT_TYPE = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
SERVED = (
    "charts.js",
    "details.js",
    "dom.js",
    "format.js",
    "history.js",
    "icon.svg",
    "page.css",
    "page.js",
    "tables.js",
    "uplot.css",
    "uplot.js",
)


class Asset(NamedTuple):
    """A file, plain and gzipped, and a weak ETag: both forms have the same one."""

    content_type: str
    plain: bytes
    gzipped: bytes
    etag: str


@cache
def asset(name: str) -> Asset:
    """A file of the page. Raises OSError where it isn't there or can't be read."""
    plain = (FOLDER / name).read_bytes()
    gzipped = zlib.compress(plain, 9, 16 + zlib.MAX_WBITS)
    return Asset(CONTENT_TYPE[Path(name).suffix], plain, gzipped, f'W/"{hashlib.sha256(plain).hexdigest()[:20]}"')


def show_asset(name: str, request: RequestHead) -> Response:
    """A file of the page, or 304 where the client has it."""
    found = asset(name)
    headers: tuple[tuple[str, str], ...] = (
        ("ETag", found.etag),
        ("Cache-Control", "no-cache"),
        ("Vary", "Accept-Encoding"),
    )
    if found.etag.removeprefix("W/") in request.headers.get("if-none-match", ""):
        return Response(status=304, headers=headers)
    if accepts_gzip(request.headers.get("accept-encoding", "")):
        headers = (*headers, ("Content-Encoding", "gzip"))
        return Response(content_type=found.content_type, body=found.gzipped, headers=headers)
    return Response(content_type=found.content_type, body=found.plain, headers=headers)
