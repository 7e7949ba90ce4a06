"""The exceptions of wattribute.

WattributeError
 +- SensorUnavailable   back off and retry; the message names the one fix
 +- SensorGone          the thing left for good; stop quietly
 +- ConfigError         names file, key and the nearest valid key; exit code 2
 +- LedgerError         the durable record can't be read or written
 +- Refused             a request the agent won't carry out; the message says why
"""


class WattributeError(Exception):
    """Base of all errors that wattribute raises on purpose."""


class SensorUnavailable(WattributeError):
    """The sensor can't be read now. `cause` is what the kernel or library said, `fix` one exact command or step.

    `absent`: this machine has no such thing, as against one that can't be read.
    """

    def __init__(self, cause: str, fix: str = "", *, absent: bool = False) -> None:
        super().__init__(f"{cause}. Fix: {fix}" if fix else cause)
        self.cause = cause
        self.fix = fix
        self.absent = absent


class SensorGone(WattributeError):
    """The sensor left for good (a zone unplugged, a GPU detached)."""


class ConfigError(WattributeError):
    """The configuration is wrong; the message names file, key and the nearest valid one."""


class LedgerError(WattributeError):
    """The ledger can't be opened, read or written."""


class Refused(WattributeError):
    """The agent won't carry a request out; nothing was changed."""
