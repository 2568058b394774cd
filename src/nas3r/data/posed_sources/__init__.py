"""Readers of posed data, for evaluation and supervised fine-tuning.

`open_posed(path)` recognises what lies at a path by its content:

    RE10K / ACID / DL3DV     folder of `.torch` chunks (or one chunk)
    DTU                      the folder that holds `Cameras/` and `Rectified/`
    MVSNet, BlendedMVS       folder with `cams/*_cam.txt`, images, depth as PFM
    ScanNet, 7-Scenes, TUM   folder of an RGB-D sequence
    cameras.json             poses, intrinsics and distortion beside image files
    nerfstudio               `transforms.json`
    COLMAP                   sparse model, text or binary, with its `images/`
    stereo                   rectified pair with disparity (Middlebury 2005/2006, 2014)
    synthetic worlds         "synthetic", "synthetic:SEED" or "synthetic:SEED:COUNT"
    a folder of any of these one scene per sub-folder

Other data takes part by implementing two small protocols of `nas3r.data.posed`: a `PosedSource` (`len()` and
indexing, giving scenes) and a `PosedScene` (`name`, `len()`, `read(indices, height, width)`). `ImageScene`
implements the second for anything that is a list of image files with cameras. Optional attributes of a scene
that are used where present: `has_depth` (which views have a depth map), `full_size` (width, height),
`numbers` (of each view in the data's own count, which indices use), `left_out` (by number, why views of the
data are not there) and `pairs` (by number, the numbers of the views that match best). Name such a source on
the command line as `package.module:function`, a function that returns it.
"""

from nas3r.data.posed_sources.opening import open_posed
from nas3r.data.posed_sources.scene import Frame, ImageScene

__all__ = ["Frame", "ImageScene", "open_posed"]
