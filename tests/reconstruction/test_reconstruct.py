"""`reconstruct`, the result object, the folder and what other tools read from it. Weights are random."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import gsply
import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

import nas3r
from nas3r.geometry import Cameras
from nas3r.io.depth import read_depth_npz, read_depth_png
from nas3r.io.images import Resize
from nas3r.io.nerfstudio import read_transforms
from nas3r.io.ply import read_point_cloud
from nas3r.io.video import video_info
from nas3r.models import presets
from nas3r.models.backdrop import num_squares
from nas3r.models.poses import Regressed
from nas3r.reconstruction import EXPORTS, Reconstruction, ReconstructOptions, reconstruct
from nas3r.reconstruction.exports import photo_pixels, points_of
from nas3r.reconstruction.refinement import enlarged
from nas3r.reconstruction.storage import check_exports
from nas3r.reconstruction.views import to_tensor


@pytest.fixture(scope="module")
def frames(world):
    return [world.frame(5 * i) for i in range(8)]


@pytest.fixture(scope="module")
def result(frames, weights):
    return reconstruct(frames, ReconstructOptions(views=4, held_out=1, refine_steps=3), weights=weights)


@pytest.fixture(scope="module")
def draft(frames, weights):
    return reconstruct(frames, ReconstructOptions(views=4, held_out=1, quality="draft"), weights=weights)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    path = tmp_path_factory.mktemp("result") / "out"
    result.save(path, exports=["all"])
    return path


def test_shapes_and_conventions(draft):
    v, h, w = draft.depth.shape
    assert v == 4
    assert (w, h) == draft.size == (72, 56)
    assert draft.cameras.world_from_camera.shape == (1, 4, 4, 4)
    torch.testing.assert_close(draft.cameras.world_from_camera[0, 0], torch.eye(4))
    assert draft.images.shape == (4, 3, 56, 72)
    assert draft.gaussians.num_gaussians == v * (h * w + num_squares(h, w, 8))
    assert draft.held_out is not None
    assert len(draft.record.scores["psnr"]) == 4
    assert set(draft.record.seconds) >= {"load weights", "read pictures", "network", "check"}


def test_standard_quality_is_of_the_photos_size(result):
    """The largest multiple of the network's size that the photos, of 160 x 120 pixels, hardly exceed."""
    assert result.size == (144, 112)
    assert result.depth.shape == result.confidence.shape == (4, 112, 144)
    dense = result.record.dense
    assert dense["steps"] == 3
    assert dense["psnr"][1] >= dense["psnr"][0] or not dense["kept"]
    assert set(dense["seconds"]) == {"depth", "merging", "fitting"}
    assert "dense depth and Gaussians" in result.record.seconds


def test_public_name():
    assert nas3r.reconstruct is reconstruct
    assert nas3r.Reconstruction is Reconstruction


def test_photo_cameras_are_in_original_pixels(result):
    """A ray through the middle of the working image goes through the photo pixel that the crop came from."""
    for i, camera in enumerate(result.photo_cameras):
        assert (camera.width, camera.height) == (160, 120)
        k = result.cameras.intrinsics[0, i].double().numpy()
        ray = np.linalg.inv(k) @ [0.25, 0.75, 1]
        pixel = camera.intrinsics @ ray
        expected = photo_pixels(result.views[i].resize, np.array([[0.25, 0.75]]))[0]
        np.testing.assert_allclose(pixel[:2], expected, atol=1e-4)  # float32 intrinsics of 160 pixels


def test_render(result):
    """By default the views themselves, at the working size; else any camera at any size."""
    scene, cameras = result.gaussians, result.cameras
    assert torch.equal(result.render().color, nas3r.render(scene, cameras, 112, 144).color)
    one = cameras.views([1])
    assert torch.equal(result.render(one, 20, 30).color, nas3r.render(scene, one, 20, 30).color)


def test_locate(result, frames):
    camera = result.locate(frames[0])
    assert isinstance(camera, Cameras)
    k = camera.pixel_intrinsics(160, 120)[0, 0]
    torch.testing.assert_close(k[0, 0], k[1, 1], rtol=0.02, atol=0)  # square pixels, up to rounded sizes
    assert result.render(camera, 120, 160).color.shape == (1, 1, 3, 120, 160)
    with pytest.raises(ValueError, match="exactly one image"):
        result.locate(frames[:2])


def test_saving_changes_nothing_of_what_is_saved(result, tmp_path):
    before = dataclasses.asdict(result.record)
    result.save(tmp_path / "out", exports=["points"])
    assert dataclasses.asdict(result.record) == before


def test_round_trip_through_the_folder(result, folder):
    back = Reconstruction.load(folder)
    torch.testing.assert_close(back.depth, result.depth, rtol=0, atol=0)
    torch.testing.assert_close(back.images, result.images, rtol=0, atol=0)  # frames are written as PNG
    torch.testing.assert_close(
        back.cameras.world_from_camera, result.cameras.world_from_camera, rtol=0, atol=1e-6
    )
    torch.testing.assert_close(back.cameras.intrinsics, result.cameras.intrinsics, rtol=0, atol=1e-6)
    # Saving adds its own times to what it writes, and leaves what is saved as it was.
    assert set(back.record.seconds) > set(result.record.seconds)
    assert dataclasses.replace(back.record, seconds=result.record.seconds) == result.record
    assert [view.label for view in back.views] == [view.label for view in result.views]
    # exp(log) and sigmoid(logit) in float32
    torch.testing.assert_close(back.render().color, result.render().color, rtol=0, atol=1e-4)


def test_a_loaded_result_can_locate(result, folder, frames):
    torch.testing.assert_close(
        Reconstruction.load(folder).locate(frames[2]).world_from_camera,
        result.locate(frames[2]).world_from_camera,
        rtol=0,
        atol=1e-5,
    )


def test_everything_is_there(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        *("scene.ply", "scene.splat", "scene.spz", "cameras.json", "transforms.json", "points.ply"),
        *("sparse/0/cameras.txt", "sparse/0/images.txt", "sparse/0/points3D.txt"),
        *("flythrough.mp4", "report.html", "reconstruction.json"),
    }
    assert not [name for name in names if "/." in f"/{name}"]  # no temporary files


def test_other_tools_agree_about_the_cameras(result, folder):
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    images = {image.name: image for image in model.images.values()}
    nerfstudio = read_transforms(folder / "transforms.json")
    for camera, other in zip(result.photo_cameras, nerfstudio, strict=True):
        image = images[camera.file.removeprefix("images/")]
        assert (folder / camera.file).is_file()
        np.testing.assert_allclose(
            model.cameras[image.camera_id].calibration_matrix(), camera.intrinsics, rtol=1e-9
        )
        pose = image.cam_from_world
        pose = (pose() if callable(pose) else pose).matrix()
        np.testing.assert_allclose(pose, camera.camera_from_world[:3], atol=1e-6)
        np.testing.assert_allclose(other.world_from_camera, camera.world_from_camera, atol=1e-9)
        # The sparse points lie near where they were seen, which is as far away as they say.
        for point in list(image.points2D)[:20]:
            projected = image.project_point(model.points3D[point.point3D_id].xyz)
            error = model.points3D[point.point3D_id].error
            assert np.linalg.norm(projected - point.xy) < 4 * error + 0.1


def test_points_are_the_depth_maps(result, folder):
    points, colors = read_point_cloud(folder / "points.ply")
    assert len(points) == result.depth.numel()
    _, h, w = result.depth.shape
    expected = (result.images[0].permute(1, 2, 0).reshape(-1, 3) * 255).round()
    np.testing.assert_array_equal(colors[: h * w], expected.byte())
    np.testing.assert_allclose(
        points[: h * w, 2], result.depth[0].flatten(), rtol=1e-5
    )  # camera 1 is the world
    assert len(points_of(result, 100).positions) <= 100


def test_depth_files_agree(result, folder):
    for view, depth in zip(result.views, result.depth.numpy()):
        stem = folder / "depth" / view.name.removesuffix(".png")
        exact = read_depth_npz(stem.with_suffix(".npz"))
        np.testing.assert_array_equal(exact.depth, depth)
        step = result.depth.max().item() / 65535
        np.testing.assert_allclose(read_depth_png(stem.with_suffix(".png")), depth, atol=step)


def test_gsply_reads_the_scene(result, folder):
    read, own = gsply.plyread(folder / "scene.ply"), result.gaussians
    order = [np.lexsort(means.T) for means in (read.means, own.means[0].numpy())]
    np.testing.assert_array_equal(read.means[order[0]], own.means[0].numpy()[order[1]])
    np.testing.assert_allclose(
        read.scales[order[0]], own.scales[0].log().numpy()[order[1]], rtol=1e-5, atol=1e-5
    )


def test_flythrough(folder):
    info = video_info(folder / "flythrough.mp4")
    assert (info.width, info.height) == (512, 200)  # colour and depth, 256 wide each
    assert info.frames == 70


class Page(HTMLParser):
    """Collects what a browser would fetch, and checks that tags close."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.open, self.text = [], [], text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_self_contained_page(result, folder):
    page = Page((folder / "report.html").read_text())
    assert page.open == []
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://", page.text)
    scene = json.loads(page.text.split('id="scene">')[1].split("</script>")[0])
    assert len(scene["cameras"]) == 4
    assert len(scene["points"]) % 6 == 0
    for view in result.views:
        assert view.label in page.text
    assert len(page.sources) == 4 * 4 + 2 + 1  # views, the held-out view, the video


def test_names_of_files_cannot_inject_markup(frames, weights, tmp_path):
    paths = []
    for i in range(2):
        paths.append(tmp_path / f"<script>alert({i})<b>.png")
        Image.fromarray(frames[2 * i]).save(paths[-1])
    reconstruct(paths, weights=weights).save(tmp_path / "out", exports=["report"])
    text = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(0)" in text


def test_refinement_is_never_worse_on_views_kept_aside(frames, weights, tmp_path):
    result = reconstruct(
        frames, ReconstructOptions(views=3, held_out=2, refine_steps=12, quality="draft"), weights=weights
    )
    gained = result.record.refined
    assert gained is not None
    assert gained["held_out_psnr"][1] >= gained["held_out_psnr"][0]
    assert gained["detail_size"] == [144, 112]
    assert gained["detail_held_out_psnr"][1] >= gained["detail_held_out_psnr"][0] or not gained["detail_kept"]
    assert result.size == ((144, 112) if gained["detail_kept"] else (72, 56))
    result.save(tmp_path / "out", exports=["report"])
    back = Reconstruction.load(tmp_path / "out")
    assert back.network_size == (72, 56)
    assert back.locate(frames[1]).num_views == 1
    assert "Refinement" in (tmp_path / "out" / "report.html").read_text()


def test_without_time_for_the_larger_size_the_smaller_one_is_kept(frames, weights, monkeypatch):
    """Nothing is begun there whose first step would come after the end, nor even looked at."""

    def never(*unused):
        raise AssertionError("looked at the larger size")

    monkeypatch.setattr("nas3r.reconstruction.refinement._measured", never)
    result = reconstruct(
        frames, ReconstructOptions(views=3, held_out=2, refine=1e-3, quality="draft"), weights=weights
    )
    gained = result.record.refined
    assert gained is not None
    assert (gained["detail_kept"], gained["detail_steps"]) == (False, 0)
    assert "detail_size" not in gained
    assert result.size == (72, 56)


@pytest.mark.slow
def test_refinement_by_steps_does_not_depend_on_the_clock(frames, weights):
    a, b = (
        reconstruct(frames, ReconstructOptions(views=3, refine_steps=5, quality="draft"), weights=weights)
        for _ in range(2)
    )
    assert a.record.refined is not None
    assert a.record.refined["steps"] == 3  # at the network's size; the others at the larger one
    torch.testing.assert_close(a.gaussians.means, b.gaussians.means, rtol=0, atol=0)
    torch.testing.assert_close(a.cameras.world_from_camera, b.cameras.world_from_camera, rtol=0, atol=0)


def _images_at(result, factor):
    """The views, and those kept aside, with sides as many times longer."""
    views = [*result.views, *([] if result.held_out is None else result.held_out.views)]
    width, height = (factor * side for side in result.size)
    resizes = [Resize(v.resize.original_width, v.resize.original_height, width, height) for v in views]
    return torch.stack([to_tensor(r.apply(v.load())) for r, v in zip(resizes, views, strict=True)])


def test_enlarging_keeps_cameras_and_surfaces(draft):
    larger, owners = enlarged(draft, _images_at(draft, 3), backdrop_side=8)
    assert larger.size == (216, 168)
    assert larger.depth.shape == (4, 168, 216)
    assert larger.gaussians.num_gaussians == len(owners) == 4 * (84 * 108 + num_squares(56, 72, 8))
    assert (owners < 0).sum() == 4 * num_squares(56, 72, 8)
    for a, b in zip(larger.photo_cameras, draft.photo_cameras, strict=True):
        np.testing.assert_allclose(a.intrinsics, b.intrinsics, rtol=1e-5)  # float32
        np.testing.assert_array_equal(a.world_from_camera, b.world_from_camera)
    assert larger.depth.min() >= draft.depth.min() * 0.999
    assert larger.depth.max() <= draft.depth.max() * 1.001


def test_surface_only(frames, weights):
    result = reconstruct(frames[:3], ReconstructOptions(surface_only=True, quality="draft"), weights=weights)
    v, h, w = result.depth.shape
    assert result.gaussians.num_gaussians == v * h * w


def test_unknown_depth_stays_unknown_when_enlarged(draft):
    depth = draft.depth.clone()
    depth[0, 10:20, 10:20] = 0
    larger, owners = enlarged(dataclasses.replace(draft, depth=depth), _images_at(draft, 2))
    assert (larger.depth[0, 20:40, 20:40] == 0).all()
    assert (larger.depth[1:] > 0).all()
    assert len(owners) == larger.depth.numel() // 4 - 100


def test_two_views_are_enough_and_leave_nothing_to_test_with(frames, weights):
    result = reconstruct(frames[:2], weights=weights)
    assert result.held_out is None
    assert "held_out_psnr" not in result.record.scores


def test_a_model_in_memory(frames, weights):
    model = nas3r.load(weights)
    assert reconstruct(frames[:3], weights=model).record.weights == "a model in memory"


def test_a_model_in_memory_is_not_looked_for_in_files(frames, weights, tmp_path):
    draft = ReconstructOptions(quality="draft")  # which has no points to find photos among
    reconstruct(frames[:3], draft, weights=nas3r.load(weights)).save(tmp_path / "out", exports=["points"])
    with pytest.raises(ValueError, match="not stored with it"):
        Reconstruction.load(tmp_path / "out").locate(frames[1])


def test_bad_options(frames, weights):
    with pytest.raises(ValueError, match="views: expected an integer of at least 2"):
        reconstruct(frames, ReconstructOptions(views=1), weights=weights)
    with pytest.raises(ValueError, match="export 'gif'"):
        check_exports(["gif"])
    assert check_exports(["all"]) == [name for name in EXPORTS if name != "points"]


def test_a_missing_video_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"nas3r\[video\]"):
        check_exports(["video"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("views"), "damaged"),
        (lambda d: d["views"][0].update(name="../../etc/passwd"), "plain file name"),
        (lambda d: d.update(format="other"), "not a nas3r-reconstruction"),
    ],
)
def test_damaged_folders_are_refused(folder, tmp_path, change, message):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    document = json.loads((copy / "reconstruction.json").read_text())
    change(document)
    (copy / "reconstruction.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        Reconstruction.load(copy)


def test_a_folder_without_a_result(tmp_path):
    with pytest.raises(FileNotFoundError, match="no nas3r result"):
        Reconstruction.load(tmp_path)


def test_adaptation_never_sees_what_is_kept_aside(frames, weights, tmp_path):
    seen = []

    def adapt(model, clip):
        seen.append(clip)
        return model, {"loss": [2.0, 1.0]}

    result = reconstruct(frames, ReconstructOptions(views=3, held_out=2), weights=weights, adapt=adapt)
    assert seen[0].shape == (6, 3, 56, 72)
    assert result.held_out is not None
    kept_aside = (result.held_out.images * 255).round().byte()
    assert all(not torch.equal(frame, other) for frame in seen[0] for other in kept_aside)
    result.save(tmp_path / "out", exports=["report"])
    back = Reconstruction.load(tmp_path / "out")
    assert back.record.weights == str(tmp_path / "out" / "adapted.safetensors")
    assert back.locate(frames[1]).num_views == 1
    assert "loss: 2.0 before, 1.0 after" in (tmp_path / "out" / "report.html").read_text()


@pytest.fixture(scope="module")
def photos_with_exif(frames, tmp_path_factory):
    """Photos whose camera says 50 mm; in pixels that is `EXIF_FOCAL`."""
    path = tmp_path_factory.mktemp("photos")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[41989] = 50
    for i in range(3):
        Image.fromarray(frames[2 * i]).save(path / f"{i}.jpg", exif=exif)
    return path


EXIF_FOCAL = 50 / 43.2666 * np.hypot(160, 120)


def assert_focal(result, expected):
    for camera in result.photo_cameras:
        # float32, and pixels that rounding of the resized size makes a little oblong
        np.testing.assert_allclose(camera.intrinsics[[0, 1], [0, 1]], expected, rtol=1e-5)


def test_models_that_must_be_told_the_focal_length(frames, photos_with_exif):
    config = presets.get("tiny")
    decoder = dataclasses.replace(config.decoder, intrinsics_token=True)
    model = nas3r.NAS3R(dataclasses.replace(config, decoder=decoder)).eval()
    with pytest.raises(ValueError, match="give --focal-35mm"):
        reconstruct(frames, ReconstructOptions(views=3), weights=model)
    told = reconstruct(frames, ReconstructOptions(views=3, focal_35mm=50), weights=model)
    for result in (told, reconstruct(photos_with_exif, weights=model)):
        assert_focal(result, EXIF_FOCAL)
    assert told.locate(frames[1]).num_views == 1


def test_known_focal_lengths_are_used(frames, photos_with_exif, tmp_path):
    """By the weights that ship, which can do without: first the user's word, then the photos'."""
    from_exif = reconstruct(photos_with_exif)
    assert from_exif.record.focal == "exif"
    assert_focal(from_exif, EXIF_FOCAL)
    told = reconstruct(photos_with_exif, ReconstructOptions(focal_35mm=28, refine_steps=2))
    assert told.record.focal == "given"
    assert_focal(told, EXIF_FOCAL * 28 / 50)  # refinement leaves it alone
    told.save(tmp_path / "out", exports=["report"])
    assert "as given" in (tmp_path / "out" / "report.html").read_text()
    again = Reconstruction.load(tmp_path / "out").locate(photos_with_exif / "1.jpg")
    np.testing.assert_allclose(again.intrinsics[0, 0, 0, 0] * 160, EXIF_FOCAL * 28 / 50, rtol=1e-4)
    guessed = reconstruct(photos_with_exif, ReconstructOptions(ignore_exif=True))
    assert guessed.record.focal == "predicted"
    assert not np.allclose(guessed.photo_cameras[0].intrinsics[0, 0], EXIF_FOCAL, rtol=1e-3)


@pytest.mark.parametrize(
    ("crop", "focal", "says"), [(0, "exif", "that of the others"), (8, "exif", "beginning with 50 mm")]
)
def test_some_pictures_do_not_say_their_focal_length(crop, focal, says, frames, photos_with_exif, tmp_path):
    for photo in photos_with_exif.iterdir():
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    Image.fromarray(frames[1][crop:]).save(tmp_path / "without.jpg")
    result = reconstruct(tmp_path, ReconstructOptions(views=4))
    assert result.record.focal == focal
    (note,) = [note for note in result.record.notes if "1 of 4 pictures do not say their focal" in note]
    assert says in note


def test_unusable_focal_lengths(frames):
    with pytest.raises(ValueError, match="focal 35mm: expected"):
        reconstruct(frames, ReconstructOptions(views=2, focal_35mm=-1))
    regressed = dataclasses.replace(presets.get("tiny"), poses=Regressed(), compare_views=False)
    result = reconstruct(
        frames, ReconstructOptions(views=2, focal_35mm=50), weights=nas3r.NAS3R(regressed).eval()
    )
    assert any("cannot be told" in note for note in result.record.notes)
