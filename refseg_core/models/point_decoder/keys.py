"""The keys of prompts, never written out: what tokens take from them, and what a layer makes of them.

Decides nothing about prompts or masks. Shapes as in the package.
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.models.acceleration import products
from refseg_core.models.point_decoder.folding import Layer, Reader, TokenToImage, Update


@dataclass(frozen=True)
class PreparedImage:
    """What all prompts on an image share.

    `projected_RC`: the image through every linear map that reads it. `square_lengths_C`: of the image as
    each layer's norm finds it. `stride8_SUC`, `stride4_SXC`: what is added after each upscaling.
    """

    projected_RC: Tensor
    square_lengths_C: tuple[Tensor, ...]
    stride8_SUC: Tensor
    stride4_SXC: Tensor


@dataclass(frozen=True)
class Keys:
    """The keys of N prompts in the form of the package's head. `values_HVD`: what the tokens gave to each layer."""

    image: PreparedImage
    scale_NC: Tensor
    rows_NKC: Tensor
    basis_NKW: Tensor
    values_HVD: tuple[Tensor, ...]

    @staticmethod
    def of_image(image: PreparedImage, prompts_NTW: Tensor) -> "Keys":
        """Returns the keys before the first layer: the image itself."""
        num_prompts, _, width = prompts_NTW.shape
        num_cells = image.projected_RC.shape[1]
        return Keys(
            image,
            prompts_NTW.new_ones(num_prompts, num_cells),
            prompts_NTW.new_empty(num_prompts, 0, num_cells),
            prompts_NTW.new_empty(num_prompts, 0, width),
            (),
        )

    def of_prompts(self, kept_n: Tensor) -> "Keys":
        """Returns the keys of some prompts, for upscaling; they cannot be updated any more."""
        if len(kept_n) == len(self.scale_NC):
            return self
        return Keys(self.image, self.scale_NC[kept_n], self.rows_NKC[kept_n], self.basis_NKW[kept_n], ())

    def attended(self, attention: TokenToImage, asking_NTW: Tensor) -> Tensor:
        """Returns what tokens take from the keys, [N, T, W]."""
        module, reader = attention.module, attention.value
        num_prompts, num_cells = self.scale_NC.shape
        heads, channels, _ = reader.weight_HDW.shape
        asking_HVD = _split_heads(module.q_proj(asking_NTW), heads) * channels**-0.5
        weights_NAC = self._scores(asking_HVD, attention.key).softmax(dim=-1)
        # This sum over all cells is left to BLAS: oneDNN's, in one long chain, rounds three times as much.
        of_rows_NAK = weights_NAC @ self.rows_NKC.transpose(1, 2)
        of_basis_HVW = _heads_first((of_rows_NAK @ self.basis_NKW).view(num_prompts, heads, -1, asking_NTW.shape[-1]))
        scaled_HVC = _heads_first(
            weights_NAC.view(num_prompts, heads, -1, num_cells).mul_(self.scale_NC[:, None, None])
        )
        values_HVD = torch.baddbmm(reader.offset_HDC.mT, of_basis_HVW, reader.weight_HDW.mT)
        values_HVD.baddbmm_(scaled_HVC, self._of_image(reader.image_rows, heads).mT)
        joined_NTI = values_HVD.transpose(0, 1).reshape(num_prompts, -1, heads * channels)
        return cast(Tensor, module.out_proj(joined_NTI))

    def updated(self, layer: Layer, asking_NTW: Tensor, tokens_NTW: Tensor) -> "Keys":
        """Returns the keys after attending to the tokens and the layer norm."""
        module, update = layer.module.cross_attn_image_to_token, layer.update
        num_prompts, num_cells = self.scale_NC.shape
        heads, channels, _ = layer.query.weight_HDW.shape
        tokens_HVD = _split_heads(module.k_proj(asking_NTW), heads) * channels**-0.5
        scores_NAC = self._scores(tokens_HVD, layer.query)
        attention_NAC = scores_NAC.view(num_prompts, heads, -1, num_cells).softmax(dim=2).view_as(scores_NAC)
        values_HVD = F.pad(_split_heads(module.v_proj(tokens_NTW), heads), (0, 1), value=1.0)
        added_NAW = _prompts_first(torch.bmm(values_HVD, update.weight_HDW), num_prompts)
        longer = Keys(
            self.image,
            self.scale_NC,
            torch.cat((self.rows_NKC, attention_NAC), dim=1),
            torch.cat((self.basis_NKW, added_NAW), dim=1),
            (*self.values_HVD, values_HVD),
        )
        return longer._normalized(update)

    def _scores(self, vectors_HVD: Tensor, reader: Reader) -> Tensor:
        """Products of T vectors per head and prompt with the projected keys, [N, A, C]."""
        num_prompts, num_cells = self.scale_NC.shape
        heads = len(vectors_HVD)
        scores_HVC = torch.bmm(vectors_HVD, self._of_image(reader.image_rows, heads))
        scores_HVC.view(heads, num_prompts, -1, num_cells).mul_(self.scale_NC[:, None])
        scores_NAC = _prompts_first(scores_HVC.baddbmm_(vectors_HVD, reader.offset_HDC), num_prompts)
        if not self.values_HVD:
            return scores_NAC
        vectors_NAW = _prompts_first(torch.bmm(vectors_HVD, reader.weight_HDW), num_prompts)
        return products(vectors_NAW @ self.basis_NKW.mT, self.rows_NKC, scores_NAC)

    def _normalized(self, update: Update) -> "Keys":
        """Divides by the deviation over the channels: |image|^2 + 2 image . rest + |rest|^2, all centered."""
        num_prompts, num_cells = self.scale_NC.shape
        centered_NKW = self.basis_NKW - self.basis_NKW.mean(dim=-1, keepdim=True)
        gram_NKK = centered_NKW @ centered_NKW.mT
        square_NC = self.scale_NC.square() * self.image.square_lengths_C[len(self.values_HVD) - 1]
        layer_rows = gram_NKK.shape[-1] // len(self.values_HVD)
        for index, (values_HVD, image_rows) in enumerate(zip(self.values_HVD, update.image_rows, strict=True)):
            start, end = index * layer_rows, (index + 1) * layer_rows
            with_image_HVC = torch.bmm(values_HVD, self._of_image(image_rows, len(values_HVD)))
            with_image_HVC.view(len(values_HVD), num_prompts, -1, num_cells).mul_(2 * self.scale_NC[:, None])
            gram_NKK[:, start:end, :start] *= 2  # two layers meet once
            with_all_NAC = products(
                gram_NKK[:, start:end, :end], self.rows_NKC[:, :end], _prompts_first(with_image_HVC, num_prompts)
            )
            square_NC += with_all_NAC.mul_(self.rows_NKC[:, start:end]).sum(dim=1)
        factor_NC = (square_NC.clamp_min_(0) / centered_NKW.shape[-1]).add_(update.eps).rsqrt_()
        return Keys(
            self.image,
            self.scale_NC * factor_NC,
            self.rows_NKC.mul_(factor_NC[:, None]),
            centered_NKW * update.gain_W,
            self.values_HVD,
        )

    def _of_image(self, rows: slice, heads: int) -> Tensor:
        return self.image.projected_RC[rows].view(heads, -1, self.image.projected_RC.shape[1])


def _split_heads(tokens_NTI: Tensor, heads: int) -> Tensor:
    """[H, N * T, D]."""
    return tokens_NTI.reshape(-1, heads, tokens_NTI.shape[-1] // heads).transpose(0, 1)


def _heads_first(rows_NHTc: Tensor) -> Tensor:
    """[H, N * T, c]."""
    return rows_NHTc.transpose(0, 1).flatten(1, 2)


def _prompts_first(rows_HVc: Tensor, num_prompts: int) -> Tensor:
    """[H, N * T, c] -> [N, A, c]."""
    heads, rows, channels = rows_HVc.shape
    by_prompt = rows_HVc.view(heads, num_prompts, rows // max(1, num_prompts), channels).transpose(0, 1)
    return by_prompt.flatten(1, 2)
