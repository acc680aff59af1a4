"""The first error of logs as engines write them; the last line is never the answer."""

import pytest

from pipeline.clients.enginelog import first_error

CORE = "(EngineCore_DP0 pid=71) "
API = "(APIServer pid=1) "

LSCPU = f"""\
INFO 11-21 10:02:01 [__init__.py:241] Automatically detected platform cpu.
WARNING 11-21 10:02:03 [cpu.py:155] libtcmalloc is not found in LD_PRELOAD
{API}INFO 11-21 10:02:04 [api_server.py:1896] vLLM API server version 0.32.0
/bin/sh: 1: lscpu: not found
{CORE}ERROR 11-21 10:02:11 [core.py:866] EngineCore failed to start.
{CORE}ERROR 11-21 10:02:11 [core.py:866] Traceback (most recent call last):
{CORE}ERROR 11-21 10:02:11 [core.py:866]   File "/opt/app/vllm/v1/engine/core.py", line 857, in run_engine_core
{CORE}ERROR 11-21 10:02:11 [core.py:866] subprocess.CalledProcessError: Command 'lscpu -J' returned non-zero exit status 127.
{API}RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""

SHARED_MEMORY = f"""\
{CORE}INFO 11-21 10:02:04 [core.py:77] Initializing a V1 LLM engine (v0.32.0)
{CORE}ERROR 11-21 10:02:11 [core.py:866] EngineCore failed to start.
{CORE}ERROR 11-21 10:02:11 [core.py:866] Traceback (most recent call last):
{CORE}ERROR 11-21 10:02:11 [core.py:866]     raise RuntimeError(
{CORE}ERROR 11-21 10:02:11 [core.py:866] RuntimeError: Insufficient space in /dev/shm: 160 MiB required, 64 MiB available
{CORE}Traceback (most recent call last):
{API}RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""

CONTEXT = f"""\
{API}Traceback (most recent call last):
{API}  File "/opt/app/vllm/entrypoints/openai/api_server.py", line 1990, in <module>
{API}    uvloop.run(run_server(args))
{API}pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
{API}  Value error, User-specified max_model_len (4096) is greater than the derived max_model_len (512)
{API}    For further information visit https://errors.pydantic.dev/2.12/v/value_error
"""

SIGILL = f"""\
{API}INFO:     Application startup complete.
{API}INFO:     127.0.0.1:40566 - "POST /v1/chat/completions HTTP/1.1" 500 Internal Server Error
{CORE}ERROR 11-21 10:03:00 [multiproc_executor.py:154] Worker proc VllmWorker-0 died unexpectedly (exit code: -4), shutting down executor.
{CORE}ERROR 11-21 10:03:00 [core.py:875] EngineCore encountered a fatal error.
"""

CUDA = """\
\x1b[1;36m(EngineCore_DP0 pid=71)\x1b[0;0m ERROR 11-21 10:02:11 [core.py:866] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
RuntimeError: Engine core initialization failed. See root cause above.
"""

CHAINED = """\
Traceback (most recent call last):
  File "/opt/mp/serve.py", line 10, in load
    raise OSError("no tokenizer.json in /models")
OSError: no tokenizer.json in /models

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
ValueError: the tokenizer cannot be made
"""


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        (LSCPU, "/bin/sh: 1: lscpu: not found"),
        (SHARED_MEMORY, "RuntimeError: Insufficient space in /dev/shm: 160 MiB required, 64 MiB available"),
        (
            CONTEXT,
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig "
            "Value error, User-specified max_model_len (4096) is greater than the derived max_model_len (512)",
        ),
        (
            SIGILL,
            "Worker proc VllmWorker-0 died unexpectedly (exit code: -4), shutting down executor.",
        ),
        (CUDA, "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        (CHAINED, "OSError: no tokenizer.json in /models"),
        (
            "usage: api_server.py [-h]\napi_server.py: error: unrecognized arguments: --max-modle-len=5\n",
            "api_server.py: error: unrecognized arguments: --max-modle-len=5",
        ),
        (
            "python3: can't open file '/opt/mp/serve.py': [Errno 2] No such file or directory\n",
            "python3: can't open file '/opt/mp/serve.py': [Errno 2] No such file or directory",
        ),
        ("Traceback (most recent call last):\nKeyboardInterrupt\nKeyError\n", "KeyError"),
    ],
    ids=["lscpu", "shm", "context", "sigill", "cuda", "chained", "argparse", "missing", "bare"],
)
def test_cause_is_named_and_not_its_consequence(log: str, cause: str) -> None:
    assert first_error(log) == cause


def test_log_without_another_error_gives_the_hollow_one() -> None:
    assert first_error("RuntimeError: Engine core initialization failed. See root cause above.\n") is not None


@pytest.mark.parametrize(
    "log",
    [
        "",
        "INFO 11-21 10:02:01 [core.py:1] ready\n",
        "WARNING 11-21 10:02:01 [core.py:1] RuntimeError: harmless, falling back\n",
        "  File x\n    raise ValueError('quoted code')\n",
        "get_mempolicy: Operation not permitted\n",
    ],
)
def test_log_without_errors_has_no_cause(log: str) -> None:
    assert first_error(log) is None


def test_long_error_is_cut() -> None:
    assert len(first_error("ValueError: " + "x" * 5000) or "") == 400
