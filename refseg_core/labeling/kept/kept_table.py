"""What is kept of an image as a row of a table, and back.

Shapes as in `kept_image.py`; B bytes of a packed column.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from refseg_core.labeling.kept.crop_means import CropMeans
from refseg_core.labeling.kept.edge_logits import EdgeValues, narrowed, older_reach_of, reach_of
from refseg_core.labeling.kept.kept_image import KeptImage, KeptLooks, KeptMasks, KeptRefined
from refseg_core.masks.bitmasks import PackedMasks
from refseg_core.tables import ImageProposals

_BITS = 8  # of a byte
_EDGE_LAYOUT = 1  # of the rows that are written
_Values = npt.NDArray[Any]


def to_row(kept: KeptImage) -> ImageProposals:
    """Returns a table of one row."""
    masks, looks, refined = kept.masks, kept.looks, kept.refined
    return ImageProposals.row(
        height=kept.size[0],
        width=kept.size[1],
        logits_size=masks.masks.height,
        num_channels=kept.features_PC.shape[1],
        feature=_flat(kept.features_PC),
        point=_flat(kept.asked_n),
        mask_key=_flat(masks.key_N),
        mask_predicted_iou=_flat(masks.predicted_iou_N),
        mask_descriptor=_flat(masks.descriptor_NC),
        mask_extent=_flat(masks.box_N4),
        mask_bits=_flat(masks.masks.columns_NWB).tobytes(),
        num_edge_logits=_flat(masks.num_edge_N),
        is_half=masks.edge_E.dtype == torch.float16,
        edge_logits=_by_bytes(_flat(masks.edge_E)),
        look_key=_flat(looks.key_n),
        look_inside=_flat(looks.means.inside_nC),
        look_outside=_flat(looks.means.outside_nC),
        look_has_mask=_flat(looks.means.has_mask_n),
        refined_key=_flat(refined.key_n),
        refined_bits=_flat(refined.masks.columns_NWB).tobytes(),
        edge_layout=_EDGE_LAYOUT,
    )


def from_row(table: ImageProposals) -> KeptImage:
    """Returns what the only row of a table holds."""
    height, width, side, channels = (
        int(column[0]) for column in (table.height, table.width, table.logits_size, table.num_channels)
    )
    packed = _packed(table.mask_bits[0], side, side)
    masks = KeptMasks(
        _tensor(table.mask_key[0], np.int64),
        _tensor(table.mask_predicted_iou[0]),
        _tensor(table.mask_descriptor[0]).view(-1, channels),
        _tensor(table.mask_extent[0], np.int64).view(-1, 4),
        packed,
        *_edge_values(table, packed, (height, width)),
    )
    inside_nC, outside_nC = (
        _tensor(column[0]).view(-1, channels) for column in (table.look_inside, table.look_outside)
    )
    return KeptImage(
        (height, width),
        _tensor(table.feature[0]).view(-1, channels),
        _tensor(table.point[0], np.int64),
        masks,
        KeptLooks(
            _tensor(table.look_key[0], np.int64), CropMeans(inside_nC, outside_nC, _tensor(table.look_has_mask[0]))
        ),
        KeptRefined(_tensor(table.refined_key[0], np.int64), _packed(table.refined_bits[0], height, width)),
    )


def _edge_values(table: ImageProposals, masks: PackedMasks, size: tuple[int, int]) -> EdgeValues:
    dtype, data = np.dtype(np.float16 if table.is_half[0] else np.float32), table.edge_logits[0]
    if table.edge_layout[0] == _EDGE_LAYOUT:
        return EdgeValues(_tensor(_from_bytes(data, dtype)), _tensor(table.num_edge_logits[0], np.int64))
    by_row_E = _tensor(np.frombuffer(data, dtype=dtype))
    return narrowed(masks, by_row_E, older_reach_of(masks.height, size), reach_of(masks.height, size))


def _by_bytes(values: _Values) -> bytes:
    """Returns the first byte of all values, then the second, and so on: alike ones together, which compress better."""
    return values.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def _from_bytes(data: bytes, dtype: np.dtype[Any]) -> _Values:
    """Returns the values of `_by_bytes`."""
    by_value = np.ascontiguousarray(np.frombuffer(data, dtype=np.uint8).reshape(dtype.itemsize, -1).T)
    return by_value.reshape(-1).view(dtype)


def _flat(values: Tensor) -> _Values:
    return values.numpy().reshape(-1)


def _tensor(values: _Values, dtype: type[np.int64] | None = None) -> Tensor:
    """Returns a copy, since what a table holds is read-only."""
    return torch.from_numpy(np.array(values, dtype=dtype))


def _packed(data: bytes, height: int, width: int) -> PackedMasks:
    columns_NWB = _tensor(np.frombuffer(data, dtype=np.uint8)).view(-1, width, -(-height // _BITS))
    return PackedMasks(columns_NWB, height)
