"""What lies beside an export: `<export>.json`, its inputs, outputs and digests.

With it the chain of digests is closed: manifest (sources and shards), best.keras,
export.
"""

import contextlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from trainer import models
from trainer.inference.export_formats import FORMATS, IMAGES, PROBABILITY
from trainer.runs import chain, run_folder


def path_of(export: Path) -> Path:
    """Where the record of an export lies."""
    return export.with_name(f"{export.name}.json")


def describe(
    name: str, export: Path, run: dict[str, Any], difference: float
) -> dict[str, Any]:
    """Describes an export.

    Args:
      name: of the format.
      export: the file, or the folder of a SavedModel.
      run: its run's run.json.
      difference: the largest from the original, in probability.
    """
    size = run["input_size"]
    return {
        "format": name,
        "file": export.name,
        "sha256": chain.sha256_of(export),
        "model_sha256": run["files"][models.BEST],
        "manifest_digest": run["manifest_digest"],
        "attribute": run["attribute"],
        "model": run["model"],
        "temperature": run.get("temperature", 1.0),
        "input": {
            "name": IMAGES,
            "shape": ["batch", size, size, 3],
            "dtype": "float32",
            "range": [0, 255],
            "content": f"RGB, the whole picture stretched bilinearly to {size}x{size}",
        },
        "output": {
            "name": PROBABILITY,
            "shape": ["batch", 1],
            "dtype": "float32",
            "range": [0, 1],
            "content": f"probability of label 1, perceived {run['attribute']}",
        },
        "largest_difference": difference,
        "exported": run_folder.now(),
        "versions": {"python": platform.python_version()} | _versions(name),
    }


def files_in(export: Path) -> list[Path]:
    """The files of an export, sorted by their names."""
    if export.is_file():
        return [export]
    inside = [path for path in export.rglob("*") if path.is_file()]
    return sorted(inside, key=lambda path: path.relative_to(export).as_posix())


def _versions(name: str) -> dict[str, str]:
    found = {}
    for package in ("tensorflow", "keras", *FORMATS[name].packages.values()):
        # TensorFlow goes by other names too: tensorflow-cpu, for one.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
