"""Writes a folder of JPEGs with another library: `... NAME IMAGES OUTPUT [PER_SHARD]`.

The files are copied unchecked, by one process, litdata's by one per core. Prints their
number.
"""

import functools
import os
import sys
from collections.abc import Callable


def read(images: str, name: str) -> dict:
    with open(os.path.join(images, name), "rb") as file:
        return {"image": file.read(), "image_id": name, "label": 0}


def webdataset(images: str, names: list[str], output: str, per_shard: int) -> None:
    import webdataset

    os.makedirs(output, exist_ok=True)
    pattern = os.path.join(output, "celeba-%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=per_shard, verbose=0) as sink:
        for name in names:
            key, image = name.removesuffix(".jpg"), read(images, name)["image"]
            sink.write({"__key__": key, "jpg": image, "cls": 0})


def litdata(images: str, names: list[str], output: str, per_shard: int) -> None:
    import litdata

    litdata.optimize(
        fn=functools.partial(read, images),
        inputs=names,
        output_dir=output,
        chunk_bytes="12MB",
        num_workers=os.cpu_count(),
    )


def tfds(images: str, names: list[str], output: str, per_shard: int) -> None:
    """As TensorFlow Datasets' own CelebA builder does it."""
    import tensorflow_datasets as tfds

    class Faces(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=2),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _manager) -> dict:
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for name in names:
                yield name, {"image": os.path.join(images, name), "label": 0}

    Faces(data_dir=output).download_and_prepare()


WRITERS: dict[str, Callable] = {
    function.__name__: function for function in (webdataset, litdata, tfds)
}


def main(writer: str, images: str, output: str, per_shard: str = "1600") -> None:
    names = sorted(os.listdir(images))
    WRITERS[writer](images, names, output, int(per_shard))
    print(len(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
