"""What the URLs of `[ledger]` may look like, and how one is shown that may hold a password."""

import re
from collections.abc import Iterator

from wattribute.agent.config.schema import Ledger

_WEB = re.compile(r"https?://(?:[^\s/:\[\]@]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?(?:/[^\s?#]*)?")
_ARCHIVE = re.compile(r"sqlite:///+[^/\s?#][^?#]*|postgres(?:ql)?://(?:[^\s/@]*@)?[^\s/@]*/[^\s/?#]+(?:\?\S*)?")
_PASSWORD = re.compile(
    r"(://[^/:@]*:)(?:.*(?=@)|(?!\d+(?:/|$))[^/@\[\]]*(?=/|$))|([?&](?:ssl)?password=)[^&]*", re.DOTALL
)


def problems_of_ledger(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """The dotted key at fault, and a sentence that names it and says what to do."""
    if ledger.url and not _ARCHIVE.fullmatch(ledger.url):
        yield (
            "ledger.url",
            f'ledger.url = "{without_password(ledger.url)}" is no archive: postgresql://USER@HOST/DATABASE is one (a '
            "fleet's; an @ in a password is written %40), sqlite:///PATH another; without it the archive is a SQLite "
            "file in agent.state_dir",
        )
    if ledger.divisor_url and not _WEB.fullmatch(ledger.divisor_url):
        yield (
            "ledger.divisor_url",
            f'ledger.divisor_url = "{without_password(ledger.divisor_url)}" is no address of a Prometheus: '
            '"http://127.0.0.1:9090" is one',
        )


def without_password(url: str) -> str:
    """A URL that may be shown; nothing of what isn't one and may hold a password all the same."""
    if "://" not in url and re.search(r"@|:|pass", url, re.IGNORECASE):
        return "***"
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", url)
