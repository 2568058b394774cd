"""Files that people bring and that are not read: what they are, and what to do with them."""

from pathlib import PurePath

_RAW = "a raw photo; develop it, and bring JPEG or 16-bit TIFF files"
_ARCHIVE = "an archive; unpack it, and name the folder"
_VIDEO = "a video of a format that is not read; convert it to MP4 (H.264)"
_MISNAMED = "a video under the name of a photo; give it its own suffix, .mp4, .mov, .mkv or .avi"
_ADVICE = {
    **dict.fromkeys(
        (
            *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".raf", ".orf", ".rw2", ".pef"),
            *(".srw", ".x3f", ".iiq", ".3fr", ".raw"),
        ),
        _RAW,
    ),
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz", ".tgz", ".xz", ".livp"), _ARCHIVE),
    **dict.fromkeys((".rm", ".rmvb", ".y4m", ".nut", ".swf", ".mjpeg", ".mjpg", ".braw", ".r3d"), _VIDEO),
    ".jxl": "JPEG XL, which is not read; convert it to JPEG or PNG (djxl)",
    ".psd": "a Photoshop file, which is not read; export it as JPEG or PNG",
    **dict.fromkeys((".exr", ".hdr"), "an HDR image without a defined brightness; export 8-bit JPEG or PNG"),
    **dict.fromkeys((".svg", ".pdf", ".eps"), "no photo; export it as JPEG or PNG"),
    **dict.fromkeys((".insp", ".insv", ".360"), "a 360-degree recording; export flat views of it first"),
}
_BEGINNINGS = {
    b"PK\x03\x04": ".zip",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"Rar!": ".rar",
    b"\x1f\x8b": ".gz",
    b"\xff\x0a": ".jxl",
    b"\0\0\0\x0cJXL ": ".jxl",
    b"8BPS": ".psd",
    b"%PDF": ".pdf",
    b"v/1\x01": ".exr",
    b"#?RADIANCE": ".hdr",
    b"FUJIFILMCCD": ".raf",
    b"FOVb": ".x3f",
}
_VIDEO_BRANDS = b"isom,iso2,iso4,iso5,iso6,mp41,mp42,avc1,M4V ,qt  ,3gp4,3gp5".split(b",")
_MATROSKA = b"\x1aE\xdf\xa3"


def what_to_do(name: str, head: bytes = b"") -> str | None:
    """What a file is and what to do with it, by its name and first bytes; None for others.

    Args:
        name: Of the file.
        head: Its first 12 bytes, or fewer; what they say counts more than the name.
    """
    for beginning, suffix in _BEGINNINGS.items():
        if head.startswith(beginning):
            return _ADVICE[suffix]
    if head[4:12] == b"ftypcrx ":
        return _RAW
    of_mp4 = head[4:8] == b"ftyp" and head[8:12] in _VIDEO_BRANDS
    if of_mp4 or head[:4] == _MATROSKA or head[8:12] == b"AVI ":
        return _MISNAMED
    known = head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n"
    return None if known else _ADVICE.get(PurePath(name).suffix.lower())
