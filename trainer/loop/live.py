"""What surrounds a run that trains: signals, the live line, TensorBoard, a trace."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from support.live import LiveLine
from trainer import models
from trainer.config import TrainConfig
from trainer.loop.board import FOLDER, Board
from trainer.loop.checkpoint import Progress
from trainer.loop.progress import LOG_INTERVAL, Epoch, Meter, StopRequest
from trainer.loop.trace import Trace


@dataclasses.dataclass(frozen=True)
class Live:
    """See `live`; `board` is None with --tensorboard=false."""

    stop: StopRequest
    line: LiveLine
    board: Board | None
    trace: Trace

    def meter(self, config: TrainConfig, steps: int, progress: Progress) -> Meter:
        """Measures an epoch of some steps, from where the run stands in it."""
        before = progress.history[-1] if progress.history else {}
        epoch = Epoch(
            progress.epoch + 1,
            config.epochs,
            steps,
            config.batch_size,
            before.get("validation_seconds", 0.0),
        )
        return Meter(self.line, epoch, progress)


@contextlib.contextmanager
def live(config: TrainConfig, run_dir: Path, progress: Progress) -> Iterator[Live]:
    """Opens everything for a run that stands at `progress`, and closes it in order."""
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        board = None
        if config.tensorboard:
            started = models.read_run(run_dir)["started"]
            board = stack.enter_context(
                Board(run_dir, config, started, progress.history)
            )
        trace = stack.enter_context(Trace(config, run_dir / FOLDER))
        line = stack.enter_context(LiveLine(log_interval=LOG_INTERVAL))
        yield Live(stop, line, board, trace)
