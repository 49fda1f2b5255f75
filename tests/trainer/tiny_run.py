"""A tiny architecture, and `trainer.main` with it, killed where the first word says.

`python tiny_run.py MOMENT FLAG...` with MOMENT one of
  step:N         after the Nth train step of this process
  write:N        when half of the Nth checkpoint of this process is written
  rename:TEXT    before the first file whose name holds TEXT takes its name
  renamed:TEXT   right after it
  never
"""

import io
import os
import signal
import sys

from keras import layers


def backbone(x):
    x = layers.Conv2D(8, 3, strides=2, padding="same", name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    return layers.Conv2D(8, 3, strides=2, padding="same", name="last")(x)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(moment):
    import numpy as np

    from trainer.loop import steps

    kind, _, value = moment.partition(":")
    step, savez, replace = steps.TrainStep.__call__, np.savez, os.replace
    calls = []

    def kill_in_step(self, batch):
        step(self, batch)
        calls.append(batch)
        if len(calls) == int(value):
            kill()

    def kill_in_savez(file, **arrays):
        calls.append(file)
        if len(calls) < int(value):
            return savez(file, **arrays)
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        kill()

    def kill_in_replace(source, target):
        hit = value in os.path.basename(target)
        if hit and kind == "rename":
            kill()
        replace(source, target)
        if hit:
            kill()

    if kind == "step":
        steps.TrainStep.__call__ = kill_in_step
    elif kind == "write":
        np.savez = kill_in_savez
    elif kind != "never":
        os.replace = kill_in_replace


if __name__ == "__main__":
    from support import command
    from trainer import main, models

    models.ARCHITECTURES["tiny"] = models.Architecture("Tiny", backbone)
    arm(sys.argv.pop(1))
    command.run(main.main)
