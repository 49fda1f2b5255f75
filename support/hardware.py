"""What the processor is and how much memory there is, as Linux tells."""

import os
from pathlib import Path

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def cpu_info(key: str) -> str:
    """The first value of a field of /proc/cpuinfo, empty where there is none."""
    for line in _lines(Path("/proc/cpuinfo")):
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def available_memory() -> int:
    """Bytes of memory that a program may still take.

    Not more than the limit of a container.
    """
    bounds = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            bounds.append(int(line.split()[1]) * 1024)
    bounds += [int(line) for line in _lines(_CGROUP_LIMIT) if line.isdigit()]
    return min(bounds)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
