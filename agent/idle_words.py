"""Which idle power is in force, and how it is known: for the page and for receipts."""

from wattribute.agent.core.books import Books
from wattribute.agent.core.model import DomainKind
from wattribute.agent.core.rest import PARTS


def idle_powers(books: Books) -> dict[tuple[DomainKind, str, str], int]:
    """Idle power in microwatts by (kind, device, how it is known): what is in force for the domains that are read."""
    powers: dict[tuple[DomainKind, str, str], int] = {}
    for domain, quality in books.domains.qualities().items():
        given_uw = books.rules.idle_uw.get((domain.kind, quality))
        idle = books.idle
        learner = idle.of_gpus.get(domain.id) if domain.kind == "gpu" else idle.of_use.get(domain.kind)
        if given_uw is not None:
            powers[domain.kind, "", "modelled" if quality == "modelled" else "configured"] = given_uw
        elif learner is not None and learner.idle is not None:
            device = domain.id if domain.kind == "gpu" else ""
            powers[domain.kind, device, learner.idle.method] = learner.idle.power_uw
    return powers


def idle_words(books: Books, kind: str) -> str:
    """How the idle power of a kind is known, in words; of GPUs, of how many."""
    known = {device: f"{uw / 1e6:g} W {how}" for (of, device, how), uw in idle_powers(books).items() if of == kind}
    if not known:
        return "idle as theirs" if kind == "rest" else "idle not learnt yet (counted as 0 W)"
    gpus = sum(domain.kind == "gpu" for domain in books.domains.qualities()) if kind == "gpu" and "" not in known else 0
    missing = f", not learnt yet on {gpus - len(known)} of {gpus} GPUs (0 W)" if len(known) < gpus else ""
    return f"idle {', '.join(dict.fromkeys(known.values()))}{missing}"


def idle_notes(books: Books) -> list[str]:
    """What a receipt says where idle power isn't known."""
    known = {(kind, device) for kind, device, _ in idle_powers(books)}
    missing = {
        domain.kind: None
        for domain in books.domains.qualities()
        if domain.kind in PARTS and not known & {(domain.kind, ""), (domain.kind, domain.id)}
    }
    if not missing:
        return []
    *others, last = missing
    kinds = f"{', '.join(others)} and {last}" if others else last
    return [f"idle power of {kinds} isn't learnt yet: it counts as 0 W, and is billed as direct"]
