"""Writes a folder of JPEGs with WebDataset's ShardWriter.

    ... IMAGES OUTPUT [IMAGES_PER_SHARD]

The files are copied unchecked, in one process: the writer has no other way.
"""

import os
import sys

import webdataset


def main(images: str, output: str, per_shard: str = "1600") -> None:
    os.makedirs(output, exist_ok=True)
    pattern = os.path.join(output, "celeba-%05d.tar")
    names = sorted(os.listdir(images))
    with webdataset.ShardWriter(pattern, maxcount=int(per_shard), verbose=0) as sink:
        for name in names:
            with open(os.path.join(images, name), "rb") as file:
                data = file.read()
            key = name.removesuffix(".jpg")
            sink.write({"__key__": key, "jpg": data, "cls": 0})
    print(len(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
