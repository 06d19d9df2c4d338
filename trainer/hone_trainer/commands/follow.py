"""`python -m hone_trainer follow`: the container next to vLLM that `hone serve --follow` prints."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from types import FrameType

from hone_api.words.failures import FailureCode
from hone_trainer.artifacts.serving.folders import AdapterFolders
from hone_trainer.artifacts.serving.follow import Follower, install_guard, serve_health
from hone_trainer.artifacts.serving.vllm import Vllm
from hone_trainer.artifacts.serving.wanted import Followed
from hone_trainer.errors import ConfigError


def main(options: argparse.Namespace) -> None:
    """Follow until SIGTERM.

    Raises:
        ConfigError: an alias is not written as name=model@alias.
    """
    try:
        followed = [Followed.of(text) for text in options.alias]
    except ValueError as error:
        raise ConfigError(f"--alias {error}", FailureCode.INVALID_ARGUMENT) from None
    stopped = threading.Event()

    def stop(*_: int | FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    token = install_guard(options.adapters)
    follower = Follower(
        followed=followed,
        aliases=options.aliases,
        folders=AdapterFolders(options.adapters, options.claim, options.models, options.served_base),
        vllm=Vllm(options.vllm, token, os.environ.get("VLLM_API_KEY")),
        base=options.base,
    )
    follower.last_pass = follower.clock()
    health = serve_health(follower, options.port)
    try:
        follower.run(stopped)
    finally:
        health.shutdown()
