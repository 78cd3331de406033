"""From points to masks: prompt tokens, the two-way transformer, predicted IoU, and masks of the prompts that are kept.

Follows sam2's mask decoder line by line, with `Keys` where that has the keys themselves. Shapes as in the package.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from refseg_core.models.acceleration import map_on_threads, products
from refseg_core.models.architectures import SegmenterArchitecture
from refseg_core.models.compilation import compiled
from refseg_core.models.point_decoder.folding import Folding
from refseg_core.models.point_decoder.keys import Keys, PreparedImage
from refseg_core.models.protocols import ImageEmbedding

if TYPE_CHECKING:
    from refseg_core.models.sam2 import SAM2

VERSION = 1  # of decoded masks, and how the point decoder rounds

_POSITIVE_POINT = 1
_IOU_TOKEN, _FIRST_MULTIMASK_TOKEN = 1, 3  # after the object score, and mask 0, which a point never takes
_ALL_POSITIONS = slice(0, 4)
_PREVIEWED = (0, slice(3, 4))  # the second pixel of a cell's four, both ways: (0, 0) of the first, (1, 1) of the second
_CELLS_PER_CHUNK = 4_096  # of prompts decoded together on a CPU: with more, the chunk falls out of its caches


class PointDecoder:
    """Decodes point prompts as the segmenter does, with its parameters as they are when this is built.

    `is_compiled`: previews are compiled for this machine; everything else decides by what it computes.
    """

    def __init__(self, segmenter: "SAM2", *, is_compiled: bool = False) -> None:
        self.architecture: SegmenterArchitecture = segmenter.architecture
        self.device = segmenter.device
        self._prompt_encoder: Any = segmenter.sam_prompt_encoder
        self._mask_decoder: Any = segmenter.sam_mask_decoder
        transformer = self._mask_decoder.transformer
        folding = Folding(self._prompt_encoder.get_dense_pe(), transformer.num_heads)
        self._layers = [folding.layer(layer) for layer in transformer.layers]
        self._final = folding.token_to_image(transformer.final_attn_token_to_image)
        self._upscaling = folding.upscaling(self._mask_decoder.output_upscaling)
        self._image_RW = folding.image_matrix()
        self._hypernetworks = _StackedMlps(self._mask_decoder.output_hypernetworks_mlps[1:])
        self._preview_chunk = compiled(self._preview_plainly, wanted=is_compiled)

    @torch.no_grad()
    def prompts(self, points_N2: Tensor) -> Tensor:
        """Returns the tokens of one positive point per prompt, the same for any image: float32 [N, T, W].

        Output tokens, the point and the padding. `points_N2`: float32, (x, y) in the segmenter frame, pixels.
        """
        decoder = self._mask_decoder
        labels_N1 = torch.full((len(points_N2), 1), _POSITIVE_POINT, device=points_N2.device)
        sparse_NTW, _ = self._prompt_encoder(points=(points_N2[:, None], labels_N1), boxes=None, masks=None)
        outputs = torch.cat((decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight))
        return torch.cat((outputs.expand(len(points_N2), -1, -1), sparse_NTW), dim=1)

    @torch.no_grad()
    def prepare(self, embedding: ImageEmbedding) -> PreparedImage:
        """Projects the embedding of one image, once for all prompts on it."""
        image_WC = embedding.stride16_BWhw[0].flatten(1) + self._prompt_encoder.no_mask_embed.weight.T
        stride8_SUC = _by_position(embedding.stride8_Bchw[0]).flatten(2)
        stride4_SXC = _by_position(_by_position(embedding.stride4_Bchw[0]).flatten(0, 1)).flatten(2)
        return PreparedImage(
            products(self._image_RW[None], image_WC[None])[0],
            tuple((layer.update.center_WW @ image_WC).square().sum(dim=0) for layer in self._layers),
            self._upscaling.center_UU @ stride8_SUC + self._upscaling.first_bias_SU1,
            stride4_SXC + self._upscaling.second_bias_X1,
        )

    @torch.no_grad()
    def decode_points(
        self, image: PreparedImage, prompts_NTW: Tensor, *, pred_iou_thresh: float | None
    ) -> tuple[Tensor, Tensor]:
        """Decodes each prompt into the best of its three masks. Method, section 6.3.

        Returns logits float32 [n, G, G] and predicted IoU float32 [n] in [0, 1] of the prompts whose predicted IoU
        exceeds the threshold, in their order; None: of all, which spares a GPU the synchronization.
        """
        if len(prompts_NTW) == 0:
            return _nothing(prompts_NTW, self.architecture.logits_size)
        return self._in_chunks(prompts_NTW, image, lambda part: self._decode_chunk(image, part, pred_iou_thresh))

    @torch.no_grad()
    def preview_points(self, image: PreparedImage, prompts_NTW: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes each prompt into every fourth pixel, both ways, of the best of its three masks.

        An eighth of the work of upscaling. Returns logits float32 [N, h, h] and predicted IoU float32 [N] of all
        prompts.
        """
        if len(prompts_NTW) == 0:
            return _nothing(prompts_NTW, self.architecture.embedding_size)
        return self._in_chunks(prompts_NTW, image, lambda part: self._preview_chunk(image, part))

    def _in_chunks(
        self, prompts_NTW: Tensor, image: PreparedImage, decode: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        on_cpu = prompts_NTW.device.type == "cpu"
        chunk = max(1, _CELLS_PER_CHUNK // image.projected_RC.shape[1]) if on_cpu else max(1, len(prompts_NTW))
        decoded = map_on_threads(decode, prompts_NTW.split(chunk))
        return torch.cat([logits for logits, _ in decoded]), torch.cat([iou for _, iou in decoded])

    def _decode_chunk(
        self, image: PreparedImage, prompts_NTW: Tensor, pred_iou_thresh: float | None
    ) -> tuple[Tensor, Tensor]:
        tokens_NTW, keys = self._transform(image, prompts_NTW)
        predicted_iou_N, best_N = self._best_masks(tokens_NTW)
        if pred_iou_thresh is None:
            return self._upscale(keys, self._mask_vectors(tokens_NTW, best_N)), predicted_iou_N
        kept_n = torch.nonzero(predicted_iou_N > pred_iou_thresh)[:, 0]
        mask_nV = self._mask_vectors(tokens_NTW[kept_n], best_N[kept_n])
        return self._upscale(keys.of_prompts(kept_n), mask_nV), predicted_iou_N[kept_n]

    def _preview_plainly(self, image: PreparedImage, prompts_NTW: Tensor) -> tuple[Tensor, Tensor]:
        tokens_NTW, keys = self._transform(image, prompts_NTW)
        predicted_iou_N, best_N = self._best_masks(tokens_NTW)
        mask_NV = self._mask_vectors(tokens_NTW, best_N)
        logits_NSC = self._upscale_position(keys, mask_NV, *_PREVIEWED)
        side = round(logits_NSC.shape[-1] ** 0.5)
        return logits_NSC.view(-1, side, side), predicted_iou_N

    def _best_masks(self, tokens_NTW: Tensor) -> tuple[Tensor, Tensor]:
        """Returns each prompt's highest predicted IoU [N] and which of the three masks has it [N]."""
        predicted_iou_N4 = self._mask_decoder.iou_prediction_head(tokens_NTW[:, _IOU_TOKEN])
        predicted_iou_N, best_N = predicted_iou_N4[:, 1:].max(dim=1)
        return predicted_iou_N, best_N

    def _mask_vectors(self, tokens_NTW: Tensor, best_N: Tensor) -> Tensor:
        """Returns what the upscaled keys are multiplied with to give each prompt's mask, [N, V]."""
        rows = torch.arange(len(best_N), device=best_N.device)
        return self._hypernetworks(tokens_NTW[rows, _FIRST_MULTIMASK_TOKEN + best_N], best_N)

    def _transform(self, image: PreparedImage, prompts_NTW: Tensor) -> tuple[Tensor, Keys]:
        """Applies the two-way transformer; returns tokens [N, T, W] and keys."""
        tokens_NTW, keys = prompts_NTW, Keys.of_image(image, prompts_NTW)
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

    def _upscale(self, keys: Keys, mask_nV: Tensor) -> Tensor:
        """Upscales the keys twice and takes each prompt's mask of them, logits [n, G, G].

        One position of the first upscaling after the other, so that what lies between fits into a CPU's cache.
        """
        num_kept, num_cells = keys.scale_NC.shape
        logits_nSSC = mask_nV.new_empty(num_kept, 4, 4, num_cells)
        for position in range(4):
            logits_nSSC[:, position] = self._upscale_position(keys, mask_nV, position, _ALL_POSITIONS)
        side = round(num_cells**0.5)
        by_bit = logits_nSSC.view(num_kept, 2, 2, 2, 2, side, side)  # y coarse, x coarse, y fine, x fine, y, x
        return by_bit.permute(0, 5, 1, 3, 6, 2, 4).reshape(num_kept, 4 * side, 4 * side)

    def _upscale_position(self, keys: Keys, mask_nV: Tensor, position: int, fine: slice) -> Tensor:
        """Returns logits at one position of the first upscaling and the given ones of the second, [n, S, C]."""
        weights, (_, norm, first_activation, _, second_activation) = (
            self._upscaling,
            self._mask_decoder.output_upscaling,
        )
        num_kept, num_cells = keys.scale_NC.shape
        image_UC = keys.image.projected_RC[weights.image_rows].view(4, -1, num_cells)[position]
        basis_nUK = weights.first_SUW[position] @ keys.basis_NKW.transpose(1, 2)
        first_nUC = products(basis_nUK, keys.rows_NKC, keys.image.stride8_SUC[position])
        first_nUC.addcmul_(image_UC, keys.scale_NC[:, None])
        first_nUC.mul_(first_nUC.square().mean(dim=1, keepdim=True).add_(norm.eps).rsqrt_())
        first_nUC.mul_(norm.weight[:, None]).add_(norm.bias[:, None])
        second_XU = weights.second_XU.unflatten(0, (4, -1))[fine].flatten(0, 1)
        stride4_XC = keys.image.stride4_SXC[position].unflatten(0, (4, -1))[fine].flatten(0, 1)
        second_nXC = products(second_XU.expand(num_kept, -1, -1), first_activation(first_nUC), stride4_XC)
        second_nSVC = second_activation(second_nXC).unflatten(1, (-1, mask_nV.shape[1]))
        logits_nSC: Tensor = (mask_nV[:, None, None] @ second_nSVC)[:, :, 0]
        return logits_nSC


def _nothing(prompts_0TW: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Returns logits and predicted IoU of no prompts."""
    return prompts_0TW.new_empty(0, side, side), prompts_0TW.new_empty(0)


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


def _by_position(features_cgg: Tensor) -> Tensor:
    """[c, 2 * g, 2 * g] -> [S, c, g, g]."""
    channels, side, _ = features_cgg.shape
    return F.pixel_unshuffle(features_cgg, 2).view(channels, 4, side // 2, side // 2).transpose(0, 1)
