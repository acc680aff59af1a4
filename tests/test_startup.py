"""Starting mp loads what the command needs and nothing else: asked of sys.modules, not of a clock."""

import subprocess
import sys
from pathlib import Path

import pytest

SDKS = {"docker", "huggingface_hub", "urllib3", "requests", "httpx2", "kubernetes", "boto3", "replicate"}
QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart"
PROGRAM = """
import sys
from pipeline.cli.main import run
code = run(sys.argv[1:])
print("\\n".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def modules(*words: str) -> set[str]:
    """What a fresh interpreter has loaded after `mp WORDS`."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60, check=True
    )
    return set(ran.stderr.split())


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("words", [("--help",), ("--version",), ()])
def test_help_loads_no_command_and_no_library(words: tuple[str, ...]) -> None:
    loaded = modules(*words)

    assert not roots(loaded) & (SDKS | {"pydantic", "yaml", "rich", "ssl"})
    assert not {name for name in loaded if name.startswith("pipeline.cli.commands.")}
    assert not {name for name in loaded if name.startswith(("pipeline.engine", "pipeline.manifest"))}


def test_validate_loads_no_sdk_and_no_engine() -> None:
    loaded = modules("-C", str(QUICKSTART), "validate")

    assert not roots(loaded) & (SDKS | {"rich"})
    assert not {name for name in loaded if name.startswith(("pipeline.engine", "pipeline.wiring"))}


def test_plan_of_local_things_loads_no_sdk(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text("version: 1\nproject: acme\n")

    loaded = modules("-C", str(tmp_path), "plan")

    assert not roots(loaded) & (SDKS | {"rich"})


PUBLISHED = """
version: 1
project: acme
defaults: {template: transformers, hardware: cpu}
hardware: {cpu: {gpus: 0}}
registries: {main: {layout: images}}
targets: {main: {kind: registry, registry: main, publish: [weights]}}
models: {tiny: {source: %s, targets: {main: {}}}}
"""


def test_plan_that_publishes_loads_no_room_that_it_does_not_name(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_text(PUBLISHED % (QUICKSTART / "checkpoint"))

    loaded = modules("-C", str(tmp_path), "plan")

    assert {
        "pipeline.targets.registry",
        "pipeline.sources.local",
        "pipeline.resources.image.resource",
    } <= loaded
    targets = ("targets.kubernetes", "targets.kaito", "targets.docker", "targets.local", "templates.vllm")
    clients = ("clients.kube", "clients.docker", "clients.hub", "clients.s3", "resources.engine.driver")
    assert not loaded & {f"pipeline.{name}" for name in (*targets, *clients)}
    assert not roots(loaded) & ((SDKS - {"urllib3"}) | {"rich"})
