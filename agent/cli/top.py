"""`wattribute top`: the jobs of this machine, live. A full screen on a terminal, plain lines anywhere else."""

import contextlib
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from wattribute.agent.cli.top_frame import Row, Screen, Watch, fit, frame
from wattribute.agent.client import AgentRefused, AgentUnreachable, Client
from wattribute.agent.core.errors import WattributeError

if TYPE_CHECKING:
    import curses

PATIENCE_S = 2.0
ORDERS = ("power", "energy", "jsce", "asce", "time", "name")
POLL_MS = 100  # so that a key is answered at once


@click.command()
@click.option(
    "-i",
    "--interval",
    "interval_s",
    metavar="SECONDS",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="How often the agent is asked.",
)
@click.option("-s", "--sort", type=click.Choice(ORDERS), default="power", show_default=True, help="What comes first.")
@click.option("-n", "--count", type=click.IntRange(min=1), help="Stop after so many looks  [default: never]")
@click.option("--plain", is_flag=True, help="Plain lines, as they are printed where there is no terminal.")
def command(interval_s: float, sort: Any, count: int | None, plain: bool) -> None:
    """Watch the jobs of this machine: power, energy, JSC^e and ASC^e, every --interval seconds.

    Keys: p e j a t n sort (once more: reversed), f hides ended jobs, arrows and Enter show one job's terms, q quits.
    Without a terminal it prints plain lines. A user sees their own jobs, root and the agent's user all.

    \b
    Example:
      wattribute top
      wattribute top --plain -n 1 --sort asce
    """
    jobs, screen = _Jobs(), Screen(sort=sort)
    jobs.look()
    if plain or not (sys.stdin.isatty() and sys.stdout.isatty()) or not _has_curses():
        _lines(jobs, screen, interval_s, count)
    else:
        import curses

        os.environ.setdefault("ESCDELAY", "25")
        curses.wrapper(lambda window: _full_screen(window, jobs, screen, interval_s, count))


class _Jobs:
    """What is known of the jobs, and since when nobody has answered. Raises WattributeError if nobody ever did."""

    def __init__(self) -> None:
        client = Client.find(os.environ)
        if client is None:
            raise WattributeError("no agent runs on this machine. Fix: wattribute agent (or see: wattribute jobs)")
        self._client = client
        self._watch = Watch()
        self.rows: list[Row] = []
        self.node = ""
        self.problem = self._whose = ""

    def look(self) -> None:
        """Asks the agent; what was known before stays where it doesn't answer."""
        try:
            if not self.node:
                self.node = str(self._client.call("hello", PATIENCE_S)["node"])
            answer = self._client.call("jobs", PATIENCE_S)
        except (AgentUnreachable, AgentRefused) as error:  # refused: it is short of places for a while
            if not self.node:
                raise WattributeError(f"{error}. See: wattribute doctor") from error
            self.problem = self.problem or f"no answer since {time.strftime('%H:%M:%S')}: {error}"
            return
        self.problem, self._whose = "", "  your own jobs" if answer.get("seen") == "own" else ""
        self.rows = self._watch.look(int(answer["at_ns"]), answer["jobs"])

    @property
    def title(self) -> str:
        """The first line."""
        return f"wattribute top, node {self.node}, {time.strftime('%H:%M:%S')}{self._whose}  {self.problem}".rstrip()


def _lines(jobs: _Jobs, screen: Screen, interval_s: float, count: int | None) -> None:
    """A look is over when power can be told: the first one takes an interval."""
    screen.ended = True
    left = count
    try:
        while left is None or left > 0:
            time.sleep(interval_s)
            jobs.look()
            width = shutil.get_terminal_size((200, 24)).columns
            lines, _ = frame(screen, jobs.rows, jobs.title, width=width, height=len(jobs.rows) + 5)
            click.echo("\n".join(lines[:-1]) + ("" if left == 1 else "\n"))
            left = None if left is None else left - 1
    except KeyboardInterrupt:
        pass


def _full_screen(window: "curses.window", jobs: _Jobs, screen: Screen, interval_s: float, count: int | None) -> None:
    import curses

    for ask in (curses.use_default_colors, lambda: curses.curs_set(0)):
        with contextlib.suppress(curses.error):  # a terminal without colours, or one whose cursor can't be hidden
            ask()
    window.timeout(POLL_MS)
    due_s, looks = time.monotonic() + min(interval_s, 1.0), 1
    try:
        while True:
            _draw(window, jobs, screen)
            if (key := _key(window)) and not screen.press(key, jobs.rows):
                return
            if time.monotonic() >= due_s:
                if count is not None and looks > count:
                    return
                jobs.look()
                due_s, looks = time.monotonic() + interval_s, looks + 1
    except KeyboardInterrupt:
        pass


def _draw(window: "curses.window", jobs: _Jobs, screen: Screen) -> None:
    import curses

    height, width = window.getmaxyx()
    lines, marked = frame(screen, jobs.rows, jobs.title, width=max(1, width - 1), height=height)
    window.erase()
    for at, line in enumerate(lines):
        header = marked is not None and at == 2
        style = curses.A_REVERSE if at == marked else curses.A_BOLD if at == 0 or header else curses.A_NORMAL
        try:
            window.addstr(at, 0, fit(line, width - 1) if at == marked else line, style)
        except curses.error:  # the terminal has become smaller meanwhile
            break
    window.refresh()


def _key(window: "curses.window") -> str:
    import curses

    try:
        code = window.getch()
    except curses.error:
        return ""
    named = {
        curses.KEY_UP: "up",
        curses.KEY_DOWN: "down",
        curses.KEY_PPAGE: "pageup",
        curses.KEY_NPAGE: "pagedown",
        curses.KEY_HOME: "home",
        curses.KEY_END: "end",
        curses.KEY_ENTER: "enter",
        10: "enter",
        13: "enter",
        27: "escape",
    }
    return named.get(code, chr(code) if 32 <= code < 127 else "")


def _has_curses() -> bool:
    """Whether this terminal can be drawn on: Python on Windows lacks curses, and some terminals are `dumb`."""
    try:
        import curses

        curses.setupterm()
        return bool(curses.tigetstr("cup"))
    except Exception:  # noqa: BLE001 - curses.error isn't there where curses can't be imported
        return False
