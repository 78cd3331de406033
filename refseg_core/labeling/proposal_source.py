"""What proposals are, and the interface of everything that makes them.

`proposals.py` and `previews.py` make them from a grid of points. Another source is one file with a `ProposalSource`,
given to `BatchLabeler`.

Shapes: N proposals, G mask logits side (256 in the published models).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from refseg_core.models.protocols import ImageEmbedding


@dataclass(frozen=True)
class Proposals:
    """Masks without a category yet: logits float32 or float16 [N, G, G], predicted IoU float32 [N], in point order."""

    logits_NGG: Tensor
    predicted_iou_N: Tensor

    @classmethod
    def joined(cls, parts: Sequence[tuple[Tensor, Tensor]]) -> "Proposals":
        """Returns the proposals of several batches, one after the other."""
        return cls(torch.cat([logits for logits, _ in parts]), torch.cat([iou for _, iou in parts]))

    @classmethod
    def none(cls, logits_size: int, device: torch.device) -> "Proposals":
        """No proposals, with logits of that side."""
        return cls(torch.empty(0, logits_size, logits_size, device=device), torch.empty(0, device=device))

    def __len__(self) -> int:
        return len(self.predicted_iou_N)


class PromptCounts(NamedTuple):
    """How many points an image was prompted with, and what was computed of them.

    `transformed`: passes through the transformer, two for a point that is previewed and then decoded. `previewed`:
    small previews. `upscaled`: masks in full.
    """

    points: int
    transformed: int
    previewed: int
    upscaled: int


class Proposed(NamedTuple):
    """Masks to choose from; how many there were before duplicates were left out; what computing them took."""

    proposals: Proposals
    num_proposals: int
    prompts: PromptCounts


class ProposalSource(Protocol):
    """Where proposals come from."""

    def propose(self, embedding: ImageEmbedding, features_PC: Tensor, row_n: Tensor) -> Proposed:
        """Proposes masks for one image; `features_PC`: its patch features; `row_n`: which points of the grid to use."""
