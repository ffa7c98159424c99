"""A method, a data set and an encoder are each one file and one line: in a copy of the repository, ``make test`` asks for no more."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DATA_SET = '''
"""A data set of one's own."""

import torch

from mmbench.data.base import MultimodalDataModule
from mmbench.data.split import Loaded, Split


class Own(MultimodalDataModule):
    """Two modalities of numbers."""

    name = "own"
    modalities = ("one", "other")
    classes = ("no", "yes")
    conditioning = "one"
    encoders = {m: {"name": "own_encoder", "in_dim": 3} for m in modalities}
    feature_dims = {"one": 3, "other": 3}

    @classmethod
    def manifest(cls) -> str:
        return "1"

    def load(self) -> Loaded:
        train, validation, test = (self.draw(seed) for seed in range(3))
        return Loaded(train, None if self.protocol.split == "legacy" else validation, test)

    def draw(self, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        label = torch.arange(40) % 2
        inputs = {m: torch.randn(40, 3, generator=generator) + 2 * label[:, None] for m in self.modalities}
        return Split(inputs, torch.ones(40, 2, dtype=torch.bool), label, torch.arange(40) + 40 * seed)
'''

ENCODER = '''
"""An encoder of one's own."""

from torch import Tensor, nn


class OwnEncoder(nn.Linear):
    """A linear map of vectors.

    Args:
        in_dim: of the vectors.
    """

    def __init__(self, in_dim: int) -> None:
        super().__init__(in_dim, 5)
        self.out_dim = 5

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)
'''


CHOSEN = "max_logit or own-concat or own-cca or own-cpm_net or own-mmin or test_what_every_data_set_holds"
"""The new method, and on the new data set a few methods of different kinds."""


@pytest.mark.slow
def test_two_touches_are_two(tmp_path: Path) -> None:
    """The method of the page on one's own, word for word, and a data set and an encoder; then every test that goes over the tables."""
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "data_", "__pycache__", "*.egg-info"))
    package = copy / "src" / "mmbench"
    (package / "baselines").symlink_to(copy / "baselines")  # as one package, without installing it
    page = (ROOT / "docs/how_to/my_method.md").read_text()
    source, line = re.search(r"```python\n(.*?)```.*?(\"max_logit\": \"mmbench\S*)", page, flags=re.DOTALL).groups()
    for file, content, table, entry in [
        (copy / "baselines/max_logit.py", source, copy / "baselines/__init__.py", line),
        (package / "data/sets/own.py", DATA_SET, package / "data/__init__.py", '"own": "mmbench.data.sets.own:Own",'),
        (package / "encoders/own.py", ENCODER, package / "encoders/__init__.py", '"own_encoder": "mmbench.encoders.own:OwnEncoder",'),
    ]:  # fmt: skip
        file.write_text(content.lstrip())
        before = table.read_text()
        table.write_text(re.sub(r'(\n +)("\w+": "mmbench\.)', rf"\1{entry}\1\2", before, count=1))
        assert len(table.read_text().splitlines()) == 1 + len(before.splitlines())
    environment = {**os.environ, "PYTHONPATH": f"{copy}/src"}

    def told(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=copy, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    assert "max_logit" in told("mmbench", "list", "methods")
    # Tests of one method, data set or encoder are run for the new ones; what goes over whole tables is run whole.
    one = [
        "tests/baselines/test_contract.py",
        "tests/baselines/test_extremes.py",
        "tests/test_task.py",
        "tests/test_trial.py",
    ]
    passed = told("pytest", "-q", "-p", "no:cacheprovider", *one, "tests/data/test_base.py", "-k", CHOSEN)
    assert int(re.search(r"(\d+) passed", passed)[1]) > 80
    whole = ["tests/docs", "tests/test_registry.py", "tests/test_layout.py", "tests/encoders/test_encoders.py"]
    told("pytest", "-q", "-p", "no:cacheprovider", *whole, "tests/data/test_chain.py")
