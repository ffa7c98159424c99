"""The documents say what is so: their code runs, their links lead somewhere, their numbers are the reports'."""

import re
from pathlib import Path

import torch
import yaml

from mmbench.data.sets.openclipart import OpenClipart
from mmbench.experiment.plan import expand

ROOT = Path(__file__).parent.parent
QUOTED = ["table1", "missing_rates"]


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def test_the_example_method_works_in_two_touches():
    (source,), (line,) = blocks("python")[2:], [b for b in blocks("") if "MaxLogit" in b]
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


def test_the_readme_quotes_the_reports_in_git():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| ")]
    reports = {name: yaml.safe_load((ROOT / f"experiments/{name}.yaml").read_text()) for name in QUOTED}
    assert len(rows) >= 2 * (1 + len(reports["table1"]["methods"])) + 1 + len(reports["missing_rates"]["methods"])
    quoted = {row for name in reports for row in (ROOT / f"results/{name}/table.md").read_text().splitlines()}
    assert [row for row in rows if row not in quoted] == []
