"""LPIPS with the VGG16 trunk, in plain torch.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018,
eq. 1; weights v0.1. Two files are needed: the usual ImageNet VGG16 checkpoint (classifier weights in it are
ignored) and the five linear heads, which the torchmetrics package contains.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WEIGHTS_VARIABLE = "NAS3R_LPIPS_WEIGHTS"
HEADS_VARIABLE = "NAS3R_LPIPS_HEADS"

# Index of each 3x3 convolution in the checkpoint's `features`, by stage; a 2x2 max pooling stands between
# stages, a ReLU follows each convolution, and a stage's last ReLU is compared.
STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
CHANNELS = (64, 128, 256, 512, 512)
# ImageNet mean and standard deviation, for images in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-8


class LPIPS(nn.Module):
    """Perceptual distance of images in [0, 1]; frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *(channels for stage, channels in zip(STAGES, CHANNELS) for _ in stage)]
        indices = [index for stage in STAGES for index in stage]
        self.convolutions = nn.ModuleDict(
            {
                str(i): nn.Conv2d(w_in, w_out, 3, padding=1)
                for i, w_in, w_out in zip(indices, widths, widths[1:])
            }
        )
        self.heads = nn.ParameterList(torch.zeros(1, channels, 1, 1) for channels in CHANNELS)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def features(self, images: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n c h2 w2"]]:
        """Channel-normalised activations of the five stages."""
        x = (2 * images - 1 - self.shift) / self.scale
        out = []
        for number, stage in enumerate(STAGES):
            x = x if number == 0 else F.max_pool2d(x, 2)
            for index in stage:
                x = F.relu(self.convolutions[str(index)](x))
            out.append(x * torch.rsqrt((x * x).sum(1, keepdim=True) + EPSILON))
        return out

    def forward(self, a: Float[Tensor, "n 3 h w"], b: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
        """Distance of each pair of images.

        Raises:
            ValueError: If shapes differ or a side is shorter than the 16 pixels the trunk pools to one.
        """
        if a.shape != b.shape or a.ndim != 4 or min(a.shape[-2:]) < 16:
            raise ValueError(
                f"LPIPS: expected two equal shapes [n, 3, h >= 16, w >= 16], got {list(a.shape)} "
                f"and {list(b.shape)}"
            )
        pairs = zip(self.heads, self.features(a), self.features(b))
        return torch.stack([((fa - fb) ** 2 * head).sum(1).mean((1, 2)) for head, fa, fb in pairs]).sum(0)


def _packaged_heads() -> Path | None:
    spec = find_spec("torchmetrics")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "functional" / "image" / "lpips_models" / "vgg.pth"
    return path if path.is_file() else None


def _read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"LPIPS: no file {path} ({what})")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged or unsafe files
        raise ValueError(
            f"LPIPS: {path} is not a readable torch checkpoint of {what} ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict):
        raise ValueError(f"LPIPS: expected {what} in {path}, got a {type(state).__name__}")
    return state


def _copy(target: Tensor, state: dict[str, Tensor], key: str, path: Path) -> None:
    if key not in state or state[key].shape != target.shape:
        got = list(state[key].shape) if key in state else "nothing"
        raise ValueError(f"LPIPS: expected {key} of shape {list(target.shape)} in {path}, got {got}")
    target.copy_(state[key])


@torch.no_grad()
def load_lpips(weights: str | Path | None = None, heads: str | Path | None = None) -> LPIPS:
    """LPIPS (VGG16, v0.1) from files.

    Args:
        weights: An ImageNet VGG16 checkpoint in torchvision's layout, e.g. `vgg16-397923af.pth`; by default
            the path in the environment variable NAS3R_LPIPS_WEIGHTS.
        heads: The linear heads; by default the path in NAS3R_LPIPS_HEADS, else torchmetrics' copy.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If no path is known, or a file does not hold the expected tensors.
    """
    weights = weights or os.environ.get(WEIGHTS_VARIABLE)
    if not weights:
        raise ValueError(
            f"LPIPS needs the ImageNet VGG16 checkpoint (vgg16-397923af.pth): give --lpips-weights PATH or "
            f"set {WEIGHTS_VARIABLE}, or choose the download-free term with --perceptual ssim"
        )
    heads = heads or os.environ.get(HEADS_VARIABLE) or _packaged_heads()
    if heads is None:
        raise ValueError(
            "LPIPS needs its linear heads: `pip install torchmetrics`, which contains them, or set "
            f"{HEADS_VARIABLE}"
        )
    trunk_path, heads_path = Path(weights), Path(heads)
    trunk = _read_tensors(trunk_path, "ImageNet VGG16 weights")
    linear = _read_tensors(heads_path, "LPIPS linear heads")
    model = LPIPS()
    for index, convolution in model.convolutions.items():
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.bias is not None
        _copy(convolution.weight, trunk, f"features.{index}.weight", trunk_path)
        _copy(convolution.bias, trunk, f"features.{index}.bias", trunk_path)
    for number, head in enumerate(model.heads):
        _copy(head, linear, f"lin{number}.model.1.weight", heads_path)
    return model.eval()
