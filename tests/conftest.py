"""The smallest profile, and a cache and runs of the tests' own, so that nobody's are touched or believed."""

import os
import tempfile
from pathlib import Path

_own = Path(tempfile.mkdtemp(prefix="xmalign-tests-"))
os.environ["XMALIGN_PROFILE"] = "smoke"
for variable in ("CACHE", "RUNS", "DATA"):
    os.environ[f"XMALIGN_{variable}"] = str(_own / variable.lower())

from xmalign_lab.encoders.checkpoint import imported  # noqa: E402

imported("torch")  # mends a torchvision for another torch, without which `importorskip` would leave out what can be tested


def pytest_sessionfinish():
    import shutil

    shutil.rmtree(_own, ignore_errors=True)
