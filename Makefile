# Every target does its own set-up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# Downloads show their progress on a terminal, and stay out of a log.
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(shell [ -t 2 ] || echo --quiet)
# Two kernels on two cores, one thread each; and an empty data folder, as on a machine without npm.
SMOKE := XMALIGN_PROFILE=smoke OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 XMALIGN_DATA="$(CURDIR)/build/smoke/data"

.DEFAULT_GOAL := help
.PHONY: help setup data demo lab test test-unit test-notebooks test-browser bench study text tune gallery pictures bundle app readme lines doctor clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' Makefile

setup:  ## .venv with pinned packages; does nothing while pyproject.toml and constraints.txt stay the same
	@if (pwd; cat pyproject.toml constraints.txt) | cmp -s - .venv/installed; then exit 0; fi; set -e; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12 …"; exit 1; }; \
	echo "setting up .venv (2-3 minutes, 3 GB)"; rm -f .venv/installed; \
	$(PYTHON) -m venv .venv; \
	echo "  PyTorch first, so that nothing else chooses its build …"; $(PIP) -c constraints.txt torch; \
	echo "  the other packages …"; $(PIP) -c constraints.txt -e '.[lab,dev]'; \
	(pwd; cat pyproject.toml constraints.txt) > .venv/installed; echo "  done"

data: setup
	@mkdir -p build; $(BIN)/xmalign fetch emoji 2> build/fetch.log || \
	  echo "no emoji data ($$(tail -n 1 build/fetch.log)); going on with the procedural scenes"

demo: data  ## the main job: notebooks 00-08 on real data, a results table, build/gallery/index.html
	@$(BIN)/python bench/demo.py

lab: data  ## JupyterLab on the first notebook
	@$(BIN)/jupyter lab $$(test "$$(id -u)" != 0 || echo --allow-root) notebooks/00_start_here.ipynb  # root: a container

test: test-unit test-notebooks  ## unit tests, then every notebook in the smoke profile

test-unit: setup  ## unit tests only
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# On copies, because looking through the executed notebooks needs --overwrite.
test-notebooks: setup  ## every notebook under nbmake, smoke profile, no network
	@rm -rf build/smoke && mkdir -p build/smoke && cp notebooks/*.ipynb build/smoke/
	@$(SMOKE) XMALIGN_CACHE="$(CURDIR)/build/smoke/cache" XMALIGN_RUNS="$(CURDIR)/build/smoke/runs" $(BIN)/python -m pytest -q \
	  -p bench.hidden_errors -n 2 --nbmake --overwrite --nbmake-timeout=240 --durations=10 build/smoke

# One browser and one kernel at a time. Without Chromium the tests are skipped, with XMALIGN_BROWSER=required they fail.
test-browser: setup  ## interactive notebooks in a real browser (Chromium is yours to install); pictures, budget: build/browser
	@$(BIN)/python -c 'import playwright' 2>/dev/null || $(PIP) -c constraints.txt -e '.[lab,dev,browser]'
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs --durations=10 tests/browser

bench: data  ## the numbers of the README, printed
	@set -e; for script in bench/bench_*.py; do echo "== $$script"; $(BIN)/python $$script; done

study: data  ## methods × noise × parallel text × languages × folds; FINAL=1 opens the test scores, and logs it
	@$(BIN)/python bench/study.py $(if $(FINAL),--final)

text: data  ## real text: adaptive methods, a teacher of captions, transfer from an English TEACHER=folder; half an hour or more
	@$(BIN)/python bench/text_eval.py
	@$(BIN)/python bench/teacher_text.py
	@$(BIN)/python bench/text_transfer.py $(if $(TEACHER),--teacher "$(TEACHER)")

tune: data  ## the same small search for every method, on validation families of fold 0
	@$(PIP) -c constraints.txt -e '.[lab,dev,tune]' && $(BIN)/python bench/tune.py

gallery: data  ## every notebook as a page that opens without a network; executes those that changed, takes up where it was
	@$(BIN)/python bench/demo.py --all

pictures: data  ## docs/img from records, and from the notebooks in a real browser (Chromium is yours to install)
	@$(PIP) -c constraints.txt -e '.[lab,dev,browser]' && $(BIN)/python bench/pictures.py

bundle: data  ## one zip that installs and starts without a network, make or npm; FOR=windows, macos, linux; KEY=1: the answers
	@$(PIP) -c constraints.txt -e '.[lab,dev,app]' && $(BIN)/python bench/bundle.py $(or $(FOR),this) $(WITH_PYTHON) $(if $(KEY),--with-key)

# Cells tagged `lesson` stay away. One thread for each kernel, and two kernels that have imported everything before anybody comes.
app: data  ## the dashboard of notebook 12 as a page for a class, on localhost, with no request to elsewhere; PORT=8866
	@$(PIP) -c constraints.txt -e '.[lab,dev,app]'; mkdir -p build/app
	@$(BIN)/jupyter nbconvert --log-level=WARN --to notebook --output-dir build/app notebooks/12_dashboard.ipynb \
	  --TagRemovePreprocessor.enabled=True --TagRemovePreprocessor.remove_cell_tags=lesson
	@JUPYTER_PATH="$(CURDIR)/bench/templates/app" OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/voila build/app/12_dashboard.ipynb \
	  --no-browser --port=$(or $(PORT),8866) --template=offline --theme=light --preheat_kernel=True --pool_size=2

readme: setup  ## fill the marked blocks of the README from records
	@$(BIN)/python bench/readme.py

lines: setup  ## code lines of the library against the budget
	@$(BIN)/python bench/lines.py

doctor: setup  ## versions, device, data, and the command that mends each problem
	@$(BIN)/xmalign doctor

clean:  ## remove what is built and recorded; keeps .venv and fetched data
	rm -rf build runs .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
