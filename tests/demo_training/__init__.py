"""Trains the demo's two toy models on drawn scenes, from random parameters; no part of the installed package.

Settings and a seed go in, a state dict comes out; `__main__.py` is the command line and saves it. The models are the
real ones at small dimensions, and they learn what the method needs: the segmenter to answer one point or one box with
the object there (`segmenter.py`, with `prompts.py` and `mask_losses.py`), the encoder to recognize a category from one
cropped reference (`encoder.py`). `settings.py` holds the settings, `loop.py` the optimization that both share,
`views.py` the scenes as both see them.

Shapes: B images, S segmenter frame, L mask targets' side (S / 2), G mask logits' side, N prompts or regions, M masks
of a prompt, K categories of an episode or points of a prompt, P cells or patches, C channels, E encoder frame.
"""

from tests.demo_training.encoder import encoder_losses, train_encoder
from tests.demo_training.loop import Report
from tests.demo_training.segmenter import pointing_losses, segmenter_losses, train_segmenter
from tests.demo_training.settings import EncoderTraining, OptimizerSettings, SegmenterTraining

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
