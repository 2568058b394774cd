"""Random initial weights."""

from torch import nn

from nas3r.models.config import ModelConfig


def initialise(model: nn.Module, config: ModelConfig) -> None:
    """Fills a freshly built model with the random weights its config asks for."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for name, parameter in model.named_parameters():
        if name.endswith(("_token", "_tokens", "pos_embed")):
            nn.init.trunc_normal_(parameter, std=0.02)
    for module in model.modules():
        if hasattr(module, "reset_output"):
            module.reset_output()  # pyright: ignore[reportCallIssue]
