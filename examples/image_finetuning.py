"""Finds how to fine-tune an EfficientNet-Lite0 on your images, in a given time, without a download.

    pip install -e ".[vision,lora]"
    python examples/image_finetuning.py --data IMAGES --minutes 10 --run-dir RUN

`IMAGES` holds `train/` (and `val/`, `test/`), in each a folder for each class. It is
`finetune.py` with this model; there stands what follows from the time, and what else it takes.
"""

from __future__ import annotations

import sys

from finetune import main, make_parser
from freezing_options import run_script

from evonas.freezing.images import EFFICIENTNET

if __name__ == "__main__":
    parser = make_parser(__doc__)
    parser.set_defaults(model=EFFICIENTNET, minutes=10.0, run_dir="runs/image-finetuning")
    sys.exit(run_script(main, parser.parse_args()))
