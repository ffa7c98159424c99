"""Trying an experiment's parts out before any trial runs: each is built once, and every encoder is given a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmbench import machine
from mmbench.arguments import shown
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.data.base import MultimodalDataModule
from mmbench.data.prepared import PreparedDataModule
from mmbench.data.split import DataSpec
from mmbench.encoders.building import build_encoder
from mmbench.errors import NeedsLightning, UsageError
from mmbench.experiment.grid import Grid
from mmbench.experiment.resolve import DatasetPlan
from mmbench.experiment.searches import Setting
from mmbench.experiment.space import in_short
from mmbench.missing import Missing
from mmbench.recipe import Recipe

SMALL = 5_000_000
"""Parameters up to which an encoder is tried with memory: the meta device's first operation costs more, it imports torch's compiler."""

MOST_PARAMETERS = 5_000_000_000
"""More than this, no method or encoder of the suite can mean to have."""
WIDE = 2000
"""An argument above this may be the width of something large: the method is first built without memory."""

INITIALISERS = frozenset(
    [getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and not name.startswith("_")]
    + [Tensor.normal_, Tensor.uniform_]
)


class WithoutValues(TorchFunctionMode):
    """Modules are built without memory, and values that they would begin with are not drawn."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Leave a tensor as it is where its values would be drawn; do everything else on the meta device."""
        kwargs = kwargs or {}
        if func in INITIALISERS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def try_out(
    grid: Grid,
    methods: Mapping[str, dict[str, Any]],
    recipes: Mapping[tuple[str, str], Recipe],
    plans: Mapping[str, DatasetPlan],
    drawn: Mapping[tuple[str, str], Sequence[Setting]],
    mistakes: list[str],
) -> None:
    """Add what encoders, methods and ways of missing refuse on the data sets.

    Where a data set is not on this machine, no trial of it will run: of its encoders those alone are built that the file itself names.

    Raises:
        NeedsLightning: a method cannot be built without Lightning, which this process has not imported.
    """
    for name in grid.datasets:
        found: list[str] = []
        encoders = try_encoders(name, DATASETS[grid.dataset_of(name)], plans[name], found)
        for missing in [*filter(None, grid.trainings), *(Missing(rate=rate) for rate in grid.test_rates)]:
            try:
                missing.check(list(plans[name].encoders))
            except UsageError as error:
                found.append(f"missing, with datasets.{name}: {error}{way_out(grid, str(error))}")
        if not found and plans[name].unprepared is None:
            try_methods(name, grid, methods, recipes, encoders, drawn, found)
        mistakes += found


def way_out(grid: Grid, error: str) -> str:
    """What to write where another kind of mask would do, as the end of a message."""
    ways = [name for name, way in grid.missing.items() if way.expand() != [None]]
    kinds = " ".join(f"missing.{name}.kind=bernoulli" for name in ways)
    return f": --set {kinds}" if error.endswith("Kind bernoulli can realise it") and ways else ""


def try_encoders(
    label: str, data: type[MultimodalDataModule], plan: DatasetPlan, mistakes: list[str]
) -> dict[str, nn.Module]:
    """The encoders of a data set, without memory; adds what they refuse."""
    built = {}
    for modality, choice in plan.encoders.items():
        if plan.unprepared is not None and modality not in plan.chosen:
            continue
        where = f"datasets.{label}.encoders.{modality}"
        try:
            with torch.device("meta"), WithoutValues():
                built[modality] = build_encoder(choice)
        except Exception as error:
            mistakes.append(f"{where}: {choice['name']} refuses its arguments: {reason(error)}")
            continue
        if (count := parameters(built[modality])) > MOST_PARAMETERS:
            mistakes.append(f"{where}: {choice['name']} would have {count:,} parameters, more than {MOST_PARAMETERS:,}")
            continue
        if (modality in data.text_modalities) != hasattr(built[modality], "tokenize"):
            kind = "text" if modality in data.text_modalities else "no text"
            mistakes.append(f"{where}: {choice['name']} does not fit, {modality} is {kind}")
        elif why := misfit(data, modality, plan.views.get(modality), built[modality]):
            mistakes.append(f"{where}: {choice['name']} does not fit: {why}")
    return built


def misfit(data: type[MultimodalDataModule], modality: str, view: str | None, encoder: nn.Module) -> str | None:
    """Why an encoder cannot take a modality's samples, in words; None if it can, or if their shape is not declared."""
    declared = data.sample_shape(modality, view, encoder)
    if declared is None:
        return None
    shape, kind = declared
    given = f"a sample of {modality}{f' ({view})' if view else ''} is {kind} of shape {shape}"
    small = parameters(encoder) <= SMALL
    device = "cpu" if small else "meta"
    tried = deepcopy(encoder).eval()
    if small:
        tried._apply(lambda t: torch.zeros(t.shape, dtype=t.dtype))  # as to_empty, which imports a computer algebra
    samples = torch.zeros((2, *shape), dtype=getattr(torch, kind), device=device)
    try:
        with torch.no_grad():
            feature = tried(samples)
    except Exception as error:
        if not small and "meta" in str(error):  # an operation that needs values: nothing is known
            return None
        return f"{given}, which it cannot take: {reason(error)}"
    width = int(encoder.out_dim)  # type: ignore[arg-type]
    if not isinstance(feature, Tensor) or feature.shape != (2, width):
        got = tuple(feature.shape[1:]) if isinstance(feature, Tensor) else type(feature).__name__
        return f"{given}, of which it makes {got}, expected a vector of its out_dim, {width}"
    return None


def try_methods(
    name: str,
    grid: Grid,
    methods: Mapping[str, dict[str, Any]],
    recipes: Mapping[tuple[str, str], Recipe],
    encoders: Mapping[str, nn.Module],
    drawn: Mapping[tuple[str, str], Sequence[Setting]],
    mistakes: list[str],
) -> None:
    """Build every method for a data set, with each setting that tuning tries; adds what they refuse."""
    data = DATASETS[grid.dataset_of(name)]
    classes = data.class_names() if issubclass(data, PreparedDataModule) else data.classes
    widths = {m: width for m, width in data.feature_dims.items() if m in encoders}
    conditioning = data.conditioning if data.conditioning in encoders else next(iter(encoders))
    spec = DataSpec(tuple(encoders), (1,) * len(classes), conditioning, widths)
    for method, params in methods.items():
        factory, known = METHODS[grid.method_of(method)], len(mistakes)
        build = partial(factory, spec, encoders, recipes[name, method], **params)
        try:
            if any(isinstance(value, int) and value > WIDE for value in params.values()):
                with torch.device("meta"), WithoutValues():
                    count = parameters(build())
                if count > MOST_PARAMETERS // 10:
                    raise UsageError(f"would have {count:,} parameters")
            build()
        except Exception as error:
            if machine.plans_only() and not isinstance(error, UsageError):
                raise NeedsLightning from error  # the stand-ins may lack what it asks for
            mistakes.append(f"methods.{method}, with datasets.{name}: {reason(error)}")
        for number, setting in enumerate(drawn.get((name, method), ())[1:], 1):
            if len(mistakes) > known:
                break  # what refuses the default, or one draw, would be told of the others too
            try:
                factory(spec, encoders, setting.recipe, **setting.params)
            except Exception as error:
                short = in_short(setting.drawn)
                mistakes.append(f"tune, draw {number} of {method} on {name} ({short}): {reason(error)}")


def reason(error: Exception) -> str:
    """An error in a message: our own words as they are, of others' the first line."""
    return str(error) if isinstance(error, UsageError) else shown(str(error).partition("\n")[0])


def parameters(module: nn.Module) -> int:
    """How many numbers the parameters of a module are."""
    return sum(p.numel() for p in module.parameters())
