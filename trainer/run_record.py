"""What other programs read of a run folder, without Keras: they must start at once."""

import dataclasses
import json
from pathlib import Path

from support.command import flags_text
from trainer.config import TrainConfig

RUN, FLAGS = "run.json", "flags.txt"
FINISHED = "finished"


def is_finished(run_dir: Path) -> bool:
    """Whether the run in a folder ended; no run, or a damaged one, did not."""
    try:
        record = json.loads((run_dir / RUN).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("status") == FINISHED


def read_options(text: str) -> dict[str, str]:
    """The lines of a `flags.txt` as option -> value."""
    lines = [line.removeprefix("--").partition("=") for line in text.splitlines()]
    return {name: value for name, _, value in lines if name}


def all_options(text: str) -> dict[str, str]:
    """The same with the default of every option of `TrainConfig` that it leaves out.

    So an older run equals a newer one with the options of later versions unused.
    """
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    defaults = read_options(flags_text(TrainConfig(**fields)))
    return defaults | read_options(text)
