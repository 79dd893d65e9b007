"""How long the parts take: importing, encoding every emoji picture, reading it back from the cache.

python bench/bench_speed.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time

from xmalign_lab import corpora, profile
from xmalign_lab.corpora import emoji
from xmalign_lab.encoders.cache import encode
from xmalign_lab.encoders.classic import ClassicImage


def import_seconds(times: int = 7) -> float:
    """Median over fresh interpreters of `import xmalign_lab`, less starting the interpreter itself."""
    code = "import time; t = time.perf_counter(); import xmalign_lab; print(time.perf_counter() - t)"
    results = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(times)]
    return statistics.median(float(result.stdout) for result in results)


def main() -> int:
    facts = {"import xmalign_lab": import_seconds()}
    if problem := emoji.missing():
        print(problem)
    else:
        corpus = corpora.load("emoji", ["eng_Latn"], skin_tones=True).where_rows(modality="image")
        ClassicImage().describe(corpus.picture(corpus.ids[0]))  # scikit-image is imported on the first picture
        with tempfile.TemporaryDirectory() as folder:
            for name in ("first time", "from the cache", "from the cache, again"):
                start = time.perf_counter()
                encode(corpus, ClassicImage(), folder)
                facts[f"{len(corpus):,} emoji pictures, {name}"] = time.perf_counter() - start
    for name, seconds in facts.items():
        print(f"{name}: {seconds:.3f} s")
    profile.built("bench", "speed.json").write_text(json.dumps(facts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
