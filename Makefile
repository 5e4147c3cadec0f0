# Each of these makes .venv when it is missing, installs the kit into it, and does its job:
#
#   make explore   open the explorers in a browser, as pages without code
#   make demo      train three recipes on the shipped people and compare them      (runs/demo)
#   make fast      run the tests of the method itself, in less than three minutes
#   make test      run every test and every notebook, two at a time
#   make lab       open JupyterLab in nbs/
#   make export    write sshpe/ from the notebooks, and clean the notebooks
#   make readme    write README.md and its pictures from nbs/index.ipynb
#   make docs      write the site, searchable and without a network, into _docs/
#   make install   only install
#
# PYTHON=python3.12 picks the Python that .venv is made of; PIP_FLAGS="..." is handed to pip; ARGS="..." to what explore, demo, fast, test and lab start.

PYTHON    ?= python3
PIP_FLAGS ?=
EXTRAS    ?= render,dev
BIN       := .venv/bin
READY     := .venv/.installed

.PHONY: help explore demo fast test lab export readme docs install
help:
	@sed -n 's/^#   //p' Makefile

explore: $(READY)
	@$(BIN)/sshpe explore $(ARGS)

demo: $(READY)
	@$(BIN)/sshpe demo $(ARGS)

fast: $(READY)
	@$(BIN)/python -m pytest -n 2 -m fast $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

lab: $(READY)
	@$(BIN)/jupyter lab --ip=127.0.0.1 --notebook-dir=nbs $(ARGS)

export: $(READY)
	@$(BIN)/nbdev_export
	@$(BIN)/nbdev_clean

readme: $(READY)
	@$(BIN)/python -c 'from sshpe.docs import readme; readme()'

docs: $(READY)
	@$(BIN)/python -c 'from sshpe.docs import build; print("open", build())'

install: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sshpe needs Python 3.10 or newer, this is " + sys.version.split()[0] + ": try make PYTHON=python3.12")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv || { rm -rf .venv; echo "could not make .venv (Debian and Ubuntu need the package python3-venv)"; exit 1; }
	@echo "installing into .venv: once, some minutes, about 6 GB where torch comes with GPU support ..."
	@$(BIN)/python -m pip install $(PIP_FLAGS) --quiet --editable '.[$(EXTRAS)]'
	@touch $@
