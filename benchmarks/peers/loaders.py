"""Decodes images with another library: `... NAME FOLDER BATCH WORKERS`.

The folder holds JPEG files, or what `writers.py NAME` made of them. Prints the images
and the seconds of the second pass as JSON: the first one starts the workers.
"""

import glob
import io
import json
import os
import sys
import time
from collections.abc import Callable

_SHUFFLED = 1000  # images in memory, as WebDataset's guides have it


def decode(jpeg: bytes):
    """A JPEG as (height, width, 3) uint8 tensor, RGB, by PIL."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(io.BytesIO(jpeg)) as image:
        return torch.from_numpy(np.array(image.convert("RGB")))


class Files:
    """A dataset of JPEG files for PyTorch's DataLoader."""

    def __init__(self, images: str):
        self.files = sorted(glob.glob(os.path.join(images, "*.jpg")))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        with open(self.files[index], "rb") as file:
            return decode(file.read())


def decode_sample(sample: dict):
    return decode(sample["image"])


def first(columns: tuple):
    return columns[0]


def torch(folder: str, batch_size: int, options: dict):
    from torch.utils.data import DataLoader

    return DataLoader(Files(folder), batch_size, shuffle=True, **options)


def webdataset(folder: str, batch_size: int, options: dict):
    import webdataset

    files = sorted(glob.glob(os.path.join(folder, "*.tar")))
    dataset = (
        webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False)
        .shuffle(_SHUFFLED)
        .to_tuple("jpg")
        .map_tuple(decode)
        .batched(batch_size, partial=False)
        .map(first)
    )
    return webdataset.WebLoader(dataset, batch_size=None, **options | {"drop_last": 0})


def litdata(folder: str, batch_size: int, options: dict):
    import litdata

    images = litdata.StreamingDataset(
        folder, shuffle=True, drop_last=True, transform=decode_sample
    )
    return litdata.StreamingDataLoader(images, batch_size=batch_size, **options)


def dali(folder: str, batch_size: int, options: dict):
    from nvidia.dali import fn, pipeline_def, types

    files = Files(folder).files

    @pipeline_def(
        batch_size=batch_size,
        num_threads=options["num_workers"],
        device_id=None,
        prefetch_queue_depth=4,
    )
    def decoding():
        encoded, _ = fn.readers.file(files=files, random_shuffle=True, name="reader")
        return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)

    pipeline = decoding()
    pipeline.build()

    class Batches:
        def __iter__(self):
            for _ in range(len(files) // batch_size):
                yield pipeline.run()[0].as_array()

    return Batches()


LOADERS: dict[str, Callable] = {
    function.__name__: function for function in (torch, webdataset, litdata, dali)
}


def main(name: str, folder: str, batch_size: str, workers: str) -> None:
    options = {
        "num_workers": int(workers),
        "persistent_workers": True,
        "drop_last": True,
    }
    batches = LOADERS[name](folder, int(batch_size), options)
    for _ in range(2):
        started = time.perf_counter()
        count = sum(len(batch) for batch in batches)
        seconds = time.perf_counter() - started
    print(json.dumps({"units": count, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
