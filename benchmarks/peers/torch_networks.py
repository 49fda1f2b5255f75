"""The five architectures in PyTorch layers: those that the trainer builds in Keras.

ResNet is Keras' (and the paper's) first version: the stride is in the first 1×1
convolution of a block, and convolutions have biases; torchvision's has neither.
GoogLeNet has torchvision's geometry. All end in average pooling and one logit.
"""

import torch
from torch import nn

_VGG = {
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_RESNET = {
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
#: Per block: 1×1, 3×3 reduce, 3×3, second 3×3 reduce, second 3×3, pool projection;
#: a number alone is the window of a max pooling with stride 2.
_GOOGLENET = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    3,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    2,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
#: Torch's momentum is the weight of the new value.
_MOMENTUM = 0.01


class Classifier(nn.Module):
    """Scaling to -1..1, a backbone, average pooling, dropout, one logit.

    Takes images (batch, 3, side, side) float32 in 0..255, returns (batch, 1).
    """

    def __init__(self, backbone: nn.Module, channels: int, dropout: float):
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.logit = nn.Linear(channels, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images * (1 / 127.5) - 1)
        return self.logit(self.dropout(features.mean((2, 3))))


def build(name: str, dropout: float) -> Classifier:
    """Builds an architecture with random weights."""
    if name in _VGG:
        return Classifier(_vgg(_VGG[name]), 512, dropout)
    if name in _RESNET:
        return Classifier(_resnet(_RESNET[name]), 2048, dropout)
    return Classifier(_googlenet(), 1024, dropout)


def _vgg(depths: tuple[int, ...]) -> nn.Module:
    parts, channels = [], 3
    for depth, filters in zip(depths, (64, 128, 256, 512, 512), strict=True):
        for _ in range(depth):
            parts += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU(inplace=True)]
            channels = filters
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts)


def _resnet(depths: tuple[int, ...]) -> nn.Module:
    parts = [
        *_normalized(nn.Conv2d(3, 64, 7, stride=2, padding=3), 64, 1.001e-5),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = 64
    for index, depth in enumerate(depths):
        filters = 64 * 2**index
        for block in range(depth):
            stride = 2 if block == 0 and index else 1
            parts.append(_Residual(channels, filters, stride))
            channels = 4 * filters
    return nn.Sequential(*parts)


class _Residual(nn.Module):
    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        out, epsilon = 4 * filters, 1.001e-5
        self.main = nn.Sequential(
            *_normalized(nn.Conv2d(channels, filters, 1, stride), filters, epsilon),
            *_normalized(nn.Conv2d(filters, filters, 3, padding=1), filters, epsilon),
            nn.Conv2d(filters, out, 1),
            nn.BatchNorm2d(out, epsilon, _MOMENTUM),
        )
        self.shortcut = nn.Identity()
        if channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride),
                nn.BatchNorm2d(out, epsilon, _MOMENTUM),
            )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.main(x) + self.shortcut(x))


def _googlenet() -> nn.Module:
    parts = [
        *_basic(3, 64, 7, stride=2, padding=3),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
        *_basic(64, 64, 1),
        *_basic(64, 192, 3, padding=1),
        nn.MaxPool2d(3, stride=2, ceil_mode=True),
    ]
    channels = 192
    for block in _GOOGLENET:
        if isinstance(block, int):
            parts.append(nn.MaxPool2d(block, stride=2, ceil_mode=True))
        else:
            parts.append(_Inception(channels, block))
            channels = block[0] + block[2] + block[4] + block[5]
    return nn.Sequential(*parts)


class _Inception(nn.Module):
    def __init__(self, channels: int, filters: tuple[int, ...]):
        super().__init__()
        ones, reduce3, three, reduce5, five, pool = filters
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*_basic(channels, ones, 1)),
                nn.Sequential(
                    *_basic(channels, reduce3, 1), *_basic(reduce3, three, 3, padding=1)
                ),
                nn.Sequential(
                    *_basic(channels, reduce5, 1), *_basic(reduce5, five, 3, padding=1)
                ),
                nn.Sequential(
                    nn.MaxPool2d(3, stride=1, padding=1), *_basic(channels, pool, 1)
                ),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def _basic(channels: int, filters: int, kernel: int, **options: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, filters, kernel, bias=False, **options)
    return _normalized(convolution, filters, 1e-3)


def _normalized(
    convolution: nn.Conv2d, filters: int, epsilon: float
) -> list[nn.Module]:
    return [
        convolution,
        nn.BatchNorm2d(filters, epsilon, _MOMENTUM),
        nn.ReLU(inplace=True),
    ]
