# Two commands on a bare machine: `make demo` and `make test`. Both need Python 3.11 or newer and
# GNU make, nothing else; what they install goes into .venv, from the versions in constraints.txt.
#
#   make demo ARGS="--steps 3"          options of the demo
#   make test PYTEST_ARGS="-k reward"   options of pytest, instead of those for several processes
#   make demo PYTHON=/path/to/python3   another interpreter

.PHONY: demo test check clean

# A process a core; each takes a gigabyte, so no more than four.
PYTEST_ARGS ?= -n logical --maxprocesses=4

# The message on how to start it next time comes after the cockpit too, where a person sees it.
demo:
	@PYTHON="$(PYTHON)" sh scripts/bootstrap.sh run
	@.venv/bin/stonk-tui demo $(ARGS); status=$$?; sh scripts/bootstrap.sh link; exit $$status

test:
	@PYTHON="$(PYTHON)" sh scripts/bootstrap.sh dev
	@.venv/bin/python -m pytest $(PYTEST_ARGS)

check:
	@PYTHON="$(PYTHON)" sh scripts/bootstrap.sh dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy engine stonk_tui

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
