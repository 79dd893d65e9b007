"""The smallest profile, and a cache and runs of the tests' own, so that nobody's are touched or believed."""

import os
import tempfile
from pathlib import Path

import pytest

_own = Path(tempfile.mkdtemp(prefix="xmalign-tests-"))
os.environ["XMALIGN_PROFILE"] = "smoke"
for variable in ("CACHE", "RUNS", "DATA", "LESSONS"):
    os.environ[f"XMALIGN_{variable}"] = str(_own / variable.lower())

import hypothesis  # noqa: E402

from xmalign_lab.encoders.checkpoint import imported  # noqa: E402

hypothesis.settings.register_profile("patient", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("patient")
imported("torch")  # mends a torchvision for another torch, without which `importorskip` would leave out what can be tested


@pytest.fixture(scope="module")
def one_thread():
    """Towers of a test's size are slower on several threads, and much slower where the cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_sessionfinish():
    import shutil

    shutil.rmtree(_own, ignore_errors=True)
