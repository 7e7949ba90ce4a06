"""A served product's process: requests of two tenants with tokens and receipts, until its stdin is closed."""

import sys
import threading
import time

import wattribute


def burn(cpu_s: float) -> None:
    until_s = time.process_time() + cpu_s
    while time.process_time() < until_s:
        pass


def serve(product: str, over: threading.Event) -> None:
    """Each tenth request breaks off; every one has a receipt."""
    number = 0
    with wattribute.meter(product, receipts=True) as meter:
        while not over.wait(0.01):
            number += 1
            tenant = "acme" if number % 3 else "zeta"
            request = meter.begin(tenant)
            burn(0.004)
            if number % 10:
                tokens = 8 + number % 5
                request.end({"prompt_token": 32, "output_token": tokens, "token": 32 + tokens})
            else:
                request.end(aborted=True)


def main() -> None:
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    serve(sys.argv[1], over)


if __name__ == "__main__":
    main()
