"""The model card of a finished run: `python -m trainer.model_card --run_dir=RUN`.

Writes MODEL_CARD.md, Markdown with Hugging Face's metadata header, from the files of
the run directory; evaluations and exports in it are included. With --verify it writes
nothing, but recomputes the chain of hashes.
"""

import dataclasses
from pathlib import Path

from support import command
from support.errors import usage_error
from support.files import lock_existing
from trainer.reporting.card import write_card
from trainer.runs import provenance


@dataclasses.dataclass(frozen=True)
class ModelCardConfig:
    """Flags of `python -m trainer.model_card`."""

    run_dir: str | None = command.option(None, "Directory of a finished run.")
    export: tuple[str, ...] = command.option(
        (), "Exports of the run elsewhere; those in the run directory are found."
    )
    evaluation: tuple[str, ...] = command.option(
        (), "Directories of trainer.evaluate elsewhere than in the run directory."
    )
    verify: bool = command.option(
        False, "Write nothing; recompute the hashes of all available files."
    )
    data_dir: str | None = command.option(
        None, "With --verify: directory of the dataset, to check it too."
    )

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")
        if self.data_dir and not self.verify:
            raise usage_error("--data_dir is for --verify only.", "Add --verify.")
        if self.evaluation and self.verify:
            raise usage_error(
                "--evaluation is for the card; --verify writes none.",
                "Omit one of the two.",
            )


def main(argv: list[str]) -> None:
    config = command.parse_config(ModelCardConfig, argv)
    run_dir = Path(config.run_dir)
    if not config.verify:
        with lock_existing(run_dir):
            print(write_card(run_dir, config.export, config.evaluation))
        return
    dataset = None
    if config.data_dir:
        # Here, because without data no TensorFlow is needed.
        import trainer.quiet  # noqa: F401, I001 - before anything imports TensorFlow
        from trainer.data import open_dataset

        # Opening checks every shard.
        dataset = open_dataset(config.data_dir, needed=()).manifest
    exports = provenance.find_exports(run_dir, config.export)
    for line in provenance.verify(run_dir, dataset, exports):
        print(f"holds: {line}")
    if not config.data_dir:
        print("not checked: the dataset (--data_dir)")


if __name__ == "__main__":
    command.run(main)
