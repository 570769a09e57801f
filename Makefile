# Each target sets up .venv on a fresh machine (python3 >= 3.10 with venv, network access to a package index).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test browser bench lint docs soak table clean

# one thread: with images this small, several threads mostly wait for each other
demo: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/fastcpc-train --config configs/digits_sym80.yaml

# CPU_BF16=yes or no: as on a CPU that multiplies bfloat16, where precision=auto is bf16, or on one that does not
test: lint browser
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadgroup -m "not gpu" $(if $(CPU_BF16),--cpu-bf16=$(CPU_BF16))

# the report is tested in a real Chromium
browser:
	.ci/install-browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the tests build the pages with the same command
docs: $(READY)
	$(BIN)/mkdocs build --strict
	@echo "open build/site/index.html"

# IMAGES: a folder of JPEG files; DIVIDE_MIX: a checkout of the official code; CIFAR: the data; each may be left out
bench: $(READY)
	$(BIN)/python bench/speed/gmm.py
	$(BIN)/python bench/speed/kernels.py
	$(BIN)/python bench/speed/step.py
	$(BIN)/python bench/speed/epoch.py
	$(BIN)/python bench/counts.py
ifdef IMAGES
	$(BIN)/python bench/speed/data.py --root $(IMAGES)
endif
ifneq ($(and $(DIVIDE_MIX),$(CIFAR)),)
	$(BIN)/python bench/speed/peer.py --divide-mix $(DIVIDE_MIX) --data $(CIFAR)
endif
	$(BIN)/python bench/tables/speed_table.py

soak: $(READY)
	nice -n 10 $(BIN)/python bench/soak.py

table: $(READY)
	$(BIN)/python bench/tables/digits_table.py

clean:
	rm -rf .venv build dist *.egg-info

$(READY): setup.py .ci/constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/constraints.txt -e '.[dev]'
	touch $(READY)
