"""Reads checkpoints and copies them into modules. The only module that unpickles.

Finding, opening and checking files is not here.
"""

from collections.abc import Mapping
from typing import BinaryIO

import torch
from torch import Tensor, nn

from refseg_core.errors import WeightsError, listed


def read_state(file: BinaryIO | str, *, name: str) -> dict[str, Tensor]:
    """Reads the parameters of a file or path, plain or below the key 'model' (the two official forms), to the CPU.

    `name` is the file's in messages. Raises WeightsError where it holds anything but tensors by name.
    """
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except FileNotFoundError as error:
        raise WeightsError(f"{name} does not exist. Give the path of a weights file.") from error
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise WeightsError(
            f"{name} is not a file of PyTorch weights, or is damaged: it cannot be unpacked as tensors by name "
            f"({type(error).__name__})."
        ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping) or not loaded:
        held = "nothing" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"
        raise WeightsError(f"{name} holds {held}, not tensors by name.")
    strange = [key for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if strange:
        raise WeightsError(
            f"{name} holds more than tensors by name: {', '.join(map(repr, strange[:5]))}. Save the model's "
            "state_dict() alone, or below the key 'model'."
        )
    return dict(loaded)


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
        f"{len(names)} {kind}: {listed(names)}"
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


def has_shapes(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...] | None]) -> bool:
    """Returns whether parameters have these shapes; None stands for one that must be absent."""
    return all((tuple(state[name].shape) if name in state else None) == shape for name, shape in shapes.items())
