"""The file next to an export: `<export>.json`, its inputs, outputs and digests.

With it the chain of digests is closed: manifest (sources and shards), best.keras,
export.
"""

from pathlib import Path

from trainer.inference.export_formats import FORMATS, IMAGES, PROBABILITY
from trainer.runs import provenance, record


def describe(
    name: str, export: Path, run: record.RunRecord, difference: float
) -> record.Export:
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
        "sha256": provenance.sha256_of(export),
        "model_sha256": provenance.model_sha256(run),
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
        "exported": record.now(),
        "versions": record.versions(
            "tensorflow", "keras", *FORMATS[name].packages.values()
        ),
    }


def files_in(export: Path) -> list[Path]:
    """The files of an export, sorted by their names."""
    if export.is_file():
        return [export]
    inside = [path for path in export.rglob("*") if path.is_file()]
    return sorted(inside, key=lambda path: path.relative_to(export).as_posix())
