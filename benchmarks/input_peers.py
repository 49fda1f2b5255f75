"""Other libraries' loaders: each runs in an environment of its own.

A loader is a script in `peers/`, told where the images lie, the batch size and the
workers; it prints the images and the seconds of its second pass as JSON. Formats of
their own are written once before, with the same JPEG bytes.
"""

import dataclasses
import functools
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import harness
from support.pool import cores

_SCRIPTS = Path(__file__).parent / "peers"
_SHARDS_PER_WORKER = 4


@dataclasses.dataclass(frozen=True)
class Peer:
    """Another library's loader.

    Attributes:
      modules: what must be installed, as `import` takes it.
      loader: the script that decodes.
      writer: the script that writes its format; empty: it reads the loose files.
    """

    modules: str
    loader: str
    writer: str = ""


PEERS = {
    "DataLoader and PIL": Peer("torch, PIL", "torch_loader.py"),
    "WebDataset": Peer(
        "webdataset, torch, PIL", "webdataset_loader.py", "webdataset_writer.py"
    ),
    "MosaicML Streaming": Peer(
        "mosaic_streaming, torch, PIL", "streaming_loader.py", "streaming_writer.py"
    ),
    "litdata": Peer("litdata, torch, PIL", "litdata_loader.py", "litdata_writer.py"),
    "NVIDIA DALI": Peer("nvidia.dali", "dali_loader.py"),
}


def peer_cases(loose: Path, batch_size: int, python: str) -> Iterator[harness.Case]:
    """The cases of the libraries that an environment has; says which it has not.

    Args:
      loose: a folder of JPEG files; other formats are written beside it.
      batch_size: images per batch.
      python: the environment's; empty: no peers.
    """
    for name, peer in PEERS.items() if python else ():
        if not installed(python, peer.modules):
            print(f"skipped {name}: {python} cannot import {peer.modules}")
            continue
        folder = _written(loose, python, peer) if peer.writer else loose
        words = [python, _SCRIPTS / peer.loader, folder, batch_size, cores()]
        yield harness.Case(
            name, functools.partial(_load, [str(word) for word in words])
        )


def installed(python: str, modules: str) -> bool:
    """Whether the environment can import the modules, which may be in `peers/`."""
    tried = subprocess.run(
        [python, "-c", f"import {modules}"],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(_SCRIPTS)},
    )
    return not tried.returncode


def _written(loose: Path, python: str, peer: Peer) -> Path:
    """The folder of a peer's own format, written unless it is there."""
    folder = loose.parent / Path(peer.writer).stem
    if not folder.exists():
        words = [python, str(_SCRIPTS / peer.writer), str(loose), str(folder)]
        if peer.writer == "webdataset_writer.py":
            # Its workers take whole shards: each should get as many as the others.
            count = len(list(loose.iterdir()))
            words.append(str(-(-count // (_SHARDS_PER_WORKER * cores()))))
        _run(words)
    return folder


def _load(words: Sequence[str]) -> harness.Timed:
    found = json.loads(_run(words).splitlines()[-1])
    return harness.Timed(found["images"], found["seconds"])


def _run(words: Sequence[str]) -> str:
    """Runs a program to its end; returns what it printed, shows why it failed."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr)
        done.check_returncode()
    return done.stdout
