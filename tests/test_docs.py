"""The documents say what is so: their code runs, their links lead somewhere, their numbers are the reports'."""

import re
import shlex
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import yaml

from mmbench.baselines import METHODS
from mmbench.cli import parser
from mmbench.data.sets.openclipart import OpenClipart
from mmbench.experiment.plan import expand, load

ROOT = Path(__file__).parent.parent
QUOTED = ["table1", "missing_rates"]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "results/README.md",
    "baselines/README.md",
    "docs/openclipart.md",
    "docs/released_mechanisms.md",
]


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


@pytest.fixture
def quiet(monkeypatch):
    """Trainers without output and files."""
    plain = pl.Trainer.__init__

    def init(self, **options):
        plain(
            self,
            **options,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )

    monkeypatch.setattr(pl.Trainer, "__init__", init)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*checkpoint.*")
def test_the_python_example_trains_and_tests(quiet):
    names = {}
    exec(blocks("python")[0], names)
    metrics = names["trainer"].callback_metrics
    assert {"test/accuracy", "test/accuracy/image", "test/accuracy/image+title"} <= set(metrics)
    assert 0 < metrics["test/accuracy"] < 1


def test_the_numbers_of_an_experiment_come_as_data_frames(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(blocks("python")[1], names)
    trials = names["results"].trials
    assert len(trials) == len(load("experiments/table1.yaml").trials)
    assert {"fold", "seed", "key", "accuracy", "accuracy/image", "samples", "commit", "seconds/fit"} <= set(trials)
    assert set(names["results"].table.metric) >= {"accuracy", "macro_f1", "ece"}


def test_the_example_method_works_in_two_touches():
    source, line = blocks("python")[2:4]
    names = {}
    exec(source, names)
    method = names["MaxLogit"]
    assert line.strip() == '"max_logit": "mmbench.baselines.max_logit:MaxLogit",'
    tokenize = lambda texts: {"token": torch.ones(len(texts), 1, dtype=torch.int32)}  # noqa: E731
    data = OpenClipart(tokenizers={"title": tokenize, "tags": tokenize})
    encoders = {m: torch.nn.Identity() for m in data.modalities}
    for encoder in encoders.values():
        encoder.out_dim = 4
    task = method(data.spec, encoders)
    features = {m: torch.randn(5, 4) for m in data.modalities}
    present = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
    logits = task.fuse(features, present)
    own = task.modality_logits(features)
    assert torch.equal(logits[1], own[1, 0])
    assert torch.equal(logits[2], torch.maximum(own[2, 1], own[2, 2]))
    assert torch.equal(logits[4], torch.zeros(10))


def test_the_example_of_a_fair_comparison_is_planned():
    (text,) = (block for block in blocks("yaml") if "tune:" in block)
    experiment = expand(yaml.safe_load(text))
    assert len(experiment.trials) == 2 * 5 * 3
    assert [len(search.draws) for search in experiment.searches] == [16] * 10
    assert set(experiment.searches[1].draws[1].drawn) == {"alpha", "recipe.lr", "recipe.weight_decay"}


def test_every_command_in_the_readme_parses():
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("mmbench ")]
    commands = [c for line in lines for c in re.split(r"\s{4,}", line.split("#")[0].strip())]
    assert len(commands) >= 9
    for command in commands:
        parser().parse_args(shlex.split(command.replace("methods|datasets|encoders|experiments", "methods"))[1:])


def test_the_experiments_in_the_readme_can_be_run():
    found = [yaml.safe_load(text) for text in blocks("yaml")]
    assert len(found) >= 1
    for raw in found:
        experiment = expand(raw)
        labels = [experiment.labels_of(trial) for trial in experiment.trials]
        assert {label.dataset for label in labels} == set(raw["datasets"])
        assert {label.method for label in labels} == set(raw["methods"])


def test_the_readme_quotes_the_reports_in_git():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    reports = {name: yaml.safe_load((ROOT / f"experiments/{name}.yaml").read_text()) for name in QUOTED}
    assert len(rows) >= 2 * (1 + len(reports["table1"]["methods"])) + 1 + len(reports["missing_rates"]["methods"])
    quoted = {row for name in reports for row in (ROOT / f"results/{name}/table.md").read_text().splitlines()}
    assert [row for row in rows if row not in quoted] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    path = ROOT / page
    links = re.findall(r"\]\((?!http)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.merged
def test_every_method_has_its_row():
    page = (ROOT / "baselines/README.md").read_text()
    assert [name for name in METHODS if f"[`{name}`]({name}.py)" not in page] == []
