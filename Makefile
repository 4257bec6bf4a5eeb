# `make demo` and `make test` set themselves up: a virtual environment in .venv, made again when pyproject.toml changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: help demo test test-exhaustive check docs docs-numbers changelog dist lock mutate kill-test fuzz interop test-napari clean
help:
	@echo "make demo   train and classify a sample tomogram, write demo/report.html (about 2 minutes with the installation)"
	@echo "make test   run the tests (about 10 minutes on 2 cores with the installation)"
	@echo "make test-exhaustive  the same with the slow forms: all architectures compiled again, all phantoms (about 5 minutes more)"
	@echo "make kill-test  100 killed runs, resumed and compared (2 minutes)"
	@echo "make fuzz   20,000 damaged inputs, read under limits of time and memory"
	@echo "make interop  open what we write with other programs' readers (2 minutes with the installation)"
	@echo "make test-napari  the dock in a real napari on a virtual screen (3 minutes with the installation)"
	@echo "make check  ruff and mypy (under a minute)"
	@echo "make mutate plants faults, one at a time, and sees whether the tests of their room notice (about 15 minutes)"
	@echo "make docs   build the documentation site, docs/_build/html/index.html (1 minute)"
	@echo "make docs-numbers  put the figures of benchmarks/results into README and docs (1 second)"
	@echo "make changelog  put the lines of changelog.d into CHANGELOG.md (1 second)"
	@echo "make dist   build sdist and wheel and run the demo from each, in a fresh environment per Python found (minutes)"
	@echo "make clean  remove the virtual environment and caches"

$(VENV)/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"Python 3.11 or newer is needed, {sys.executable} is {v.major}.{v.minor}; say make PYTHON=python3.13 ..")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[test,check]'
	@touch $@

demo: $(VENV)/.run
	$(BIN)/gpu-tomoclass demo --output demo --overwrite

# OMP_NUM_THREADS: each of the parallel test processes would otherwise start one BLAS thread per core.
# OMP_WAIT_POLICY: threads that wait would otherwise spin, on cores that other tests need.
# Without bytecode each of some hundred processes would compile the package again, for 0.4 s.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.test
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(TESTS)

test-exhaustive: export GPU_TOMOCLASS_EXHAUSTIVE = 1
test-exhaustive: test

# A hundred runs killed before chosen changes of the disk, each repeated and compared byte by byte.
kill-test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python tools/kill_test.py --kills 100

# Damaged inputs of 23 kinds, each kind read in a process of its own with limits of time and memory.
fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python tools/fuzz.py --cases 20000

# What we write, opened by other programs' readers, in an environment of its own; a reader that is missing is a failure.
INTEROP := .venv-interop
$(INTEROP)/.done: pyproject.toml
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/python -m pip install --quiet --editable '.[interop]'
	@touch $@

interop: $(INTEROP)/.done
	OMP_NUM_THREADS=1 $(INTEROP)/bin/python -m pytest --quiet tests/interop/check_readers.py tests/interop/check_wrappers.py

# The dock in a real napari on a virtual screen, in an environment of its own (900 MB): apt-get install xvfb. The version is exact:
# another one is looked at first.
NAPARI := .venv-napari
$(NAPARI)/.done: pyproject.toml
	$(PYTHON) -m venv $(NAPARI)
	$(NAPARI)/bin/python -m pip install --quiet --editable '.[napari]' 'napari[pyqt6]==0.9.2' pytest
	@touch $@

test-napari: $(NAPARI)/.done
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive xvfb-run --auto-servernum --server-args="-screen 0 1400x1000x24" \
		$(NAPARI)/bin/python -m pytest --quiet --disable-warnings tests/napari/check_plugin.py

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.docs: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Figures of README and docs from benchmarks/results; the tests fail where they differ.
docs-numbers: $(VENV)/.run
	$(BIN)/python tools/docs_numbers.py

changelog:
	$(PYTHON) tools/changelog.py

dist:
	$(PYTHON) tools/try_packages.py

mutate: $(VENV)/.test
	$(BIN)/python tools/mutate.py

clean:
	rm -rf $(VENV) $(INTEROP) $(NAPARI) dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The versions that CI installs, for every system and Python; without it CI takes the newest (once a week, to see what breaks).
lock: $(VENV)/.run
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock" \
		--extra test --extra check --extra docs pyproject.toml --output-file packaging/ci.lock
