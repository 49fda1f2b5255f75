"""What a program and all the processes that it starts take: memory and processor time.

`getrusage` counts only processes that their parent waited for; workers that are forked
from a server are not. So a session of its own is watched through /proc, where there is
one.
"""

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_INTERVAL = 0.1  # seconds between two looks
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def run(words: Sequence[str]) -> dict[str, float]:
    """Runs a program silently to its end.

    Returns:
      "largest process, MB": resident, the highest that was seen of any process;
      "processor seconds": of all processes together; nothing without /proc.

    Raises:
      CalledProcessError: it failed.
    """
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
    largest, seconds = 0, {}
    while process.poll() is None:
        for pid, ticks, resident in _session(process.pid):
            seconds[pid] = ticks / _TICKS
            largest = max(largest, resident)
        time.sleep(_INTERVAL)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(words))
    if not seconds:
        return {}
    return {
        "largest process, MB": round(largest / 1e6, 1),
        "processor seconds": round(sum(seconds.values()), 1),
    }


def _session(leader: int) -> list[tuple[int, int, int]]:
    """Process id, processor ticks and resident bytes of a session's processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold blanks.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == leader:
            ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
            found.append((int(path.parent.name), ticks, pages * _PAGE))
    return found
