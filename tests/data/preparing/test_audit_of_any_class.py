"""The audit of data sets that are not prepared: what ``load`` returns is all there is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmbench.cli import main
from mmbench.data.preparing.audit import audit
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.data.sets.openclipart_features import OpenClipartFeatures
from mmbench.data.split import Loaded
from planted import Planted3


class Changed(Planted3):
    """With something planted into the splits by ``plant``."""

    encoders = {}
    plant = staticmethod(lambda train, validation, test: None)

    def load(self):
        loaded = super().load()
        parts = [loaded.train, loaded.validation, loaded.test]
        for part in filter(None, parts):
            part.present[:] = True
        self.plant(*parts)
        return loaded


def planted(plant):
    return audit(type("Changed", (Changed,), {"plant": staticmethod(plant)}))


def test_a_class_of_ones_own():
    found = audit(Changed)
    assert found.violations == {"clean": [], "legacy": []}
    assert found.facts[0] == "73 samples, 3 classes, 37 groups"
    assert found.facts[1].startswith("clean train: 40 samples: low 18, middle 14, high 8")
    assert "words names the class of its sample in 73 of 73 texts (100%)" in found.findings


def test_samples_are_named_by_split_and_position():
    def plant(train, validation, test):
        test.inputs["picture"][2] = train.inputs["picture"][5]

    found = planted(plant)
    line = "1 of 17 test samples share their picture with train: test[2] and train[5]"
    assert found.violations["clean"] == [line]
    assert (f"clean: {line.partition(': ')[0]}", "test[2]", "train[5]") in found.pairs


def test_vectors_that_are_equal_are_told_and_whole_samples_break_the_promise():
    class Wide(Changed):
        def load(self):
            loaded = super().load()
            parts = [loaded.train, loaded.validation, loaded.test]
            wide = [p and replace(p, inputs={**p.inputs, "sensor": p.inputs["sensor"].repeat(1, 2)}) for p in parts]
            wide[2].inputs["sensor"][4] = wide[0].inputs["sensor"][7]
            if self.copy:
                wide[2].inputs["picture"][4] = wide[0].inputs["picture"][7]
                wide[2].inputs["words"]["number"][4] = wide[0].inputs["words"]["number"][7]
            return Loaded(*wide)

    Wide.copy = False
    found = audit(Wide)
    assert found.violations["clean"] == []
    assert "clean: 1 of 17 test samples share their sensor with train: test[4] and train[7]" in found.findings
    Wide.copy = True
    line = "1 of 17 test samples share their whole content with train: test[4] and train[7]"
    assert line in audit(Wide).violations["clean"]


def test_what_the_suite_refuses_is_a_violation():
    def plant(train, validation, test):
        test.group[0] = train.group[0]

    found = planted(plant)
    assert found.violations["clean"][0].startswith("refused: ")
    assert "group 0 is in the train split" in found.violations["clean"][0]
    assert found.violations["legacy"] == []
    assert any(line.startswith("legacy: 2 of 17 test samples share their group") for line in found.findings) is False


def test_absence_that_gives_the_class_away_is_told():
    def plant(train, validation, test):
        for part in filter(None, (train, validation, test)):
            part.present[:, 0] = part.label != 1

    assert any(line.startswith("sensor gives the class away by being absent") for line in planted(plant).findings)


def test_a_modality_that_training_never_sees_is_told():
    def plant(train, validation, test):
        train.present[:, 1] = False

    found = planted(plant)
    assert "clean: no training sample has picture" in found.findings
    assert "the train split has picture" not in found.facts
    assert not any("no training sample" in line for line in audit(Changed).findings)


def test_inputs_that_only_their_class_knows_are_left_out():
    def plant(train, validation, test):
        for part in filter(None, (train, validation, test)):
            part.inputs["words"] = {"own": torch.zeros(len(part), 4, dtype=torch.int64)}

    found = planted(plant)
    assert found.violations["clean"] == []
    assert not any("words" in line for line in found.findings)


@pytest.mark.parametrize("data", [OpenClipart, OpenClipartFeatures])
def test_open_clip_art(data):
    found = audit(data)
    assert found.violations == {"clean": [], "legacy": []}
    assert found.facts[:2] == ["1632 samples, 10 classes, 307 groups", "621 samples have no tags"]
    assert any(line.startswith("clean fold 4: tests 303 samples") for line in found.facts)
    alike = [line for line in found.findings if "look-alike" in line]
    assert len(alike) == (4 if data is OpenClipart else 0)
    assert not any("gives the class away" in line for line in found.findings)
    texts = data.read()
    test = np.flatnonzero(texts["split_clean"] == 2)
    train = {str(title).casefold() for title in texts["title"][texts["split_clean"] == 0]}
    count = sum(str(texts["title"][row]).casefold() in train for row in test)
    assert any(
        line.startswith(f"clean: {count} of 282 test samples share their title with train") for line in found.findings
    )


def test_the_command_lists_all_pairs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    assert main(["data", "audit", "openclipart", "--pairs", str(tmp_path / "pairs.csv")]) == 0
    lines = (tmp_path / "pairs.csv").read_text().splitlines()
    assert lines[0] == "what,sample,other"
    assert any(line.startswith("clean: 2 of 282 test samples have a look-alike (image) in train,") for line in lines)
    assert capsys.readouterr().out.endswith("openclipart: protocol clean holds\n")
    assert main(["data", "audit", "openclipart", "--pairs", str(tmp_path / "no" / "pairs.csv")]) == 2


def test_data_that_are_not_there_are_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMBENCH_DATA", str(tmp_path))
    assert main(["data", "audit", "iemocap_features"]) == 2
    assert "labels.csv is missing" in capsys.readouterr().err


def test_hidden_values_change_nothing():
    def plant(train, validation, test):
        train.present[:5, 0] = False
        train.inputs["sensor"][:5] = 0
        train.inputs["sensor"] = train.inputs["sensor"].to(torch.float32)

    assert not any("throughout" in line for line in planted(plant).findings)
