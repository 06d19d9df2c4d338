"""The termination message: how a pod reports its outcome to the operator."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from hone_api.contract.privacy import ROWS_ENV, without_rows
from hone_api.contract.termination import TerminationMessage
from hone_trainer.secrets import scrub_in

ENV = "HONE_TERMINATION_LOG"
"""Environment variable with another file than Kubernetes' own, for use without a cluster."""
FILE = "/dev/termination-log"

log = logging.getLogger(__name__)


def write(outcome: TerminationMessage) -> None:
    """Write the outcome where the kubelet looks for it, without credentials and cut to size."""
    path = os.environ.get(ENV) or FILE
    if os.environ.get(ROWS_ENV) == "false":
        outcome = without_rows(outcome)
    # Scrub before cutting to size: the replacement can be longer than the credential.
    message = TerminationMessage.model_validate(scrub_in(outcome.to_json())).to_termination_message()
    if ENV not in os.environ and not os.access(path, os.W_OK):
        return
    try:
        Path(path).write_text(message, encoding="utf-8")
    except OSError as error:
        log.warning("the termination message cannot be written: %s", error)
