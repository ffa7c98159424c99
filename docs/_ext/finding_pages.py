"""The pages of *Findings*: each is computed from committed reports, its sentences' numbers too."""

from __future__ import annotations

import pandas as pd

from finding_numbers import (
    EVERYTHING,
    REFERENCE,
    RESULTS,
    accuracies,
    again,
    against,
    agreement,
    clear,
    code,
    counted,
    gained,
    interval,
    listed,
    markdown,
    matched,
    verdict,
    written_and_released,
)

TUNED = "imbalance_tuned"
AGAINST_IT = ["ogm_ge", "mla", "multi_loss", "g_blending", "mmpareto", "agm", "pmr", "dgl", "arl", "umt", "reconboost"]
"""The methods that were made against modality imbalance."""


def pages() -> dict[str, str]:
    """Path below ``docs`` -> text."""
    made = {
        "legacy_and_clean": legacy_and_clean(),
        "laziness": laziness(),
        "tuned_late_fusion": tuned_late_fusion(),
        "one_grid": one_grid(),
        "released": released(),
    }
    return {"findings/index.md": index(), **{f"findings/{name}.md": text for name, text in made.items()}}


def index() -> str:
    """The section's first page."""
    return """# Findings

For whoever asks what these methods have been shown to do, and what not.

All of it is measured on one small data set that comes with the package, [Open Clip Art](../openclipart.md): pictures, titles
and tags of ten classes, small encoders trained from scratch. It says where a published claim did not show there, not that the
claim fails on CREMA-D or Food-101, which were not at hand.

```{toctree}
:maxdepth: 1

legacy_and_clean
laziness
tuned_late_fusion
one_grid
released
/released_mechanisms
```
"""


def legacy_and_clean() -> str:
    """What the field's two habits add."""
    rows = pd.read_csv(RESULTS / "table1/inflation.csv")
    rows = rows[rows.pattern == EVERYTHING].set_index(["method", "part"])
    methods = list(dict.fromkeys(rows.index.get_level_values("method")))
    table = [
        [code(m), *(interval(rows.loc[(m, part)], "mean") for part in ("leakage", "peeking", "inflation"))]
        for m in methods
    ]
    parts = {part: rows.xs(part, level="part") for part in ("leakage", "peeking", "inflation")}
    scores = accuracies("table1", protocol=["clean", "legacy"])
    order = {p: scores[p].sort_values(ascending=False).index for p in ("clean", "legacy")}
    best, claimed = order["clean"][0], order["legacy"][0]
    return f"""# The usual protocol adds {parts["inflation"]["mean"].min():.0f} to {parts["inflation"]["mean"].max():.0f} points

For whoever compares numbers from papers that split at random and keep the best epoch of the test set.

Every method was trained on [three protocols](../ideas/protocols.md). *Leakage* is what a split adds that puts one artist's
pictures on both sides; *peeking* what choosing the epoch on the test set adds. In points of accuracy with everything shown,
with 95 % intervals:

{markdown(["method", "leakage", "peeking", "both"], table)}

- The interval of leakage leaves out zero for {counted(clear(parts["leakage"]), len(methods))} methods, that of peeking for
  {counted(clear(parts["peeking"]), len(methods))}.
- From the worst method to the best it is {scores["clean"].max() - scores["clean"].min():.1f} points under `clean`; the two habits
  add up to {parts["inflation"]["mean"].max():.1f}.
- The best is {code(claimed)} under `legacy` and {code(best)} under `clean`; {agreement(order["clean"], order["legacy"])}.

**What it does not say:** how large the two are elsewhere. Where samples are independent, there is nothing to leak.
{again("table1/inflation.csv", "mmbench run table1")}"""


def laziness() -> str:
    """Which joint trainings leave a modality behind, and whether mending that pays."""
    rows = pd.read_csv(RESULTS / "imbalance/diagnostics.csv")
    rows = rows[(rows.diagnostic == "laziness") & (rows.dataset == "openclipart") & rows.value.notna()]
    differences = against("imbalance", "openclipart")
    modalities = list(dict.fromkeys(rows.of))
    methods = [m for m in dict.fromkeys(rows.method) if m != REFERENCE]
    cells = rows.set_index(["method", "of"])
    table = [
        [
            code(m),
            *(interval(cells.loc[(m, of)], "value") if (m, of) in cells.index else "–" for of in modalities),
            interval(differences.loc[m], "difference"),
        ]
        for m in methods
    ]
    behind = [m for m in methods if any(cells.loc[(m, of)].ci_low > 0 for of in modalities if (m, of) in cells.index)]
    level = [m for m in methods if m not in behind]
    mended = [m for m in AGAINST_IT if m in level]
    better = [m for m in methods if differences.loc[m].ci_low > 0]
    return f"""# Joint training leaves modalities behind{", and mending that did not pay" if not better else ""}

For whoever reads that a method wins because it balances modalities.

A modality is [lazy](../ideas/patterns.md) where a model trained on it alone answers better from it than the joint model
does. In points, with 95 % intervals: how far each modality is behind that model (more is lazier), and what the method gains
with everything over [Late Fusion](../methods/late_fusion.md), whose modalities are trained alone.

{markdown(["method", *(f"{of} lazy" for of in modalities), "over late fusion"], table)}

- {len(behind)} of {len(methods)} methods leave a modality behind for certain (an interval above zero):
  {listed(behind)}.
- Of the {len(AGAINST_IT)} methods made against that, {len(mended)} leave none behind: {listed(mended)}.
- Above Late Fusion with everything for certain: {listed(better) or f"none of the {len(methods)}"}.

**What it does not say:** that balancing never pays. On this set every modality is worth about the same; where one drowns the
others there is more to win. And part of G-Blending's distance is the setting's, as both its stages share one schedule
([departure 1](../methods/g_blending.md)); [tuned](tuned_late_fusion.md), it is not as far away.
{again("imbalance/diagnostics.csv", "mmbench run imbalance")}"""


def tuned_late_fusion() -> str:
    """Whether anything beats Late Fusion when all are tuned alike."""
    dataset = "openclipart_features"
    name = TUNED
    differences = against(name, dataset, f"{REFERENCE}, tuned")
    tuned = [m for m in differences.index if m.endswith(", tuned")]
    table = [[code(m.removesuffix(", tuned")), interval(differences.loc[m], "difference")] for m in tuned]
    better = [m.removesuffix(", tuned") for m in tuned if differences.loc[m].ci_low > 0]
    worse = [m.removesuffix(", tuned") for m in tuned if differences.loc[m].ci_high < 0]
    gain = gained(name, dataset)
    return f"""# Tuned alike, {verdict(better)}

For whoever doubts a table in which the new method was tuned and the others were not.

Every method got [the same budget](../ideas/tuning.md): 16 draws a fold of the learning rate, the weight decay and its own
arguments, chosen on the fold's validation part. Accuracy with everything, minus tuned Late Fusion's, in points with 95 %
intervals:

{markdown(["method", "over late fusion"], table)}

- Above Late Fusion for certain: {listed(better) or "none"}. Below it: {listed(worse) or "none"}.
- Tuning itself adds {gain.difference.min():+.1f} to {gain.difference.max():+.1f} points to a method: more than nothing for certain
  for {listed(gain[gain.ci_low > 0].method) or "none"}, less for {listed(gain[gain.ci_high < 0].method) or "none"}.

**What it does not say:** that methods are the same. An interval a few points wide leaves room for differences that matter; this
set and these seeds cannot tell.
{again(f"{name}/comparisons.csv", f"mmbench run {name}")}"""


def one_grid() -> str:
    """Methods of both kinds, complete and with modalities missing."""
    dataset = "openclipart_features"
    rates = matched(pd.read_csv(RESULTS / "grid/rates.csv"), dataset)
    areas = matched(pd.read_csv(RESULTS / "grid/areas.csv"), dataset).set_index("method")
    scores = rates.pivot(index="method", columns="rate", values="mean").loc[areas.index]
    table = [
        [
            code(str(m)),
            *(f"{x:.1f}" for x in scores.loc[m]),
            f"{areas.area[m]:.1f} [{areas.area_low[m]:.1f}, {areas.area_high[m]:.1f}]",
        ]
        for m in areas.index
    ]
    complete = rates[rates.rate == 0].set_index("method")
    above = [str(m) for m in complete.index if complete.difference_low[m] > 0]
    best = [str(m) for m in areas.index if areas.best[m]]
    ahead = sorted(set(rates.method[rates.difference_low > 0]))
    reconstruct = ["ae", "cra", "mmin", "if_mmin", "cpm_net", "cca", "dcca", "dccae"]
    return f"""# Complete or with gaps, {"some are" if ahead else "nothing is"} above Late Fusion for certain

For whoever wants to know whether a method against imbalance helps where modalities are missing, or one for missing modalities
costs anything where none is.

Each of {len(areas)} rows was trained and tested at the same share of missing modalities, under masks that all share
([how](../ideas/missing.md)), on the embedded features. Accuracy in percent, and the area under the curve from 0.2 to 0.6:

{markdown(["method", *(f"{rate:g}" for rate in scores.columns), "area"], table)}

- On complete data {listed(above) or "no row"} is above Late Fusion for certain; at any rate, {listed(ahead) or "none"}.
- The areas that cannot be told from the best, {code(str(areas.area.idxmax()))}: {listed(best)}.
- Late Fusion, which leaves out what is missing, has an area of {areas.area[REFERENCE]:.1f}. Eight methods that fill it in, or
  search for what modalities share ({listed(reconstruct)}),
  have {areas.area[reconstruct].min():.1f} to {areas.area[reconstruct].max():.1f}; IMDer, which draws it by diffusion,
  {areas.area["imder"]:.1f}.

**What it does not say:** how these methods do at their best: none was tuned here, there is one seed, and the features are
one vector a modality, where most of the papers have sequences.
{again("grid/rates.csv", "mmbench run grid")}"""


def released() -> str:
    """As written against as released."""
    pairs = written_and_released()
    everything = pairs[pairs.pattern == EVERYTHING].set_index("name")
    table = [[name, interval(row, "difference")] for name, row in everything.iterrows()]
    alone = pairs[pairs.pattern.isin(["image", "title", "tags"]) & ((pairs.ci_low > 0) | (pairs.ci_high < 0))]
    told = [f"{row['name']}'s {row.pattern} alone, {interval(row, 'difference')}" for _, row in alone.iterrows()]
    sure = [str(name) for name, row in everything.iterrows() if row.ci_low > 0 or row.ci_high < 0]
    return f"""# Mechanisms that do nothing as released: {"none was missed" if not sure else "made to work, some tell"}

For whoever builds on released code.

In [these releases](../released_mechanisms.md) a part that the paper builds on never runs, or computes something else. The same
methods were trained both ways, on the same folds and seeds. Accuracy with everything, as written minus as released, in points
with 95 % intervals:

{markdown(["method", "as written − as released"], table)}

- {"None of these differences can be told from zero" if not sure else "Told from zero: " + ", ".join(sure)}.
- Of a single modality, before correction for {len(pairs[pairs.pattern.isin(["image", "title", "tags"])])} comparisons:
  {"; ".join(told) or "none either"}.

Whatever these papers' gains are due to, on this set it is not the part that did not run.

**What it does not say:** that the mechanism is worthless where the paper used it.
{again("released/comparisons.csv", "mmbench run released")}"""
