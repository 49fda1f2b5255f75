"""MosaicML Streaming, also where torchvision does not load.

Its package imports torchvision for datasets that are not used here. The only build of
torchvision on PyPI does not load beside PyTorch's build for the CPU.
"""

import importlib.machinery
import sys
import types

try:
    import torchvision  # noqa: F401
except (ImportError, RuntimeError):
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        empty = types.ModuleType(f"torchvision{name}")
        empty.__spec__ = importlib.machinery.ModuleSpec(empty.__name__, None)
        sys.modules[empty.__name__] = empty
    sys.modules["torchvision.datasets"].VisionDataset = type("VisionDataset", (), {})
    sys.modules["torchvision.transforms.functional"].to_tensor = None

from streaming import MDSWriter, StreamingDataLoader, StreamingDataset

__all__ = ["MDSWriter", "StreamingDataLoader", "StreamingDataset"]
