"""Decodes the shards of streaming_writer.py with MosaicML Streaming and PIL.

    ... SHARDS BATCH WORKERS

Prints the images and the seconds of the second pass over the shards as JSON.
"""

import sys

import mosaic_streaming
import torch
import torch_passes


class Images(mosaic_streaming.StreamingDataset):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch_passes.decode(super().__getitem__(index)["image"])


def main(shards: str, batch_size: str, workers: str) -> None:
    loader = mosaic_streaming.StreamingDataLoader(
        Images(local=shards, shuffle=True, batch_size=int(batch_size)),
        batch_size=int(batch_size),
        drop_last=True,
        num_workers=int(workers),
        persistent_workers=True,
    )
    torch_passes.report(loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
