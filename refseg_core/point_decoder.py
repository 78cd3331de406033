"""Point prompts on the exact path: what `Segmenter.decode_points` answers, for a fraction of the work.

The plain decoder gives every prompt its own copy of the image, the keys (C x W numbers), and rewrites it a dozen
times. Here no prompt has keys. It has only T tokens, so what a layer adds to the key of a cell is a mixture of H * T
vectors; and a layer norm is linear but for one factor per cell. After any layer, therefore,

    keys[c] = scale[c] * (image[c] @ through) + rows[:, c] @ basis + bias

with `through` (W x W) and `bias` (W) constants of the model, and of the prompt only `scale` (C), `rows` (how much each
cell attended to each token, times scale; K x C) and `basis` (K x W). All that is ever asked of keys is linear in
them, or the length that a layer norm divides by:

- what is read of `image` is projected once per image, for all prompts;
- what is read of the rest goes through H * T rows per layer, not through W channels;
- predicted IoU needs the tokens only, so masks are upscaled after the threshold, and of each prompt only the best.

Exact but for the rounding of float32. A prompt takes 0.54 GFLOP, and 0.56 more if it is kept, where the plain decoder
takes 3.6, and a third of the memory (method, section 10.3, plus the form of the keys above).

Shapes: N prompts, n of them kept, T tokens of a prompt, H heads, D channels of a head, I = H * D, W width, C = h * h
cells of the embedding, A = H * T rows of a layer, K rows of the layers so far, R numbers read of a cell of the image,
S = 4 positions in a cell after an upscaling by 2, in the order (y, x), U channels after the first upscaling, V after
the second, X = S * V, G = 4 * h. Heads come before prompts ([H, N * T, D]) where the other factor is the image's,
which all prompts share.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.architectures import SegmenterArchitecture
from refseg_core.cpu import map_on_threads, products
from refseg_core.segmenter import ImageEmbedding, Segmenter

_POSITIVE_POINT = 1
_IOU_TOKEN, _FIRST_MULTIMASK_TOKEN = 1, 3  # after the object score, and mask 0, which a point never takes
_CELLS_PER_CHUNK = 4_096  # of prompts decoded together on a CPU: with more, the chunk falls out of its caches


class _Reader(NamedTuple):
    """A projection that an attention makes of the keys of one layer.

    `weight_HDW` reads the basis; `image_rows` tells where the image's part lies; `offset_HDC` is the part of the
    positional encoding, the keys' bias and the projection's own bias (C = 1 where there is no encoding).
    """

    weight_HDW: Tensor
    image_rows: slice
    offset_HDC: Tensor


class _TokenToImage(NamedTuple):
    """Tokens attending to the keys: an attention of sam2, and its projections of the keys."""

    module: Any
    key: _Reader
    value: _Reader


class _Update(NamedTuple):
    """What a layer adds to the keys, and the layer norm after that.

    `weight_HDW`: from the tokens' values to the vectors added; one channel more, always 1, brings the constants.
    `image_rows`: where the image's products with these vectors lie, and those with the vectors of earlier layers.
    `centre_WW`: the image as the norm finds it, less its mean. `gain_W`, `eps`: the norm's.
    """

    weight_HDW: Tensor
    image_rows: tuple[slice, ...]
    centre_WW: Tensor
    gain_W: Tensor
    eps: float


class _Layer(NamedTuple):
    module: Any
    to_image: _TokenToImage
    query: _Reader
    update: _Update


class _Upscaling(NamedTuple):
    """The two transposed convolutions as products; the first one centred over its channels, as its norm will ask."""

    first_SUW: Tensor
    first_bias_SU1: Tensor
    image_rows: slice
    centre_UU: Tensor
    second_XU: Tensor
    second_bias_X1: Tensor


@dataclass(frozen=True)
class PreparedImage:
    """What all prompts on an image share.

    `projected_RC`: the image through every linear map that will be asked of it. `square_lengths_C`: of the image as
    each layer's norm finds it. `stride8_SUC`, `stride4_SXC`: what is added after each upscaling.
    """

    projected_RC: Tensor
    square_lengths_C: tuple[Tensor, ...]
    stride8_SUC: Tensor
    stride4_SXC: Tensor


class PointDecoder:
    """Decodes point prompts as the segmenter does, with its parameters as they are when this is built."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.architecture: SegmenterArchitecture = segmenter.architecture
        self.device = segmenter.device
        self._prompt_encoder: Any = segmenter.sam_prompt_encoder
        self._mask_decoder: Any = segmenter.sam_mask_decoder
        transformer = self._mask_decoder.transformer
        folding = _Folding(self._prompt_encoder.get_dense_pe(), transformer.num_heads)
        self._layers = [folding.layer(layer) for layer in transformer.layers]
        self._final = folding.token_to_image(transformer.final_attn_token_to_image)
        self._upscaling = folding.upscaling(self._mask_decoder.output_upscaling)
        self._image_RW = folding.image_matrix()
        self._hypernetworks = _StackedMlps(self._mask_decoder.output_hypernetworks_mlps[1:])

    @torch.no_grad()
    def prepare(self, embedding: ImageEmbedding) -> PreparedImage:
        """Projects the embedding of one image, once for all prompts on it."""
        image_WC = embedding.stride16_BWhw[0].flatten(1) + self._prompt_encoder.no_mask_embed.weight.T
        stride8_SUC = _by_position(embedding.stride8_Bchw[0]).flatten(2)
        stride4_SXC = _by_position(_by_position(embedding.stride4_Bchw[0]).flatten(0, 1)).flatten(2)
        return PreparedImage(
            products(self._image_RW[None], image_WC[None])[0],
            tuple((layer.update.centre_WW @ image_WC).square().sum(dim=0) for layer in self._layers),
            self._upscaling.centre_UU @ stride8_SUC + self._upscaling.first_bias_SU1,
            stride4_SXC + self._upscaling.second_bias_X1,
        )

    @torch.no_grad()
    def decode_points(
        self, image: PreparedImage, points_N2: Tensor, *, pred_iou_thresh: float
    ) -> tuple[Tensor, Tensor]:
        """Decodes one positive point per prompt into the best of its three masks. Method, section 6.3.

        `points_N2`: float32, (x, y) in the segmenter frame, pixels.
        Returns logits float32 [n, G, G] and predicted IoU float32 [n] in [0, 1] of the prompts whose predicted IoU
        exceeds the threshold, in their order.
        """
        prompts_NTW = self._prompt_tokens(points_N2)
        on_cpu = prompts_NTW.device.type == "cpu"
        chunk = max(1, _CELLS_PER_CHUNK // image.projected_RC.shape[1]) if on_cpu else max(1, len(prompts_NTW))
        kept = map_on_threads(lambda part: self._decode_chunk(image, part, pred_iou_thresh), prompts_NTW.split(chunk))
        return torch.cat([logits for logits, _ in kept]), torch.cat([iou for _, iou in kept])

    def _prompt_tokens(self, points_N2: Tensor) -> Tensor:
        """Output tokens, the point and the padding, [N, T, W]."""
        decoder = self._mask_decoder
        labels_N1 = torch.full((len(points_N2), 1), _POSITIVE_POINT, device=points_N2.device)
        sparse_NTW, _ = self._prompt_encoder(points=(points_N2[:, None], labels_N1), boxes=None, masks=None)
        outputs = torch.cat((decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight))
        return torch.cat((outputs.expand(len(points_N2), -1, -1), sparse_NTW), dim=1)

    def _decode_chunk(self, image: PreparedImage, prompts_NTW: Tensor, pred_iou_thresh: float) -> tuple[Tensor, Tensor]:
        tokens_NTW, keys = self._transform(image, prompts_NTW)
        predicted_iou_N4 = self._mask_decoder.iou_prediction_head(tokens_NTW[:, _IOU_TOKEN])
        predicted_iou_N, best_N = predicted_iou_N4[:, 1:].max(dim=1)
        kept_n = torch.nonzero(predicted_iou_N > pred_iou_thresh)[:, 0]
        best_n = best_N[kept_n]
        mask_nV = self._hypernetworks(tokens_NTW[kept_n, _FIRST_MULTIMASK_TOKEN + best_n], best_n)
        return self._upscale(keys.of_prompts(kept_n), mask_nV), predicted_iou_N[kept_n]

    def _transform(self, image: PreparedImage, prompts_NTW: Tensor) -> "tuple[Tensor, _Keys]":
        """The two-way transformer: tokens [N, T, W] and keys as they leave it."""
        tokens_NTW, keys = prompts_NTW, _Keys.of_image(image, prompts_NTW)
        for layer in self._layers:
            module = layer.module
            if module.skip_first_layer_pe:
                tokens_NTW = module.self_attn(tokens_NTW, tokens_NTW, tokens_NTW)
            else:
                asking_NTW = tokens_NTW + prompts_NTW
                tokens_NTW = tokens_NTW + module.self_attn(asking_NTW, asking_NTW, tokens_NTW)
            tokens_NTW = module.norm1(tokens_NTW)
            tokens_NTW = module.norm2(tokens_NTW + keys.attended(layer.to_image, tokens_NTW + prompts_NTW))
            tokens_NTW = module.norm3(tokens_NTW + module.mlp(tokens_NTW))
            keys = keys.updated(layer, tokens_NTW + prompts_NTW, tokens_NTW)
        attended_NTW = keys.attended(self._final, tokens_NTW + prompts_NTW)
        return self._mask_decoder.transformer.norm_final_attn(tokens_NTW + attended_NTW), keys

    def _upscale(self, keys: "_Keys", mask_nV: Tensor) -> Tensor:
        """Upscales the keys twice and takes each prompt's mask of them, logits [n, G, G].

        One position of the first upscaling after the other, so that what lies between fits into a CPU's cache.
        """
        weights, (_, norm, first_activation, _, second_activation) = (
            self._upscaling,
            self._mask_decoder.output_upscaling,
        )
        num_kept, num_cells = keys.scale_NC.shape
        image_SUC = keys.image.projected_RC[weights.image_rows].view(4, -1, num_cells)
        second_nXU = weights.second_XU.expand(num_kept, -1, -1)
        logits_nSSC = mask_nV.new_empty(num_kept, 4, 4, num_cells)
        for position in range(4):
            basis_nUK = weights.first_SUW[position] @ keys.basis_NKW.transpose(1, 2)
            first_nUC = products(basis_nUK, keys.rows_NKC, keys.image.stride8_SUC[position])
            first_nUC.addcmul_(image_SUC[position], keys.scale_NC[:, None])
            first_nUC.mul_(first_nUC.square().mean(dim=1, keepdim=True).add_(norm.eps).rsqrt_())
            first_nUC.mul_(norm.weight[:, None]).add_(norm.bias[:, None])
            second_nXC = products(second_nXU, first_activation(first_nUC), keys.image.stride4_SXC[position])
            second_nSVC = second_activation(second_nXC).view(num_kept, 4, mask_nV.shape[1], num_cells)
            logits_nSSC[:, position] = (mask_nV[:, None, None] @ second_nSVC)[:, :, 0]
        side = round(num_cells**0.5)
        by_bit = logits_nSSC.view(num_kept, 2, 2, 2, 2, side, side)  # y coarse, x coarse, y fine, x fine, y, x
        return by_bit.permute(0, 5, 1, 3, 6, 2, 4).reshape(num_kept, 4 * side, 4 * side)


@dataclass(frozen=True)
class _Keys:
    """The keys of N prompts in the form of this module's head. `values_HVD`: what the tokens gave to each layer."""

    image: PreparedImage
    scale_NC: Tensor
    rows_NKC: Tensor
    basis_NKW: Tensor
    values_HVD: tuple[Tensor, ...]

    @staticmethod
    def of_image(image: PreparedImage, prompts_NTW: Tensor) -> "_Keys":
        """The keys before the first layer: the image itself."""
        num_prompts, _, width = prompts_NTW.shape
        num_cells = image.projected_RC.shape[1]
        return _Keys(
            image,
            prompts_NTW.new_ones(num_prompts, num_cells),
            prompts_NTW.new_empty(num_prompts, 0, num_cells),
            prompts_NTW.new_empty(num_prompts, 0, width),
            (),
        )

    def of_prompts(self, kept_n: Tensor) -> "_Keys":
        """The keys of some prompts, for upscaling: they cannot be updated any more."""
        if len(kept_n) == len(self.scale_NC):
            return self
        return _Keys(self.image, self.scale_NC[kept_n], self.rows_NKC[kept_n], self.basis_NKW[kept_n], ())

    def attended(self, attention: _TokenToImage, asking_NTW: Tensor) -> Tensor:
        """What tokens take from the keys, [N, T, W]."""
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

    def updated(self, layer: _Layer, asking_NTW: Tensor, tokens_NTW: Tensor) -> "_Keys":
        """The keys after they attended to the tokens and went through the layer norm."""
        module, update = layer.module.cross_attn_image_to_token, layer.update
        num_prompts, num_cells = self.scale_NC.shape
        heads, channels, _ = layer.query.weight_HDW.shape
        tokens_HVD = _split_heads(module.k_proj(asking_NTW), heads) * channels**-0.5
        scores_NAC = self._scores(tokens_HVD, layer.query)
        attention_NAC = scores_NAC.view(num_prompts, heads, -1, num_cells).softmax(dim=2).view_as(scores_NAC)
        values_HVD = F.pad(_split_heads(module.v_proj(tokens_NTW), heads), (0, 1), value=1.0)
        added_NAW = _prompts_first(torch.bmm(values_HVD, update.weight_HDW), num_prompts)
        longer = _Keys(
            self.image,
            self.scale_NC,
            torch.cat((self.rows_NKC, attention_NAC), dim=1),
            torch.cat((self.basis_NKW, added_NAW), dim=1),
            (*self.values_HVD, values_HVD),
        )
        return longer._normalised(update)

    def _scores(self, vectors_HVD: Tensor, reader: _Reader) -> Tensor:
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

    def _normalised(self, update: _Update) -> "_Keys":
        """Divides by the deviation over the channels: |image|^2 + 2 image . rest + |rest|^2, all centred."""
        num_prompts, num_cells = self.scale_NC.shape
        centred_NKW = self.basis_NKW - self.basis_NKW.mean(dim=-1, keepdim=True)
        gram_NKK = centred_NKW @ centred_NKW.mT
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
        factor_NC = (square_NC.clamp_min_(0) / centred_NKW.shape[-1]).add_(update.eps).rsqrt_()
        return _Keys(
            self.image,
            self.scale_NC * factor_NC,
            self.rows_NKC.mul_(factor_NC[:, None]),
            centred_NKW * update.gain_W,
            self.values_HVD,
        )

    def _of_image(self, rows: slice, heads: int) -> Tensor:
        return self.image.projected_RC[rows].view(heads, -1, self.image.projected_RC.shape[1])


class _Folding:
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

    def layer(self, module: Any) -> _Layer:
        """Folds a layer, and goes on to the keys after it."""
        return _Layer(
            module,
            self.token_to_image(module.cross_attn_token_to_image),
            self._reader(module.cross_attn_image_to_token.q_proj, positional=True),
            self._update(module.cross_attn_image_to_token.out_proj, module.norm4),
        )

    def token_to_image(self, module: Any) -> _TokenToImage:
        """Folds the projections of the keys as they are now."""
        return _TokenToImage(
            module, self._reader(module.k_proj, positional=True), self._reader(module.v_proj, positional=False)
        )

    def upscaling(self, modules: Any) -> _Upscaling:
        """Folds both transposed convolutions."""
        first, _, _, second, _ = modules
        first_SUW, second_SVU = (_double(conv.weight).permute(2, 3, 1, 0).flatten(0, 1) for conv in (first, second))
        centre_UU = _centring(first_SUW.shape[1])
        first_SUW = centre_UU @ first_SUW
        first_bias_SU = centre_UU @ _double(first.bias) + first_SUW @ self._bias_W
        return _Upscaling(
            self._single(first_SUW),
            self._single(first_bias_SU[..., None]),
            self._read_of_image(first_SUW.flatten(0, 1)),
            self._single(centre_UU),
            self._single(second_SVU.flatten(0, 1)),
            self._single(_double(second.bias).repeat(4)[:, None]),
        )

    def image_matrix(self) -> Tensor:
        """All that is ever read of the image, [R, W]."""
        return self._single(torch.cat(self._image_matrices))

    def _reader(self, projection: Any, *, positional: bool) -> _Reader:
        weight_IW = _double(projection.weight)
        offset_IC = (weight_IW @ self._bias_W + _double(projection.bias))[:, None]
        if positional:
            offset_IC = offset_IC + weight_IW @ self._position_WC
        weight_HDW, offset_HDC = (self._single(self._by_head(matrix)) for matrix in (weight_IW, offset_IC))
        return _Reader(weight_HDW, self._read_of_image(weight_IW), offset_HDC)

    def _update(self, projection: Any, norm: Any) -> _Update:
        # What a cell gives to the tokens sums to 1 in every head, so that constants may ride on their values.
        constant_W = (_double(projection.bias) + self._bias_W) / self._num_heads
        weight_HDW = self._by_head(_double(projection.weight).T)
        weight_HDW = torch.cat((weight_HDW, constant_W.expand(self._num_heads, 1, -1)), dim=1)
        self._added.append(weight_HDW.flatten(0, 1))
        centre_WW = _centring(len(constant_W))
        update = _Update(
            self._single(weight_HDW),
            tuple(self._read_of_image(added @ centre_WW) for added in self._added),
            self._single(centre_WW @ self._through_WW.T),
            norm.weight,
            norm.eps,
        )
        normalise_WW = centre_WW * _double(norm.weight)
        self._through_WW = self._through_WW @ normalise_WW
        self._added = [added @ normalise_WW for added in self._added]
        self._bias_W = _double(norm.bias)
        return update

    def _read_of_image(self, matrix_RW: Tensor) -> slice:
        """Has the matrix read the image, as the layers so far left it; tells where the result will lie."""
        start = sum(len(matrix) for matrix in self._image_matrices)
        self._image_matrices.append(matrix_RW @ self._through_WW.T)
        return slice(start, start + len(matrix_RW))

    def _by_head(self, matrix: Tensor) -> Tensor:
        return matrix.reshape(self._num_heads, -1, matrix.shape[-1])

    def _single(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._like).contiguous()


class _StackedMlps:
    """MLPs of one shape side by side; each input goes through one of them."""

    def __init__(self, mlps: Any) -> None:
        layers = list(zip(*(mlp.layers for mlp in mlps), strict=True))
        self._weights = [torch.stack([linear.weight.detach() for linear in same]) for same in layers]
        self._biases = [torch.stack([linear.bias.detach() for linear in same])[..., None] for same in layers]
        self._activation: Any = mlps[0].act

    def __call__(self, inputs_nW: Tensor, which_n: Tensor) -> Tensor:
        """[n, V]."""
        hidden = inputs_nW[..., None]
        for depth, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True)):
            hidden = torch.baddbmm(bias[which_n], weight[which_n], self._activation(hidden) if depth else hidden)
        return hidden[..., 0]


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _centring(size: int) -> Tensor:
    """The symmetric matrix that takes a vector's mean from it."""
    return torch.eye(size, dtype=torch.float64) - 1 / size


def _by_position(features_cgg: Tensor) -> Tensor:
    """[c, 2 * g, 2 * g] -> [S, c, g, g]."""
    channels, side, _ = features_cgg.shape
    return F.pixel_unshuffle(features_cgg, 2).view(channels, 4, side // 2, side // 2).transpose(0, 1)


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
