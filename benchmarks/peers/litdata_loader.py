"""Decodes the chunks of litdata_writer.py with litdata and PIL.

    ... CHUNKS BATCH WORKERS

Prints the images and the seconds of the second pass over the chunks as JSON.
"""

import sys

import litdata
import torch
import torch_passes


def _decode(sample: dict) -> torch.Tensor:
    return torch_passes.decode(sample["image"])


def main(chunks: str, batch_size: str, workers: str) -> None:
    loader = litdata.StreamingDataLoader(
        litdata.StreamingDataset(
            chunks, shuffle=True, drop_last=True, transform=_decode
        ),
        batch_size=int(batch_size),
        drop_last=True,
        num_workers=int(workers),
        persistent_workers=True,
    )
    torch_passes.report(loader)


if __name__ == "__main__":
    main(*sys.argv[1:])
