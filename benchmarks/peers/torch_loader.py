"""Decodes a folder of JPEGs with PyTorch's DataLoader and PIL.

    ... IMAGES BATCH WORKERS

Prints the images and the seconds of the second pass over the folder as JSON.
"""

import glob
import json
import os
import sys
import time

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset


class Files(Dataset):
    def __init__(self, images: str):
        self.files = sorted(glob.glob(os.path.join(images, "*.jpg")))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))


def main(images: str, batch_size: str, workers: str) -> None:
    loader = DataLoader(
        Files(images),
        int(batch_size),
        shuffle=True,
        drop_last=True,
        num_workers=int(workers),
        persistent_workers=True,
    )
    for _ in range(2):
        started = time.perf_counter()
        count = sum(len(batch) for batch in loader)
        seconds = time.perf_counter() - started
    print(json.dumps({"images": count, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
