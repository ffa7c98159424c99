"""What the fork server imports once, so that a trial's process starts with it: nothing here may start a thread."""

import sys
from contextlib import suppress

import pytorch_lightning.plugins.environments  # noqa: F401
import sklearn.decomposition
import sklearn.feature_extraction.text
import sklearn.pipeline
import sklearn.svm  # noqa: F401

import mmbench.machine
import mmbench.metrics
import mmbench.runner.child
import mmbench.runner.environment
import mmbench.tracked_trial
import mmbench.training
from mmbench.baselines import METHODS
from mmbench.data import DATASETS
from mmbench.encoders import ENCODERS

sys.excepthook = mmbench.runner.child.orphaned

for registry in (METHODS, DATASETS, ENCODERS):
    for name in registry:
        with suppress(Exception):  # a trial that names it will say what is wrong
            registry[name]

# What every trial would look up for itself; after the imports, since it is about what they have loaded.
mmbench.machine.thread_pools()
for package in mmbench.runner.environment.PACKAGES:
    mmbench.machine.installed_version(package)
