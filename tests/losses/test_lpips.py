import pytest
import torch
from torch import nn

from nas3r.losses import PhotometricConfig, PhotometricLoss
from nas3r.losses.lpips import CHANNELS, load_lpips

VGG16 = [
    64,
    64,
    "pool",
    128,
    128,
    "pool",
    256,
    256,
    256,
    "pool",
    512,
    512,
    512,
    "pool",
    512,
    512,
    512,
    "pool",
]


def _vgg_features() -> nn.Sequential:
    """VGG16's `features` as the classification networks lay them out."""
    layers: list[nn.Module] = []
    width = 3
    for entry in VGG16:
        if entry == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(width, int(entry), 3, padding=1), nn.ReLU()]
            width = int(entry)
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # torch's default would fade to nothing over 13 layers
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    torch.manual_seed(1)
    return _vgg_features()


@pytest.fixture(scope="module")
def checkpoint(features, tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "vgg16.pth"
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(1)}, path)
    return path


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "heads.pth"
    torch.save({f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(CHANNELS)}, path)
    return path


def test_agrees_with_torchmetrics(features, checkpoint, monkeypatch):
    reference = pytest.importorskip("torchmetrics.functional.image.lpips")
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda net, pretrained=False: features)
    oracle = reference._LPIPS(net="vgg", pretrained=True)
    a, b = torch.rand(2, 3, 40, 33), torch.rand(2, 3, 40, 33)
    ours = load_lpips(checkpoint)(a, b)
    theirs = oracle(a, b, normalize=True).flatten()
    # Both in float32 through 13 convolutions: summation order alone gives 1e-6.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_agrees_with_a_slow_twin(features, checkpoint, heads):
    a, b = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    weights = torch.load(heads, weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    expected = 0.0
    activations = [((2 * x - 1) - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1) for x in (a, b)]
    compared = {3: 0, 8: 1, 15: 2, 22: 3, 29: 4}  # index of the last ReLU of each stage
    with torch.no_grad():
        for index, layer in enumerate(features):
            activations = [layer(x) for x in activations]
            if index in compared:
                unit = [x / (x**2).sum(1, keepdim=True).sqrt() for x in activations]
                head = weights[f"lin{compared[index]}.model.1.weight"]
                expected += ((unit[0] - unit[1]) ** 2 * head).sum(1).mean().item()
    assert load_lpips(checkpoint, heads)(a, b).item() == pytest.approx(expected, rel=1e-4)


def test_is_zero_for_equal_images_and_differentiable_there(checkpoint, heads):
    a = torch.rand(1, 3, 16, 16, requires_grad=True)
    distance = load_lpips(checkpoint, heads)(a, a.detach())
    distance.sum().backward()
    assert distance.item() == 0
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_is_frozen_and_used_by_the_photometric_loss(checkpoint, heads, monkeypatch):
    monkeypatch.setenv("NAS3R_LPIPS_WEIGHTS", str(checkpoint))
    monkeypatch.setenv("NAS3R_LPIPS_HEADS", str(heads))
    loss = PhotometricLoss(PhotometricConfig(perceptual="lpips", gamma=0.05))
    assert not any(p.requires_grad for p in loss.parameters())
    a, b = torch.rand(1, 2, 3, 16, 16), torch.rand(1, 2, 3, 16, 16)
    terms = loss(a, b)
    assert terms["loss"].item() == pytest.approx((terms["mse"] + 0.05 * terms["perceptual"]).item())


def test_missing_files_end_in_one_sentence(checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("NAS3R_LPIPS_WEIGHTS", raising=False)
    with pytest.raises(ValueError, match="--lpips-weights"):
        load_lpips()
    with pytest.raises(FileNotFoundError, match="no file"):
        load_lpips(tmp_path / "absent.pth")
    monkeypatch.setattr("nas3r.losses.lpips._packaged_heads", lambda: None)
    with pytest.raises(ValueError, match="pip install torchmetrics"):
        load_lpips(checkpoint)


def test_damaged_or_wrong_files_are_named(checkpoint, tmp_path):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a readable"):
        load_lpips(damaged)
    wrong = tmp_path / "wrong.pth"
    torch.save({"features.0.weight": torch.zeros(2)}, wrong)
    with pytest.raises(ValueError, match=r"features\.0\.weight"):
        load_lpips(wrong)


def test_small_images_are_refused(checkpoint, heads):
    with pytest.raises(ValueError, match="16"):
        load_lpips(checkpoint, heads)(torch.rand(1, 3, 8, 8), torch.rand(1, 3, 8, 8))
