"""A small HTTP/1.1 server that lives in its owner's event loop; TLS and logins by an exporter-toolkit web file."""

from wattribute.exporters.messages import Route
from wattribute.exporters.web.server import WebServer

__all__ = ["Route", "WebServer"]
