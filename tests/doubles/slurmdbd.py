"""`sacct` and `sacctmgr` as slurmdbd 22.05 was seen to answer them: programs that keep what they were told.

sacct lists every job that is named, of an array all its tasks; sacctmgr takes a plain number for all of an array.
"""

import os
from pathlib import Path

_SACCT = """#!/bin/sh
printf '%s\\n' "sacct $*" >> {folder}/calls
cat {folder}/jobs
"""
_SACCTMGR = """#!/bin/sh
printf '%s\\n' "sacctmgr" "$@" "." >> {folder}/calls
if [ -e {folder}/refuses ]; then echo "sacctmgr: error: no privilege" >&2; exit 1; fi
echo " Modified jobs..."
"""


class Slurmdbd:
    """Programs in `bin`, to be put first on a PATH. `jobs` are lines of JobIDRaw|JobID|AdminComment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name, text in (("sacct", _SACCT), ("sacctmgr", _SACCTMGR)):
            (self.bin / name).write_text(text.format(folder=folder))
            (self.bin / name).chmod(0o755)
        self.know()

    @property
    def path(self) -> str:
        """The PATH to call things with."""
        return f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"

    def know(self, *jobs: str) -> None:
        """What sacct answers."""
        (self._folder / "jobs").write_text("".join(f"{line}\n" for line in jobs))

    def refuse(self) -> None:
        """sacctmgr fails from now on."""
        (self._folder / "refuses").touch()

    def changes(self) -> list[list[str]]:
        """The arguments of each call of sacctmgr."""
        calls = self._folder / "calls"
        text = calls.read_text() if calls.exists() else ""
        return [call.split("\n") for call in text.split("sacctmgr\n")[1:] for call in [call.split("\n.\n")[0]]]
