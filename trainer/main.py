"""Trains one model and reports on it: `python -m trainer.main --flagfile=FILE`."""

from pathlib import Path

from absl import flags

import trainer.quiet  # noqa: F401 - before anything imports TensorFlow
from support import command
from support.files import FolderLock
from trainer import finish, models, run_folder, runtime, train, wakeup
from trainer.config import TrainConfig
from trainer.input_pipeline import Dataset, open_dataset


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(TrainConfig, values)
    command.refuse_words(command.parse(argv, values))
    config = command.from_flags(TrainConfig, values)
    models.architecture(config.model)
    run_dir = run_folder.choose(config)
    with FolderLock(run_dir):
        if run_folder.is_finished(run_dir):
            print(f"{run_dir} is finished: nothing to do.")
            return
        dataset = open_dataset(config.data_dir)
        run_folder.check_unchanged(run_dir, config, dataset.manifest)
        _train(config, run_dir, dataset)


def _train(config: TrainConfig, run_dir: Path, dataset: Dataset) -> None:
    effective = runtime.prepare(config)
    job = train.build_job(config, effective, dataset)
    run = run_folder.describe(config, dataset.manifest) | effective.describe()
    run |= {
        "parameters": job.model.count_params(),
        "preprocessing": job.preprocessing,
    }
    run_folder.start(run_dir, config, run)
    counts = {
        split: dataset.manifest.num_examples(split)
        for split in ("train", "validation", "test")
    }
    print(
        f"{config.model}, {run['parameters']:,} parameters, "
        f"{config.input_size} pixels; "
        f"{effective.precision}, XLA {'on' if effective.xla else 'off'}, "
        f"{effective.replicas} replica(s) on {effective.device_name}\n"
        f"examples: {counts}; global batch {config.batch_size}, "
        f"{config.batch_size // effective.replicas} per replica, "
        f"{job.steps_per_epoch} steps per epoch; run folder {run_dir}",
        flush=True,
    )
    with wakeup.Watch():
        progress = train.train(job, run_dir)
        finish.finish(job, run_dir, progress)


if __name__ == "__main__":
    command.run(main)
