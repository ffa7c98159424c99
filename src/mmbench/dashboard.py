"""``mmbench dashboard``: a workspace of Weights & Biases for an experiment, as code.

Its panels show what the runs of trials and of the report log (``tracking``, ``tracked_report``), by the names that they log it under:
accuracy by method, curves by missing rate, curves by epoch, and the report's tables and figures. The specification is built and
printed without a login (``--print``), and tests hold its names against what runs really log. How W&B's site draws it cannot be checked
without a login, and was not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mmbench.errors import RunnerError, UsageError
from mmbench.protocol import SELECTION_METRIC
from mmbench.tracked_report import RATE, rate_key
from mmbench.tracking import WandbSettings, accuracy_key, usable_mode

if TYPE_CHECKING:
    from mmbench.experiment.plan import Experiment
    from mmbench.trial import Trial

TABLES = ("table", "comparisons", "diagnostics", "trials")
"""Tables of the report that have a panel, where the report has them."""
FIGURES = (
    "figure", "differences", "pairs", "ranks", "robustness", "rate-differences", "dropout", "surface", "training", "tuning", "curves",
    "gradients", "gap", "confusion", "recall", "reliability", "cost",
)  # fmt: skip
"""Its figures, likewise."""
MOST_BARS = 100
PANELS_A_ROW = 3
WIDTH, HEIGHT = 8, 9
"""Of a panel on W&B's grid, which is 24 wide; tables are as wide as that."""


def workspace(experiment: Experiment, project: str, entity: str) -> Any:
    """The workspace (``wandb_workspaces.workspaces.Workspace``).

    Raises:
        UsageError: the package is not installed.
    """
    try:
        import wandb_workspaces.workspaces as ws
        from wandb_workspaces import expr
    except ImportError as error:
        raise UsageError(
            f"mmbench dashboard needs the package wandb-workspaces ({error}): pip install 'mmbench[wandb]'"
        ) from error
    panels = {
        "Accuracy with every modality, in percent": accuracies(experiment),
        "Accuracy by missing rate, in percent": missing_rates(experiment),
        "By epoch": curves(experiment),
        "Report: tables and figures": tables(),
    }
    sections = [ws.Section(name=name, panels=list(found), is_open=True) for name, found in panels.items() if found]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"mmbench {experiment.name}",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=MOST_BARS),
        runset_settings=ws.RunsetSettings(filters=[expr.Metric("Group") == experiment.name]),
    )


def accuracies(experiment: Experiment) -> list[Any]:
    """Bars: for each table its methods, the mean over seeds and folds, with a standard deviation."""
    import wandb_workspaces.reports.v2 as wr

    found = dict.fromkeys((experiment.labels_of(t).dataset, t.protocol, t.training) for t in experiment.trials)
    return [
        wr.BarPlot(
            title=" ".join([dataset, protocol, *([training] if training != "complete" else [])]),
            metrics=[accuracy_key(dataset, protocol, training)],
            groupby=wr.Config("method_label"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_bars_to_show=MOST_BARS,
            max_runs_to_show=1000,
            layout=place(number),
        )
        for number, (dataset, protocol, training) in enumerate(found)
    ]


def missing_rates(experiment: Experiment) -> list[Any]:
    """Lines over the rate, where the experiment has rates: trained at each, and trained in one way for all."""
    import wandb_workspaces.reports.v2 as wr

    masked = [t for t in experiment.trials if t.missing is not None and not t.missing.train_only]
    if not masked and not experiment.grid.test_rates:
        return []
    found = dict.fromkeys((experiment.labels_of(t).dataset, t.protocol) for t in experiment.trials)
    kinds = {"trained at each rate": ("matched", "at each rate")} if masked else {}
    kinds["trained on complete data"] = ("robustness", "complete")
    beginnings = [
        (f"{dataset} {protocol}, {words}", rate_key(dataset, protocol, *kind))
        for dataset, protocol in found
        for words, kind in kinds.items()
    ]
    return [
        wr.LinePlot(title=title, x=RATE, metric_regex=f"^{literal(key)}/.*", layout=place(number))
        for number, (title, key) in enumerate(beginnings)
    ]


def literal(text: str) -> str:
    """A regular expression for a text, in what all dialects have in common: a space is itself."""
    return re.sub(r"([\\^$.|?*+()\[\]{}])", r"\\\1", text)


def curves(experiment: Experiment) -> list[Any]:
    """Lines over the epochs, the mean of each row of the tables over seeds and folds."""
    import wandb_workspaces.reports.v2 as wr

    def lines(title: str, *metrics: str) -> dict[str, Any]:
        return {"title": title, "y": list(metrics)}

    wanted = [
        lines("training loss", "train/loss"),
        lines("validation loss", "validation/loss"),
        lines("validation accuracy, in percent", SELECTION_METRIC),
        lines("learning rate", "train/lr"),
        *(
            lines(f"log of the gradient's norm, {m}", f"gradient/{m}", f"gradient/{m}/modulated")
            for m in modalities(experiment.trials)
        ),
    ]
    return [
        wr.LinePlot(
            **panel,
            x="epoch",
            groupby=wr.Config("row"),
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            max_runs_to_show=1000,
            layout=place(number),
        )
        for number, panel in enumerate(wanted)
    ]


def modalities(trials: Iterable[Trial]) -> list[str]:
    """All modalities that any trial has, in their order."""
    return list(dict.fromkeys(modality for trial in trials for modality in trial.encoders))


def tables() -> list[Any]:
    """The tables of the report's run, and its figures."""
    import wandb_workspaces.reports.v2 as wr

    found = [
        wr.WeavePanelSummaryTable(table_name=name, layout=place(number, across=1)) for number, name in enumerate(TABLES)
    ]
    keys = [f"figures/{name}" for name in FIGURES]
    return [*found, wr.MediaBrowser(title="figures", media_keys=keys, layout=place(len(TABLES), across=1))]


def place(number: int, across: int = PANELS_A_ROW) -> Any:
    """Where a section's panel stands, so many in a row."""
    import wandb_workspaces.reports.v2 as wr

    width = WIDTH * PANELS_A_ROW // across
    return wr.Layout(x=number % across * width, y=number // across * HEIGHT, w=width, h=HEIGHT)


def specification(experiment: Experiment) -> str:
    """The workspace as the JSON that W&B keeps of it."""
    view = workspace(experiment, WandbSettings().project, entity="")._to_model()
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    return json.dumps({"project": view.project, "displayName": view.display_name, "spec": spec}, indent=2)


def save(experiment: Experiment) -> str:
    """Make the workspace in W&B; returns its address.

    Raises:
        UsageError: there is no login, or the package is not installed.
        RunnerError: W&B does not take it, or cannot be reached.
    """
    made = workspace(experiment, project := WandbSettings().project, entity="")
    mode, reason = usable_mode("online")
    if mode != "online":
        raise UsageError(
            f"mmbench dashboard saves a workspace in W&B, for which one has to be logged in: `wandb login`; --print shows it "
            f"without ({reason.partition(';')[0].removeprefix('W&B: ')})"
        )
    import wandb

    try:
        made.entity = wandb.Api(timeout=30).default_entity
        made.save()
        return str(made.url)
    except Exception as error:  # of W&B's, of the network's: there is no common kind
        raise RunnerError(
            f"W&B did not take the workspace of project '{project}': {type(error).__name__}: {error}"
        ) from error
