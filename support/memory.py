"""Memory that ran out: every framework says it in words of its own."""

import contextlib
import re
from collections.abc import Iterator

from support.errors import ExitCode, UserError

#: How the frameworks, their allocators and Python say it, on CPUs and GPUs.
_RAN_OUT = re.compile(
    r"RESOURCE_EXHAUSTED|ResourceExhausted|OutOfMemory|out[ _]of[ _]memory|\bOOM when"
    r"|MemoryError|bad_alloc|alloc_failed|Cannot allocate memory|DefaultCPUAllocator",
    re.IGNORECASE,
)
#: A full disk and too many open files exhaust a resource, too.
_OTHERS = re.compile("no space left|too many open files", re.IGNORECASE)


def ran_out(words: str) -> bool:
    """Tells whether an error's name and words say that memory ran out."""
    return bool(_RAN_OUT.search(words)) and not _OTHERS.search(words)


@contextlib.contextmanager
def named(remedy: str) -> Iterator[None]:
    """Raises UserError (exit 7) with this remedy where memory runs out."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not ran_out(f"{type(error).__name__}: {error}"):
            raise
        raise UserError("Out of memory.", remedy, ExitCode.OUT_OF_MEMORY) from error
