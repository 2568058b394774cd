"""What users give: files, folders, videos, arrays; good, bad and mixed."""

import numpy as np
import pytest
import torch
from PIL import Image

from nas3r.io.images import load_image
from nas3r.io.video import write_video
from nas3r.reconstruction.exif_focal import told_focal
from nas3r.reconstruction.inputs import Arrays, Files, Unreadable, Video, gather
from nas3r.reconstruction.options import ReconstructOptions
from nas3r.reconstruction.views import SizeRule, plan_views, read_views, working_size


def prepare(inputs, count=8, held_out=2, size=64, **options):
    chosen = ReconstructOptions(views=count, held_out=held_out)
    return read_views(plan_views(inputs, chosen, SizeRule(size, 4)), **options)


def test_folders_are_read_in_natural_order(photos, world):
    Image.fromarray(world.frame(40)).save(photos / "photo_10.jpg")
    (photos / "notes.txt").write_text("not an image")
    (source,) = gather(photos)
    assert [source.label(i) for i in range(len(source))][-1] == "photo_10.jpg"
    assert len(source) == 5


def test_files_and_folders_mix(photos, world):
    (source,) = gather([photos / "photo_2.jpg", photos])
    assert isinstance(source, Files)
    assert len(source) == 5
    sources = gather([photos, world.frame(0), Image.fromarray(world.frame(9))])
    assert [len(source) for source in sources] == [4, 2]


def test_memory_images_of_every_kind_give_the_same_pixels(world):
    frame = world.frame(0)
    kinds = [
        frame,
        frame.astype(np.float64) / 255,
        torch.from_numpy(frame).permute(2, 0, 1) / 255,
        Image.fromarray(frame),
    ]
    (source,) = gather(kinds)
    assert isinstance(source, Arrays)
    for image in source.read(range(4)):
        np.testing.assert_array_equal(image, frame)
    grey = gather([frame[..., 0]])[0]
    np.testing.assert_array_equal(np.asarray(next(grey.read([0])))[..., 2], frame[..., 0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 4), np.uint8), "expected shape"),
        (np.zeros((4, 4, 3), np.int32), "expected uint8"),
        (np.full((4, 4, 3), 2.0), "expected values in"),
        (np.full((4, 4, 3), np.nan), "expected values in"),
        (torch.zeros(4, 4, 3), "tensor image"),
    ],
)
def test_wrong_arrays_are_named(image, message):
    with pytest.raises(ValueError, match=message):
        gather([image, image])


def test_missing_and_empty_inputs(tmp_path, photos):
    with pytest.raises(FileNotFoundError, match="no such file"):
        gather(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="no input"):
        gather([])
    with pytest.raises(ValueError, match=r"no image files; did you mean .*photos"):
        gather(tmp_path)


def test_bad_files_cost_one_photo_each(photos):
    (photos / "photo_5.jpg").write_bytes(b"")
    (photos / "photo_6.jpg").write_bytes((photos / "photo_1.jpg").read_bytes()[:900])
    (photos / "photo_7.png").write_text("no image at all")
    views = prepare(photos)
    assert [view.label for view in views.context] == [f"photo_{i}.jpg" for i in range(1, 5)]
    assert len(views.unreadable) == 3
    assert "3 pictures cannot be read and were skipped: photo_5.jpg (the file is empty)" in views.warnings[0]


def test_gigantic_files_are_refused_before_decoding(photos):
    header = Image.new("1", (20_000, 20_000))
    header.save(photos / "photo_9.png")
    views = prepare(photos)
    assert "megapixels" in views.unreadable[0].reason


def test_the_same_picture_twice_counts_once(photos):
    (photos / "photo_8.jpg").write_bytes((photos / "photo_1.jpg").read_bytes())
    views = prepare(photos)
    assert len(views.context) == 4
    assert "photo_8.jpg" in views.warnings[0]


@pytest.mark.parametrize(("pictures", "used", "kept_aside"), [(4, 4, 0), (5, 4, 1), (7, 5, 2), (12, 10, 2)])
def test_by_default_some_of_enough_pictures_are_kept_aside(world, pictures, used, kept_aside):
    views = prepare([world.frame(4 * i) for i in range(pictures)], count=None)
    assert len(views.context) == used
    assert len(views.held_out) == kept_aside


def test_all_pictures_are_used_where_that_is_asked_for(world):
    views = prepare([world.frame(4 * i) for i in range(7)], count=7)
    assert len(views.context) == 7
    assert not views.held_out


def test_too_few_pictures_are_explained(photos, tmp_path, world):
    first = photos / "photo_1.jpg"
    with pytest.raises(ValueError, match="only one was given"):
        prepare(first)
    with pytest.raises(ValueError, match="exactly the same picture"):
        prepare([first, first])
    (photos / "bad.jpg").write_bytes(b"x" * 50)
    with pytest.raises(ValueError, match=r"1 cannot be read, the first being .*bad.jpg \(not an image"):
        prepare([first, photos / "bad.jpg"])
    noisy = np.clip(
        world.frame(0).astype(int) + np.random.default_rng(0).integers(-1, 2, (120, 160, 3)), 0, 255
    )
    with pytest.raises(ValueError, match="the camera does not move"):
        prepare([world.frame(0), noisy.astype(np.uint8)])


def make_video(path, world, places):
    write_video(path, [world.frame(place) for place in places], fps=24)
    return path


def test_video_frames_are_chosen_where_the_camera_moves(tmp_path, world):
    places = [0] * 20 + list(range(0, 40, 2))
    video = make_video(tmp_path / "walk.mp4", world, places)
    (source,) = gather(video)
    assert isinstance(source, Video)
    assert len(source) == 40
    views = prepare(video, count=4)
    numbers = [int(view.label.removeprefix("walk_").removesuffix(".png")) for view in views.context]
    assert sum(number >= 20 for number in numbers) >= 3
    assert len(views.held_out) >= 1
    assert views.context[0].pixels is not None


def test_a_video_without_motion_is_refused(tmp_path, world):
    video = make_video(tmp_path / "still.mp4", world, [0] * 12)
    with pytest.raises(ValueError, match=r"camera does not move|exactly the same"):
        prepare(video)


def test_damaged_video_is_one_sentence(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match="not a readable video"):
        gather(tmp_path / "a.mp4")


def test_damaged_frames_are_skipped(tmp_path, world, monkeypatch):
    from nas3r.reconstruction import inputs

    video = make_video(tmp_path / "walk.mp4", world, range(0, 24, 2))
    (source,) = gather(video)
    real = inputs.read_frames

    def read_frames(path, wanted, index=None):
        for number, frame in zip(list(wanted), real(path, wanted, index=index)):
            if number == 5:
                raise ValueError(f"{path}: frame 5 is damaged")
            yield frame

    monkeypatch.setattr(inputs, "read_frames", read_frames)
    read = list(source.read(range(12)))
    assert [i for i, frame in enumerate(read) if isinstance(frame, Unreadable)] == [5]
    assert len(read) == 12


def test_mixed_shapes_get_one_size_and_keep_what_undoes_it(world):
    landscape, portrait = world.frame(0), np.ascontiguousarray(world.frame(9).transpose(1, 0, 2))
    views = prepare([landscape, world.frame(5), portrait])
    assert views.images.shape[-2:] == (56, 72)
    assert [view.resize.original_width for view in views.context] == [160, 160, 120]
    assert "more than 40 %" in views.warnings[0]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(100, 100)], (64, 64)),
        ([(4000, 3000)] * 2, (72, 56)),
        ([(3000, 4000)] * 2, (56, 72)),
        ([(4000, 3000), (3000, 4000)], (64, 64)),
        ([(10_000, 100)], (92, 44)),
        ([(1, 1)], (64, 64)),
    ],
)
def test_working_size(sizes, expected):
    assert working_size(sizes, SizeRule(64, 4)) == expected


def test_working_size_of_models_that_refuse_portraits():
    assert working_size([(3000, 4000)], SizeRule(64, 4, landscape_only=True)) == (64, 64)
    with pytest.raises(ValueError, match="image size"):
        working_size([(1, 1)], SizeRule(2, 4))


def test_exported_photos_are_upright_and_copied_where_possible(photos, world, tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    exif.get_ifd(0x8769)[41989] = 26
    Image.fromarray(world.frame(30)).save(photos / "turned photo.jpg", exif=exif)
    Image.fromarray(world.frame(36)).save(photos / "photo_1.png")
    Image.fromarray(world.frame(42)).save(photos / "photo_9.bmp")
    views = prepare(photos, count=8, held_out=0)
    folder = tmp_path / "out"
    folder.mkdir()
    for view in views.context:
        view.export(folder)
    names = {view.label: view.name for view in views.context}
    assert names["turned photo.jpg"] == "turned_photo.jpg"
    assert {names["photo_1.jpg"], names["photo_1.png"]} == {"photo_1.jpg", "photo_1_2.png"}
    assert names["photo_9.bmp"] == "photo_9.png"
    assert (folder / "photo_2.jpg").read_bytes() == (photos / "photo_2.jpg").read_bytes()
    upright = load_image(folder / "turned_photo.jpg")
    assert upright.shape == (160, 120, 3)
    with Image.open(folder / "turned_photo.jpg") as image:
        assert image.getexif().get(274, 1) == 1
    turned = next(view for view in views.context if view.label == "turned photo.jpg")
    assert turned.exif_focal_35mm == 26
    assert told_focal(photos / "photo_2.jpg", 160, 120).mm is None


def test_of_a_clip_only_what_says_something_new_is_used(world):
    """A camera that hardly moves between frames, as in a video."""
    views = prepare([world.frame(i // 2) for i in range(40)], count=None)
    assert 12 <= len(views.context) < 20
    labels = [view.label for view in (*views.context, *views.held_out)]
    assert len(set(labels)) == len(labels)
    assert views.context[0].label < views.held_out[0].label < views.context[-1].label
