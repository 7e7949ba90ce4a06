"""What most people would write, for comparison: psutil over all processes once a second, shown by prometheus_client."""

import sys
import time

import psutil
from prometheus_client import Gauge, start_http_server


def main() -> None:
    port, interval_s = int(sys.argv[1]), float(sys.argv[2])
    cpu = Gauge("naive_process_cpu_seconds", "CPU time", ["pid", "name"])
    memory = Gauge("naive_process_resident_bytes", "Resident memory", ["pid", "name"])
    start_http_server(port, addr="127.0.0.1")
    due_s = time.monotonic()
    while True:
        for process in psutil.process_iter(["pid", "name", "cpu_times", "memory_info", "ppid", "create_time"]):
            facts = process.info
            if facts["cpu_times"] is None:
                continue
            labels = (str(facts["pid"]), facts["name"])
            cpu.labels(*labels).set(facts["cpu_times"].user + facts["cpu_times"].system)
            memory.labels(*labels).set(facts["memory_info"].rss)
        due_s += interval_s
        time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    main()
