"""Trains the embedded demo's two toy models on drawn scenes, from random parameters.

Pure: settings and a seed in, a state dict out; saving is the task's matter. The models are the real ones at small
dimensions, and they learn exactly what the method asks of them: the segmenter to answer one point or one box with
the object there (`segmenter.py`, with `prompts.py` and `mask_losses.py`), the encoder to tell a category from one
cropped reference (`encoder.py`). `settings.py` is what can be set, `loop.py` what both have in common, `views.py` how
they see scenes.

Shapes: B images, S segmenter frame, L mask targets' side (S / 2), G mask logits' side, N prompts or regions, M masks
of a prompt, K categories of an episode or points of a prompt, P cells or patches, C channels, E encoder frame.
"""

from refseg_core.demo.training.encoder import encoder_losses, train_encoder
from refseg_core.demo.training.loop import Report
from refseg_core.demo.training.segmenter import pointing_losses, segmenter_losses, train_segmenter
from refseg_core.demo.training.settings import EncoderTraining, OptimizerSettings, SegmenterTraining

__all__ = [
    "EncoderTraining",
    "OptimizerSettings",
    "Report",
    "SegmenterTraining",
    "encoder_losses",
    "pointing_losses",
    "segmenter_losses",
    "train_encoder",
    "train_segmenter",
]
