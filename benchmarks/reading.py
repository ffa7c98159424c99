"""Preparing and reading data, as ratios: against decoding anew each time, against bare decoding, against a training step; and memory.

Run with nothing else on the machine. Files are made up in CREMA-D's layout and codecs: clips of 2.5 s, 480 × 360 at 30 frames a second.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from mmbench.data.augment import RandomResizedCrop, Resize
from mmbench.data.demo.media import picture, sound, write_sound, write_video
from mmbench.data.prepared import Mapped
from mmbench.data.preparing.audio import fbank
from mmbench.data.preparing.prepare import prepare
from mmbench.data.preparing.sound import read_audio
from mmbench.data.sets.crema_d import ACTORS, EMOTIONS, CremaD
from mmbench.encoders.timm_image import ResNet18, ResNet18Audio

CLIPS = 64


def seconds(*functions: Callable[[], object], rounds: int) -> list[float]:
    """The median CPU time of each function; called in turn, since a machine's speed changes."""
    taken = [[] for _ in functions]
    for _ in range(rounds):
        for function, times in zip(functions, taken, strict=True):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
    return [statistics.median(times) for times in taken]


def write_clips(raw: Path) -> list[str]:
    """64 clips of CREMA-D's length and size; three frames of each as JPEG too, as releases extract them."""
    names = [f"{ACTORS[i // 6]}_DFA_{list(EMOTIONS)[i % 6]}_XX" for i in range(CLIPS)]
    for name in names:
        frames = [picture(i % 6, 360, 480, f"{name}:{i}") for i in range(75)]
        write_sound(raw / f"AudioWAV/{name}.wav", sound(0, 2.5, 16_000, name), 16_000)
        write_video(raw / f"VideoFlash/{name}.flv", frames, 30, "flv1")
        for i in range(3):
            path = raw / f"jpeg/{name}/{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frames[25 * i]).save(path, quality=90)
    return names


def as_peers_do(raw: Path, names: list[str]) -> torch.Tensor:
    """A batch as most released code makes it: each time anew, the sound read and filtered, three JPEGs decoded, cropped and scaled."""
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    clips = []
    for name in names:
        fbank(torch.from_numpy(read_audio(raw / f"AudioWAV/{name}.wav")))
        clips.append(
            torch.stack([transform(Image.open(raw / f"jpeg/{name}/{i}.jpg").convert("RGB")) for i in range(3)])
        )
    return torch.stack(clips)


def bare_decoding(raw: Path, names: list[str]) -> None:
    """Every frame and sample through PyAV, and nothing done with them."""
    for name in names:
        for path, kind in ((raw / f"AudioWAV/{name}.wav", "audio"), (raw / f"VideoFlash/{name}.flv", "video")):
            with av.open(str(path)) as container:
                stream = getattr(container.streams, kind)[0]
                stream.thread_type = "NONE"
                for _ in container.decode(stream):
                    pass


def memory_of_reading(folder: Path) -> None:
    """Read a map of 8 GB in a process that may use 4 GB of memory of its own."""
    path = folder / "large.npy"
    rows = 8 * 2**30 // (3 * 256 * 342)
    np.lib.format.open_memmap(path, "w+", np.uint8, (rows, 256, 342, 3)).flush()  # sparse: takes no disk
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (4 << 30,) * 2)\n"
        "import numpy as np, torch; from mmbench.data.prepared import Mapped\n"
        f"rows = Mapped(np.load({str(path)!r}, mmap_mode='r'), np.arange({rows}))\n"
        "for part in torch.randperm(len(rows)).split(256): rows[part].sum()\n"
        "own = [line for line in open('/proc/self/status') if line.startswith('RssAnon')][0].split()[1]\n"
        "print(f'{int(own) / 2**20:.2f} GiB of its own')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    answer = (done.stdout or done.stderr[-300:]).rstrip()
    print(f"reading a map of {path.stat().st_size / 2**30:.1f} GiB under a limit of 4 GiB: {answer}")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = folder / "raw"
        names = write_clips(raw)
        os.environ["MMBENCH_DATA"] = str(folder / "data")
        manifests = []
        bare, preparing = seconds(
            lambda: bare_decoding(raw, names),
            lambda: manifests.append(prepare(CremaD, raw, jobs=1, say=lambda text: None)),
            rounds=3,
        )
        rates = f"{CLIPS / preparing:.0f} against {CLIPS / bare:.0f} clips/s"
        print(f"preparing: {bare / preparing:.2f} of the rate of bare decoding ({rates})")

        crop = RandomResizedCrop(224)
        maps = {n: Mapped(CremaD.array(n, manifests[-1]), np.arange(CLIPS)) for n in ("fbank", "frames")}
        order = torch.randperm(CLIPS)
        anew, read, both = seconds(
            lambda: as_peers_do(raw, names),
            lambda: [maps["fbank"][order], maps["frames"][order]],
            lambda: [maps["fbank"][order], crop(maps["frames"][order])],
            rounds=9,
        )
        print(
            f"a batch of {CLIPS}, against anew each time: {anew / read:.0f} times as fast read, {anew / both:.1f} augmented too"
        )
        each = [f"{1000 * taken / CLIPS:.2f}" for taken in (anew, read, both)]
        print(f"  ms a clip: {each[0]} anew, {each[1]} read, {each[2]} read and augmented")

        audio, video = ResNet18Audio(), ResNet18(3)
        sounds, frames = maps["fbank"][order[:8]], Resize(224)(maps["frames"][order[:8]])

        def step() -> None:
            F.cross_entropy(
                torch.cat([audio(sounds), video(frames)], dim=1), torch.zeros(8, dtype=torch.long)
            ).backward()

        training = 8 * seconds(step, rounds=3)[0]
        share = 100 * both / (both + training)
        print(f"data take {share:.1f} % of a training epoch of two ResNet-18 on the CPU ({training:.0f} s a batch)")
        memory_of_reading(folder)
        print(f"most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
