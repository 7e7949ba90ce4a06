"""Serving engines (vLLM, TGI, SGLang, Triton, llama.cpp, ...), read by their pages of metrics."""

from wattribute.collectors.engines.counters import Work
from wattribute.collectors.engines.doctor import finding, listed
from wattribute.collectors.engines.engine import EngineCollector
from wattribute.collectors.engines.fetch import split_url
from wattribute.collectors.engines.mappings import ABORTED, IN_FLIGHT, MAPPINGS, REQUEST, STAGES
from wattribute.collectors.engines.selectors import parse

__all__ = [
    "ABORTED",
    "IN_FLIGHT",
    "MAPPINGS",
    "REQUEST",
    "STAGES",
    "EngineCollector",
    "Work",
    "finding",
    "listed",
    "parse",
    "split_url",
]
