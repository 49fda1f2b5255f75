"""What a run says while it trains: lines, events for TensorBoard, traces."""

import io
import json

import keras
import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from support import command
from support.errors import ExitCode, UserError
from support.live import LiveLine
from trainer import main
from trainer.loop import board, runtime
from trainer.loop.checkpoint import Progress
from trainer.loop.progress import Epoch, Meter


class Clock:
    """Time that passes when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def run(config):
    return command.guard(main.main, ["main", *command.flags_text(config).split()])


@pytest.fixture(autouse=True)
def plain_precision():
    yield
    keras.mixed_precision.set_global_policy("float32")


def meter_of(output, clock, progress):
    line = LiveLine(output, clock, log_interval=30)
    epoch = Epoch(3, 40, steps=100, batch_size=32, validation_seconds=10)
    return Meter(line, epoch, progress, clock), line


def take_step(meter, clock, wait, work):
    def batches():
        clock.now += wait
        yield None

    meter.wait(batches())
    clock.now += work
    meter.step()


def test_a_log_gets_loss_accuracy_speed_wait_and_time_left():
    log, clock, progress = io.StringIO(), Clock(), Progress(epoch=2)
    meter, line = meter_of(log, clock, progress)
    take_step(meter, clock, 1, 34)  # the first step compiles
    assert line.is_due() and not meter.is_due()
    line.show("another")
    log.truncate(0)
    log.seek(0)
    for _ in range(30):
        assert not meter.is_due()
        take_step(meter, clock, 0.25, 0.75)
    assert meter.is_due()
    meter.show(0.5, 0.875)
    assert not meter.is_due()
    assert log.getvalue() == (
        "epoch  3/40  step 31/100  loss 0.5000  accuracy 87.50%  32.0 images/s  "
        "input wait 13.1%  1 min 9 s left, 1 h 9 min of the run\n"
    )
    row = meter.row()
    assert row == {
        "images_per_second": 31 * 32 / 65,
        "input_wait": 8.5 / 65,
        "seconds": 65,
    }
    assert (progress.step, progress.seconds) == (31, 65)


def test_an_epoch_is_measured_across_a_stop():
    clock = Clock()
    progress = Progress(step=4, seconds=50, epoch_seconds=20, epoch_waited=2)
    meter, _ = meter_of(io.StringIO(), clock, progress)
    take_step(meter, clock, 1, 4)
    row = meter.row()
    assert row == {
        "images_per_second": 5 * 32 / 25,
        "input_wait": 3 / 25,
        "seconds": 25,
    }
    assert progress.seconds == 55


def test_a_terminal_is_clean_after_an_error():
    screen, clock = Terminal(), Clock()
    with pytest.raises(ZeroDivisionError):
        with LiveLine(screen, clock) as line:
            clock.now += 1
            line.show("step 1")
            raise ZeroDivisionError
    assert screen.getvalue() == "\rstep 1\033[K\r\033[K"


def events_of(folder):
    return EventAccumulator(str(folder / board.FOLDER)).Reload()


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

    # A run that goes on writes its events anew, and leaves the trace.
    record = json.loads((folder / "run.json").read_text())
    rows = history.to_dict("records")[:1]
    with pytest.raises(UserError):
        with board.Board(folder, config, record["started"], rows):
            raise UserError("diverged", "", ExitCode.DIVERGED)
    values, count = scalars(events_of(folder), "val_loss")
    assert (list(values), count) == ([6], 1)
    end = hparams_of(events_of(folder), "session_end_info").session_end_info
    assert end.status == 2  # STATUS_FAILURE
    assert list(folder.glob("tensorboard/plugins/profile/*/*.xplane.pb"))


def test_a_full_disk_is_not_a_lack_of_memory():
    error = tf.errors.ResourceExhaustedError(None, None, "x; No space left on device")
    assert not runtime.is_out_of_memory(error)
    error = tf.errors.ResourceExhaustedError(None, None, "x; Too many open files")
    assert not runtime.is_out_of_memory(error)
    assert runtime.is_out_of_memory(MemoryError())
    error = tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of")
    assert runtime.is_out_of_memory(error)
    assert not runtime.is_out_of_memory(
        tf.errors.DataLossError(None, None, "corrupted")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device=tpu"], "--device=tpu is none of auto, cpu, gpu"),
        (["--device=gpu"], "--device=gpu, but TensorFlow finds no GPU"),
        (["--profile_steps=5,2"], "--profile_steps=5,2 is no first and last step"),
        (["--profile_steps=5"], "--profile_steps=5 is no first and last step"),
        (["--profile_steps=1,x"], "--profile_steps=1,x is not a list of ints"),
        (["--profile_steps=5,999"], "the run has 12 steps"),
    ],
)
def test_wrong_options_get_one_line(config, tmp_path, capsys, words, message):
    if words == ["--device=gpu"] and tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    base = command.flags_text(config).split()
    assert command.guard(main.main, ["main", *base, *words]) == ExitCode.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert message in lines[0]
    assert not (tmp_path / "run").exists()
