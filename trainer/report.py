"""Renders the report of a finished run again, or that of an evaluation of it.

`python -m trainer.report --run_dir=RUN [--results_dir=FOLDER] [--data_dir=OUT]`; with
the dataset the report shows images.
"""

import dataclasses
from pathlib import Path

from support import command
from support.errors import usage_error
from support.files import lock_existing
from trainer.evaluation.loading import load_run
from trainer.reporting.report import write_report


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """Flags of `python -m trainer.report`."""

    run_dir: str | None = command.option(None, "Directory of a finished run.")
    results_dir: str | None = command.option(
        None, "Directory of an evaluation of it; default: the run's own test."
    )
    data_dir: str | None = command.option(
        None, "Directory of the dataset, to show images; default: none are shown."
    )

    def __post_init__(self):
        if not self.run_dir:
            raise usage_error("--run_dir is missing.", "Add --run_dir=runs/NAME.")


def render_again(config: ReportConfig) -> Path:
    """Writes the report from the files of a run or an evaluation; returns its path.

    Raises:
      UserError: the data are not those of the results (exit 2), and see
        `write_report`; the dataset or the model is damaged (5).
    """
    run_dir = Path(config.run_dir)
    results_dir = Path(config.results_dir) if config.results_dir else None
    if not config.data_dir:
        return write_report(run_dir, None, results_dir)
    # Imported lazily: TensorFlow is only needed for images.
    import trainer.quiet  # noqa: F401, I001 - before anything imports TensorFlow
    from trainer.reporting import gradcam
    from trainer import models
    from trainer.loop import wakeup
    from trainer.data import open_dataset

    run = load_run(run_dir, results_dir)
    dataset = open_dataset(config.data_dir, needed=[run.split])
    digest = run.record.get("manifest_digest")
    if dataset.manifest.digest != digest:
        raise usage_error(
            f"{config.data_dir} is not the dataset of these results: its manifest's "
            f"digest is {dataset.manifest.digest[:12]}, not {str(digest)[:12]}.",
            "Name that dataset, or omit --data_dir for a report without images.",
        )
    with wakeup.Watch():
        images = gradcam.report_images(
            models.load(run_dir), dataset, run.split, run.predictions
        )
    return write_report(run_dir, images, results_dir)


def main(argv: list[str]) -> None:
    config = command.parse_config(ReportConfig, argv)
    with lock_existing(config.results_dir or config.run_dir):
        print(render_again(config))


if __name__ == "__main__":
    command.run(main)
