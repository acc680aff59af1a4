"""What may be written under `verify:`, `sign:` and `secrets:`, and what is said of the rest."""

from pathlib import Path

import pytest

from pipeline.manifest.read import Document, read

HEAD = """\
version: 1
project: acme
secrets: {key: {file: cosign.key}}
"""


def document(folder: Path, text: str) -> Document:
    (folder / "acme.pub").write_text("")
    (folder / "models.yaml").write_text(HEAD + text)
    return read(folder / "models.yaml")


def lines(found: Document) -> list[str]:
    return [f"{d.where.line if d.where else 0} {d.summary} | {d.hint or ''}" for d in found.diagnostics]


def rule(text: str) -> str:
    return f'verify:\n  sources:\n    - {{match: "*", {text}}}\n'


@pytest.mark.parametrize(
    "text",
    [
        rule("cosign: {key: acme.pub}"),
        rule('cosign: {key: "awskms://alias/acme", transparency_log: true}'),
        rule('cosign: {identity: a@acme.example, issuer: "https://acme.example"}'),
        rule("model_signing: {key: acme.pub}"),
        rule("model_signing: {certificates: [acme.pub]}"),
        "sign: {cosign: {}}\n",
        "sign: {cosign: {key: {secret: key}, password: {secret: key}}}\n",
    ],
)
def test_this_is_right(tmp_path: Path, text: str) -> None:
    assert lines(document(tmp_path, text)) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (rule("cosign: {}"), 'needs either "key", or "identity" and "issuer"'),
        (rule("cosign: {identity: a@acme.example}"), 'needs either "key", or "identity" and "issuer"'),
        (rule("cosign: {key: acme.pub, issuer: x}"), 'needs either "key", or "identity" and "issuer"'),
        (rule("model_signing: {}"), 'needs either "key" or "certificates"'),
        (rule("model_signing: {key: acme.pub, certificates: [acme.pub]}"), 'needs either "key" or'),
        (rule("cosign: {key: acme.pub}, model_signing: {key: acme.pub}"), 'needs either "cosign" or'),
        ('verify: {sources: [{match: "*"}]}\n', 'needs either "cosign" or "model_signing"'),
        (rule("cosign: {key: gone.pub}"), 'verify: "gone.pub" is not there'),
        (rule("model_signing: {certificates: [acme.pub, gone.pem]}"), 'verify: "gone.pem" is not there'),
        (rule(f"cosign: {{key: {'x' * 5000}}}"), "is not there"),
        ("sign: {}\n", '"cosign" is missing'),
        ("sign: {cosign: {key: {secret: kay}}}\n", 'secret "kay" is not known | did you mean "key"?'),
        ("sign: {cosign: {key: acme.key}}\n", "must be"),
        ("sign: {cosign: {password: {secret: key}}}\n", '"password" is for a key'),
    ],
)
def test_this_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    found = lines(document(tmp_path, text))
    assert len(found) == 1, found
    assert problem in found[0]


@pytest.mark.parametrize("text", ["{}", "{env: A, file: b}"])
def test_a_secret_is_in_one_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "models.yaml").write_text(f"version: 1\nproject: acme\nsecrets: {{key: {text}}}\n")
    (found,) = lines(read(tmp_path / "models.yaml"))
    assert found.startswith("3 secrets.key: needs ")
