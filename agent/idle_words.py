"""Which idle power is in force, and how it is known: for the page and for receipts."""

from wattribute.agent.core.books import Books
from wattribute.agent.core.model import DOMAIN_KINDS, DomainKind


def idle_powers(books: Books) -> dict[tuple[DomainKind, str, str], int]:
    """Idle power in microwatts by (kind, device, how it is known)."""
    powers: dict[tuple[DomainKind, str, str], int] = {
        (kind, "", "modelled" if quality == "modelled" else "configured"): uw
        for (kind, quality), uw in books.rules.idle_uw.items()
    }
    for kind, learner in books.idle.items():
        if learner.idle is not None:
            powers[kind, "", learner.idle.method] = learner.idle.power_uw
    for device, gpu in books.idle_gpus.items():
        if gpu.idle is not None:
            powers["gpu", device, gpu.idle.method] = gpu.idle.power_uw
    return powers


def idle_words(books: Books, kind: str) -> str:
    """How the idle power of a kind is known, in words."""
    known = [f"{uw / 1e6:g} W {how}" for (of, _, how), uw in idle_powers(books).items() if of == kind]
    return f"idle {', '.join(dict.fromkeys(known))}" if known else "idle not learnt yet (counted as 0 W)"


def idle_notes(books: Books) -> list[str]:
    """What a receipt says where idle power isn't known."""
    kinds = {domain.kind for domain in books.meters()}
    known = {kind for kind, _, _ in idle_powers(books)}
    missing = [kind for kind in DOMAIN_KINDS if kind in kinds and kind not in known]
    if not missing:
        return []
    return [f"idle power of {' and '.join(missing)} isn't learnt yet: it counts as 0 W, and is billed as direct"]
