"""What the processes of a server take from the machine. Linux only."""

import os
from pathlib import Path

from tests.server_process import Server


def process_ids(server: Server) -> list[int]:
    """List the server and all that it started."""
    ids = [server.process.pid] if server.process else []
    for process_id in ids:
        children = Path(f"/proc/{process_id}/task/{process_id}/children")
        ids += map(int, children.read_text(encoding="utf-8").split())
    return ids


def memory_mb(server: Server) -> float:
    """Return the resident memory of all its processes, in MiB."""
    statuses = (Path(f"/proc/{number}/status").read_text() for number in process_ids(server))
    return round(sum(int(status.split("VmRSS:")[1].split()[0]) for status in statuses) / 1024, 1)


def cpu_seconds(server: Server) -> float:
    """Return what all its processes have had of a processor, those that have ended included."""
    ticks = 0
    for number in process_ids(server):
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))  # proc_pid_stat(5): utime, stime, cutime, cstime
    return ticks / os.sysconf("SC_CLK_TCK")


def load_average() -> list[float]:
    """Return how many processes wanted to run, over 1, 5 and 15 minutes; nothing on Windows."""
    return [round(each, 1) for each in os.getloadavg()] if hasattr(os, "getloadavg") else []
