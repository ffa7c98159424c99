import os
from functools import cache

import pytest
import torch
from hypothesis import settings

os.environ["MMBENCH_DATA"] = os.devnull  # tests see no data of this machine's

import planted

torch.set_num_threads(1)
settings.register_profile("mmbench", deadline=None)  # a busy machine is not a failure
settings.load_profile("mmbench")


def pytest_configure(config):
    # The data are tensors in memory: workers would only cost time.
    config.addinivalue_line("filterwarnings", "ignore:.*does not have many workers.*")


@pytest.fixture(scope="session")
def make_world():
    """``planted.make_world``, each world made once."""
    return cache(planted.make_world)


@pytest.fixture
def world2(make_world) -> planted.World:
    return make_world("planted2")


@pytest.fixture
def world3(make_world) -> planted.World:
    return make_world("planted3")
