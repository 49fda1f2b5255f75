"""The architectures: one table, which imports neither Keras nor TensorFlow.

A new architecture is one entry. The tests go through the table and compare each entry's
preprocessing with what its publisher documents.
"""

import dataclasses
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from support.errors import did_you_mean, usage_error

#: Preprocessing of RGB 0..255, by name: to -1..1; to BGR less ImageNet's mean; to
#: ImageNet's mean 0 and deviation 1.
SCALED, CAFFE, TORCH = "scaled", "caffe", "torch"
PREPROCESSING = (SCALED, CAFFE, TORCH)


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A backbone and what its published ImageNet weights expect.

    Attributes:
      title: the name that readers see.
      builder: `module:function`, which builds the backbone on a Keras tensor (batch,
        side, side, 3) and returns a feature map. The tensor is preprocessed already, so
        the builder must not do that.
      options: the builder's other arguments.
      preprocessing: of the ImageNet weights.
      torchvision_url: ImageNet weights that torchvision publishes; empty: the builder
        takes `weights="imagenet"`.
      torchvision_names: `module:function`, which tells where torchvision's parameters
        go, see `weights.read_torchvision`.
      smallest_input: side, pixels.
    """

    title: str
    builder: str | Callable[..., Any]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: str = SCALED
    torchvision_url: str = ""
    torchvision_names: str = ""
    smallest_input: int = 32

    def __post_init__(self):
        if self.preprocessing not in PREPROCESSING:
            raise ValueError(
                f"{self.title}: preprocessing={self.preprocessing!r}: expected one of "
                f"{', '.join(PREPROCESSING)}"
            )

    def backbone(self, images: Any, **options: Any) -> Any:
        """Builds the backbone on preprocessed images, with random weights."""
        build = self.builder
        if isinstance(build, str):
            build = pkgutil.resolve_name(build)
        return build(images, **self.options, **options)


def _keras(
    title: str, preprocessing: str, name: str = "", **options: Any
) -> Architecture:
    """An entry for a model of `keras.applications`, by default of the entry's title."""
    options = {"name": name or title, **options}
    return Architecture(
        title, "trainer.models.applications:backbone", options, preprocessing
    )


ARCHITECTURES = {
    "vgg16": _keras("VGG16", CAFFE, he_normal=True),
    "vgg19": _keras("VGG19", CAFFE, he_normal=True),
    # Ported from TensorFlow, where it was trained on -1..1: torchvision turns its usual
    # normalization into that first (`transform_input`, True with its weights).
    "googlenet": Architecture(
        "GoogLeNet",
        "trainer.models.googlenet:backbone",
        torchvision_url="https://download.pytorch.org/models/googlenet-1378be20.pth",
        torchvision_names="trainer.models.googlenet:torch_names",
    ),
    "resnet50": _keras("ResNet50", CAFFE),
    "resnet101": _keras("ResNet101", CAFFE),
    "efficientnetv2b0": _keras(
        "EfficientNetV2-B0", TORCH, "EfficientNetV2B0", include_preprocessing=False
    ),
}


def architecture(name: str) -> Architecture:
    """Looks an architecture up.

    Raises:
      UserError: there is none of that name (exit 2).
    """
    if name not in ARCHITECTURES:
        raise usage_error(
            f"There is no architecture {name!r}.", did_you_mean(name, ARCHITECTURES)
        )
    return ARCHITECTURES[name]
