"""Whether the agent in this container answers, and keeps its record: exit code 0, or 1 and why.

Asks over the control socket, so that it works whatever [web] demands of a client. With --alive an agent that answers
is enough: a full disk isn't mended by a restart.
"""

import json
import os
import socket
import sys

WAIT_S = 4.0


def trouble(path: str, *, alive: bool) -> str:
    """What is wrong with the agent that listens on `path`; "" where nothing is."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(WAIT_S)
            link.connect(path)
            link.sendall(b'{"op": "health", "id": 1}\n')
            answer = json.loads(link.makefile().readline())
    except (OSError, ValueError) as error:
        return f"the agent doesn't answer at {path}: {error}"
    if alive:
        return ""
    down = [source for source in answer.get("sources", ()) if source["source"] == "ledger" and not source["up"]]
    return "; ".join(f"{source['source']}: {source['why']}" for source in down)


if __name__ == "__main__":
    why = trouble(
        os.environ.get("WATTRIBUTE_AGENT__SOCKET", "/run/wattribute/agent.sock"), alive="--alive" in sys.argv[1:]
    )
    sys.exit(why or 0)
