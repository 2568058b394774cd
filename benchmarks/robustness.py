"""Tries again what docs/robustness.md lists, and writes its table.

    OMP_NUM_THREADS=1 python benchmarks/robustness.py [--check]

Each line is a group of tests, slow ones included. With --check nothing is written; the exit code says whether
all held.
"""

import argparse
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "robustness.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


@dataclass(frozen=True)
class Group:
    """What is tried, in how many inputs where tests try several each, and by which tests."""

    tried: str
    tests: tuple[str, ...]
    chosen: str = ""


GROUPS = (
    Group(
        "damaged copies of each of 29 kinds of files: 60 each, cut, flipped, overwritten, doubled; weights "
        "and whole results",
        ("tests/faults/test_hostile_files.py",),
        "damaged_bytes or weights or results",
    ),
    Group(
        "JSON of 9 kinds: 180 wrong values each; endless nesting and numbers; byte-order marks, UTF-16, -32",
        ("tests/faults/test_hostile_files.py",),
        "not damaged_bytes and not weights and not results",
    ),
    Group(
        "every number on the command line, out of bounds on both sides, infinite, not a number",
        ("tests/faults/test_flags.py",),
        "number or options or bounds",
    ),
    Group(
        "closed pipes, no standard streams, a full standard output; devices that do not exist",
        ("tests/faults/test_flags.py",),
        "streams or device or cuda or cpu or threads",
    ),
    Group(
        "one bad pose, shard, chunk, model, lens or file name among good ones",
        ("tests/faults/test_one_bad_thing.py",),
    ),
    Group(
        "pipes, devices, folders and other people's files in the place of ours",
        ("tests/faults/test_paths.py",),
    ),
    Group(
        "strips, gigapixels, tensors and results that claim more than there is; budgets of time",
        ("tests/faults/test_sizes.py",),
    ),
    Group(
        "orientation, profiles, HDR, pixel shapes; 300 flipped bits of a PNG, every cut; damaged videos in "
        "5 formats; 13 formats that are not read",
        ("tests/faults/test_containers.py",),
    ),
    Group(
        "videos under 24 suffixes and of 17 codecs, odd sizes, variable rates, turned, mirrored, interlaced, "
        "cut, joined, without times; animated images; videos in the place of photos",
        ("tests/faults/test_videos.py",),
    ),
    Group(
        "photos of every mode and depth that can be written: print colours, 16 bits, palettes, transparency, "
        "compressed TIFF, AVIF, HEIC without its reader",
        ("tests/faults/test_photo_formats.py",),
    ),
    Group("panoramas, black bars, sources, what the console says", ("tests/reconstruction/test_framing.py",)),
    Group("focal lengths that EXIF data tell wrongly", ("tests/reconstruction/test_exif_focal.py",)),
    Group("the same, contradicted by the pictures alone", ("tests/reconstruction/test_focal_check.py",)),
    Group("cameras that only turn, crops of one photo", ("tests/reconstruction/test_turning.py",)),
    Group(
        "pages of other origins, names made to point here, ports and addresses",
        ("tests/viewer/test_access.py",),
    ),
    Group(
        "result folders: overwriting, kills, full disks, signals", ("tests/reconstruction/test_output.py",)
    ),
    Group(
        "kills before 16 changes each of files by overwriting, sharding, synthesis and training, and "
        "what the next run makes of it",
        ("tests/faults/test_kills.py",),
    ),
    Group(
        "bad input and options of reconstruct and render, interruption, a disk that fills up", ("tests/cli",)
    ),
)


def outcome(group: Group) -> dict[str, int]:
    """Number of tests passed, failed and skipped."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-m",
        "slow or not slow",
        *group.tests,
    ]
    done = subprocess.run(
        [*command, "-k", group.chosen] if group.chosen else command, cwd=ROOT, capture_output=True, text=True
    )
    found = {
        word.rstrip("s"): int(n)
        for n, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", done.stdout)
    }
    if not found:
        raise SystemExit(done.stdout + done.stderr)
    if done.returncode:
        print(done.stdout, file=sys.stderr, flush=True)
    return {
        "passed": found.get("passed", 0),
        "failed": found.get("failed", 0) + found.get("error", 0),
        "skipped": found.get("skipped", 0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell's & and nohup ignore them, and tests send them
        signal.signal(number, signal.default_int_handler)
    lines = ["| what was tried | by | passed | failed | skipped |", "|---|---|---|---|---|"]
    failed = 0
    for group in GROUPS:
        counts = outcome(group)
        failed += counts["failed"]
        where = ", ".join(f"`{path}`" for path in group.tests)
        lines.append(
            f"| {group.tried} | {where} | {counts['passed']} | {counts['failed']} | {counts['skipped']} |"
        )
        print(lines[-1], flush=True)
    if not arguments.check:
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text("\n".join([before + BEGIN, *lines, END + after]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
