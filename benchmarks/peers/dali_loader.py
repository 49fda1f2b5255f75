"""Decodes a folder of JPEGs with NVIDIA DALI on the CPU: `... IMAGES BATCH WORKERS`.

Prints the images and the seconds of the second pass over the folder as JSON.
"""

import glob
import json
import os
import sys
import time

from nvidia.dali import fn, pipeline_def, types


@pipeline_def
def loader(files: list[str]):
    encoded, _ = fn.readers.file(files=files, random_shuffle=True, name="reader")
    return fn.decoders.image(encoded, device="cpu", output_type=types.RGB)


def main(images: str, batch_size: str, workers: str) -> None:
    files = sorted(glob.glob(os.path.join(images, "*.jpg")))
    pipeline = loader(
        files,
        batch_size=int(batch_size),
        num_threads=int(workers),
        device_id=None,
        prefetch_queue_depth=4,
    )
    pipeline.build()
    batches = len(files) // int(batch_size)
    for _ in range(2):
        started = time.perf_counter()
        for _ in range(batches):
            (decoded,) = pipeline.run()
            decoded.as_array()
        seconds = time.perf_counter() - started
    print(json.dumps({"images": batches * int(batch_size), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
