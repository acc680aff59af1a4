"""GPUs as a cluster names them: the resource, the node label, and the products of a hardware class's GPU. The table is data/products.json."""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

GPU = "nvidia.com/gpu"  # the resource that pods ask for
PRODUCT = "nvidia.com/gpu.product"  # label of nodes, set by NVIDIA's GPU feature discovery


def products_of(gpu: str) -> tuple[str, ...]:
    """Values of the label, "L40S" → ("NVIDIA-L40S",); a label's value stands for itself; () when none is known."""
    if gpu.startswith(("NVIDIA-", "Tesla-", "GRID-", "Quadro-")):
        return (gpu,)
    return _table().get(_folded(gpu), ())


@cache
def _table() -> Mapping[str, tuple[str, ...]]:
    text = resources.files("pipeline.resources.cluster").joinpath("data/products.json").read_text("utf-8")
    return {_folded(name): tuple(labels) for name, labels in json.loads(text)["products"].items()}


def _folded(gpu: str) -> str:
    """ "H100 80GB" and "h100-80gb" are one product."""
    return gpu.casefold().replace(" ", "-").replace("_", "-")
