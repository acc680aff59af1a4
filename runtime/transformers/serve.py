"""Serves one causal language model as launch.json says: `python serve.py [launch.json]`. OpenAI-compatible."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE if (HERE / "launch.py").is_file() else HERE.parent))  # in an image: beside this file

if TYPE_CHECKING:
    from runtime import launch as launches
    from runtime.transformers.llama2 import PATHS
else:
    import launch as launches
    from llama2 import PATHS

API_KEY = "MP_API_KEY"
SHUTDOWN_S = 5  # for answers that are under way


def flags(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mp transformers server", allow_abbrev=False)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--threads", type=int, help="threads of one forward pass; all cores when left out")
    parser.add_argument("--faces", nargs="+", default=[], choices=sorted(PATHS), help="beside OpenAI's")
    return parser.parse_args(argv)


def main() -> None:
    # from the first moment: process 1 of a container has no default for signals
    signal.signal(signal.SIGTERM, _leave)
    launch = launches.read(sys.argv[1:], os.environ, "transformers")
    launches.export(launch)
    serve(launch, flags(launch.argv))


def serve(launch: "launches.Launch", chosen: argparse.Namespace) -> None:
    # late: they take seconds to import and read the environment when they do
    import torch
    import uvicorn

    if TYPE_CHECKING:
        from runtime.transformers.counters import Counters
        from runtime.transformers.desk import Desk
        from runtime.transformers.engine import load
        from runtime.transformers.routes import application
    else:
        from counters import Counters
        from desk import Desk
        from engine import load
        from routes import application

    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    model = load(
        Path(launch.model), dtype=chosen.dtype, device=chosen.device, max_model_len=chosen.max_model_len
    )
    desk = Desk(model, Counters(launch.served_name))
    server = uvicorn.Server(
        uvicorn.Config(
            application(desk, launch.served_name, os.environ.get(API_KEY) or None, chosen.faces),
            host=launch.host,
            port=launch.port,
            access_log=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    print(f"mp: serving {launch.served_name} on http://{launch.host}:{launch.port}", flush=True)
    try:
        server.run()  # hands SIGTERM on to _leave when it has stopped
    finally:
        desk.close()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
