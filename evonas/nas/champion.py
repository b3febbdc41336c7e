"""The source of a champion that runs alone: its network, its constants, and how to use it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from evonas.nas.layers import Shape, literal
from evonas.nas.source import chromosome_comment, literal_dict
from evonas.training.data.vocabulary import PATTERN

__all__ = ["champion_source", "text_champion_source"]


def champion_source(
    source: str,
    *,
    genes: Mapping[str, Any],
    prm: Mapping[str, Any],
    in_shape: Shape,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    is_uint8: bool,
    test_time_flip: bool,
    title: str,
) -> str:
    """Returns the network's source with what it takes to load and use its weights.

    Args:
        source: From `generate_source`, without the chromosome.
        genes: The chromosome.
        prm: What `Net` is built with.
        in_shape: Of one image, `(C, H, W)`.
        classes: The name of each class.
        mean: Per channel, of images in [0, 1] where they are uint8; empty: not normalised.
        std: Like `mean`.
        test_time_flip: Whether outputs are averaged with those for the mirror image.
        is_uint8: Whether the training images were bytes.
        title: What this is, for a comment.
    """
    channels = in_shape[0]
    return _TEMPLATE.format(
        source=source.rstrip("\n"),
        title="\n".join(f"# {line}" for line in title.splitlines()),
        chromosome=literal_dict(genes),
        prm=literal_dict(prm),
        in_shape=(1, *in_shape),
        classes=_tuple(classes),
        scale=255 if is_uint8 and mean else 1,
        mean=_tuple(mean or (0.0,) * channels),
        std=_tuple(std or (1.0,) * channels),
        load=_LOAD,
        read_image=(_READ_IMAGE if is_uint8 else _NO_IMAGE_FILES).rstrip("\n"),
        outputs=_FLIPPED if test_time_flip else _OUTPUTS,
        comment=chromosome_comment(genes),
    )


def text_champion_source(
    source: str,
    *,
    genes: Mapping[str, Any],
    prm: Mapping[str, Any],
    in_shape: Shape,
    classes: Sequence[str],
    words: Sequence[str],
    title: str,
) -> str:
    """Returns the same for a network of texts; the vocabulary stands in it.

    Args:
        source: From `generate_source`, without the chromosome.
        genes: The chromosome.
        prm: What `Net` is built with.
        in_shape: Of one text, `(length,)`.
        classes: The name of each class.
        words: Of the vocabulary, from number 2 on; none holds a space.
        title: What this is, for a comment.
    """
    return _TEXT_TEMPLATE.format(
        source=source.rstrip("\n").replace("import torch\n", "import re\n\nimport torch\n", 1),
        title="\n".join(f"# {line}" for line in title.splitlines()),
        chromosome=literal_dict(genes),
        prm=literal_dict(prm),
        in_shape=(1, *in_shape),
        classes=_tuple(classes),
        pattern=PATTERN,
        load=_LOAD,
        words="\n".join(textwrap.wrap(" ".join(map(_escaped, words)), 98, break_on_hyphens=False,
                                      break_long_words=False)),
        comment=chromosome_comment(genes),
    )  # fmt: skip


def _escaped(word: str) -> str:
    return literal(word)[1:-1].replace('"', '\\"')


def _tuple(values: Sequence[Any]) -> str:
    entries = [literal(value) for value in values]
    line = "(" + ", ".join(entries) + ("," if len(entries) == 1 else "") + ")"
    if len(line) <= 88:
        return line
    return "(\n" + "".join(f"    {entry},\n" for entry in entries) + ")"


_OUTPUTS = "net(images)"
_FLIPPED = "(net(images) + net(images.flip(-1))).div(2)"

_READ_IMAGE = '''\
def read_image(path):
    """Returns an image file as uint8 (1, C, H, W), resized to what the network was trained on."""
    from PIL import Image

    _, channels, height, width = IN_SHAPE
    with Image.open(path) as image:
        image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
        pixels = bytearray(image.resize((width, height), Image.Resampling.BILINEAR).tobytes())
    pixels = torch.frombuffer(pixels, dtype=torch.uint8).view(1, height, width, channels)
    return pixels.movedim(3, 1)
'''

_NO_IMAGE_FILES = """\
def read_image(path):
    raise ValueError(
        f"{path}: the network was trained on float images, whose scale a file does not tell;"
        " make a tensor (B, C, H, W) like the training images and call predict(load(), images)"
    )
"""

_LOAD = """\
def load(weights=None, device="cpu"):
    \"\"\"Returns the trained network, ready to predict.

    weights: a state_dict file; by default the one of this file's name that ends in .pt.
    \"\"\"
    device = torch.device(device)
    net = Net(IN_SHAPE, (len(CLASSES),), PRM, device)
    weights = weights or __file__.removesuffix(".py") + ".pt"
    net.load_state_dict(torch.load(weights, map_location=device, weights_only=True))
    return net.to(device).eval()
"""

_TEMPLATE = '''\
{source}


{title}

CHROMOSOME = {chromosome}
PRM = {prm}
IN_SHAPE = {in_shape}
CLASSES = {classes}
# An image is divided by SCALE, then normalised channel by channel.
SCALE = {scale}
MEAN = {mean}
STD = {std}


{load}

def predict(net, images):
    """Returns the probability of each class, (B, classes), for images (B, C, H, W)."""
    mean = torch.tensor(MEAN, device=net.device).view(-1, 1, 1)
    std = torch.tensor(STD, device=net.device).view(-1, 1, 1)
    images = (images.to(net.device) / SCALE - mean) / std
    with torch.inference_mode():
        return {outputs}.softmax(1)


{read_image}


def main():
    import sys

    paths = sys.argv[1:]
    usage = f"usage: python {{sys.argv[0]}} IMAGE..."
    if {{"-h", "--help"}} & set(paths):
        print(f"{{usage}}; the weights are the file of its name that ends in .pt")
        return
    try:
        images = [read_image(path) for path in paths]
        net = load()
    except (OSError, ValueError) as error:  # an image, or the weights beside this file
        sys.exit(f"{{sys.argv[0]}}: {{error}}")
    if not paths:
        print(f"{{usage}}; without one, here is noise:")
        paths, images = ["noise"], [torch.randint(0, 256, IN_SHAPE).to(torch.uint8)]
    for path, probabilities in zip(paths, predict(net, torch.cat(images))):
        best = int(probabilities.argmax())
        print(f"{{path}}: {{CLASSES[best]}} ({{probabilities[best]:.1%}})")


if __name__ == "__main__":
    main()
{comment}'''

_TEXT_TEMPLATE = '''\
{source}


{title}

CHROMOSOME = {chromosome}
PRM = {prm}
IN_SHAPE = {in_shape}
CLASSES = {classes}
PATTERN = r"{pattern}"  # of a token
# The words of the numbers from 2 on; 0 is padding, 1 any other word.
WORDS = """
{words}
""".split()
NUMBERS = {{word: number for number, word in enumerate(WORDS, 2)}}


{load}

def encode(texts):
    """Returns the token numbers of texts, (B, length)."""
    ids = torch.zeros(len(texts), IN_SHAPE[1], dtype=torch.int64)
    for row, text in enumerate(texts):
        found = [NUMBERS.get(word, 1) for word in re.findall(PATTERN, text.lower())]
        ids[row, : len(found)] = torch.tensor(found[: IN_SHAPE[1]])
    return ids


def predict(net, texts):
    """Returns the probability of each class, (B, classes), for a list of texts."""
    with torch.inference_mode():
        return net(encode(texts).to(net.device)).softmax(1)


def main():
    import sys

    texts = sys.argv[1:]
    usage = f"usage: python {{sys.argv[0]}} TEXT..."
    if not texts or {{"-h", "--help"}} & set(texts):
        print(f"{{usage}}; the weights are the file of its name that ends in .pt")
        return
    try:
        net = load()
    except (OSError, ValueError) as error:
        sys.exit(f"{{sys.argv[0]}}: {{error}}")
    for text, probabilities in zip(texts, predict(net, texts)):
        best = int(probabilities.argmax())
        print(f"{{text}}: {{CLASSES[best]}} ({{probabilities[best]:.1%}})")


if __name__ == "__main__":
    main()
{comment}'''
