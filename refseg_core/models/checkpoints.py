"""Fits a state dict to a module, and says exactly what does not fit.

Reading files is not here: a state dict is a mapping of names to tensors, wherever it came from.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from refseg_core.errors import WeightsError

_NAMES_SHOWN = 8


def load_state(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    model: str,
    may_be_missing: tuple[str, ...] = (),
    may_be_extra: tuple[str, ...] = (),
) -> None:
    """Copies `state` into `module` as float32, in place.

    `may_be_missing` and `may_be_extra` are prefixes of parameter names that images do not need; missing ones
    are zeroed, so that nothing random is left. Raises WeightsError naming every other missing, unexpected or
    wrongly shaped parameter.
    """
    own = module.state_dict()
    missing = sorted(name for name in own if name not in state and not name.startswith(may_be_missing))
    extra = sorted(name for name in state if name not in own and not name.startswith(may_be_extra))
    misshapen = sorted(
        f"{name} (expected {tuple(own[name].shape)}, got {tuple(state[name].shape)})"
        for name in own
        if name in state and own[name].shape != state[name].shape
    )
    problems = [
        f"{len(names)} {kind}: {_abbreviate(names)}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", extra),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise WeightsError(
            f"The weights do not fit the model {model!r}. Parameters {'; '.join(problems)}. "
            "Check that the weights file belongs to this model name."
        )
    module.load_state_dict(
        {name: state[name].to(torch.float32) if name in state else torch.zeros_like(own[name]) for name in own}
    )


def _abbreviate(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:_NAMES_SHOWN])
    return shown if len(listed) <= _NAMES_SHOWN else f"{shown} and {len(listed) - _NAMES_SHOWN} more"
