"""
A missing-rate curve from stored predictions
============================================

For whoever wants to know how a trained model fares as modalities go missing, without training it again.
"""

# %%
# Train two methods on complete data. What is kept of a trial is its prediction of each test sample under *every*
# presence pattern. A sample that lacks its picture is then a look-up, so that the curve below costs counting, and no
# model is run for it. ``test_rates`` says at which rates.

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
    "title": "Trained on complete data",
    "datasets": {"openclipart_features": {"folds": "all", "recipe": recipe}},
    "methods": {"late_fusion": {}, "concat": {}},
    "seeds": [0],
    "test_rates": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
}
results = mmbench.run(experiment, folder / "results")

# %%
# At rate 0.4, a mask hides 0.4 of all modalities of all samples, and never all three of a sample. A number is the mean
# over 100 masks, which all methods share. The band is the 95 % interval; pictures by one artist are resampled together.

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for method, curve in results.rates.curves.groupby("method", sort=False):
    axes.plot(curve.rate, curve["mean"], marker="o", label=method)
    axes.fill_between(curve.rate, curve.ci_low, curve.ci_high, alpha=0.2)
axes.set(xlabel="share of modalities that are missing", ylabel="accuracy, %")
axes.legend()
plt.show()

# %%
# Bands that overlap do not say that two methods are alike: easy pictures are easy for both. Their difference, on the
# same pictures under the same masks, has its own interval.

lines = results.rates.curves.query("method == 'concat'")
columns = ["rate", "difference", "difference_low", "difference_high"]
print("concat − late_fusion, points")
print(lines[columns].round(1).to_string(index=False))

# %%
# Running it again with other rates trains nothing: the store has the predictions.

more = mmbench.run({**experiment, "test_rates": [0.15, 0.35]}, folder / "results")
print(more.rates.curves[["method", "rate", "mean"]].round(2).to_string(index=False))
