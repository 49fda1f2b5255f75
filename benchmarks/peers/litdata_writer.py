"""Writes a folder of JPEGs with litdata's optimize: `... IMAGES OUTPUT`.

The files are copied unchecked, by one process per core.
"""

import functools
import os
import sys

import litdata


def read(images: str, name: str) -> dict:
    with open(os.path.join(images, name), "rb") as file:
        return {"image": file.read(), "image_id": name, "label": 0}


def main(images: str, output: str) -> None:
    names = sorted(os.listdir(images))
    litdata.optimize(
        fn=functools.partial(read, images),
        inputs=names,
        output_dir=output,
        chunk_bytes="12MB",
        num_workers=os.cpu_count(),
    )
    print(len(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
