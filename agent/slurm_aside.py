"""Work that one of Slurm's scripts leaves behind: Slurm waits for a script, and kills its process group at its end."""

import os
import syslog
from collections.abc import Callable

from wattribute.agent.core.errors import WattributeError


def run_aside(task: Callable[[], object]) -> None:
    """Runs it in a process and session of its own, without output; syslog hears what went wrong.

    Returns once that session is there, in the calling process alone.
    """
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        os.read(ready, 1)  # nothing, where the child is gone already
        os.close(ready)
        return
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.write(told, b"\0")
        os.close(told)
        task()
    except WattributeError as error:
        _tell(syslog.LOG_WARNING, str(error))
    except BaseException as error:  # noqa: BLE001 - nobody is there to see a traceback
        _tell(syslog.LOG_ERR, f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _tell(level: int, text: str) -> None:
    syslog.openlog("wattribute", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(level, f"slurm: {text}")
