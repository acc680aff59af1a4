# The eight words of this repository. `uv run just` lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

[private]
default:
    @just --list --unsorted

# everything a checkout needs
setup:
    uv sync
    uv run pre-commit install

# format, lint, types, arrows between the rooms, schemas, workflows: seconds
check:
    uv run ruff format --check
    uv run ruff check
    uv run mypy
    uv run lint-imports --no-cache
    uv run pytest tests/test_schema.py
    uv run zizmor --offline --quiet .github/workflows

# check, and every test that takes neither minutes nor gigabytes
test: check
    uv run pytest -m "not slow"

# check, and every test; makes the engine environments it needs (10 GB)
test-all: check
    MP_TEST_ALL=1 uv run pytest

# paired measurements against peers; each ends with one JSON line
bench:
    uv run python -m benchmarks.startup
    uv run python -m benchmarks.plan
    uv run python -m benchmarks.apply
    uv run python -m benchmarks.kill
    uv run python -m benchmarks.pull
    uv run python -m benchmarks.cluster

# rewrite the expected files of tests/cases, to be reviewed like code
golden:
    MP_GOLDEN=1 uv run pytest tests/cases || true
    git diff --stat -- tests/cases

# write schema/*.schema.json anew
schema:
    uv run mp schema --out schema

# write the generated parts of docs/ anew and check all of it
docs:
    uv run python -m pipeline.manifest.reference docs/manifest.md
    uv run python -m tests.parts.reference
    uv run pytest tests/test_docs.py tests/test_adding_a_target.py
