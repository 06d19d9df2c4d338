"""The lines of a log: their form, no credentials in them, and none of a library about itself."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable

from hone_trainer.secrets import ScrubbingFilter

LIBRARY_NOISE = {
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
    "DeepSpeed": "Setting accelerator to CPU",
}
"""Logger of a library, and what it says of this image's build, not of the user's run."""
LIBRARY_WARNINGS = (
    r"`is_gradient_checkpointing` is deprecated",
    r"The PEFT config's `base_model_name_or_path` was renamed",
)
"""Python warnings about how Hone calls a library; regular expressions for their beginning."""


def set_up(level: int = logging.INFO) -> None:
    """Have Python's logging print lines for people, from a level on, without credentials and without the noise."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    handler.addFilter(ScrubbingFilter())
    logging.basicConfig(level=level, handlers=[handler])
    for noisy in ("httpx2", "httpcore2", "urllib3", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name, words in LIBRARY_NOISE.items():
        logging.getLogger(name).addFilter(_without(words))
    for words in LIBRARY_WARNINGS:
        warnings.filterwarnings("ignore", message=words)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # a progress bar is one endless line in a pod's log


def _without(words: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: words not in str(record.msg)
