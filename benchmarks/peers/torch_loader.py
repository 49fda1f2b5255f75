"""Decodes a folder of JPEGs with PyTorch's DataLoader and PIL.

    ... IMAGES BATCH WORKERS

Prints the images and the seconds of the second pass over the folder as JSON.
"""

import glob
import os
import sys

import torch
import torch_passes
from torch.utils.data import DataLoader, Dataset


class Files(Dataset):
    def __init__(self, images: str):
        self.files = sorted(glob.glob(os.path.join(images, "*.jpg")))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with open(self.files[index], "rb") as file:
            return torch_passes.decode(file.read())


def main(images: str, batch_size: str, workers: str) -> None:
    loader = DataLoader(
        Files(images),
        int(batch_size),
        shuffle=True,
        drop_last=True,
        num_workers=int(workers),
        persistent_workers=True,
    )
    torch_passes.report(loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
