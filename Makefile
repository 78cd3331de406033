# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test fast lint clean

demo: $(INSTALLED)  ## Run the whole pipeline on drawn scenes.
	$(BIN)/refseg demo
	@echo "Here refseg is $(BIN)/refseg; after '. $(BIN)/activate' it is refseg alone."

test: $(INSTALLED)  ## Run every test that can run here; skipped ones say why.
	$(BIN)/python -m pytest -rs -n 4 --dist loadgroup  # many wait for servers; those that share one stay together

fast: $(INSTALLED)  ## Run the quick tests only, under a minute.
	$(BIN)/python -m pytest -n 2 -m "not slow and not real"

lint: $(INSTALLED)  ## Check formatting, style and types.
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

clean:  ## Remove what the commands above made.
	rm -rf $(VENV) demo-run build *.egg-info

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)  # over one of another Python it would break
	$(BIN)/python -m pip install -e '.[test,lint]'
	touch $@
