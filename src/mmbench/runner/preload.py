"""What the fork server imports once, so that a trial's process starts with it: nothing here may start a thread."""

import pytorch_lightning  # noqa: F401

import mmbench.arguments
import mmbench.metrics
import mmbench.runner.child
import mmbench.store
import mmbench.task
import mmbench.tracking
import mmbench.trial  # noqa: F401
