"""
Reading the store with pandas
=============================

For whoever wants numbers as data frames: of the reports that come with the package, and of one's own trials.
"""

# %%
# A committed report is a few CSV files. ``table.csv`` has a row for each data set, protocol, method, pattern and
# metric; values are in percent.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import mmbench
from mmbench.places import carried

table1 = carried("results") / "table1"
table = pd.read_csv(table1 / "table.csv")
table = table.query("protocol == 'clean' and metric == 'accuracy'")
by_pattern = table.pivot(index="method", columns="pattern", values="mean")
print(by_pattern[["image", "title", "tags", "image+title+tags"]].round(1).to_string())

# %%
# ``comparisons.csv`` has the differences of every two methods, on the same samples and seeds. Which pairs does Table
# 1 tell apart, with everything shown?

pairs = pd.read_csv(table1 / "comparisons.csv")
pairs = pairs.query("protocol == 'clean' and pattern == 'image+title+tags'")
apart = pairs[(pairs.ci_low > 0) | (pairs.ci_high < 0)]
print(f"{len(apart)} of {len(pairs)} pairs")
columns = ["method", "other", "difference", "ci_low", "ci_high"]
print(apart[columns].round(1).to_string(index=False))

names = apart.method + " − " + apart.other
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.hlines(names, apart.ci_low, apart.ci_high)
axes.plot(apart.difference, names, "o")
axes.axvline(0, color="0.5", lw=1)
axes.set(xlabel="points of accuracy")
plt.show()

# %%
# Trials of one's own are in the store, ``results/runs``. A run gives them as frames; ``mmbench.run`` trains only
# what the store lacks, so the same call later reads.

folder = Path(tempfile.mkdtemp(prefix="mmbench-"))
recipe = {"optimizer": "adam", "epochs": 5, "lr": 0.001, "step_size": 4}
views = {"modalities": ["fourier", "profile"], "recipe": recipe}
experiment = {
    "title": "Digits in two views",
    "datasets": {"handwritten": views},
    "methods": {"concat": {}, "sum": {}},
    "seeds": [0, 1],
}
results = mmbench.run(experiment, folder / "results")
columns = ["method", "seed", "accuracy", "accuracy/fourier", "best_epoch", "key"]
print(results.trials[columns].round(1).to_string(index=False))

# %%
# Below the frames are the predictions themselves: of each test sample, under each pattern. Which digits does the
# Fourier view confuse?

from mmbench.store import Store

store = Store(folder / "results" / "runs")
record = store.record(results.trials.key[0])
predictions = store.predictions(record)
alone = predictions.pattern_names.index("fourier")
digits = {"digit": predictions.label, "taken for": predictions.predicted[alone]}
pairs = pd.DataFrame(digits).value_counts().rename("times").reset_index()
print(pairs.query("digit != `taken for`").head().to_string(index=False))
