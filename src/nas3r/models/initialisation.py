"""Random initial weights."""

import copy

from torch import nn

from nas3r.models.config import ModelConfig
from nas3r.models.cross import CrossDecoder
from nas3r.models.heads.camera import MlpCameraHead, TrunkCameraHead


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Fills a freshly built model with the random weights its config asks for.

    Camera heads always start at the identity pose with a focal length equal to the image size. A model on the
    meta device, about to be filled from a file, is left alone.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        return
    {"vit": _initialise_vit, "vggt": _initialise_vggt, "croco": _initialise_croco}[config.initialisation](
        model
    )
    for module in model.modules():
        of_camera = isinstance(module, MlpCameraHead | TrunkCameraHead)
        if hasattr(module, "reset_output") and (config.initialisation == "vit" or of_camera):
            module.reset_output()  # pyright: ignore[reportCallIssue]


def _initialise_vit(model: nn.Module) -> None:
    """Ours: truncated normal linear layers and tokens."""
    _truncated_normal_linears(model)
    for name, parameter in model.named_parameters():
        if name.endswith(("_token", "_tokens", "pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)


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


def _truncated_normal_linears(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
