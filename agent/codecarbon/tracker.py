"""EmissionsTracker and OfflineEmissionsTracker over a job: `start`, `stop`, `flush`, tasks, a context manager.

Nothing here raises into the script: a file that can't be written, a handler that fails, an agent that is away are one
warning each. Source of the interface: CodeCarbon 3.3, emissions_tracker.py.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from wattribute.agent.codecarbon import settings
from wattribute.agent.codecarbon.data import EmissionsData, Prices, TaskEmissionsData, data_of, gpu_count
from wattribute.agent.codecarbon.file import write_row, write_tasks
from wattribute.agent.new_job import job
from wattribute.agent.process import here
from wattribute.agent.session import Job

if TYPE_CHECKING:
    from wattribute.collectors.grid.tables import Zone


class EmissionsTracker:
    """A run, measured as the job `<project_name>-<run_id>` of the product `project_name`.

    Arguments are CodeCarbon's, in its order (help(EmissionsTracker)); what has no effect here says so once.
    """

    parameters: tuple[str, ...] = settings.ONLINE
    __signature__ = settings.signature(*settings.ONLINE)

    def __init__(self, *args: Any, **named: Any) -> None:
        known = settings.ONLINE + settings.OFFLINE
        given = settings.bound(self.parameters, args, named)
        self._asked = settings.effective(given, os.environ, settings.folders(), known)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._project = str(self._asked["project_name"])
        self.run_id = str(uuid.uuid4())
        self.final_emissions: float | None = None
        self.final_emissions_data: EmissionsData | None = None
        self._job: Job | None = None
        self._began_s: float | None = None
        self._ran_s = 0.0
        self._tasks: dict[str, tuple[Job, float]] = {}
        self._done: list[tuple[str, Job, EmissionsData]] = []
        self._told: EmissionsData | None = None
        self._prices = Prices()
        with self._harmless("finding the intensity"):
            self._prices = Prices(
                pue=settings.number(self._asked, "pue"),
                g_per_kwh=self._intensity(),
                wue_l_per_kwh=settings.number(self._asked, "wue"),
            )
        level = self._asked.get("log_level")
        if level is not None:
            with self._harmless("setting the log level"):
                logging.getLogger("wattribute").setLevel(level.upper() if isinstance(level, str) else level)
        if self._asked.get("tracking_mode") == "machine":
            here().say_once(
                "codecarbon machine",
                "EmissionsTracker: tracking_mode 'machine' isn't known here: what this job used is told; "
                "`wattribute report node` tells of the machine",
            )

    def start(self) -> None:
        """Begins the run; a second start does nothing. After its end, it goes on with the same totals."""
        if self._is_copy():
            return
        with self._lock, self._harmless("starting"):
            if self._job is None:
                self._job = self._open(self.run_id)
            else:
                self._job.start()
            self._began_s = time.monotonic() if self._began_s is None else self._began_s

    def stop(self) -> float | None:
        """Ends the run, writes its row, and returns kilograms of CO2e; None where nothing is known."""
        if self._is_copy():
            return None
        with self._lock, self._harmless("stopping"):
            if self._began_s is None:
                here().say_once("codecarbon stopped", "EmissionsTracker: already stopped, or never started")
                return self.final_emissions
            for name in list(self._tasks):
                self.stop_task(name)
            if self._job is not None:
                self._job.stop()
            self.final_emissions_data = self._data()
            self.final_emissions = self.final_emissions_data.emissions
            self._put_out(self.final_emissions_data)
            for handler in self._handlers():
                with self._harmless(f"closing {type(handler).__name__}"):
                    getattr(handler, "exit", lambda: None)()
            self._ran_s, self._began_s = self.final_emissions_data.duration or 0.0, None
        return self.final_emissions

    def flush(self) -> float | None:
        """Writes what has been used until now and goes on; kilograms of CO2e."""
        if self._is_copy():
            return None
        with self._lock, self._harmless("flushing"):
            if self._began_s is None:
                here().say_once("codecarbon flush", "EmissionsTracker: start it before you flush it")
                return None
            data = self._data()
            self._put_out(data)
            return data.emissions
        return None

    def start_task(self, task_name: str | None = None) -> None:
        """Begins a part of the run, told apart from the rest; by CodeCarbon's rule, one at a time."""
        if self._is_copy():
            return
        with self._lock, self._harmless("starting a task"):
            if self._tasks:
                here().say_once("codecarbon task", "EmissionsTracker: a task is under way; stop it first")
                return
            if self._began_s is None:
                self._began_s = time.monotonic()
            name = task_name or uuid.uuid4().hex
            self._tasks[name] = (self._open(f"{self.run_id}-{len(self._done) + 1}"), time.monotonic())

    def stop_task(self, task_name: str | None = None) -> EmissionsData | None:
        """Ends it and tells what it used; None where there is none of that name."""
        if self._is_copy():
            return None
        with self._lock, self._harmless("stopping a task"):
            name = task_name or next(iter(self._tasks), "")
            if name not in self._tasks:
                here().say_once("codecarbon no task", "EmissionsTracker: no such task is under way")
                return None
            task, began_s = self._tasks.pop(name)
            task.stop()
            data = self._of([task], time.monotonic() - began_s)
            self._done.append((name, task, data))
            return data
        return None

    def get_detected_hardware(self) -> dict[str, Any]:
        """What CodeCarbon calls the detected hardware, as far as it's known here."""
        from wattribute.collectors.host import host_facts

        facts = host_facts()
        return {
            "ram_total_size": facts.memory_bytes / 2**30,
            "cpu_count": facts.cpus,
            "cpu_physical_count": facts.packages,
            "cpu_model": facts.cpu_model,
            "gpu_count": gpu_count(),
            "gpu_model": None,
            "gpu_ids": None,
        }

    def service_shutdown(self, signum: int, frame: FrameType | None) -> None:
        """A signal handler that stops the run."""
        self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _open(self, name: str) -> Job:
        labels = {"experiment": str(self._asked["experiment_id"])} if self._asked.get("experiment_id") else {}
        return job(f"{self._project}-{name}", product=self._project, labels=labels).start()

    def _data(self) -> EmissionsData:
        """The run and its tasks: a task is a job inside the run's, whose joules are its own."""
        jobs = [task for _, task, _ in self._done] + [task for task, _ in self._tasks.values()]
        began_s = time.monotonic() if self._began_s is None else self._began_s
        return self._of([*([self._job] if self._job else []), *jobs], self._ran_s + time.monotonic() - began_s)

    def _of(self, jobs: list[Job], duration_s: float) -> EmissionsData:
        told = (*settings.OFFLINE[:4], "country_name", "experiment_id")
        about = {name: self._asked[name] for name in told if self._asked.get(name)}
        return data_of(
            [one.receipt for one in jobs],
            run_id=self.run_id,
            project=self._project,
            duration_s=duration_s,
            prices=self._prices,
            about=about,
        )

    def _is_copy(self) -> bool:
        """Whether a fork left it here: the run is the parent's, whose lock may have been held."""
        if os.getpid() == self._pid:
            return False
        here().say_once("codecarbon fork", "EmissionsTracker: a fork's copy does nothing; its run is the parent's")
        return True

    def _put_out(self, data: EmissionsData) -> None:
        wanted = settings.methods(self._asked.get("output_methods"))
        folder = Path(str(self._asked["output_dir"]))
        if settings.is_set(self._asked["save_to_file"]) if wanted is None else "csv" in wanted:
            with self._harmless("writing the file"):
                update = self._asked["on_csv_write"] == "update"
                write_row(folder / str(self._asked["output_file"]), data.values, update=update)
                if self._done:
                    name = f"emissions_{self._asked['experiment_name']}_{self.run_id}.csv"
                    write_tasks(folder / name, [one.values for one in self._tasks_done()])
        before, self._told = self._told, data
        for handler in self._handlers():
            with self._harmless(f"calling {type(handler).__name__}"):
                handler.out(data, _since(data, before))
                if self._done and hasattr(handler, "task_out"):
                    handler.task_out(self._tasks_done(), str(self._asked["experiment_name"]))

    def _tasks_done(self) -> list[TaskEmissionsData]:
        return [TaskEmissionsData(task_name=name, **vars(data)) for name, _, data in self._done]

    def _handlers(self) -> list[Any]:
        handlers = list(self._asked.get("output_handlers") or ())
        wanted = settings.methods(self._asked.get("output_methods"))
        logs = settings.is_set(self._asked.get("save_to_logger")) if wanted is None else "logger" in wanted
        logger = self._asked.get("logging_logger")
        return [*handlers, logger] if logs and logger else handlers

    def _intensity(self) -> float | None:
        return settings.number(self._asked, "force_carbon_intensity_g_co2e_kwh")

    @contextmanager
    def _harmless(self, doing: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a tracker must not end the script that it tracks
            here().say_once(f"codecarbon {doing} {error}", "EmissionsTracker: %s failed: %s", doing, error)


class OfflineEmissionsTracker(EmissionsTracker):
    """The same with the place told: `country_iso_code`, or `cloud_provider` and `cloud_region`, or a US `region`."""

    parameters = settings.ONLINE + settings.OFFLINE
    __signature__ = settings.signature(*settings.ONLINE, *settings.OFFLINE)

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        with self._harmless("finding the country"):
            country = _zone(str(self._asked.get("country_iso_code") or ""))
            self._asked["country_name"] = country.name if country and country.kind == "country" else None

    def _intensity(self) -> float | None:
        forced = super()._intensity()
        if forced is not None:
            return forced
        told = {name: str(self._asked.get(name) or "") for name in settings.OFFLINE}
        abroad = told["country_iso_code"] not in ("", "USA")
        places = (told["cloud_region"], "" if abroad else told["region"], told["country_iso_code"])
        found = next(filter(None, map(_zone, filter(None, places))), None)
        if found is None:
            here().say_once("codecarbon zone", "OfflineEmissionsTracker: no place that is known; the node's own counts")
            return None
        return float(found.g_per_kwh)


def _zone(place: str) -> "Zone | None":
    """A country by its code, a US state or a cloud region by key or name, from the bundled table."""
    from wattribute.collectors.grid.tables import bundled

    keys = {name.casefold(): key for name, key in bundled().names().items()}
    key = keys.get(place.casefold())
    return None if key is None else bundled().find(key, "lifecycle") or bundled().find(key, "direct")


def _since(data: EmissionsData, before: EmissionsData | None) -> EmissionsData:
    """What came since the last time that handlers were told."""
    import dataclasses

    delta = dataclasses.replace(data)
    if before is None:
        return delta
    for name in (
        "duration",
        "emissions",
        "cpu_energy",
        "gpu_energy",
        "ram_energy",
        "energy_consumed",
        "water_consumed",
    ):
        now, then = getattr(data, name), getattr(before, name)
        setattr(delta, name, None if now is None else now - (then or 0.0))
    return delta
