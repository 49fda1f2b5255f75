"""The least that a build can do: two processes that read, decode in gray and write.

    python -m benchmarks.hand_loop IMAGES OUTPUT

It plans, labels, frames, hashes and reports nothing, and syncs nothing to the disk: an
upper bound for `benchmarks.build`, not a builder. A file is decoded at an eighth of its
size, which reads every coded bit, as the build does.
"""

import concurrent.futures
import multiprocessing
import os
import sys

import simplejpeg

_PER_FILE = 1600


def main(images: str, output: str) -> None:
    os.makedirs(output, exist_ok=True)
    names = sorted(os.listdir(images))
    parts = [names[at : at + _PER_FILE] for at in range(0, len(names), _PER_FILE)]
    targets = [os.path.join(output, f"{number:05d}") for number in range(len(parts))]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(mp_context=context) as pool:
        written = pool.map(_copy, [images] * len(parts), parts, targets)
        print(sum(written))


def _copy(images: str, names: list[str], target: str) -> int:
    with open(target, "wb") as out:
        for name in names:
            with open(os.path.join(images, name), "rb", buffering=0) as file:
                data = file.read()
            simplejpeg.decode_jpeg(
                data, "GRAY", fastdct=True, min_height=1, min_width=1
            )
            out.write(data)
    return len(names)


if __name__ == "__main__":
    main(*sys.argv[1:])
