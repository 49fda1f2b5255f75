"""Compares finished runs: `python -m trainer.compare RUN… [--output_dir=DIR]`.

Runs that differ in nothing but the seed are one group. Prints which groups are better
and which cannot be told apart; writes comparison.html, leaderboard.csv and the charts.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from support import command
from support.errors import usage_error
from support.files import FolderLock
from support.images import require_local
from trainer.evaluation import comparison
from trainer.reporting import comparison_page


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Flags of `python -m trainer.compare`."""

    output_dir: str = command.option(
        "runs/comparison", "Directory of the page, the table and the charts."
    )

    def __post_init__(self):
        if not self.output_dir:
            raise usage_error("--output_dir is empty.", "Name a directory.")
        require_local(self.output_dir, "output_dir")


def compare_runs(folders: Sequence[Path], output_dir: Path) -> None:
    """Compares runs, writes the page and the table, prints the result.

    Raises:
      UserError: see `comparison.load`, `comparison_page.write`.
    """
    result = comparison.compare(comparison.load(folders))
    path = comparison_page.write(result, output_dir)
    print(comparison_page.terminal(result))
    print(f"comparison: {path}")


def main(argv: list[str]) -> None:
    values = flags.FlagValues()
    command.define_flags(CompareConfig, values)
    words = command.parse(argv, values)
    config = command.from_flags(CompareConfig, values)
    if not words:
        raise usage_error(
            "No run is named.", "Add the directories of finished runs: runs/sweep/*/"
        )
    with FolderLock(config.output_dir):
        compare_runs([Path(word) for word in words], Path(config.output_dir))


if __name__ == "__main__":
    command.run(main)
