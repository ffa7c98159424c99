"""Mutated media files: each is answered with a result or in words, in bounded memory and time, whatever is wrong with it.

``MMBENCH_MUTANTS=5000 pytest -m slow tests/robustness/test_mutated_media.py`` tries more of them.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

COUNT = int(os.environ.get("MMBENCH_MUTANTS", "500"))
MEMORY = 2 << 30  # bytes of address space that decoding may take, beside what the libraries take when they are loaded
SECONDS = 30  # that a file may take; far more than it does, since the machine may be busy
SOUNDS = {"a.wav": "pcm_s16le", "a.flac": "flac", "a.mp3": "mp3", "a.ogg": "libopus"}
VIDEOS = {
    "a.flv": ("flv1", "mp3", 22_050),
    "a.mp4": ("libx264", "aac", 16_000),
    "a.mkv": ("mpeg4", "aac", 16_000),
    "a.webm": ("libvpx", "libopus", 48_000),
    "a.avi": ("mpeg4", "mp3", 16_000),
}
PICTURES = ("a.jpg", "a.png", "a.gif", "a.bmp", "a.tiff", "a.webp")


def write_originals(folder: Path) -> dict[str, bytes]:
    """A small whole file of every format."""
    from mmbench.data.demo.media import picture, sound, write_picture, write_sound, write_video

    for name, codec in SOUNDS.items():
        rate = 48_000 if codec == "libopus" else 22_050
        write_sound(folder / name, sound(0, 0.5, rate, name), rate, codec)
    frames = [picture(0, 48, 64, i) for i in range(5)]
    for name, (codec, track, rate) in VIDEOS.items():
        write_video(folder / name, frames, 10, codec, sound(0, 0.5, rate, name), rate, track)
    for name in PICTURES:
        write_picture(folder / name, picture(0, 48, 64, name))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Do to a file what transfers, disks and editors do, and what somebody does who means harm; most of it near the beginning."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        reach = len(changed) if random.random() < 0.4 else min(len(changed), 400)
        at = int(random.integers(reach)) if reach else 0
        length = int(random.integers(1, 64))
        kind = random.integers(7)
        if kind == 0:
            changed[at : at + 1] = bytes([changed[at] ^ 1 << random.integers(8)]) if at < len(changed) else b""
        elif kind == 1:
            number = int(random.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
            changed[at : at + 4] = number.to_bytes(4, ("big", "little")[random.integers(2)])
        elif kind == 2:
            del changed[int(random.integers(len(changed) + 1)) :]
        elif kind == 3:
            changed[at : at + length] = random.bytes(length)
        elif kind == 4:
            changed[at:at] = changed[at : at + length]
        elif kind == 5:
            del changed[at : at + length]
        else:
            changed[at : at + length] = bytes(length)
    return bytes(changed)


def decode_all(names: list[str]) -> None:
    """Decode files under limits, as the child does: a line of JSON when a file is begun and when it is done."""
    from mmbench.data.preparing.frames import read_frames
    from mmbench.data.preparing.media import BadFile, decoders
    from mmbench.data.preparing.pictures import read_image
    from mmbench.data.preparing.sound import read_audio

    decoders()  # loads the libraries
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in names:
        ending = f"a{Path(name).suffix}"
        readers = (
            [read_image] if ending in PICTURES else [read_audio] if ending in SOUNDS else [read_audio, read_frames]
        )
        print(json.dumps([name, "begun"]), flush=True)
        for read in readers:
            signal.alarm(SECONDS)
            try:
                result = (
                    read_frames(Path(name), 3, (8, 8))
                    if read is read_frames
                    else read(Path(name), *[(8, 8)] * (read is read_image))
                )
                outcome = f"result of {result.dtype}"
            except BadFile as error:
                outcome = f"words: {error}"
            except BaseException as error:
                outcome = f"RAW {type(error).__name__}: {error}"
            signal.alarm(0)
            print(json.dumps([name, outcome]), flush=True)


def outcomes(paths: list[Path]) -> dict[str, list[str]]:
    """Name of a file -> what decoding it came to; a child that dies is followed by another for the files that are left."""
    found: dict[str, list[str]] = {}
    left = [str(path) for path in paths]
    while left:
        code = "import sys, json; from test_mutated_media import decode_all; decode_all(json.load(sys.stdin))"
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        environment["MALLOC_ARENA_MAX"] = (
            "1"  # else each decoding thread reserves 64 MB of addresses, which nothing uses
        )
        child = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(left),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        for line in child.stdout.splitlines():
            name, outcome = json.loads(line)
            found.setdefault(name, [])
            found[name] += [outcome] * (outcome != "begun")
        if child.returncode == 0:
            break
        assert found, child.stderr
        last = next(reversed(found))
        found[last].append(f"RAW the process died: {child.returncode} {child.stderr[-300:]}")
        left = left[left.index(last) + 1 :]
    return found


@pytest.mark.slow
def test_mutated_files_are_answered_in_words_in_bounded_memory(tmp_path):
    originals = write_originals(tmp_path)
    random, paths = np.random.default_rng(20_261_126), []
    for i in range(COUNT):
        name = list(originals)[i % len(originals)]
        paths.append(tmp_path / f"{i:05}{Path(name).suffix}")
        paths[-1].write_bytes(mutate(originals[name], random))
    whole = outcomes([tmp_path / name for name in originals])
    assert all(line.startswith("result") for lines in whole.values() for line in lines), whole
    found = outcomes(paths)
    assert len(found) == COUNT
    counts = Counter(line.split(" ")[0] for lines in found.values() for line in lines)
    print(counts)
    raw = {name: line for name, lines in found.items() for line in lines if line.startswith("RAW")}
    assert not raw, raw
    assert counts["words:"] > COUNT / 5, "most mutations do harm"
    assert counts["result"] > COUNT / 20, "and some do none"
