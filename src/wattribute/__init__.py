"""What each AI job costs the climate: energy and carbon per job, measured live.

    with wattribute.job("bert-ft-7", product="bert-base") as job:
        train()
    print(job.receipt)

Importing this is cheap and starts nothing; what is asked for is loaded then.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False  # typing's own costs 4 ms; type checkers know the name
if TYPE_CHECKING:
    from wattribute.agent.meter.meter import Meter, meter
    from wattribute.agent.new_job import job
    from wattribute.agent.receipts import Receipt
    from wattribute.agent.track import track

_ROOMS = {"Meter": "meter.meter", "Receipt": "receipts", "job": "new_job", "meter": "meter.meter", "track": "track"}

__all__ = ["Meter", "Receipt", "__version__", "job", "meter", "track"]


def __getattr__(name: str) -> object:
    if name not in _ROOMS:
        raise AttributeError(f"module 'wattribute' has no attribute {name!r}")
    import importlib

    found: object = getattr(importlib.import_module(f"wattribute.agent.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
