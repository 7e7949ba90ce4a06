"""What a pod's containers request, in thousandths of a CPU and bytes.

Sources: the API's Quantity (apimachinery/pkg/api/resource), and the effective request of a pod as the scheduler counts
it: kubernetes.io/docs/concepts/workloads/pods/init-containers, .../sidecar-containers and .../pod-overhead.
"""

import re
from collections.abc import Mapping

from wattribute.agent.core.found import Reservation
from wattribute.collectors.kubernetes.shape import items, mapping

MOST = 2**63 - 1  # where the API's own quantities end

_QUANTITY = re.compile(r"\+?(\d{0,40})(?:\.(\d{0,40}))?([numkMGTPE]|[KMGTPE]i)?(?:[eE]([+-]?\d{1,3}))?", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity(value: object, per_unit: int) -> int | None:
    """A quantity in parts of its unit (1000: thousandths), rounded up as Kubernetes does; None where it is none."""
    text = str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    whole, fraction, suffix, exponent = match[1], match[2] or "", match[3] or "", match[4] or ""
    if not whole + fraction or (suffix and exponent):
        return None
    tens = _DECIMAL.get(suffix, 0) + int(exponent or 0) - len(fraction)
    parts = int(whole + fraction) * per_unit << _BINARY.get(suffix, 0)
    power: int = 10 ** abs(tens)
    return min(parts * power if tens >= 0 else -(-parts // power), MOST)


def reservation(spec: Mapping[str, object]) -> Reservation:
    """What a pod's spec asks the scheduler to set aside; None for what it doesn't ask for."""
    return Reservation(_effective(spec, "cpu", 1000), _effective(spec, "memory", 1))


def _effective(spec: Mapping[str, object], resource: str, per_unit: int) -> int | None:
    """The request of the whole pod: of all that run together, or of the hungriest start; the pod's own before both."""
    together = sum(_request(container, resource, per_unit) for container in items(spec.get("containers")))
    sidecars = hungriest = 0
    for container in items(spec.get("initContainers")):
        request = _request(container, resource, per_unit)
        if mapping(container).get("restartPolicy") == "Always":  # a sidecar: it goes on beside all that follow
            sidecars += request
            request = 0
        hungriest = max(hungriest, sidecars + request)
    own = _request(spec, resource, per_unit)  # pod-level resources
    overhead = quantity(mapping(spec.get("overhead")).get(resource), per_unit) or 0
    return min((own or max(together + sidecars, hungriest)) + overhead, MOST) or None


def _request(part: object, resource: str, per_unit: int) -> int:
    requests = mapping(mapping(mapping(part).get("resources")).get("requests"))
    return quantity(requests.get(resource), per_unit) or 0
