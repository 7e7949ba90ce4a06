"""A FastAPI application whose every request has a bill: words are counted as units, paths are tenants.

    pip install wattribute fastapi uvicorn
    python examples/fastapi_app.py --port 8000
    curl -i 'http://127.0.0.1:8000/shout?text=hello+world'

The response's header `Wattribute-Receipt` begins with the receipt's name and has what the request took so far. A
moment later the settled receipt is at http://127.0.0.1:8000/wattribute/receipts/NAME. With an agent on the machine its
page has the product's energy and carbon, per request and per word; without one, the process measures itself.
"""

import argparse
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from wattribute.asgi import MeterMiddleware, current

app = FastAPI(title="shout")
app.add_middleware(MeterMiddleware, product="shout", tenant="route", receipts_path="/wattribute/receipts")


@app.get("/shout")
def shout(text: str, request: Request) -> dict[str, str]:
    """The text in capitals."""
    current(request).add(word=len(text.split()))
    return {"text": text.upper()}


@app.get("/shout/{times}")
def shout_often(times: int, text: str, request: Request) -> StreamingResponse:
    """The same some times over, in a stream: the request ends with its last part."""

    def lines() -> Iterator[str]:
        for _ in range(times):
            current(request).add(word=len(text.split()))
            yield text.upper() + "\n"

    return StreamingResponse(lines(), media_type="text/plain")


@app.get("/healthz")
def healthz() -> str:
    """Not metered, as nobody asks for it but the machinery."""
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description="A small FastAPI application, with a meter on every request.")
    parser.add_argument("--port", type=int, default=8000)
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)


if __name__ == "__main__":
    main()
