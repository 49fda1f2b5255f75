"""Writes a folder of JPEGs with MosaicML Streaming's MDSWriter: `... IMAGES OUTPUT`.

The files are copied unchecked, in one process.
"""

import os
import sys

import mosaic_streaming


def main(images: str, output: str) -> None:
    columns = {"image": "bytes", "image_id": "str", "label": "int"}
    names = sorted(os.listdir(images))
    with mosaic_streaming.MDSWriter(
        out=output, columns=columns, size_limit="12mb"
    ) as sink:
        for name in names:
            with open(os.path.join(images, name), "rb") as file:
                data = file.read()
            sink.write({"image": data, "image_id": name, "label": 0})
    print(len(names))


if __name__ == "__main__":
    main(*sys.argv[1:])
