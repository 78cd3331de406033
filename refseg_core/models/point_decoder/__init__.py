"""Point prompts on the exact path: what `SAM2.decode_points` answers, for a fraction of the work.

The plain decoder gives every prompt its own copy of the image, the keys (C x W numbers), and rewrites it a dozen
times. Here no prompt has keys. It has only T tokens, so what a layer adds to the key of a cell is a mixture of H * T
vectors; and a layer norm is linear but for one factor per cell. After any layer, therefore,

    keys[c] = scale[c] * (image[c] @ through) + rows[:, c] @ basis + bias

with `through` (W x W) and `bias` (W) constants of the model, and of the prompt only `scale` (C), `rows` (how much each
cell attended to each token, times scale; K x C) and `basis` (K x W). Everything that is read of keys is linear in
them, or the length that a layer norm divides by:

- what is read of `image` is projected once per image, for all prompts;
- what is read of the rest goes through H * T rows per layer, not through W channels;
- predicted IoU needs the tokens only, so masks are upscaled after the threshold, and of each prompt only the best.

Exact but for the rounding of float32. A prompt takes 0.54 GFLOP, and 0.56 more if it is kept, where the plain decoder
takes 3.6, and a third of the memory (method, section 10.3, plus the form of the keys above).

`folding.py` makes the constants of a model, `keys.py` is the keys of prompts in that form, and `decoder.py` decodes.

Shapes, in all three: N prompts, n of them kept, T tokens of a prompt, H heads, D channels of a head, I = H * D, W
width, C = h * h cells of the embedding, A = H * T rows of a layer, K rows of the layers so far, R numbers read of a
cell of the image, S = 4 positions in a cell after an upscaling by 2, in the order (y, x), U channels after the first
upscaling, V after the second, X = S * V, G = 4 * h. Heads come before prompts ([H, N * T, D]) where the other factor
is the image's, which all prompts share.
"""

from refseg_core.models.point_decoder.decoder import VERSION, PointDecoder
from refseg_core.models.point_decoder.keys import PreparedImage

__all__ = ["VERSION", "PointDecoder", "PreparedImage"]
