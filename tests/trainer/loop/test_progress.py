"""What a run shows while it trains: lines, events for TensorBoard, traces."""

import io
import json

import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from support.errors import ExitCode, UserError
from tests.trainer.running import run
from trainer.config import TrainConfig
from trainer.loop import runtime, tensorboard
from trainer.loop.checkpoint import Progress
from trainer.loop.progress import Meter


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when told, in seconds: `clock[0] += 1`."""
    now = [100.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def meter_of(output, clock, progress):
    config = TrainConfig(epochs=40, batch_size=32)
    return Meter(config, 100, progress, output, lambda: clock[0])


def take_step(meter, clock, wait, work):
    def batches():
        clock[0] += wait
        yield None

    meter.wait(batches())
    clock[0] += work
    meter.step()


def test_log_gets_loss_accuracy_speed_wait_and_time_left(clock):
    log = io.StringIO()
    progress = Progress(epoch=2, history=[{"validation_seconds": 10}])
    with meter_of(log, clock, progress) as meter:
        take_step(meter, clock, 1, 34)  # the first step compiles
        assert not meter.is_due()
        for _ in range(30):
            assert not meter.is_due()
            take_step(meter, clock, 0.25, 0.75)
        assert meter.is_due()
        meter.show(0.5, 0.875)
        assert not meter.is_due()
        row = meter.row()
    (line,) = log.getvalue().splitlines()
    assert line.startswith("epoch  3/40:  31%|")
    assert line.split("|")[-1].strip() == (
        "992/3200 [00:30<01:09, 32.00 images/s, loss 0.5000, accuracy 87.50%, "
        "input wait 13.1%, 1 h 9 min of the run]"
    )
    assert row == {
        "images_per_second": 31 * 32 / 65,
        "input_wait": 8.5 / 65,
        "seconds": 65,
    }
    assert (progress.step, progress.seconds) == (31, 65)


def test_epoch_is_measured_across_a_stop(clock):
    progress = Progress(step=4, seconds=50, epoch_seconds=20, epoch_waited=2)
    with meter_of(io.StringIO(), clock, progress) as meter:
        take_step(meter, clock, 1, 4)
        row = meter.row()
    assert row == {
        "images_per_second": 5 * 32 / 25,
        "input_wait": 3 / 25,
        "seconds": 25,
    }
    assert progress.seconds == 55


def events_of(folder):
    return EventAccumulator(str(folder / tensorboard.FOLDER)).Reload()


def scalars(events, tag):
    values = [
        (event.step, float(tf.make_ndarray(event.tensor_proto)))
        for event in events.Tensors(tag)
    ]
    return dict(values), len(values)


def hparams_of(events, tag):
    metadata = events.SummaryMetadata(f"_hparams_/{tag}")
    content = metadata.plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content)


def test_tensorboard_shows_the_history_once(changed, tmp_path):
    config = changed(epochs=2, profile_steps=(7, 8))
    assert run(config) == ExitCode.OK
    folder = tmp_path / "run"
    history = pd.read_csv(folder / "history.csv")
    events = events_of(folder)
    tags = {tag for tag in events.Tags()["tensors"] if not tag.startswith("_")}
    assert tags == set(history.columns) - {"epoch", "step"}
    for tag in tags:
        values, count = scalars(events, tag)
        assert count == len(history)
        assert list(values) == list(history["step"])
        assert list(values.values()) == pytest.approx(list(history[tag]), rel=1e-6)
    start = hparams_of(events, "session_start_info").session_start_info.hparams
    assert start["model"].string_value == "tiny"
    assert start["batch_size"].number_value == 8
    assert start["horizontal_flip"].bool_value is True
    assert "run_dir" not in start
    end = hparams_of(events, "session_end_info").session_end_info
    assert end.status == 1  # STATUS_SUCCESS
    assert len(list(folder.glob("tensorboard/plugins/profile/*/*.xplane.pb"))) == 1

    # A run that resumes writes its events again, and leaves the trace.
    record = json.loads((folder / "run.json").read_text())
    rows = history.to_dict("records")[:1]
    with pytest.raises(UserError):
        with tensorboard.Events(folder, config, record["started"], rows):
            raise UserError("diverged", "", ExitCode.DIVERGED)
    values, count = scalars(events_of(folder), "val_loss")
    assert (list(values), count) == ([6], 1)
    end = hparams_of(events_of(folder), "session_end_info").session_end_info
    assert end.status == 2  # STATUS_FAILURE
    assert list(folder.glob("tensorboard/plugins/profile/*/*.xplane.pb"))


@pytest.mark.parametrize(
    ("error", "ran_out"),
    [
        (tf.errors.ResourceExhaustedError(None, None, "x; No space left on"), False),
        (tf.errors.ResourceExhaustedError(None, None, "x; Too many open files"), False),
        (tf.errors.DataLossError(None, None, "corrupted"), False),
        (tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out"), True),
        (MemoryError(), True),
    ],
)
def test_a_full_disk_is_not_a_lack_of_memory(error, ran_out):
    with pytest.raises(UserError if ran_out else type(error)):
        with runtime.memory_errors(8):
            raise error
