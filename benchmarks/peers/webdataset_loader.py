"""Decodes the shards of webdataset_writer.py with WebDataset and PIL.

    ... SHARDS BATCH WORKERS

Prints the images and the seconds of the second pass over the shards as JSON.
"""

import glob
import os
import sys

import torch
import torch_passes
import webdataset

_SHUFFLED = 1000  # images in memory, as its guides have it


def _only(columns: tuple[torch.Tensor]) -> torch.Tensor:
    return columns[0]


def main(shards: str, batch_size: str, workers: str) -> None:
    files = sorted(glob.glob(os.path.join(shards, "*.tar")))
    dataset = (
        webdataset.WebDataset(files, shardshuffle=len(files), empty_check=False)
        .shuffle(_SHUFFLED)
        .to_tuple("jpg")
        .map_tuple(torch_passes.decode)
        .batched(int(batch_size), partial=False)
        .map(_only)
    )
    loader = webdataset.WebLoader(
        dataset,
        batch_size=None,
        num_workers=int(workers),
        persistent_workers=True,
    )
    torch_passes.report(loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
