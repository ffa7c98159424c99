"""
Train and compare two methods
=============================

For whoever has two methods, and wants to know whether one is better.
"""

# %%
# An experiment is a mapping, with the same keys as an experiment's file. This one trains late fusion and MLA on Open
# Clip Art as feature vectors, which comes with the package. The set is cut into five folds; each is tested by models
# trained on the others, and no artist is in two of them. Two methods and five folds make ten trainings.

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import mmbench

folder = Path(tempfile.mkdtemp(prefix="mmbench-"))
# Where features are kept that are made once.
os.environ.setdefault("MMBENCH_DATA", str(folder / "data"))

recipe = {"optimizer": "adam", "epochs": 12, "lr": 0.001, "step_size": 10}
experiment = {
    "title": "Late fusion and MLA",
    "datasets": {"openclipart_features": {"folds": "all", "recipe": recipe}},
    "methods": {"late_fusion": {}, "mla": {}},
    "seeds": [0],
}
results = mmbench.run(experiment, folder / "results")

# %%
# Every trained model is tested with each *presence pattern*: what it makes of the picture alone, of title and tags,
# of everything. The table has a row for each method, pattern and metric, in percent, with a 95 % interval.

accuracy = results.table.query("metric == 'accuracy'")
by_pattern = accuracy.pivot(index="pattern", columns="method", values="mean")
print(by_pattern.round(1).to_string())

# %%
# Two intervals that overlap do not say that two methods are alike: what is an easy picture for one is easy for the
# other. So the difference has an interval of its own, of the same pictures and the same seeds, both resampled.
# Pictures by one artist are resampled together.

everything = "image+title+tags"
both = results.comparisons.query("pattern == @everything").iloc[0]
print(f"{both.method} − {both.other}: {both.difference:+.1f} points")
print(f"95 % interval: {both.ci_low:+.1f} to {both.ci_high:+.1f}")

# %%
# The same for every pattern, as a picture.

lines = results.comparisons[::-1]
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
axes.hlines(lines.pattern, lines.ci_low, lines.ci_high)
axes.plot(lines.difference, lines.pattern, "o")
axes.axvline(0, color="0.5", lw=1)
axes.set(xlabel="late fusion − MLA, points of accuracy")
plt.show()

# %%
# If zero is inside the interval, these trainings do not tell the two apart. That is no proof that they are equal: more
# seeds and more data give a narrower interval (``"seeds": [0, 1, 2]``).

told_apart = both.ci_low > 0 or both.ci_high < 0
print("told apart" if told_apart else "not told apart")
