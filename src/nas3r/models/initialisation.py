"""Random initial weights."""

import copy

from torch import nn

from nas3r.layers.attention import Block
from nas3r.models.alternating import AlternatingDecoder
from nas3r.models.config import ModelConfig
from nas3r.models.cross import CrossDecoder
from nas3r.models.heads.camera import MlpCameraHead, TrunkCameraHead

_SHARPNESS = 2.0  # factor of the queries where attention starts by comparing
_COMMON_VALUE = 3.0  # part that all values have in common then
_PLACE = 0.5  # root mean square of what a patch is told of its place, whose features have 1


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Fills a freshly built model with the random weights its config asks for.

    Camera heads always start at the identity pose with a focal length equal to the image size. A model on the
    meta device, about to be filled from a file, is left alone.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    if config.initialisation == "vit":
        _initialise_vit(model, config.initial_std)
    else:
        {"vggt": _initialise_vggt, "croco": _initialise_croco}[config.initialisation](model)
    for module in model.modules():
        of_camera = isinstance(module, MlpCameraHead | TrunkCameraHead)
        if hasattr(module, "reset_output") and (config.initialisation == "vit" or of_camera):
            module.reset_output()  # pyright: ignore[reportCallIssue]


def _initialise_vit(model: nn.Module, std: float) -> None:
    """Ours: truncated normal linear layers and tokens."""
    _truncated_normal_linears(model, std)
    for name, parameter in model.named_parameters():
        if name.endswith(("_token", "_tokens", "pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)
    decoder = model.get_submodule("decoder")
    if isinstance(decoder, AlternatingDecoder):
        if decoder.config.start == "alike":
            _compare(decoder)
        if decoder.place is not None:
            waves = decoder.place.in_features / 2  # what their squares add up to, at every place
            nn.init.normal_(decoder.place.weight, std=_PLACE / waves**0.5)


def _compare(decoder: AlternatingDecoder) -> None:
    """Attention over views starts by comparing patches.

    Queries and keys are the same orthogonal map of the tokens, so that a patch looks at those that resemble
    it. Values have a part in common, which rotary embedding turns by the distance that it comes from. So the
    mean over an image says from the first step on which way the image moved. From random weights training
    has to find both halves of this before either is of use, and rests on the mean of the contexts meanwhile.
    """
    for block in decoder.global_blocks:
        assert isinstance(block, Block)
        attention = block.attn
        assert isinstance(attention.q_norm, nn.LayerNorm)
        width = attention.proj.in_features
        query, key, _ = attention.qkv.weight.data.split(width)
        nn.init.orthogonal_(query)
        key.copy_(query)
        attention.qkv.bias.data[2 * width :] = _COMMON_VALUE
        nn.init.constant_(attention.q_norm.weight, _SHARPNESS)


def _initialise_vggt(model: nn.Module) -> None:
    """As the official random runs of the "vggt" family: torch's defaults beside encoder and tokens."""
    _truncated_normal_linears(model.get_submodule("encoder"))
    for name, parameter in model.named_parameters():
        if name.endswith("pos_embed"):
            nn.init.trunc_normal_(parameter, std=0.02)
        elif name.endswith(("_token", "_tokens")):
            nn.init.normal_(parameter, std=1e-6)


def _initialise_croco(model: nn.Module) -> None:
    """As the official random runs of the "mast3r" family; both decoders start equal."""
    for part in ("encoder", "decoder"):
        for module in model.get_submodule(part).modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    decoder = model.get_submodule("decoder")
    assert isinstance(decoder, CrossDecoder)
    nn.init.normal_(decoder.camera_token)
    decoder.other_blocks = copy.deepcopy(decoder.first_blocks)


def _truncated_normal_linears(model: nn.Module, std: float = 0.02) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
