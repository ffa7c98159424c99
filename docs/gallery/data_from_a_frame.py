"""
A data set from a data frame
============================

For whoever has samples in a pandas data frame, and wants to run experiments on them.
"""

# %%
# A frame of 480 inspections of 60 machines, made up here: what three sensors read, and a few words by whoever looked.
# Some wrote nothing.

import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import mmbench
from mmbench.cli import main

WORDS = {
    "bearing": ["grinding", "hot", "dry"],
    "belt": ["squeal", "slips", "worn"],
    "none": ["quiet", "clean", "fine"],
}
READINGS = {"bearing": [70, 5, 12], "belt": [61, 4, 14], "none": [60, 2, 12]}

draw = np.random.default_rng(0)
fault = draw.choice(list(WORDS), 480)
readings = np.array([READINGS[name] for name in fault])
readings = readings + draw.normal(0, [6, 2, 2], readings.shape)
frame = pd.DataFrame(readings.round(2), columns=["temperature", "vibration", "current"])
telling = np.array([draw.choice(WORDS[name]) for name in fault], object)
noise = draw.choice(np.concatenate(list(WORDS.values())), 480)  # whatever the fault is
frame["note"] = np.where(draw.random(480) < 0.2, "", telling + " " + noise)
frame["fault"] = fault
frame["machine"] = [f"m{number % 60:02}" for number in range(480)]
print(frame.head().to_string())

# %%
# Write it as ``metadata.csv`` into a folder, and add that: this is ``mmbench data add`` in Python. It says what it
# takes each column for; if that is wrong, ``dataset.yaml`` beside the table is the place to change it. ``--group``
# names what keeps samples together: no machine is in both training and test.

folder = Path(tempfile.mkdtemp(prefix="mmbench-"))
os.environ["MMBENCH_DATA"] = str(folder / "data")  # where prepared data lie

raw = folder / "inspections"
raw.mkdir()
frame.to_csv(raw / "metadata.csv", index=False)
main(["data", "add", str(raw), "--label", "fault", "--group", "machine"])

# %%
# From now on ``inspections`` is a data set like any other: each experiment takes it, from Python or by ``mmbench run
# table1 --dataset inspections``.

recipe = {"optimizer": "adam", "epochs": 10, "lr": 0.005, "batch_size": 32}
experiment = {
    "title": "What is wrong with the machine?",
    "datasets": {"inspections": {"recipe": recipe}},
    "methods": {"concat": {}, "late_fusion": {}},
    "seeds": [0],
}
results = mmbench.run(experiment, folder / "results")
accuracy = results.table.query("metric == 'accuracy'")
columns = ["method", "pattern", "mean", "ci_low", "ci_high", "samples"]
print(accuracy[columns].round(1).to_string(index=False))

figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for method, own in accuracy.groupby("method", sort=False):
    reach = [own["mean"] - own.ci_low, own.ci_high - own["mean"]]
    axes.errorbar(own.pattern, own["mean"], reach, fmt="o", capsize=4, label=method)
axes.set(ylabel="accuracy, %")
axes.legend()
plt.show()
