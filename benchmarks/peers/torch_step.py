"""The train step in PyTorch, one case to a process; `benchmarks.step` runs it.

As PyTorch's own guides advise: channels_last, autocast, fused AdamW, and on a GPU
torch.compile. The gradient is not clipped and no weights are averaged, which the
trainer's step does beside.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks import turns
from benchmarks.peers import torch_networks
from benchmarks.train_step.step_settings import (
    CPU_MATMUL,
    DROPOUT,
    GPU_MATMUL,
    LEARNING_RATE,
    SMOOTHING,
    TRAIN_PASSES,
    WEIGHT_DECAY,
)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device() -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return {"torch": torch.__version__, "gpu": gpu, "cuda": torch.version.cuda or ""}


def prepare(task: dict[str, Any]) -> turns.Work:
    """Builds the case `task["case"]`: pytorch or torchvision.

    Raises:
      ValueError: a precision or a network that this peer does not have.
    """
    if task["precision"] not in _DTYPES:
        raise ValueError(f"{task['precision']} is not measured in PyTorch")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    if kind == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")  # TF32, as the others take it
    model = _network(task["case"], task["model"]).to(kind)
    model = model.to(memory_format=torch.channels_last).train()
    shape = (task["batch_size"], 3, task["size"], task["size"])
    images = (torch.rand(shape) * 255).to(kind, memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (task["batch_size"],)).float().to(kind)
    facts = _facts(model, images)
    multiply, operations = _matmul(_DTYPES[task["precision"]], kind)
    wait = torch.cuda.synchronize if kind == "cuda" else lambda: None

    def device_bytes() -> int:
        return torch.cuda.max_memory_allocated() if kind == "cuda" else 0

    return turns.Work(
        task["batch_size"],
        _step(model, images, labels, _DTYPES[task["precision"]]),
        wait,
        multiply,
        operations,
        facts,
        device_bytes,
    )


def _network(case: str, name: str) -> nn.Module:
    if case == "pytorch":
        return torch_networks.build(name, DROPOUT)
    import torchvision

    if name not in ("resnet50", "resnet101", "googlenet"):
        raise ValueError(f"torchvision's {name} has another head: not compared")
    options = {"aux_logits": False, "init_weights": False}
    extra = options if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=1, **extra)


def _step(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
) -> Callable[[], Any]:
    kind = images.device.type
    optimizer = torch.optim.AdamW(
        model.parameters(),
        LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
    network = torch.compile(model) if kind == "cuda" else model
    smoothed = labels * (1 - SMOOTHING) + SMOOTHING / 2

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, torch.bfloat16, enabled=dtype is not torch.float32):
            logits = network(images)[:, 0]
        loss = functional.binary_cross_entropy_with_logits(logits.float(), smoothed)
        loss.backward()
        optimizer.step()

    return step


def _facts(model: nn.Module, images: torch.Tensor) -> dict[str, float]:
    """Size and cost, the cost counted while one image passes through."""
    operations = []

    def count(layer, _inputs, output):
        positions = math.prod(output.shape[2:])
        operations.append(2 * positions * layer.weight.numel())

    counted = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in counted]
    with torch.no_grad():
        model.eval()(images[:1])
        model.train()
    for hook in hooks:
        hook.remove()
    trainable = sum(parameter.numel() for parameter in model.parameters())
    # Not the counters of batches that torch keeps beside the moving statistics.
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    return {
        "parameters": float(trainable + statistics),
        "trainable": float(trainable),
        "GFLOP/image": TRAIN_PASSES * sum(operations) / 1e9,
    }


def _matmul(dtype: torch.dtype, kind: str) -> tuple[Callable[[], Any], float]:
    side, products = GPU_MATMUL if kind == "cuda" else CPU_MATMUL

    def make():
        first = torch.randn(side, side).to(kind, dtype)
        second = (torch.randn(side, side) / math.sqrt(side)).to(kind, dtype)

        def multiply():
            product = first
            for _ in range(products):
                product = product @ second
            if kind == "cuda":
                torch.cuda.synchronize()

        return multiply

    return turns.made_once(make), 2.0 * side**3 * products


if __name__ == "__main__":
    turns.serve(prepare, device)
