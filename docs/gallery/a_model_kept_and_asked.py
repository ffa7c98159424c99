"""
A model kept and asked
======================

For whoever wants to use what an experiment trained: to ask it about a sample, with a
modality missing too.
"""

# %%
# Models are thrown away by default. ``keep: best`` in an experiment keeps each as it was in the epoch that was chosen
# (``mmbench run … --keep-models`` does the same). Handwritten digits come with the package in six views; this takes
# two of them.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import mmbench

folder = Path(tempfile.mkdtemp(prefix="mmbench-"))
recipe = {"optimizer": "adam", "epochs": 5, "lr": 0.001, "step_size": 4}
views = {"modalities": ["fourier", "profile"], "recipe": recipe}
experiment = {
    "title": "Digits in two views",
    "datasets": {"handwritten": views},
    "methods": {"late_fusion": {}},
    "seeds": [0],
    "keep": "best",
}
results = mmbench.run(experiment, folder / "results")

# %%
# The model lies beside its trial's record, in a folder that is named by the trial's key. The folder can be moved
# anywhere: it needs neither the data nor the experiment, and nothing in it is executed.

key = results.trials.key[0]
model = mmbench.load_model(folder / "results" / "runs" / key)
print(model)

# %%
# Ask it about a sample of the test part. A value is what the modality is: a path or a picture, a text, or as here a
# vector of numbers.

from mmbench.data import DATASETS

data = DATASETS["handwritten"](modalities=model.modalities)
test = data.splits.test
batch = test[7]
sample = {name: batch.inputs[name][0].numpy() for name in model.modalities}
print("it is:", data.classes[int(batch.label)])


def tell(answer):
    seen, sure = ", ".join(answer.seen) or "nothing", answer.probabilities[answer.label]
    print(f"seen {seen}: {answer.label}, {100 * sure:.0f} % sure")


# %%
# What a sample lacks is left out, or None. The answer says what was seen.

parts = {
    "both": sample,
    "fourier": {"fourier": sample["fourier"]},
    "profile": {"profile": sample["profile"], "fourier": None},
}
answers = {name: model.predict(part) for name, part in parts.items()}
figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for name, answer in answers.items():
    tell(answer)
    axes.plot(*zip(*answer.probabilities.items(), strict=True), "o-", label=name)
axes.set(xlabel="digit", ylabel="probability")
axes.legend(title="shown")
plt.show()

# %%
# With nothing to see, it answers by how frequent the classes were in training.

tell(model.predict({"profile": None}))
