"""The train step in PyTorch, one case to a process; `benchmarks.step` runs it.

As PyTorch's own guides advise: channels_last, autocast, fused AdamW, and on a GPU
torch.compile, which is a case of its own on a CPU. The gradient is not clipped and no
weights are averaged, which the trainer's step does in addition.
"""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import harness, programs
from benchmarks.train_step.cases import (
    COMPILED,
    DROPOUT,
    LEARNING_RATE,
    SMOOTHING,
    TRAIN_PASSES,
    WEIGHT_DECAY,
)

#: Family -> how torchvision builds it with one logit.
_OPTIONS = {
    "vgg": {"init_weights": False},
    "googlenet": {"num_classes": 1, "aux_logits": False, "init_weights": False},
    "resnet": {"num_classes": 1},
}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def prepare(task: dict[str, Any]) -> programs.Step:
    """Builds the case `task["case"]`: pytorch, compiled or torchvision.

    Raises:
      ValueError: a precision or a network that this peer does not have.
    """
    if task["precision"] not in _DTYPES:
        raise ValueError(f"{task['precision']} is not measured in PyTorch")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cuda" and task["case"] == COMPILED:
        raise ValueError("the case pytorch is compiled on a GPU")
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
    is_compiled = kind == "cuda" or task["case"] == COMPILED
    network = torch.compile(model) if is_compiled else model
    step = _step(model, network, images, labels, _DTYPES[task["precision"]])
    if kind == "cpu":
        wait, gpu, device_bytes = lambda _: None, "", lambda: 0
    else:
        wait, gpu = lambda _: torch.cuda.synchronize(), torch.cuda.get_device_name()
        device_bytes = torch.cuda.max_memory_allocated
    about = {"torch": torch.__version__, "gpu": gpu, "cuda": torch.version.cuda or ""}
    work = harness.steps(step, task["batch_size"], wait)
    return programs.Step(work, facts, device_bytes, about=about)


class Classifier(nn.Module):
    """Scaling to -1..1, a backbone, average pooling, dropout, one logit.

    Takes images (batch, 3, side, side) float32 in 0..255, returns (batch, 1).
    """

    def __init__(self, backbone: nn.Module, channels: int):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(DROPOUT)
        self.logit = nn.Linear(channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images * (1 / 127.5) - 1)
        return self.logit(self.dropout(features.mean((2, 3))))


def _network(case: str, name: str) -> nn.Module:
    """Torchvision's network, or its layers as the trainer's network has them."""
    options = _OPTIONS.get(name.rstrip("0123456789"))
    if options is None or (case == "torchvision" and name.startswith("vgg")):
        raise ValueError(f"torchvision's {name} is another network: not compared")
    model = torchvision.models.get_model(name, weights=None, **options)
    if case == "torchvision":
        return model
    if name.startswith("vgg"):
        return Classifier(model.features, 512)
    channels = model.fc.in_features
    if name.startswith("resnet"):
        _as_in_keras(model)
    # Without the last three: pooling, dropout (ResNet has none) and logit.
    last = ("avgpool", "dropout", "fc")
    layers = [layer for key, layer in model.named_children() if key not in last]
    return Classifier(nn.Sequential(*layers), channels)


def _as_in_keras(model: nn.Module) -> None:
    """Makes a ResNet the paper's and Keras' first version.

    The stride of a block is in its first 1×1 convolution, and convolutions have biases;
    torchvision's is in the 3×3, without biases.
    """
    for layer in model.modules():
        if isinstance(layer, torchvision.models.resnet.Bottleneck):
            layer.conv1.stride, layer.conv2.stride = layer.conv2.stride, (1, 1)
        if isinstance(layer, nn.Conv2d):
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))


def _step(
    model: nn.Module,
    network: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    labels: torch.Tensor,
    dtype: torch.dtype,
) -> Callable[[], Any]:
    kind = images.device.type
    optimizer = torch.optim.AdamW(
        model.parameters(),
        LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
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
    """Size, and the operations of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images[:1])
    model.train()
    trainable = sum(parameter.numel() for parameter in model.parameters())
    # Not the counters of batches that torch keeps with the moving statistics.
    statistics = sum(b.numel() for b in model.buffers() if b.is_floating_point())
    return {
        "parameters": float(trainable + statistics),
        "trainable": float(trainable),
        "GFLOP/image": TRAIN_PASSES * counter.get_total_flops() / 1e9,
    }


if __name__ == "__main__":
    programs.serve(prepare)
