"""How heads are run on decoded views."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas3r.models.decoder import Decoded
from nas3r.models.heads.first_view import FirstAndOthers
from nas3r.models.precision import full_precision

_DENSE_VIEWS_AT_ONCE = 8


def read_cameras(head: nn.Module, decoded: Decoded, *, has_first: bool = True) -> Float[Tensor, "b v e"]:
    """Camera encodings, of views of which the first is the scene's first view, or of targets."""
    options = {"has_first": has_first} if isinstance(head, FirstAndOthers) else {}
    with full_precision(decoded.camera):
        return head(decoded.camera.float(), decoded.pooled.float(), **options)


def read_maps(
    head: nn.Module, decoded: Decoded, images: Float[Tensor, "b v 3 h w"]
) -> Float[Tensor, "b v c h w"]:
    """Output of a dense head; without gradients a few views at a time, which bounds the memory.

    Args:
        head: A dense head.
        decoded: The context views.
        images: What the head's image branch sees, if it has one.
    """
    views = images.shape[1]
    chunk = views if torch.is_grad_enabled() else _DENSE_VIEWS_AT_ONCE
    parts = []
    for start in range(0, views, chunk):
        part = slice(start, start + chunk)
        options = {"has_first": start == 0} if isinstance(head, FirstAndOthers) else {}
        parts.append(head([x[:, part].float() for x in decoded.levels], images[:, part], **options))
    return torch.cat(parts, 1)
