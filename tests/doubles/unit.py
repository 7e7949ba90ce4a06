"""What systemd does to a service before it starts it, as far as a test can do it: a unit's environment, bounding set
and system call filter around its ExecStart. Not its mount namespace nor its device rules.

`python -m tests.doubles.unit CALL,CALL -- COMMAND` allows these system calls alone, by libseccomp, and becomes COMMAND.
"""

import ctypes
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ALLOW, ERRNO_EPERM, ANY_NUMBER = 0x7FFF0000, 0x00050001, -1
SET_MDWE, NO_EXEC_GAIN = 65, 1  # prctl(2), Linux 6.3


@dataclass(frozen=True)
class Unit:
    """A service's settings, drop-ins last; `values`: a setting's lines in order, without those before an empty one."""

    files: Sequence[Path]

    def values(self, name: str) -> list[str]:
        found: list[str] = []
        for file in self.files:
            for line in re.sub(r"\\\n", " ", file.read_text()).splitlines():
                key, equals, value = line.partition("=")
                if equals and key == name:
                    found = [*found, value] if value else []
        return found

    @property
    def environment(self) -> Mapping[str, str]:
        words = (word for line in self.values("Environment") for word in shlex.split(line))
        return dict(word.split("=", 1) for word in words)

    @property
    def system_calls(self) -> list[str]:
        """What SystemCallFilter leaves."""
        allowed: set[str] = set()
        sets = _sets()
        for line in self.values("SystemCallFilter"):
            named = {call for word in line.removeprefix("~").split() for call in _calls(word, sets)}
            allowed = allowed - named if line.startswith("~") else allowed | named
        return sorted(allowed)

    def command(self, *arguments: str) -> list[str]:
        """ExecStart with this checkout's program, and the unit's restrictions around it."""
        _, *words = shlex.split(self.values("ExecStart")[-1])
        bounding = ",".join(["-all", *(f"+{cap[4:].lower()}" for cap in " ".join(self.values(BOUNDING)).split())])
        filtered = [sys.executable, "-m", "tests.doubles.unit", ",".join(self.system_calls), "--"]
        program = [sys.executable, "-m", "wattribute", *words, *arguments]
        return ["setpriv", f"--bounding-set={bounding}", "--no-new-privs", *filtered, *program]


BOUNDING = "CapabilityBoundingSet"


def _sets() -> dict[str, list[str]]:
    listed = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True).stdout
    sets: dict[str, list[str]] = {}
    name = ""
    for line in listed.splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = []
        elif line.startswith("    ") and not line.strip().startswith("#"):
            sets[name].append(line.strip())
    return sets


def _calls(word: str, sets: Mapping[str, Sequence[str]]) -> list[str]:
    return [call for inner in sets[word] for call in _calls(inner, sets)] if word.startswith("@") else [word]


def _allow_only(calls: Sequence[str]) -> None:
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ERRNO_EPERM))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number > ANY_NUMBER:  # another architecture's, else
            assert seccomp.seccomp_rule_add(context, ALLOW, number, 0) == 0, call
    assert seccomp.seccomp_load(context) == 0
    ctypes.CDLL(None).prctl(SET_MDWE, NO_EXEC_GAIN, 0, 0, 0)


if __name__ == "__main__":
    _allow_only(sys.argv[1].split(","))
    os.execv(sys.argv[3], sys.argv[3:])
