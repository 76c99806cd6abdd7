# Two commands do everything: `make export` (environment, install, the main job) and `make test`.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter at hand that the project supports.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
# The releases that were tested; a wheel, which is installed without this file, takes whatever pyproject.toml allows.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARTIFACT := artifacts/dummy-124m
CONSUMERS := .consumers

DOCS := $(VENV)-docs

.PHONY: docs campaign cluster export test test-avx2 lint consumers consumers-node compatibility bench bench-quality bench-small-cache bench-export bench-noise \
	bench-stages versions zoo screenshot web-screenshot clean

export: $(VENV)/installed
	$(BIN)/gpt-export onnx --output $(ARTIFACT) --force

# Files of tests are shared out between two processes, which share what they export (tests/sharing.py).
JOBS ?= 2

test: $(VENV)/installed-test
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(TESTS)

# The tests that run a model and compare its numbers, as a processor without AVX-512 and AMX rounds them.
FLOATS := tests/models tests/integration tests/mutations \
	$(addprefix tests/exporter/,bench gate graph passes pipeline runtime weights)

test-avx2:
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE $(MAKE) test TESTS="$(FLOATS)"

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site: the pages of docs/, every option from the code, the API from docstrings. A link or an anchor
# that leads nowhere fails it. MkDocs has an environment of its own.
docs: $(DOCS)/installed $(VENV)/installed
	$(BIN)/python -m benches.cli_doc --check
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict

$(DOCS)/installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "gpt-export needs Python 3.11, 3.12 or 3.13: install one, or pass PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check 'mkdocs-material>=9.5' 'mkdocstrings-python>=1.10'
	touch $@

# The programs that load artifacts, in environments of their own: their packages and ours do not agree. The tests that
# need them are skipped until this was run.
consumers: $(CONSUMERS)/python/installed consumers-node

# What the tests under Node and in Chromium need, in .consumers/node; node and npm come from the system.
consumers-node: $(CONSUMERS)/node/installed

$(CONSUMERS)/node/installed: tests/consumers/javascript/package-lock.json
	mkdir -p $(@D)
	cp tests/consumers/javascript/package.json tests/consumers/javascript/package-lock.json $(@D)
	cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

# What docs/consumers.md says of them, from a run of their tests.
compatibility: $(VENV)/installed-test consumers
	rm -f $(CONSUMERS)/compatibility.jsonl
	GPT_EXPORT_COMPATIBILITY=$(CURDIR)/$(CONSUMERS)/compatibility.jsonl $(BIN)/python -m pytest tests/consumers tests/browser
	$(BIN)/python -m benches.consumers_record $(CONSUMERS)/compatibility.jsonl
	$(BIN)/python -m benches.consumers_doc

# TEXT scored by ARTIFACT on two Ray nodes of this machine, one of which is killed, and by one process: the same.
TEXT ?= docs

cluster: $(VENV)/installed
	$(BIN)/python -m benches.cluster $(ARTIFACT) $(TEXT)

# Hostile inputs, kills, full disks and crowds for docs/security.md, drawn from a seed. An hour, or CAMPAIGN_FLAGS=
# '--minutes 5'; '--resume' goes on. What is found is shrunk to a case in benches/.cache/campaign/found, and fails this.
campaign: $(VENV)/installed-test
	$(BIN)/python -m tests.campaign $(CAMPAIGN_FLAGS); found=$$?; $(BIN)/python -m benches.campaign_doc && exit $$found

# What this toolkit and torch's exporters make of every module of tests/zoo, for docs/modules.md.
zoo: $(VENV)/installed-test
	$(BIN)/python -m benches.zoo.record $(ZOO_FLAGS)
	$(BIN)/python -m benches.zoo.record --families $(ZOO_FLAGS)
	$(BIN)/python -m benches.modules_doc

# Decoding beside other programs; their environments (llama.cpp is built) and files are made once, in benches/.cache.
bench: $(VENV)/installed
	$(BIN)/python -m benches.decode_peers $(BENCH_FLAGS)
	$(BIN)/python -m benches.performance_doc

# What quantisation costs: CHECKPOINT=<GPT-2 in Hugging Face format> TEXT=<a file it was not trained on>.
bench-quality: $(VENV)/installed
	$(BIN)/python -m benches.quality $(CHECKPOINT) $(TEXT) $(BENCH_FLAGS)
	$(BIN)/python -m benches.performance_doc

# A cache of 8 bits beside the float one, by an artifact of CHECKPOINT that has both, on TEXT.
bench-small-cache: $(VENV)/installed
	$(BIN)/gpt-export onnx $(CHECKPOINT) --precision fp32,int8,int4 --kv-cache fp32,int8 $(EXPORT_FLAGS) --gate off \
		--output artifacts/small-cache --force
	$(BIN)/python -m benches.small_cache artifacts/small-cache $(TEXT) $(BENCH_FLAGS)
	$(BIN)/python -m benches.performance_doc

# Beside Optimum and cp; Optimum's environment and the checkpoints are made once, in benches/.cache.
bench-export: $(VENV)/installed
	$(BIN)/python -m benches.export_peers $(BENCH_FLAGS)
	$(BIN)/python -m benches.performance_doc

bench-stages: $(VENV)/installed
	$(BIN)/python -m benches.export_stages $(BENCH_FLAGS)
	$(BIN)/python -m benches.performance_doc

bench-noise: $(VENV)/installed
	$(BIN)/python -m benches.noise $(BENCH_FLAGS)
	$(BIN)/python -m benches.performance_doc

# Export, gate and runtime on the oldest and newest releases that pyproject.toml allows, each in an environment of its
# own that is removed again: VERSIONS_FLAGS='--only torch' for one of them. Needs 8 GB of disk and a fast network.
versions: $(VENV)/installed
	$(BIN)/python -m benches.versions $(VERSIONS_FLAGS)
	$(BIN)/python -m benches.versions_doc

# The README's picture of the page of gpt-export serve, from SOURCE (a trained checkpoint); needs chromium.
web-screenshot: $(VENV)/installed-test consumers-node
	$(BIN)/python -m benches.web_image $(SOURCE) --output docs/images/web.png
	$(BIN)/python -m benches.web_image $(SOURCE) --output docs/images/web-dark.png --dark

# The README's picture of a report.html, from SOURCE (a checkpoint with a tokenizer looks best); needs chromium.
screenshot: $(VENV)/installed-test
	$(BIN)/python -m benches.report_image $(SOURCE)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "gpt-export needs Python 3.11, 3.12 or 3.13: install one, or pass PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(CONSUMERS)/python/installed: tests/consumers/requirements.txt
	@test -n "$(PYTHON)" || { echo "gpt-export needs Python 3.11, 3.12 or 3.13: install one, or pass PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(CONSUMERS)/python
	$(CONSUMERS)/python/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	cp $< $@

$(VENV)/installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[test,lint]'
	$(INSTALL) --no-deps llms-from-scratch  # else: tensorflow
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) $(DOCS) $(CONSUMERS) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
