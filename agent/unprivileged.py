"""How an agent with `agent.user` starts: it opens what measures as root, hands its own places over, and is that user.

The C library waits until every thread has taken the new ids: one that hangs in a driver would hold the start up for
ever, so no drop is tried before all sensors have answered.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wattribute.agent.config.schema import Config
from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.ledger.files import StateLock
from wattribute.agent.privileges import Account, account_of, become, confine, hand_over
from wattribute.agent.sources import Source

if TYPE_CHECKING:
    from wattribute.agent.opening import Sensing

log = logging.getLogger("wattribute")

ANSWER_S = 30.0  # eight GPUs that wake one after another, 1 to 3 s each
_IN_STATE = re.compile(
    r"(ledger|archive)\.db.*|ledger\.lock|intensity-cache\.json.*|product-events\..*|receipts|agent\.sock|\d+-\d+"
    r"|lost\+found"  # a file system of its own
)


def sense_and_become(config: Config, sense: Callable[[], "Sensing"]) -> "Sensing":
    """Call `sense` with the rights that there are, and be `agent.user` afterwards, without any.

    Raises ConfigError for a user that can't be had, WattributeError where it didn't become that user.
    """
    account = account_of(config.agent.user)
    confine(account)
    sensing = sense()
    if account.changes:
        wait_for_answers(sensing.sensors.sources)
        _hand_over_places(config, account)
        become(account, os.environ)
        log.info("the sensors are open: from here on %s (uid %d), without any capability", account.name, account.uid)
    return sensing


def wait_for_answers(sources: Iterable[Source[Any]], patience_s: float = ANSWER_S) -> None:
    """Until no read is under way. Raises SensorUnavailable for a sensor that hangs."""
    until_s = time.monotonic() + patience_s
    for source in sources:
        while not source.answered:
            if time.monotonic() > until_s:
                raise SensorUnavailable(
                    f"{source.name} hangs in its first read, and root isn't given up while a call of root's goes on",
                    f'see the kernel log; or leave it out: collectors.{source.name} = "off"',
                )
            time.sleep(0.02)


def _hand_over_places(config: Config, account: Account) -> None:
    """The state directory and the socket's, where they are root's: made if need be, with what root's agents left.

    Those that systemd made for the service are its own, whatever is in them: it gives them back to root at each start.
    """
    state_dir, socket = Path(config.agent.state_dir), Path(config.agent.socket)
    if not state_dir.exists() or state_dir.stat().st_uid == 0:
        lock = StateLock(state_dir)  # so that nothing is taken from an agent that runs
        try:
            own = _is_services_own(state_dir, "STATE_DIRECTORY")
            hand_over(state_dir, account, lambda name: own or _IN_STATE.fullmatch(name) is not None)
        finally:
            lock.close()
    if not socket.parent.exists():
        socket.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    own = _is_services_own(socket.parent, "RUNTIME_DIRECTORY")
    hand_over(socket.parent, account, lambda name: own or name == socket.name)


def _is_services_own(folder: Path, variable: str) -> bool:
    return str(folder) in os.environ.get(variable, "").split(":")  # systemd.exec(5)
