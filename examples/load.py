"""Load for examples/serve.py, from a process of its own: requests of random length by a few tenants at once.

    python examples/load.py http://127.0.0.1:8000 --requests 200

Prints one JSON object: how many requests and tokens it got, and the id of every receipt.
"""

import argparse
import json
import random
import sys
import threading
import urllib.request
from typing import Any

TENANTS = ("acme", "globex", "initech")


def ask(url: str, tenant: str, tokens: int) -> tuple[int, str]:
    """One request: the tokens that came, and the header with the receipt."""
    request = urllib.request.Request(f"{url}/generate?prompt=The+agent&tokens={tokens}", headers={"X-Tenant": tenant})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(json.load(answer)["tokens"]), str(answer.headers["Wattribute-Receipt"])


def main() -> int:
    parser = argparse.ArgumentParser(description="Load for examples/serve.py.")
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    wanted = [(dice.choice(TENANTS), dice.randint(20, 400)) for _ in range(arguments.requests)]
    got: list[dict[str, Any]] = []

    def work(part: list[tuple[str, int]]) -> None:
        for tenant, tokens in part:
            came, receipt = ask(arguments.url, tenant, tokens)
            got.append({"tenant": tenant, "tokens": came, "receipt": receipt})

    threads = [
        threading.Thread(target=work, args=(wanted[first :: arguments.threads],)) for first in range(arguments.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(got))
    return 0 if len(got) == len(wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
