"""`mp --help` against the least that a typer program can be."""

import tempfile
from pathlib import Path

from benchmarks.measure import MP, environ, measure, paired, result, say

PEER = """\
import typer

app = typer.Typer()


@app.command()
def one(name: str) -> None: ...


@app.command()
def two(count: int = 1) -> None: ...


app()
"""


def main(runs: int = 15) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bare.py").write_text(PEER)
        python = str(Path(MP[0]).with_name("python"))
        env = environ()
        ours, peers = paired(
            lambda: measure([*MP, "--help"], folder, env),
            lambda: measure([python, "bare.py", "--help"], folder, env),
            runs,
        )
    assert peers is not None
    say("mp --help", ours)
    say("bare typer app --help", peers)
    ratio = ours.cpu_s / peers.cpu_s
    figure = {"cpu_ratio": round(ratio, 2), "cpu_ms": round(ours.cpu_s * 1000)}
    result("startup", figure, "a bare typer app with two commands", "cpu_ratio <= 1.3", holds=ratio <= 1.3)


if __name__ == "__main__":
    main()
