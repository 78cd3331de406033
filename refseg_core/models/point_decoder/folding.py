"""The constants of a model: what its parameters, its positional encoding and its layer norms come to for the keys.

Once per model, in float64; nothing here sees an image or a prompt. Shapes as in the package.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Reader(NamedTuple):
    """A projection that an attention makes of the keys of one layer.

    `weight_HDW` reads the basis; `image_rows` tells where the image's part lies; `offset_HDC` is the part of the
    positional encoding, the keys' bias and the projection's own bias (C = 1 where there is no encoding).
    """

    weight_HDW: Tensor
    image_rows: slice
    offset_HDC: Tensor


class TokenToImage(NamedTuple):
    """Tokens attending to the keys: an attention of sam2, and its projections of the keys."""

    module: Any
    key: Reader
    value: Reader


class Update(NamedTuple):
    """What a layer adds to the keys, and the layer norm after that.

    `weight_HDW`: from the tokens' values to the vectors added; one channel more, always 1, brings the constants.
    `image_rows`: where the image's products with these vectors lie, and those with the vectors of earlier layers.
    `center_WW`: the image as the norm finds it, less its mean. `gain_W`, `eps`: the norm's.
    """

    weight_HDW: Tensor
    image_rows: tuple[slice, ...]
    center_WW: Tensor
    gain_W: Tensor
    eps: float


class Layer(NamedTuple):
    """A layer of the two-way transformer: sam2's module, and how it reads and updates the keys."""

    module: Any
    to_image: TokenToImage
    query: Reader
    update: Update


class Upscaling(NamedTuple):
    """The two transposed convolutions as products; the first one centered over its channels, for its norm."""

    first_SUW: Tensor
    first_bias_SU1: Tensor
    image_rows: slice
    center_UU: Tensor
    second_XU: Tensor
    second_bias_X1: Tensor


class Folding:
    """Folds parameters into constants, in float64, following the keys through the layers in their order."""

    def __init__(self, position_1Whh: Tensor, num_heads: int) -> None:
        self._like = position_1Whh
        self._position_WC = _double(position_1Whh[0].flatten(1))
        self._num_heads = num_heads
        width = len(self._position_WC)
        self._through_WW = torch.eye(width, dtype=torch.float64)
        self._bias_W = torch.zeros(width, dtype=torch.float64)
        self._added: list[Tensor] = []
        self._image_matrices: list[Tensor] = []

    def layer(self, module: Any) -> Layer:
        """Folds a layer and proceeds to the keys after it."""
        return Layer(
            module,
            self.token_to_image(module.cross_attn_token_to_image),
            self._reader(module.cross_attn_image_to_token.q_proj, positional=True),
            self._update(module.cross_attn_image_to_token.out_proj, module.norm4),
        )

    def token_to_image(self, module: Any) -> TokenToImage:
        """Folds the projections of the keys as they are now."""
        return TokenToImage(
            module, self._reader(module.k_proj, positional=True), self._reader(module.v_proj, positional=False)
        )

    def upscaling(self, modules: Any) -> Upscaling:
        """Folds both transposed convolutions."""
        first, _, _, second, _ = modules
        first_SUW, second_SVU = (_double(conv.weight).permute(2, 3, 1, 0).flatten(0, 1) for conv in (first, second))
        center_UU = _centering(first_SUW.shape[1])
        first_SUW = center_UU @ first_SUW
        first_bias_SU = center_UU @ _double(first.bias) + first_SUW @ self._bias_W
        return Upscaling(
            self._single(first_SUW),
            self._single(first_bias_SU[..., None]),
            self._read_of_image(first_SUW.flatten(0, 1)),
            self._single(center_UU),
            self._single(second_SVU.flatten(0, 1)),
            self._single(_double(second.bias).repeat(4)[:, None]),
        )

    def image_matrix(self) -> Tensor:
        """Returns the matrix that reads the image, [R, W]."""
        return self._single(torch.cat(self._image_matrices))

    def _reader(self, projection: Any, *, positional: bool) -> Reader:
        weight_IW = _double(projection.weight)
        offset_IC = (weight_IW @ self._bias_W + _double(projection.bias))[:, None]
        if positional:
            offset_IC = offset_IC + weight_IW @ self._position_WC
        weight_HDW, offset_HDC = (self._single(self._by_head(matrix)) for matrix in (weight_IW, offset_IC))
        return Reader(weight_HDW, self._read_of_image(weight_IW), offset_HDC)

    def _update(self, projection: Any, norm: Any) -> Update:
        # What a cell gives to the tokens sums to 1 in every head, so that constants may ride on their values.
        constant_W = (_double(projection.bias) + self._bias_W) / self._num_heads
        weight_HDW = self._by_head(_double(projection.weight).T)
        weight_HDW = torch.cat((weight_HDW, constant_W.expand(self._num_heads, 1, -1)), dim=1)
        self._added.append(weight_HDW.flatten(0, 1))
        center_WW = _centering(len(constant_W))
        update = Update(
            self._single(weight_HDW),
            tuple(self._read_of_image(added @ center_WW) for added in self._added),
            self._single(center_WW @ self._through_WW.T),
            norm.weight,
            norm.eps,
        )
        normalize_WW = center_WW * _double(norm.weight)
        self._through_WW = self._through_WW @ normalize_WW
        self._added = [added @ normalize_WW for added in self._added]
        self._bias_W = _double(norm.bias)
        return update

    def _read_of_image(self, matrix_RW: Tensor) -> slice:
        """Adds rows that read the image as the layers so far left it; returns where the result will be."""
        start = sum(len(matrix) for matrix in self._image_matrices)
        self._image_matrices.append(matrix_RW @ self._through_WW.T)
        return slice(start, start + len(matrix_RW))

    def _by_head(self, matrix: Tensor) -> Tensor:
        return matrix.reshape(self._num_heads, -1, matrix.shape[-1])

    def _single(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._like).contiguous()


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _centering(size: int) -> Tensor:
    """Returns the symmetric matrix that subtracts a vector's mean."""
    return torch.eye(size, dtype=torch.float64) - 1 / size
