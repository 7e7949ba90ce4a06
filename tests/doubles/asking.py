"""Asks a Dispatch as the loop does: also for what is answered later."""

import time
from typing import Any

from wattribute.agent.control import Deferred
from wattribute.agent.core.errors import WattributeError
from wattribute.agent.dispatch import Dispatch
from wattribute.agent.requests import Peer, Request


def ask(dispatch: Dispatch, request: Request, peer: Peer) -> Any:
    """The answer, once it is there. Raises WattributeError where there is none."""
    found = dispatch(request, peer)
    if not isinstance(found, Deferred):
        return found
    answers: list[Any] = []
    found.on_answer(answers.append)
    while not answers:
        dispatch.work()
        time.sleep(0.001)
    if isinstance(answers[0], WattributeError):
        raise answers[0]
    return answers[0]
