"""Colours that a file gives in another space than sRGB, brought to it."""

import functools
import io
import logging

import numpy as np
from jaxtyping import Float, UInt8, UInt16
from PIL import Image, ImageCms

logger = logging.getLogger(__name__)

_SAME = 2  # 8-bit levels: what profiles of sRGB by different makers differ by

# ITU-R BT.2087, BT.2020 to BT.709 primaries, linear light.
_BT709_FROM_BT2020 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]],
    np.float32,
)
_WHITE = 203.0  # nits of diffuse white in HDR material (ITU-R BT.2408)
_PEAK = 1000.0  # nits of the brightest highlight that keeps detail

PQ, HLG = 16, 18  # transfer characteristics by their number in video files (ITU-T H.273)


def to_srgb(image: Image.Image, name: str) -> Image.Image:
    """An RGB or CMYK image whose embedded profile is not sRGB, converted; others as they are."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    mode = "CMYK" if image.mode == "CMYK" else "RGB"
    transform = _transform(bytes(profile), mode)
    if transform is _UNREADABLE:
        logger.warning("%s: its colour profile cannot be read; its colours are taken as sRGB", name)
    if not isinstance(transform, ImageCms.ImageCmsTransform):
        return image
    if image.mode != "RGBA":
        return _applied(image, transform)
    converted = _applied(image.convert("RGB"), transform)
    converted.putalpha(image.getchannel("A"))
    return converted


def is_srgb(image: Image.Image) -> bool:
    """Whether the colours of an image are those of sRGB, by its embedded profile; without one they are."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return True
    return not isinstance(
        _transform(bytes(profile), "CMYK" if image.mode == "CMYK" else "RGB"), ImageCms.ImageCmsTransform
    )


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None  # only in place there is nothing to return
    return converted


_UNREADABLE = "unreadable"


@functools.lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | str | None:
    """To sRGB; None if the profile is sRGB itself, `_UNREADABLE` if it is damaged."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode != "RGB":
            return transform
        steps = np.linspace(0, 255, 9).astype(np.uint8)
        colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
        change = np.asarray(_applied(Image.fromarray(colors), transform)).astype(int) - colors
    except (ImageCms.PyCMSError, OSError, ValueError):
        return _UNREADABLE
    return None if np.abs(change).max() <= _SAME else transform


def from_hdr(image: UInt16[np.ndarray, "h w 3"], transfer: int) -> UInt8[np.ndarray, "h w 3"]:
    """HDR video (BT.2100, full-range 16-bit RGB of BT.2020 primaries) as sRGB.

    Diffuse white becomes white; highlights above it are compressed, by luminance, so that hues stay.

    Args:
        image: As decoded.
        transfer: `PQ` or `HLG`.
    """
    nits = _light_by_code(transfer)[image] if transfer == PQ else _hlg_light(image)
    light = np.maximum(nits / _WHITE @ _BT709_FROM_BT2020.T, 0)
    luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    # Extended Reinhard: linear in the dark, 1 at the peak.
    gain = (1 + luminance / (_PEAK / _WHITE) ** 2) / (1 + luminance)
    light = np.clip(light * gain[..., None] * _MIDDLE, 0, 1)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * srgb).round().astype(np.uint8)


_MIDDLE = 1.25  # brings mid grey (18 % of white), which the compression darkens, back to about its place


@functools.cache
def _light_by_code(transfer: int) -> Float[np.ndarray, "65536"]:
    """Light of each 16-bit code: nits for PQ; for HLG that of the scene, in [0, 1] (ITU-R BT.2100)."""
    code = np.linspace(0, 1, 65536)
    if transfer == PQ:
        m1, m2 = 2610 / 16384, 2523 / 4096 * 128
        c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
        root = code ** (1 / m2)
        return (10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


def _hlg_light(image: UInt16[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """Nits on a display of 1000 nits: its system gamma is 1.2."""
    scene = _light_by_code(HLG)[image]
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], np.float32)
    return _PEAK * scene * np.maximum(luminance, 1e-9)[..., None] ** 0.2
