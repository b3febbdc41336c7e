"""Finds which layers of a GPT-2 to freeze when it is fine-tuned to classify text.

    python examples/gpt_freezing.py                       # distilgpt2 on SST-2, from the hub
    python examples/gpt_freezing.py --model FOLDER --data FOLDER --train-samples 2048
    python examples/gpt_freezing.py --model FOLDER --data docstrings

Any model of the GPT-2 family (or any other that transformers can put a classifier on): a name on
the hub or a folder. Data as in `bert_freezing.py`, which this is in all but its defaults.
"""

from __future__ import annotations

import sys
from typing import Any

import bert_freezing
from freezing_options import parse, run_script

PRESETS: dict[str, dict[str, Any]] = {
    "full": {
        **bert_freezing.PRESETS["full"],
        "model": "distilgpt2",
        "run_dir": "runs/gpt-freezing",
    },
}


if __name__ == "__main__":
    parser = bert_freezing.make_parser(PRESETS, __doc__)
    sys.exit(run_script(bert_freezing.main, parse(parser, PRESETS, None)))
