"""ASGI middleware that meters requests: `MeterMiddleware(app, product="llama-3-8b")`."""

from wattribute.agent.middleware.asgi import MeterMiddleware, current

__all__ = ["MeterMiddleware", "current"]
