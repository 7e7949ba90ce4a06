# make run   the whole thing on this machine: installs into .venv, runs two jobs, prints their receipts and metrics
# make test  lint, types and tests
# make install-systemd  the unit, its user and its folder, as root (docs/systemd.md)
# Needs git, make and Python >= 3.11; everything else comes from the package index.

VENV := .venv
BIN := $(VENV)/bin

# The first Python that runs and is new enough. A name on the PATH isn't enough: a pyenv shim may exist and still fail.
FIND_PYTHON = for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { command -v "$$name"; break; }; done
LIVE := tests/deploy/test_live_queries.py
PYTHON ?= $(shell $(FIND_PYTHON))

.PHONY: run test venv docs install-systemd clean
.DELETE_ON_ERROR:

run: $(VENV)/.installed
	@$(BIN)/python examples/demo.py

test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --ignore tests/e2e --ignore $(LIVE)
	$(BIN)/pytest -q tests/e2e $(LIVE)   # alone: they measure this machine, or keep all of it busy

venv: $(VENV)/.installed-test

docs: $(VENV)/.installed-test
	$(BIN)/python docs/write_commands.py

# Below DESTDIR for a package. What the unit starts, /opt/wattribute, is installed by itself.
install-systemd:
	install -D -m 644 deploy/systemd/wattribute.service "$(DESTDIR)/usr/lib/systemd/system/wattribute.service"
	install -D -m 644 deploy/systemd/sysusers.conf "$(DESTDIR)/usr/lib/sysusers.d/wattribute.conf"
	install -D -m 644 deploy/systemd/tmpfiles.conf "$(DESTDIR)/usr/lib/tmpfiles.d/wattribute.conf"

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .run

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { \
		echo 'No Python >= 3.11 with venv found. Fix: install one (Debian: apt install python3 python3-venv), or make PYTHON=/path/to/python3' >&2; \
		exit 1; }
	"$(PYTHON)" -m venv $(VENV)

# The stamps depend on pyproject.toml alone: the install is editable, so a changed source needs no new one.
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing wattribute into $(VENV) (once) ...'
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	@echo 'Installing wattribute and what its tests need into $(VENV) (once) ...'
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[test]'
	@touch $@ $(VENV)/.installed
