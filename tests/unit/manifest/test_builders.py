"""`engines:`: builders and their certificates, as far as the file alone shows what is wrong."""

from pathlib import Path

import pytest

from pipeline.manifest.read import Document, read

TEXT = "version: 1\nproject: acme\nengines:\n  vllm:\n    %s\nmodels: {}\n"


def document(folder: Path, *lines: str) -> Document:
    file = folder / "models.yaml"
    file.write_text(TEXT % "\n    ".join(lines))
    return read(file)


@pytest.mark.parametrize(
    "lines",
    [
        ("builder: 'tcp://b:1'", "builder_tls: {ca: ca.pem}"),
        ("builder: 'tcp://b:1'", "builder_tls: {ca: ca.pem, cert: c.pem, key: ~/k.pem, server_name: b.test}"),
        ("builder: 'buildx://far_2.b+c'",),
        ("builder: 'docker-container://buildkitd'",),
    ],
)
def test_what_can_be_built_with_is_read(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert document(tmp_path, *lines).diagnostics == ()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("builder: 'unix:///b'", "builder_tls: {ca: ca.pem}"), "unix:// has no TLS"),
        (("builder: 'ssh://b'", "builder_tls: {ca: ca.pem}"), "ssh:// has no TLS"),
        (("builder: 'buildx://far'", "builder_tls: {ca: ca.pem}"), "not for builders of buildx"),
        (("builder_tls: {ca: ca.pem}",), '"builder_tls" is for a "builder"'),
        (("builder: 'tcp://b:1'", "builder_tls: {ca: a, cert: c}"), '"cert" needs "key"'),
        (("builder: 'tcp://b:1'", "builder_tls: {ca: a, key: k}"), '"key" needs "cert"'),
        (("builder: 'tcp://b:1'", "builder_tls: {cert: c, key: k}"), '"ca" is missing'),
        (("builder: 'buildx://'",), "must be the address of a BuildKit"),
        (("builder: 'buildx://far/away'",), "must be the address of a BuildKit"),
    ],
)
def test_a_mistake_is_named_at_its_line(tmp_path: Path, lines: tuple[str, ...], said: str) -> None:
    found = document(tmp_path, *lines).diagnostics
    assert said in " ".join(one.summary for one in found)
    assert all(one.where and one.where.line in (4, 5, 6) and one.hint for one in found)
