"""CodeCarbon's names over our jobs: `from wattribute.codecarbon import EmissionsTracker` (docs/codecarbon.md)."""

from wattribute.agent.codecarbon.data import EmissionsData
from wattribute.agent.codecarbon.settings import OutputMethod
from wattribute.agent.codecarbon.track import TaskEmissionsTracker, track_emissions, track_task_emissions
from wattribute.agent.codecarbon.tracker import EmissionsTracker, OfflineEmissionsTracker

__all__ = [
    "EmissionsData",
    "EmissionsTracker",
    "OfflineEmissionsTracker",
    "OutputMethod",
    "TaskEmissionsTracker",
    "track_emissions",
    "track_task_emissions",
]
