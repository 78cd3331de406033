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

_POSITIVE_POINT, _BOX_CORNERS = 1, (2, 3)
_IOU_TOKEN, _FIRST_MASK_TOKEN = 1, 2  # after the object score
_BOX_MASK = 0  # which a point never takes: its three masks come after it
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
        self._hypernetworks = _StackedMlps(self._mask_decoder.output_hypernetworks_mlps)
        self._no_memory_W1 = segmenter.no_mem_embed.view(-1, 1)
        self._preview_chunk = compiled(self._preview_plainly, wanted=is_compiled)

    @torch.no_grad()
    def prompts(self, points_N2: Tensor) -> Tensor:
        """Returns the tokens of one positive point per prompt, the same for any image: float32 [N, T, W].

        Output tokens, the point and the padding. `points_N2`: float32, (x, y) in the segmenter frame, pixels.
        """
        return self._tokens(points_N2[:, None], (_POSITIVE_POINT,))

    def _tokens(self, points_NK2: Tensor, labels_K: tuple[int, ...]) -> Tensor:
        decoder = self._mask_decoder
        labels_NK = torch.tensor(labels_K, device=points_NK2.device).expand(len(points_NK2), -1)
        sparse_NTW, _ = self._prompt_encoder(points=(points_NK2, labels_NK), boxes=None, masks=None)
        outputs = torch.cat((decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight))
        return torch.cat((outputs.expand(len(points_NK2), -1, -1), sparse_NTW), dim=1)

    @torch.no_grad()
    def prepare(self, embedding: ImageEmbedding) -> PreparedImage:
        """Projects the embedding of one image, once for all prompts on it."""
        return self._prepared(embedding, embedding.stride16_BWhw[0].flatten(1))

    def _prepared(self, embedding: ImageEmbedding, stride16_WC: Tensor) -> PreparedImage:
        image_WC = stride16_WC + self._prompt_encoder.no_mask_embed.weight.T
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
    def decode_all_masks(
        self, image: PreparedImage, prompts_NTW: Tensor, *, pred_iou_thresh: float
    ) -> tuple[Tensor, Tensor]:
        """Decodes each prompt into its three masks, which share the transformer and the upscaling.

        Returns logits float32 [n, G, G] and predicted IoU float32 [n] in [0, 1] of the masks whose predicted IoU
        exceeds the threshold, by prompt and then by mask token.
        """
        if len(prompts_NTW) == 0:
            return _nothing(prompts_NTW, self.architecture.logits_size)
        return self._in_chunks(prompts_NTW, image, lambda part: self._decode_chunk_whole(image, part, pred_iou_thresh))

    @torch.no_grad()
    def decode_boxes(self, embedding: ImageEmbedding, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes one box per prompt into its single mask, as `SAM2.decode_boxes` does.

        `embedding`: of one image. `boxes_N4`: float32 xyxy in the segmenter frame, pixels. Returns logits float32
        [N, G, G] and predicted IoU float32 [N] in [0, 1].
        """
        if len(boxes_N4) == 0:
            return _nothing(boxes_N4, self.architecture.logits_size)
        image = self._prepared(embedding, embedding.stride16_BWhw[0].flatten(1) + self._no_memory_W1)
        prompts_NTW = self._tokens(boxes_N4.view(-1, 2, 2), _BOX_CORNERS)
        return self._in_chunks(prompts_NTW, image, lambda part: self._decode_box_chunk(image, part))

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
            return self._upscale(keys, self._mask_vectors(tokens_NTW, best_N[:, None]))[:, 0], predicted_iou_N
        kept_n = torch.nonzero(predicted_iou_N > pred_iou_thresh)[:, 0]
        mask_n1V = self._mask_vectors(tokens_NTW[kept_n], best_N[kept_n, None])
        return self._upscale(keys.of_prompts(kept_n), mask_n1V)[:, 0], predicted_iou_N[kept_n]

    def _decode_chunk_whole(
        self, image: PreparedImage, prompts_NTW: Tensor, pred_iou_thresh: float
    ) -> tuple[Tensor, Tensor]:
        tokens_NTW, keys = self._transform(image, prompts_NTW)
        predicted_iou_N3 = self._predicted_iou(tokens_NTW)[:, 1:]
        kept_n = torch.nonzero(predicted_iou_N3.amax(dim=1) > pred_iou_thresh)[:, 0]
        each_n3 = torch.arange(1, 4, device=kept_n.device).expand(len(kept_n), -1)
        logits_n3GG = self._upscale(keys.of_prompts(kept_n), self._mask_vectors(tokens_NTW[kept_n], each_n3))
        is_good_n3 = predicted_iou_N3[kept_n] > pred_iou_thresh
        return logits_n3GG[is_good_n3], predicted_iou_N3[kept_n][is_good_n3]

    def _decode_box_chunk(self, image: PreparedImage, prompts_NTW: Tensor) -> tuple[Tensor, Tensor]:
        tokens_NTW, keys = self._transform(image, prompts_NTW)
        which_N1 = torch.full((len(prompts_NTW), 1), _BOX_MASK, device=prompts_NTW.device)
        logits_N1GG = self._upscale(keys, self._mask_vectors(tokens_NTW, which_N1))
        return logits_N1GG[:, 0], self._predicted_iou(tokens_NTW)[:, _BOX_MASK]

    def _preview_plainly(self, image: PreparedImage, prompts_NTW: Tensor) -> tuple[Tensor, Tensor]:
        tokens_NTW, keys = self._transform(image, prompts_NTW)
        predicted_iou_N, best_N = self._best_masks(tokens_NTW)
        mask_N1V = self._mask_vectors(tokens_NTW, best_N[:, None])
        logits_NS1C = self._upscale_position(keys, mask_N1V, *_PREVIEWED)
        side = round(logits_NS1C.shape[-1] ** 0.5)
        return logits_NS1C.view(-1, side, side), predicted_iou_N

    def _best_masks(self, tokens_NTW: Tensor) -> tuple[Tensor, Tensor]:
        """Returns each prompt's highest predicted IoU [N] and which mask, of 1 to 3, has it [N]."""
        predicted_iou_N, best_N = self._predicted_iou(tokens_NTW)[:, 1:].max(dim=1)
        return predicted_iou_N, 1 + best_N

    def _predicted_iou(self, tokens_NTW: Tensor) -> Tensor:
        """Returns the predicted IoU of each prompt's masks, [N, 4]."""
        predicted_iou_N4: Tensor = self._mask_decoder.iou_prediction_head(tokens_NTW[:, _IOU_TOKEN])
        return predicted_iou_N4

    def _mask_vectors(self, tokens_NTW: Tensor, which_NM: Tensor) -> Tensor:
        """Returns what the upscaled keys are multiplied with to give M of each prompt's masks, [N, M, V]."""
        rows_N1 = torch.arange(len(which_NM), device=which_NM.device)[:, None]
        tokens_NMW = tokens_NTW[rows_N1, _FIRST_MASK_TOKEN + which_NM]
        vectors_RV: Tensor = self._hypernetworks(tokens_NMW.flatten(0, 1), which_NM.flatten())
        return vectors_RV.view(*which_NM.shape, vectors_RV.shape[-1])

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

    def _upscale(self, keys: Keys, mask_nMV: Tensor) -> Tensor:
        """Upscales the keys twice and takes M masks of each prompt from them, logits [n, M, G, G].

        One position of the first upscaling after the other, so that what lies between fits into a CPU's cache.
        """
        (num_kept, num_cells), num_masks = keys.scale_NC.shape, mask_nMV.shape[1]
        logits_nSSMC = mask_nMV.new_empty(num_kept, 4, 4, num_masks, num_cells)
        for position in range(4):
            logits_nSSMC[:, position] = self._upscale_position(keys, mask_nMV, position, _ALL_POSITIONS)
        side = round(num_cells**0.5)
        by_bit = logits_nSSMC.view(
            num_kept, 2, 2, 2, 2, num_masks, side, side
        )  # y coarse, x coarse, fine y, x, M, y, x
        return by_bit.permute(0, 5, 6, 1, 3, 7, 2, 4).reshape(num_kept, num_masks, 4 * side, 4 * side)

    def _upscale_position(self, keys: Keys, mask_nMV: Tensor, position: int, fine: slice) -> Tensor:
        """Returns logits at one position of the first upscaling and the given ones of the second, [n, S, M, C]."""
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
        second_nSVC = second_activation(second_nXC).unflatten(1, (-1, mask_nMV.shape[2]))
        logits_nSMC: Tensor = mask_nMV[:, None] @ second_nSVC
        return logits_nSMC


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
