"""The plan's look: models are the unit, only what changes is shown, the last line never changes its shape."""

from dataclasses import replace
from textwrap import dedent

from pipeline.cli.views.origin import Origin
from pipeline.cli.views.plan import last_line
from pipeline.cli.views.plan import plan as view
from pipeline.cli.views.text import ansi
from pipeline.core.change import Action, FieldDiff
from pipeline.core.diagnostic import Diagnostic, Severity, error
from pipeline.core.image import Engine, ImageName, Registry
from pipeline.core.model import Hardware, Model
from pipeline.core.resource import Address, Transfer, Unreadable
from pipeline.resources.engine.environment import EnvironmentState
from pipeline.resources.image.recipe import Recipe
from pipeline.resources.image.resource import ImageState
from tests.fakes.engine import ENGINE
from tests.unit.cli.building import Box, artifact, change, plan

GIB = 2**30
ORIGIN = Origin(commit="a41f9c2" + "0" * 33)


def shown(text: str) -> str:
    return dedent(text).strip("\n")


def test_plan_reads_like_the_one_in_the_design() -> None:
    reviewed = plan(
        change(
            "@engine/vllm-0.32.0-cpu:main",
            Action.CREATE,
            kind="engine",
            transfer=Transfer(0, 5_120_000_000, 0, False),
        ),
        change(
            "qwen3-8b/artifact",
            Action.CREATE,
            desired=Box(artifact=artifact()),
            reason="not there",
            transfer=Transfer(download_bytes=16_380_000_000),
            line=31,
        ),
        change(
            "qwen3-8b/image:main",
            Action.CREATE,
            reason="not there",
            transfer=Transfer(push_bytes=16_380_000_000, reused_bytes=10_100_000_000),
            line=31,
        ),
        change(
            "qwen3-8b/docker:prod",
            Action.UPDATE,
            diffs=[FieldDiff("memory_bytes", 48 * GIB, 32 * GIB)],
            reason="changed",
            line=40,
        ),
        change(
            "llama-70b/docker:box",
            Action.REPLACE,
            diffs=[FieldDiff("gpus", 2, 4), FieldDiff("shm_bytes", GIB, 2 * GIB)],
            reason="changed",
            line=58,
        ),
        change(
            "mistral/docker:prod",
            Action.UPDATE,
            desired=Box(48 * GIB),
            live=Box(32 * GIB),
            applied=Box(48 * GIB),
            diffs=[FieldDiff("memory_bytes", 32 * GIB, 48 * GIB)],
            drift=[FieldDiff("memory_bytes", 48 * GIB, 32 * GIB)],
            reason="drifted",
            line=70,
        ),
        change("gone/docker:prod", Action.DELETE, reason="no longer declared"),
        *(change(f"m{n}/docker:prod", Action.NOOP) for n in range(55)),
        unreadable={"old/docker:box": Unreadable("docker ssh://gpu1: no answer in 10 s", "is it up?")},
        optional=["old/docker:box"],
        models=62,
    )

    assert view(reviewed, ORIGIN, {}) == shown(
        """
        acme/prod  models.yaml@a41f9c2  lock ok  62 models, 63 resources read in 3.1 s
        Not read: box: docker ssh://gpu1: no answer in 10 s (optional, 1 resource)
          hint: is it up?

        + @engine/vllm-0.32.0-cpu:main  push at most 5.12 GB

        ~ qwen3-8b     hf://Qwen/Qwen3-8B main (9c0d2f7)                                      models.yaml:31
            + weights  download 16.38 GB
            + image    push 16.38 GB, reuse 10.10 GB
            ~ prod     memory 48 GiB → 32 GiB
        ~ llama-70b                                                                           models.yaml:58
          -/+ box      gpus 2 → 4; shm 1 GiB → 2 GiB
        ~ mistral                                                                             models.yaml:70
            ~ prod     drifted; memory 32 GiB → 48 GiB
        - gone         no longer declared
            - prod

        Drift, put back: mistral/docker:prod memory 48 GiB → 32 GiB

        Transfer at most 16.38 GB in, 21.50 GB out.
        Plan: 3 to create, 2 to update, 1 to replace, 1 to delete, 55 unchanged.
        """
    )


def test_what_is_not_kept_names_its_source_and_the_machine_it_passes_through() -> None:
    model = Model("qwen3-8b", artifact(), Hardware("cpu", 0), "vllm", ENGINE, cached=False)
    name = ImageName(Registry("main", url="ghcr.io/acme"), "qwen3-8b.weights", "mp-0123456789ab")
    recipe = Recipe(Address("qwen3-8b/weights:main"), name, model, None, "acme", "0" * 64)
    straight = plan(
        change(
            "qwen3-8b/weights:main",
            Action.CREATE,
            kind="image",
            desired=ImageState("0" * 64, "main", recipe),
            reason="not there",
            transfer=Transfer(16_380_000_000, 16_380_010_000, 10_100_000_000),
            line=31,
        )
    )

    text = view(straight, replace(ORIGIN, machine="runner-7"), {})

    assert (
        shown(
            """
        + qwen3-8b         hf://Qwen/Qwen3-8B main (9c0d2f7)                                  models.yaml:31
          + weights image  push 16.38 GB straight from hf://Qwen/Qwen3-8B through this machine (runner-7),
                           nothing kept; reuse 10.10 GB

        Transfer 16.38 GB in, 16.38 GB out.
        """
        )
        in text
    )


def test_plan_without_changes_is_short_at_any_size() -> None:
    quiet = plan(*(change(f"m{n}/docker:prod", Action.NOOP) for n in range(5000)), models=5000)

    text = view(quiet, ORIGIN, {})

    assert len(text.encode()) <= 1000
    assert text.endswith(
        "No changes.\nPlan: 0 to create, 0 to update, 0 to replace, 0 to delete, 5000 unchanged."
    )


def test_adopt_and_forget_are_counted_only_when_there_are_any() -> None:
    rare = plan(change("a/docker:box", Action.ADOPT), change("b/docker:box", Action.FORGET))

    assert last_line(rare) == (
        "Plan: 0 to create, 0 to update, 0 to replace, 0 to delete, 0 unchanged, 1 to adopt, 1 to forget."
    )


def test_new_pin_is_shown_as_version_before_and_after() -> None:
    moved = plan(change("qwen/artifact", Action.CREATE, desired=Box(artifact=artifact()), line=3))

    text = view(moved, Origin(pins={Address("qwen/artifact"): "4e1a6b0" + "0" * 33}), {})

    assert "+ qwen       version 4e1a6b0 → 9c0d2f7" in text


def test_images_of_two_registries_are_told_apart() -> None:
    both = plan(
        change("qwen/image:main", Action.CREATE),
        change("qwen/image:mirror", Action.CREATE),
        change("qwen/weights:main", Action.CREATE, kind="image"),
    )

    text = view(both, ORIGIN, {})

    assert "  + image main\n  + image mirror\n  + weights image" in text


def test_engine_flags_are_named_and_not_counted() -> None:
    before, after = ["--max-model-len", "4096", "--enable-lora"], ["--max-model-len", "8192", "--dtype=half"]
    reflagged = plan(
        change(
            "qwen/docker:box",
            Action.REPLACE,
            live=Box(launch={"argv": before}),
            desired=Box(launch={"argv": after}),
            diffs=[
                FieldDiff("launch/argv/1", "4096", "8192"),
                FieldDiff("launch/argv/2", before[2], after[2]),
            ],
        )
    )

    assert "--dtype half added; --enable-lora removed; --max-model-len 4096 → 8192" in view(
        reflagged, ORIGIN, {}
    )


def test_values_that_would_look_equal_are_shown_in_full() -> None:
    close = plan(change("q/docker:b", Action.UPDATE, diffs=[FieldDiff("memory_bytes", 4 * GIB, 4 * GIB + 1)]))

    assert "memory 4294967296 → 4294967297" in view(close, ORIGIN, {})


def test_references_say_once_what_both_begin_with() -> None:
    tag = "ghcr.io/acme/models/qwen3-8b:mp-"
    retagged = plan(
        change(
            "q/docker:b",
            Action.UPDATE,
            diffs=[FieldDiff("image", tag + "0123456789ab", tag + "ba9876543210")],
        )
    )

    assert "image qwen3-8b:mp-0123456789ab → mp-ba9876543210" in view(retagged, ORIGIN, {})


def test_incomplete_and_refused_plans_say_so_before_the_last_line() -> None:
    stuck = plan(
        unreadable={"qwen/docker:box": Unreadable("docker: 500")},
        refusals=[error("qwen/docker:old: is protected and would be deleted", model="qwen")],
    )

    lines = view(stuck, ORIGIN, {}).splitlines()

    assert lines[1] == "Not read: box: docker: 500 (1 resource)"
    assert "error: qwen/docker:old: is protected and would be deleted" in lines
    assert lines[-3:-1] == [
        "Incomplete: what could not be read, and what needs it, is left out.",
        "Refused: nothing of this plan would be applied.",
    ]


def test_warning_stands_in_its_models_block_once() -> None:
    warned = Diagnostic(Severity.WARNING, "qwen: floating version", hint="run mp lock", model="qwen")

    text = view(plan(change("qwen/docker:box", Action.CREATE), diagnostics=[warned]), ORIGIN, {})

    assert text.count("floating version") == 1
    assert "\n  !      floating version (run mp lock)" in text


def test_what_apply_will_lock_is_said() -> None:
    text = view(plan(lock="stale"), Origin(unlocked=tuple(f"m{n}: not in models.lock" for n in range(6))), {})

    assert "lock stale" in text
    assert text.splitlines()[1:3] == [
        "To be locked: m0: not in models.lock; m1: not in models.lock; m2: not in models.lock",
        "              m3: not in models.lock; and 2 more",
    ]


def test_deployment_says_what_it_takes() -> None:
    new = plan(change("q/docker:b", Action.CREATE, desired=Box(48 * GIB, 2, 8000), reason="not there"))

    assert "+ b  docker, 2 GPUs, 48 GiB memory, port 8000" in view(new, ORIGIN, {})


def test_what_an_engine_installs_is_counted_in_packages_and_its_size_is_said_to_be_unknown() -> None:
    index, pins = "https://pypi.org/simple", ("torch==2.13.0", "vllm==0.32.0")
    engine = Engine("vllm", "0.32.0", "cpu", "linux/amd64", "3.11", "debian", None, index, pins)
    new = plan(
        change(
            "@environment/vllm-0.32.0-cpu",
            Action.CREATE,
            kind="environment",
            desired=EnvironmentState("0" * 12, engine),
            reason="not there",
        ),
        change("q/artifact", Action.CREATE, reason="not there", transfer=Transfer(download_bytes=10**6)),
    )

    text = view(new, ORIGIN, {})

    assert "+ @environment/vllm-0.32.0-cpu  2 packages from pypi.org, size not known" in text
    assert "Transfer 1.00 MB in; packages not counted." in text


def test_colour_is_decoration_only() -> None:
    import re

    coloured = plan(
        change("qwen/docker:box", Action.REPLACE, diffs=[FieldDiff("gpus", 1, 2)], line=3),
        change("@engine/vllm-0.32.0-cpu:main", Action.CREATE),
    )

    bare = re.sub(r"\x1b\[[0-9;]*m", "", view(coloured, ORIGIN, {}, ansi))

    assert bare == view(coloured, ORIGIN, {})
