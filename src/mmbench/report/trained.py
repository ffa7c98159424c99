"""How the models of a report were trained, and by what code on what machine: what is common said once, then what differs by method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from mmbench.arguments import resolve_arguments
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.experiment.resolve import METHOD_RESERVED
from mmbench.experiment.space import OF_RECIPE, Dimension, Space
from mmbench.protocol import PROTOCOLS
from mmbench.recipe import Recipe
from mmbench.record import Record
from mmbench.report.cells import Cell, Section, folds_of
from mmbench.report.collect import Results
from mmbench.trial import Trial

OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
PRECISIONS = {
    "32-true": "float32",
    "tf32": "TF32 in products and convolutions, float32 in the rest; on a CPU float32",
    "bf16": "bfloat16 in the encoders, float32 in the rest",
}
GPU = ("gpu", "compute_capability", "driver", "cuda", "cudnn", "precision")
MACHINE = ("platform", "cpu", "host", "device", "devices", "threads", *GPU)
CODE = ("mmbench", "commit", "dirty")
"""What a record's environment has beside the versions of libraries."""

Rows = list[tuple[str, str]]
"""What a setting is called, and what it is, in words."""


def of_training(results: Results) -> list[Section]:
    """A table a data set, of its settings; and one of the whole report, of code and machine."""
    made = []
    for dataset in results.experiment.grid.datasets:
        trials: dict[str, list[Trial]] = {}
        for trial in results.experiment.trials:
            labels = results.experiment.labels_of(trial)
            if labels.dataset == dataset:
                trials.setdefault(labels.method, []).append(trial)
        if trials:
            made.append(_section(f"{dataset}{results.mark(dataset)}, how it was trained", _settings(results, trials)))
    return [*made, _section("How it was run", _run(results))]


def _section(title: str, rows: Rows) -> Section:
    return Section(title, [], ["setting", "value"], [[Cell(name), Cell(value)] for name, value in rows], words=True)


# Of a data set


def _settings(results: Results, trials: Mapping[str, Sequence[Trial]]) -> Rows:
    """What a data set's models were trained with; trials by the method's label."""
    every = [trial for mine in trials.values() for trial in mine]
    recipes = {method: mine[0].recipe for method, mine in trials.items()}
    common, _ = Counter(recipes.values()).most_common(1)[0]
    rows = [*_data(every[0]), *_recipe(common), *_plan(every)]
    rows += [row for method, mine in trials.items() for row in _method(method, mine[0], common)]
    return rows + _tuning(results, every[0])


def _data(trial: Trial) -> Rows:
    """The data, the encoders, and what is done to the data in training."""
    encoders = {m: _encoder(trial, m) for m in trial.encoders}
    augmentations = {m: _augmentation(trial, m) for m in trial.encoders}
    augmented = _by_value({m: text for m, text in augmentations.items() if text})
    return [
        ("data", f"{trial.dataset}, hash {trial.data[:12]}"),
        *((f"encoder of {names}", text) for names, text in _by_value(encoders)),
        ("augmentation", "; ".join(f"{names}: {text}" for names, text in augmented) or "none"),
    ]


def _encoder(trial: Trial, modality: str) -> str:
    """The encoder of a modality, its arguments, and what it reads."""
    arguments = {key: value for key, value in trial.encoders[modality].items() if key != "name"}
    parts = [f"{trial.encoders[modality]['name']}{': ' if arguments else ''}{_listed(arguments)}"]
    parts += [f"read from {trial.views[modality]}"] if modality in trial.views else []
    parts += [f"files of hash {trial.weights[modality][:12]}"] if modality in trial.weights else []
    parts += ["run once, before training"] if _is_cached(trial, modality) else []
    return "; ".join(parts)


def _is_cached(trial: Trial, modality: str) -> bool:
    return trial.cached and bool(trial.encoders[modality].get("freeze"))


def _augmentation(trial: Trial, modality: str) -> str:
    """What training does to the samples of a modality; nothing where it does nothing, or the data set is not known here."""
    if trial.dataset not in DATASETS or _is_cached(trial, modality):
        return ""
    if limits := trial.spec_augment.get(modality):
        return f"SpecAugment, {_listed(limits)}"
    data = DATASETS[trial.dataset]
    if (cropped := getattr(data, "pictures", {}).get(modality)) is not None:
        return ", ".join(filter(None, ["RandomResizedCrop to the encoder's size", _listed(cropped)]))
    augmentation = data.augmentations.get(modality)
    if augmentation is None:
        return ""
    options = (
        {f.name: getattr(augmentation, f.name) for f in fields(augmentation)} if is_dataclass(augmentation) else {}
    )
    return ", ".join(filter(None, [type(augmentation).__name__, _listed(options)]))


def _recipe(recipe: Recipe) -> Rows:
    """How most methods were trained; what a recipe does not use is left out."""
    every = f"{recipe.step_size} epochs" if recipe.step_size > 1 else "epoch"
    falls = {
        "step": f"times {recipe.gamma:g} after every {every}",
        "cosine": "falls to zero as a cosine",
        "constant": "constant",
    }
    rise = f"{recipe.warmup} epochs" if recipe.warmup > 1 else "one epoch"
    warm = f"rises over {rise}, then " if recipe.warmup else ""
    patience = f"; stops after {recipe.patience} without a better one" if recipe.patience else ""
    momentum = "momentum" if recipe.optimizer == "sgd" else "first beta"
    rows = [
        (
            "optimiser",
            f"{OPTIMISERS[recipe.optimizer]}, {momentum} {recipe.momentum:g}, weight decay {recipe.weight_decay:g}",
        ),
        ("learning rate", f"{recipe.lr:g}, {warm}{falls[recipe.schedule]}"),
        ("epochs", f"{recipe.epochs}{patience}"),
        ("batch size", str(recipe.batch_size)),
        ("precision", PRECISIONS[recipe.precision]),
    ]
    rows += [("gradients", f"cut back to a norm of {recipe.clip_norm:g}")] if recipe.clip_norm is not None else []
    rows += [("classes", "weighed against their frequency")] if recipe.class_weights == "balanced" else []
    rows += [("encoders", "compiled by torch.compile")] if recipe.compile else []
    return rows + ([("heads", f"start as {recipe.head_init}")] if recipe.head_init != "pytorch" else [])


def _plan(trials: Sequence[Trial]) -> Rows:
    """Protocols, seeds and folds, and what training lacks."""
    protocols = list(dict.fromkeys(trial.protocol for trial in trials))
    seeds = {p: _numbers(trial.seed for trial in trials if trial.protocol == p) for p in protocols}
    folds = _numbers(trial.fold for trial in trials if trial.fold is not None)
    trainings = list(dict.fromkeys(trial.training for trial in trials))
    chosen = {p: f"on the {PROTOCOLS[p].selection} split" for p in protocols}
    rows = [
        ("epoch chosen", f"the best by accuracy with all that is there, {_said_once(chosen)}"),
        ("seeds", _said_once(seeds)),
        ("folds", f"{folds} of {folds_of(trials[0].dataset)}" if folds else "none: one split"),
    ]
    return rows + ([("missing in training", "; ".join(trainings))] if trainings != ["complete"] else [])


def _method(label: str, trial: Trial, common: Recipe) -> Rows:
    """The arguments of a method, and its recipe where it is not the data set's; nothing where it has none."""
    defaults = resolve_arguments(METHODS[trial.method], {}, METHOD_RESERVED)[0]
    parts = [] if label == trial.method else [trial.method]
    for key, value in trial.params.items():
        changed = key in defaults and value != defaults[key]
        if changed or value is not None:
            parts.append(f"{key} {_text(value)}" + (f" (default {_text(defaults[key])})" if changed else ""))
    unused = {"step_size", "gamma"} if trial.recipe.schedule != "step" else set()
    own, shared = trial.recipe.model_dump(exclude=unused), common.model_dump()
    parts += [f"recipe.{key} {_text(value)}" for key, value in own.items() if value != shared[key]]
    return [(label, ", ".join(parts))] if parts else []


def _tuning(results: Results, trial: Trial) -> Rows:
    """What was tuned; the settings that were chosen have a table of their own."""
    tune, dataset = results.experiment.grid.tune, results.experiment.labels_of(trial).dataset
    protocols = results.experiment.grid.tuned_protocols.get(dataset)
    if tune is None or not protocols:
        return []
    spaces = [_space(tune.recipe), *(f"{label}: {_space(space)}" for label, space in tune.methods.items() if space)]
    if len(tune.methods) < len(results.experiment.grid.methods):
        spaces.append("and what methods declare of their own arguments")
    fold = " and fold" if trial.fold is not None else ""
    how = f"{tune.draws} draws a method{fold}, seed {tune.seed}, under {', '.join(protocols)}: {'; '.join(filter(None, spaces))}"
    return [("tuned", f"{how} (the settings that were chosen have a table of their own)")]


def _space(space: Space) -> str:
    return ", ".join(f"{name.removeprefix(OF_RECIPE)} {_range(dimension)}" for name, dimension in space.items())


def _range(dimension: Dimension) -> str:
    if dimension.choices:
        return " or ".join(map(_text, dimension.choices))
    return f"{dimension.low:g} to {dimension.high:g}" + (" (logarithmic)" if dimension.log else "")


# Of the whole report


def _run(results: Results) -> Rows:
    """What was changed of the file, the code and the machines."""
    records = {record.key: record for row in results.rows for record in row.records}
    records |= {record.key: record for record in (results.tuning.records if results.tuning else ())}
    environments = [record.environment for record in records.values()]
    libraries = [key for key in _keys(environments) if key not in (*MACHINE, *CODE)]
    rows = [
        ("changes of the file", " ".join(results.experiment.changes) or "none"),
        ("code", _counted(_commit(environment) for environment in environments)),
        ("libraries", ", ".join(f"{key} {_counted(_of(environments, key))}" for key in libraries)),
        ("machine", _counted(_joined(e, ("cpu", "platform")) for e in environments)),
        ("GPU", _counted(map(_gpu, environments))),
        ("trials ran on", _counted(_device(environment) for environment in environments)),
        ("GPU memory", _gpu_memory(records.values())),
        ("hashes of the code", _hashes(list(records.values()))),
    ]
    return [(name, value) for name, value in rows if value]


def _commit(environment: Mapping[str, Any]) -> str:
    changed = ", with changes that are not committed" if environment.get("dirty") else ""
    version = f"mmbench {environment['mmbench']}, " if "mmbench" in environment else ""
    return f"{version}commit {environment.get('commit', 'unknown')}{changed}"


def _device(environment: Mapping[str, Any]) -> str:
    if "device" not in environment:
        return ""
    device, count = "CPU" if environment["device"] == "cpu" else "GPU", environment.get("devices", 1)
    device = f"{count} {device}s" if count > 1 else "a GPU" if device == "GPU" else device
    threads = environment.get("threads")
    return device + ("" if threads is None else f", {threads} thread{'s' * (threads != 1)} a trial")


def _gpu(environment: Mapping[str, Any]) -> str:
    """The GPU and what runs it: ``NVIDIA L4, compute capability 8.9, driver 550.54.15, cuda 12.8, cudnn 9.10.2, precision tf32``."""
    if "gpu" not in environment:
        return ""
    rest = [f"{name.replace('_', ' ')} {environment[name]}" for name in GPU[1:] if environment.get(name)]
    return ", ".join([str(environment["gpu"]), *rest])


def _gpu_memory(records: Iterable[Record]) -> str:
    """The most that a trial took of a GPU."""
    peaks = [record.gpu_memory_mb for record in records if record.gpu_memory_mb is not None]
    return f"up to {max(peaks) / 1024:.1f} GB a trial" if peaks else ""


def _hashes(records: Sequence[Record]) -> str:
    """Of the core, and of each module that is a trial's method, data set or encoder."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        if (code := record.code) is not None:
            encoders = {module: digest for own in code.encoders.values() for module, digest in own.items()}
            for name, digest in {"core": code.core, **code.data, **encoders, **code.method}.items():
                found.setdefault(name.removeprefix("mmbench."), Counter())[digest] += 1
    return ", ".join(f"{name} {_counted(digests.elements())}" for name, digests in found.items())


# Words


def _counted(values: Iterable[str]) -> str:
    """A value that all trials share; or each, with the number of trials."""
    counts = Counter(value for value in values if value)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({number} trial{'s' * (number > 1)})" for value, number in counts.most_common())


def _of(environments: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return [str(environment[key]) for environment in environments if key in environment]


def _joined(environment: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(str(environment[key]) for key in keys if environment.get(key))


def _keys(environments: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for environment in environments for key in environment))


def _by_value(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """The names that share a text, and the text."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return [(", ".join(sharing), text) for text, sharing in names.items()]


def _said_once(texts: Mapping[str, str]) -> str:
    """The text that all names share, or each with its names."""
    groups = _by_value(texts)
    return groups[0][1] if len(groups) == 1 else "; ".join(f"{text} ({names})" for names, text in groups)


def _numbers(values: Iterable[int]) -> str:
    """Numbers in words: ``0, 1, 3``, or ``0 to 4``."""
    found = sorted(set(values))
    if len(found) > 2 and found == list(range(found[0], found[-1] + 1)):
        return f"{found[0]} to {found[-1]}"
    return ", ".join(map(str, found))


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in arguments.items() if value is not None)


def _text(value: Any) -> str:
    """A value, as an experiment's file would have it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
