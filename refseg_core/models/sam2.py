"""SAM2, a segmenter: the only door to the module `sam2`.

Its image encoder, prompt encoder and mask decoder are called directly, never its predictors: those add
`no_mem_embed` to the embedding and filter masks, which changes the method's numbers (quirk Q1; method,
section 3.4).

Shapes: B images, S segmenter frame side (px), G mask logits side (S / 4), N prompts, W width of the decoder.
"""

import math
from collections.abc import Mapping

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn

from refseg_core.models.architectures import SegmenterArchitecture
from refseg_core.models.checkpoints import has_shapes, load_state
from refseg_core.models.point_decoder import PointDecoder
from refseg_core.models.preprocessing import normalize
from refseg_core.models.protocols import ImageEmbedding

VERSION = 1  # of embeddings and decoded masks

# What a video needs and an image does not: may be absent from our modules (extra in the file).
_VIDEO_PARAMETERS = (
    "memory_attention.",
    "memory_encoder.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "no_obj_embed_spatial",
    "mask_downsample.",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
)
# What our modules hold and images never reach: may be absent from the file.
_UNUSED_PARAMETERS = (
    "sam_mask_decoder.pred_obj_score_head.",
    "sam_prompt_encoder.mask_downscaling.",
)
_POINT, _BOX_CORNERS = 1, (2, 3)


class SAM2(nn.Module):
    """SAM2 for images: embeds images, decodes point and box prompts into mask logits."""

    def __init__(self, architecture: SegmenterArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.image_encoder = _image_encoder(architecture)
        self.sam_prompt_encoder = _prompt_encoder(architecture)
        self.sam_mask_decoder = _mask_decoder(architecture)
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, architecture.width))

    @property
    def device(self) -> torch.device:
        """The device the parameters lie on."""
        return self.no_mem_embed.device

    def embed(self, images_B3SS: Tensor) -> ImageEmbedding:
        """Embeds images; float32 [B, 3, S, S], RGB in [0, 1], in the segmenter frame; normalized here."""
        pyramid: list[Tensor] = self.image_encoder(normalize(images_B3SS))["backbone_fpn"]
        stride4, stride8, stride16 = pyramid
        decoder = self.sam_mask_decoder
        return ImageEmbedding(stride16, decoder.conv_s1(stride8), decoder.conv_s0(stride4))

    def prompts(self, points_N2: Tensor) -> Tensor:
        """Returns the points themselves: here they are encoded for each image again."""
        return points_N2

    def prepare(self, embedding: ImageEmbedding) -> ImageEmbedding:
        """Returns the embedding itself: here every prompt is decoded on its own."""
        return embedding

    def decode_points(
        self, embedding: ImageEmbedding, points_N2: Tensor, *, pred_iou_thresh: float | None
    ) -> tuple[Tensor, Tensor]:
        """Decodes one positive point per prompt into the best of its three masks. Method, section 6.3.

        `points_N2`: float32, (x, y) in the segmenter frame, pixels. `embedding`: of one image.
        Returns logits float32 [n, G, G] and predicted IoU float32 [n] in [0, 1] of the prompts whose predicted IoU
        exceeds the threshold (all where it is None), in their order.
        """
        labels_N1 = torch.full((len(points_N2), 1), _POINT, device=points_N2.device)
        logits_N4GG, predicted_iou_N4 = self._decode(embedding, points_N2[:, None], labels_N1)
        predicted_iou_N, best_N = predicted_iou_N4[:, 1:].max(dim=1)
        rows = torch.nonzero(predicted_iou_N > (-math.inf if pred_iou_thresh is None else pred_iou_thresh))[:, 0]
        return logits_N4GG[rows, best_N[rows] + 1], predicted_iou_N[rows]

    def decode_boxes(self, embedding: ImageEmbedding, boxes_N4: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes one box per prompt into its single mask (mask token 0). Method, section 2.

        `boxes_N4`: float32 xyxy in the segmenter frame, pixels. The embedding gets `no_mem_embed` added here, as
        SAM2 was trained to see for prompts on still images; that of the point grid does not (quirk Q1).
        Returns logits float32 [N, G, G] and predicted IoU float32 [N] in [0, 1].
        """
        labels_N2 = torch.tensor(_BOX_CORNERS, device=boxes_N4.device).expand(len(boxes_N4), 2)
        logits_N4GG, predicted_iou_N4 = self._decode(self._as_trained(embedding), boxes_N4.view(-1, 2, 2), labels_N2)
        return logits_N4GG[:, 0], predicted_iou_N4[:, 0]

    def decode_clicks(self, embedding: ImageEmbedding, points_K2: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes positive points (x, y) that lie on one instance, float32 in the segmenter frame, into its mask.

        One point leaves open how much is meant: of its three masks the one of the largest predicted IoU is taken;
        several points have mask 0, as SAM2 was trained. Returns logits float32 [G, G] and predicted IoU.
        """
        labels_1K = torch.full((1, len(points_K2)), _POINT, device=points_K2.device)
        logits_14GG, predicted_iou_14 = self._decode(self._as_trained(embedding), points_K2[None], labels_1K)
        best = 1 + int(predicted_iou_14[0, 1:].argmax()) if len(points_K2) == 1 else 0
        return logits_14GG[0, best], predicted_iou_14[0, best]

    def point_decoder(self, *, is_compiled: bool = False) -> PointDecoder:
        """Returns what decodes grids of points several times quicker; `is_compiled`: its previews, for this machine."""
        return PointDecoder(self, is_compiled=is_compiled)

    def _as_trained(self, embedding: ImageEmbedding) -> ImageEmbedding:
        """The embedding as SAM2 saw still images in training."""
        with_memory = embedding.stride16_BWhw + self.no_mem_embed.view(1, -1, 1, 1)
        return ImageEmbedding(with_memory, embedding.stride8_Bchw, embedding.stride4_Bchw)

    def _decode(self, embedding: ImageEmbedding, coordinates_NK2: Tensor, labels_NK: Tensor) -> tuple[Tensor, Tensor]:
        sparse, dense = self.sam_prompt_encoder(points=(coordinates_NK2, labels_NK), boxes=None, masks=None)
        logits_N4GG, predicted_iou_N4, _, _ = self.sam_mask_decoder.predict_masks(
            image_embeddings=embedding.stride16_BWhw,
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=True,
            high_res_features=[embedding.stride4_Bchw, embedding.stride8_Bchw],
        )
        return logits_N4GG, predicted_iou_N4


def _image_encoder(architecture: SegmenterArchitecture) -> ImageEncoder:
    trunk = Hiera(
        embed_dim=architecture.embed_dim,
        num_heads=architecture.num_heads,
        stages=architecture.stages,
        global_att_blocks=architecture.global_attention_blocks,
        window_pos_embed_bkg_spatial_size=architecture.position_grid,
        window_spec=architecture.window_sizes,
    )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(num_pos_feats=architecture.width, temperature=10000),
        d_model=architecture.width,
        backbone_channel_list=list(reversed(architecture.stage_widths)),
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    return ImageEncoder(trunk=trunk, neck=neck, scalp=1)


def _prompt_encoder(architecture: SegmenterArchitecture) -> PromptEncoder:
    cells, pixels = architecture.embedding_size, architecture.image_size
    return PromptEncoder(
        embed_dim=architecture.width,
        image_embedding_size=(cells, cells),
        input_image_size=(pixels, pixels),
        mask_in_chans=16,
    )


def _mask_decoder(architecture: SegmenterArchitecture) -> MaskDecoder:
    transformer = TwoWayTransformer(depth=2, embedding_dim=architecture.width, mlp_dim=2048, num_heads=8)
    return MaskDecoder(
        transformer_dim=architecture.width,
        transformer=transformer,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
    )


def build(architecture: SegmenterArchitecture, state: Mapping[str, Tensor] | None, *, model: str) -> SAM2:
    """Builds a segmenter in evaluation mode from an official checkpoint's state dict.

    Raises WeightsError naming the parameters that are missing, unexpected or of another shape; only what images
    do not need (the video memory, mask prompts, the object score) may be missing or extra.
    """
    segmenter = SAM2(architecture)
    if state is not None:
        load_state(segmenter, state, model=model, may_be_missing=_UNUSED_PARAMETERS, may_be_extra=_VIDEO_PARAMETERS)
    return segmenter.eval().requires_grad_(False)


def fits(architecture: SegmenterArchitecture, state: Mapping[str, Tensor]) -> bool:
    """Returns whether widths, depth and position grid of a state dict are the architecture's."""
    first, depth = architecture.embed_dim, sum(architecture.stages)
    trunk = "image_encoder.trunk"
    telltale: dict[str, tuple[int, ...] | None] = {
        f"{trunk}.pos_embed": (1, first, *architecture.position_grid),
        f"{trunk}.blocks.{depth - 1}.norm2.weight": (architecture.stage_widths[3],),
        f"{trunk}.blocks.{depth}.norm2.weight": None,
        "no_mem_embed": (1, 1, architecture.width),
    }
    return has_shapes(state, telltale)
