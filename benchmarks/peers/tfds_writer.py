"""Writes a folder of JPEGs with a TensorFlow Datasets builder: `... IMAGES OUTPUT`.

The files are copied unchecked, in one process, as its own CelebA builder does.
"""

import os
import sys

import tensorflow_datasets as tfds


class Faces(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    images = ""

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, _manager) -> dict:
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for name in sorted(os.listdir(self.images)):
            yield name, {"image": os.path.join(self.images, name), "label": 0}


def main(images: str, output: str) -> None:
    Faces.images = images
    builder = Faces(data_dir=output)
    builder.download_and_prepare()
    print(builder.info.splits["train"].num_examples)


if __name__ == "__main__":
    main(*sys.argv[1:])
