"""Several nodes that serve one model together: what each process is told of the others."""

import json

import pytest

from pipeline.core.image import Launch
from pipeline.templates.launch import Group, document
from runtime import launch as runtime_launch
from runtime.vllm import serve

GROUP = Group(nodes=2, rank="LWS_WORKER_INDEX", leader="LWS_LEADER_ADDRESS", own="POD_IP")
LAUNCH = Launch("vllm", "tiny", ("--tensor-parallel-size=8",), {}, {}, nodes=2)


def environ(rank: int, group: Group | None = GROUP) -> dict[str, str]:
    text = json.dumps(document(LAUNCH, model="/models", host="0.0.0.0", port=8000, secrets={}, group=group))
    place = {"LWS_WORKER_INDEX": str(rank), "LWS_LEADER_ADDRESS": "tiny-0.tiny-0.models"}
    return {"MP_LAUNCH": text, "POD_IP": f"10.0.0.{rank}", **place}


@pytest.mark.parametrize(("rank", "headless"), [(0, False), (1, True)])
def test_every_node_knows_its_rank_and_only_the_first_takes_requests(rank: int, headless: bool) -> None:
    found = environ(rank)
    launch = runtime_launch.read([], found, "vllm")
    argv = serve.command(launch, "python", found)
    assert argv[argv.index("--nnodes") + 1] == "2"
    assert argv[argv.index("--node-rank") + 1] == str(rank)
    assert argv[argv.index("--master-addr") + 1] == "tiny-0.tiny-0.models"
    assert ("--headless" in argv) is headless
    assert serve.environment(launch, found)["VLLM_HOST_IP"] == f"10.0.0.{rank}"


def test_one_node_is_told_of_no_others() -> None:
    found = environ(0, None)
    launch = runtime_launch.read([], found, "vllm")
    assert not {"--nnodes", "--node-rank", "--headless"} & set(serve.command(launch, "python", found))
    assert "VLLM_HOST_IP" not in serve.environment(launch, found)
