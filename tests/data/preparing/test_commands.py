"""``mmbench data …``: exit codes and what is printed."""

import json
import shutil

import pytest

from mmbench.cli import main
from mmbench.data import DATASETS
from mmbench.data.preparing import prepare as prepare_module
from toy import FoldedToy, Toy, change, write_toy


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(type(DATASETS), "__getitem__", lambda self, name: known(name))
    monkeypatch.setattr(type(DATASETS), "__iter__", lambda self: iter(["broken", "toy"]))
    monkeypatch.setattr(type(DATASETS), "__len__", lambda self: 2)
    monkeypatch.setattr(Toy, "write_demo", classmethod(lambda cls, raw: write_toy(raw)))
    write_toy(tmp_path / "raw")
    return tmp_path / "raw"


def known(name):
    from mmbench.errors import UsageError

    if name != "toy":
        raise UsageError(f"unknown data set '{name}'")
    return Toy


def call(capsys, *arguments):
    """The exit code, and what was printed and said."""
    code = main(["data", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_whole_way(raw, capsys):
    assert call(capsys, "list")[1].splitlines() == [
        "broken  unknown data set 'broken'",
        "toy       2 classes  1 split  number, text            not prepared: mmbench data info toy",
    ]
    assert call(capsys, "info", "toy")[1].endswith("It is not prepared.\n")
    code, out, err = call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    assert (code, out) == (0, "")
    assert err.endswith("now look at it: mmbench data audit toy\n")
    assert "toy: 100/100 decoded" in err
    assert call(capsys, "list")[1].endswith("ready\n")
    assert call(capsys, "info", "toy")[1].endswith("It is prepared.\n")
    assert call(capsys, "verify", "toy")[:2] == (0, "toy: as it was prepared\n")
    code, out, _ = call(capsys, "audit", "toy")
    assert code == 0
    assert out.endswith("toy: protocol clean holds\n")


def test_folds_are_published_by_hash(raw, capsys, monkeypatch):
    assert "\nfolds: none, it has one split\n" in call(capsys, "info", "toy")[1]
    monkeypatch.setattr(type(DATASETS), "__getitem__", lambda self, name: FoldedToy)
    told = "\nfolds: 5, by ten; the hash of their lists is told once the data are there\n"
    assert told in call(capsys, "info", "toy")[1]
    call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    parts = FoldedToy.parts()
    lines = [f"  {s}: SHA-256 {parts.hash_of(s)} of the sorted lines '<sample> <part>'\n" for s in ("clean", "legacy")]
    assert f"\nfolds: 5, by ten\n{''.join(lines)}" in call(capsys, "info", "toy")[1]
    assert "2 classes  5 folds  number, text" in call(capsys, "list")[1]


def test_a_data_set_that_is_not_prepared_is_described_too(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    code, out, _ = call(capsys, "info", "openclipart_features")
    assert code == 0
    assert out.startswith("Each modality of ``openclipart`` as 128 numbers")
    assert f"clean: SHA-256 {DATASETS['openclipart'].parts().hash_of('clean')}" in out
    assert out.endswith("It is ready.\n")
    code, out, _ = call(capsys, "info", "iemocap_features")
    assert code == 0
    assert "It is not ready.\n" in out
    assert "labels.csv is missing" in out.splitlines()[-1]


def test_links_may_lead_into_folders_that_are_named(raw, capsys, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for number in (3, 4):
        path = next((raw).rglob(f"*{number}.txt"))
        path.rename(tmp_path / "elsewhere" / path.name)
        path.symlink_to(tmp_path / "elsewhere" / path.name)
    code, _, err = call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    assert code == 2
    assert "--also-from DIR" in err
    assert "--also-from DIR" in call(capsys, "info", "toy")[1]
    code, _, err = call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1, "--also-from", tmp_path / "no")
    assert (code, "no such folder" in err) == (2, True)
    also = ("--also-from", tmp_path / "nothing", "--also-from", tmp_path / "elsewhere")
    (tmp_path / "nothing").mkdir()
    assert call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1, *also)[0] == 0


def test_the_data_folder_can_be_named(raw, capsys, tmp_path):
    assert call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1, "--data-dir", tmp_path / "there")[0] == 0
    assert (tmp_path / "there/toy/manifest.json").exists()


def test_a_violated_protocol_is_a_failure_of_that_protocol_only(raw, capsys):
    change(raw, 0, legacy="")
    call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    code, out, _ = call(capsys, "audit", "toy", "--protocol", "legacy")
    assert code == 1
    assert "VIOLATION: legacy: train has 59 samples, published 60\n" in out
    code, out, _ = call(capsys, "audit", "toy")
    assert code == 0
    assert "note: legacy: train has 59 samples, published 60\n" in out


def test_changed_data_fail_the_verification(raw, capsys):
    call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    (Toy.folder() / "big.npy").unlink()
    code, out, _ = call(capsys, "verify", "toy")
    assert code == 1
    assert out.endswith("toy: 1 difference\n")
    assert "big.npy cannot be read" in call(capsys, "info", "toy")[1]


def test_too_many_bad_files_exit_with_one_and_can_be_accepted(raw, capsys):
    for i in range(5):
        (raw / f"{i:03}.txt").write_text("bad")
    code, _, err = call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    assert code == 1
    assert "5 of 100 samples cannot be used" in err
    assert call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1, "--allow-bad")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "to"),
        ("audit", "toy"),
        ("verify", "toy"),
        ("prepare", "toy", "--raw", "nowhere"),
    ],
)
def test_mistakes_exit_with_two(raw, capsys, arguments):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("mmbench: ")
    assert err.count("\n") == 2, "the mistake and its page"


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1000000000"])
def test_a_number_of_processes_that_cannot_be_is_refused(raw, capsys, jobs):
    with pytest.raises(SystemExit) as end:
        call(capsys, "prepare", "toy", "--raw", raw, "--jobs", jobs)
    assert end.value.code == 2
    assert "argument --jobs: " in capsys.readouterr().err


def test_a_demo_says_that_it_is_one(raw, capsys, tmp_path):
    assert call(capsys, "demo", "toy", "--jobs", 1)[0] == 0
    assert call(capsys, "list")[1].endswith("ready: a made-up demo copy\n")
    assert call(capsys, "info", "toy")[1].endswith("It is prepared, as a made-up demo copy.\n")
    assert call(capsys, "demo", "toy", "--jobs", 1)[0] == 0, "again"
    assert (tmp_path / "data/demo-raw/toy/MADE-UP").exists()


@pytest.mark.parametrize("state", ["prepared", "damaged", "old", "begun"])
def test_a_demo_never_takes_the_place_of_real_data(raw, capsys, monkeypatch, state, tmp_path):
    with monkeypatch.context() as patch:
        if state == "begun":
            patch.setattr(prepare_module, "describe", lambda *a: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
        else:
            call(capsys, "prepare", "toy", "--raw", raw, "--jobs", 1)
    manifest = Toy.folder() / "manifest.json"
    if state == "damaged":
        manifest.write_text("{")
    elif state == "old":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 0}))
    code, _, err = call(capsys, "demo", "toy", "--jobs", 1)
    assert code == 2
    assert "holds the real toy" in err
    shutil.rmtree(tmp_path / "data")
    assert call(capsys, "demo", "toy", "--jobs", 1)[0] == 0
