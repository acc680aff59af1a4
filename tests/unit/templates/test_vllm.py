"""Template vllm: parallelism, shared memory, and what its data says of versions."""

from dataclasses import replace

import pytest

from pipeline.core.digest import Json
from pipeline.core.errors import UserError
from pipeline.core.image import Engine, Launch
from pipeline.core.model import Artifact, Facts, FileEntry, Hardware, Model, Part, Stated
from pipeline.templates.release import release, variant
from pipeline.templates.transformers import Transformers
from pipeline.templates.vllm import Vllm

CPU = Hardware("cpu", 0)
H100X8 = Hardware("h100x8", 8)
ENGINE = Engine("vllm", "0.32.0", "cpu", "linux/amd64", "3.11", "base", None, "https://pypi.org/simple", ())
MODEL = Model("tiny", Artifact("hf://a/b", "main", "0" * 40, ()), CPU, "vllm", ENGINE)


def launch(hardware: Hardware, args: dict[str, Json] | None = None) -> Launch:
    template = Vllm()
    return template.launch(
        replace(MODEL, hardware=hardware, args=args or {}), template.variant(None, hardware)
    )


def test_tensor_parallel_size_is_the_gpus_of_a_replica() -> None:
    assert "--tensor-parallel-size=8" in launch(H100X8).argv


def test_pipeline_and_data_ranks_take_their_share_of_the_gpus() -> None:
    argv = launch(H100X8, {"pipeline_parallel_size": 2, "data-parallel-size": 2}).argv
    assert {"--tensor-parallel-size=2", "--pipeline-parallel-size=2", "--data-parallel-size=2"} <= set(argv)


def test_ranks_that_do_not_divide_the_gpus_are_refused() -> None:
    (found,) = Vllm().mistakes(Stated("qwen", H100X8, "vllm", args={"pipeline_parallel_size": 3}))
    assert found.summary == "serve.args: 3 pipeline and data ranks do not divide 8 GPUs"
    assert found.path == ("models", "qwen", "serve", "args", "pipeline_parallel_size")


def test_every_problem_is_named_at_once_with_where_it_comes_from() -> None:
    with pytest.raises(UserError) as caught:
        launch(H100X8, {"tensor-parallel-size": 2, "max-num-seq": 4})
    hints = [problem.hint for problem in caught.value.diagnostics]
    assert hints == [
        'did you mean "max-num-seqs"?',
        "it comes from hardware: GPUs per replica",
    ]


def test_cpu_runs_in_float32_without_tensor_parallelism() -> None:
    assert launch(CPU).argv == ("--dtype=float32", "--enforce-eager", "--kv-cache-memory-bytes=67108864")


def test_shared_memory_grows_with_the_gpus() -> None:
    assert launch(CPU).shm_bytes == 512 * 2**20
    assert launch(H100X8).shm_bytes == 16 * 2**30


def test_a_version_without_the_variant_names_those_that_have_it() -> None:
    with pytest.raises(LookupError) as caught:
        variant("vllm", "0.33.0", CPU)
    assert str(caught.value) == (
        'vllm 0.33.0 has no variant "cpu", which hardware "cpu" needs; versions that have it: 0.32.0'
    )


def test_flags_are_those_of_the_version() -> None:
    assert "reasoning-effort-map" not in (release("vllm", "0.32.0").flags or ())
    assert "reasoning-effort-map" in (release("vllm", "0.33.0").flags or ())


def adapter(name: str, rank: int | None) -> Part:
    artifact = Artifact(f"hf://a/{name}", "main", "1" * 40, (), Facts(lora_rank=rank))
    return Part(f"adapters.{name}", artifact, f"adapters/{name}")


@pytest.mark.parametrize(("rank", "room"), [(1, 1), (4, 8), (16, 16), (48, 64), (512, 512)])
def test_adapters_get_room_for_all_of_them_and_for_the_largest_rank(rank: int, room: int) -> None:
    template = Vllm()
    model = replace(MODEL, parts=(adapter("fr", rank), adapter("de", 1)))
    launch = template.launch(model, template.variant(None, CPU))
    assert launch.adapters == {"fr": "adapters/fr", "de": "adapters/de"}
    assert {"--max-loras=2", f"--max-lora-rank={room}"} <= set(launch.argv)


def test_room_for_adapters_is_the_users_where_he_names_it() -> None:
    template = Vllm()
    model = replace(MODEL, parts=(adapter("fr", None),), args={"max_lora_rank": 64, "max-loras": 4})
    argv = template.launch(model, template.variant(None, CPU)).argv
    assert [word for word in argv if "lora" in word] == ["--max-lora-rank=64", "--max-loras=4"]


def test_transformers_server_refuses_adapters() -> None:
    entry = Stated("qwen", CPU, "transformers", {"weights": "hf://a/b", "adapters.fr": "hf://a/fr"})
    assert [one.hint for one in Transformers().mistakes(entry)] == ["use template: vllm"]


TWO_NODES = Hardware("h100x16", 8, "H100", nodes=2)


def test_a_replica_on_several_nodes_is_tensor_parallel_inside_and_pipeline_parallel_across_them() -> None:
    made = launch(TWO_NODES)
    assert {"--tensor-parallel-size=8", "--pipeline-parallel-size=2"} <= set(made.argv)
    assert made.nodes == 2
    assert launch(H100X8).nodes == 1


def test_pipelines_of_the_users_own_take_their_share_of_all_nodes() -> None:
    argv = launch(TWO_NODES, {"pipeline_parallel_size": 1}).argv
    assert {"--tensor-parallel-size=16", "--pipeline-parallel-size=1"} <= set(argv)


def test_what_tells_a_node_its_place_is_not_the_users() -> None:
    with pytest.raises(UserError) as caught:
        launch(TWO_NODES, {"nnodes": 2, "node-rank": 0, "master-addr": "10.0.0.1"})
    assert len(caught.value.diagnostics) == 3


def test_transformers_server_refuses_several_nodes() -> None:
    (found,) = Transformers().mistakes(Stated("qwen", TWO_NODES, "transformers"))
    assert "runs on one node" in found.summary


def test_a_large_model_has_longer_to_start_and_vllm_knows_it() -> None:
    large = FileEntry("model.safetensors", 700 * 10**9, "a" * 64)
    model = replace(MODEL, artifact=replace(MODEL.artifact, files=(large,)), hardware=H100X8)
    template = Vllm()
    little, much = (
        template.launch(one, template.variant(None, H100X8))
        for one in (replace(model, artifact=MODEL.artifact), model)
    )
    assert much.start_timeout_s - little.start_timeout_s == 3500  # at 200 MB/s
    for made in (little, much):
        assert made.env["VLLM_ENGINE_READY_TIMEOUT_S"] == str(made.start_timeout_s)
