"""Compiles functions of tensors for this machine.

torch keeps what it compiled in a folder (TORCHINDUCTOR_CACHE_DIR), so that the next process starts sooner.
"""

import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

from refseg_core.models.processor import this_processor

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def can_compile(device: torch.device) -> bool:
    """Returns whether compiled functions can be quicker on a device; warns where they cannot."""
    if device.type != "cpu" or this_processor().can_compile:
        return True
    log.warning("batches.compiled: this processor has no vector instructions to compile for; labeling goes on without.")
    return False


def compiled(function: Callable[P, R], *, wanted: bool) -> Callable[P, R]:
    """Returns the function compiled, at its first call and again for varying sizes; unchanged where not `wanted`.

    Where the machine cannot compile, for example without a compiler, warns once and calls the function itself.
    """
    if not wanted:
        return function
    from torch._dynamo.exc import TorchDynamoException  # which takes a second to import

    quick = torch.compile(function)
    failures: list[TorchDynamoException] = []

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not failures:
            try:
                return quick(*args, **kwargs)
            except TorchDynamoException as error:
                failures.append(error)
                log.warning(
                    "batches.compiled: this machine cannot compile (%s); labeling goes on without.",
                    str(error).strip().partition("\n")[0],
                )
        return function(*args, **kwargs)

    return call
