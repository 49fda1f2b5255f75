"""The two files by which TensorFlow Datasets opens a built folder.

`tfds.builder_from_directory(folder).as_dataset(split="train")` reads them. They are
made from the feature table and the manifest, so they cannot say anything else.
"""

import json
from typing import Any

from schemas import example
from schemas.celeba import SPLITS
from schemas.manifest import Manifest

FILE_NAMES = INFO_FILE, FEATURES_FILE = "dataset_info.json", "features.json"

_PACKAGE = "tensorflow_datasets.core.features"


def info_json(manifest: Manifest) -> str:
    """The content of `dataset_info.json`."""
    about = manifest.dataset
    return _to_text(
        {
            "name": about.key,
            "version": "1.0.0",
            "description": f"{about.name}, label {manifest.attribute}. {about.terms}",
            "fileFormat": "tfrecord",
            "location": {"urls": [about.home_page]},
            "splits": [
                {
                    "name": split,
                    "shardLengths": [
                        str(shard.records) for shard in manifest.split(split)
                    ],
                    "numBytes": str(
                        sum(shard.bytes for shard in manifest.split(split))
                    ),
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                }
                for split in SPLITS
            ],
        }
    )


def features_json(manifest: Manifest) -> str:
    """The content of `features.json`."""
    features = {
        feature.key: _feature(feature, manifest) for feature in example.FEATURES
    }
    return _to_text(
        {
            "type": f"{_PACKAGE}.features_dict.FeaturesDict",
            "content": {"features": features},
            "proto_cls": "tensorflow_datasets.FeaturesDict",
        }
    )


def _feature(feature: example.Feature, manifest: Manifest) -> dict[str, Any]:
    if feature.key == example.IMAGE:
        image = {
            "shape": _dimensions(manifest.image_shape),
            "dtype": "uint8",
            "encodingFormat": "jpeg",
        }
        return {"pythonClassName": f"{_PACKAGE}.image_feature.Image", "image": image}
    if feature.kind == "bytes":
        return {"pythonClassName": f"{_PACKAGE}.text_feature.Text", "text": {}}
    length = feature.length or len(manifest.attributes)
    shape = {} if feature.length == 1 else _dimensions((length,))
    tensor = {"shape": shape, "dtype": feature.kind, "encoding": "none"}
    return {"pythonClassName": f"{_PACKAGE}.tensor_feature.Tensor", "tensor": tensor}


def _dimensions(shape: tuple[int, ...]) -> dict[str, list[str]]:
    return {"dimensions": [str(side) for side in shape]}


def _to_text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True) + "\n"
