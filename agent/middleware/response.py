"""What a response tells of its request: the field `Wattribute-Receipt`, and the settled receipt at an address.

The field is an Item of RFC 9651 (which replaced 8941): the receipt's name, and what the request took until the
response began, at the rate of the last window: microjoules, and nanograms CO2e of JSC^e and ASC^e.
"""

import hashlib
import hmac
import json
import os
from typing import TYPE_CHECKING

from wattribute.agent.middleware.metering import Metering, Unmetered, tell

if TYPE_CHECKING:
    from wattribute.agent.meter.request import Request

FIELD = "Wattribute-Receipt"
JSON_FIELDS = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))
_INTEGER_MAX = 999_999_999_999_999  # of RFC 9651, section 3.3.1
_KEY_BYTES = 8


class Naming:
    """Names of receipts: the request's id; where they can be fetched, with a key that can't be guessed, so that only
    who got the response can read it.
    """

    def __init__(self, path: str | None) -> None:
        if path is not None and not path.startswith("/"):
            raise ValueError(f"receipts_path must start with '/', not {path!r}")
        self.below = "" if path is None else path.rstrip("/") + "/"
        self._secret = os.urandom(32)

    def name(self, request_id: str) -> str:
        """The name of a request's receipt."""
        return f"{request_id}-{self._key(request_id)}" if self.below else request_id

    def request_id(self, name: str) -> str:
        """Whose receipt has that name; empty where nobody's."""
        request_id, _, key = name.rpartition("-")
        right = hmac.compare_digest(key.encode("utf-8", "surrogatepass"), self._key(request_id).encode())
        return request_id if right else ""

    def _key(self, request_id: str) -> str:
        text = request_id.encode("utf-8", "surrogatepass")
        return hashlib.blake2s(text, key=self._secret, digest_size=_KEY_BYTES).hexdigest()


class Telling:
    """The receipts that a middleware tells of."""

    def __init__(self, metering: Metering, path: str | None) -> None:
        self._metering = metering
        self._naming = Naming(path)
        self.below = self._naming.below

    def field(self, request: "Request | Unmetered") -> str | None:
        """The value of `Wattribute-Receipt`; None where there is nothing to tell."""
        try:
            if isinstance(request, Unmetered):
                return None
            name = self._naming.name(request.id)
            found = self._metering.estimate(request)
            if found is None:
                return f'"{name}";settled=?0'
            energy_uj = min(found.energy_uj, _INTEGER_MAX)
            jsce_ng, asce_ng = _nanograms(found.jsce_gco2e), _nanograms(found.asce_gco2e)
            return f'"{name}";energy-uj={energy_uj};jsce-ng={jsce_ng};asce-ng={asce_ng};settled=?0'
        except Exception:  # noqa: BLE001 - the response goes on without
            tell("telling of a receipt")
            return None

    def answer(self, name: str) -> tuple[int, bytes]:
        """(status, JSON) for whoever asks for a receipt: 200 settled, 202 not yet, 404 not known in this process."""
        request_id = self._naming.request_id(name)
        found = self._metering.receipt(request_id) if request_id else None
        if found is None:
            return 404, json.dumps({"error": "no receipt of that name in this process"}).encode() + b"\n"
        return (200 if found.settled else 202), json.dumps(found.to_dict()).encode() + b"\n"


def _nanograms(grams: float) -> int:
    return min(round(grams * 1e9), _INTEGER_MAX)


__all__ = ["FIELD", "JSON_FIELDS", "Telling"]
