"""What a run takes from the environment: secrets as they were meant, and never shown."""

from pathlib import Path

import pytest

from pipeline.core.errors import MpError
from pipeline.core.model import Secret
from pipeline.core.settings import Settings

KEY = Secret("door", "DOOR")


def settings(value: str) -> Settings:
    return Settings(Path("/p"), Path("/c"), Path("/p/.mp"), {"DOOR": value})


@pytest.mark.parametrize("value", ["s3cret", "s3cret\n", "s3cret\r\n"])
def test_secret_loses_the_newline_that_echo_and_files_end_with(value: str) -> None:
    assert settings(value).secret(KEY) == "s3cret"


@pytest.mark.parametrize("value", ["s3\ncret", "s3cret\n\n", "s3cret\0", "\x1b[31ms3cret"])
def test_secret_with_a_control_character_is_refused_by_its_name_alone(value: str) -> None:
    with pytest.raises(MpError) as refused:
        settings(value).secret(KEY)
    assert refused.value.message == 'secret "door" holds a control character'
    assert "s3" not in f"{refused.value.message} {refused.value.hint}"


@pytest.mark.parametrize("value", ["", "\n"])
def test_secret_without_a_value_is_not_set(value: str) -> None:
    with pytest.raises(MpError, match='"door" is not set'):
        settings(value).secret(KEY)


def test_a_secret_may_be_in_a_file_beside_the_manifest_or_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "door.key").write_text("s3cret\n")
    found = Settings(tmp_path, tmp_path, tmp_path, {})
    assert found.secret(Secret("door", file="door.key")) == "s3cret"
    assert found.secret(Secret("door", file="~/door.key")) == "s3cret"
    with pytest.raises(MpError) as missing:
        found.secret(Secret("door", file="gone.key"))
    assert missing.value.hint == "write it into gone.key"
    with pytest.raises(MpError, match="cannot be read: is a directory"):
        found.secret(Secret("door", file="."))


def test_a_private_key_has_several_lines() -> None:
    key = "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"
    assert settings(key).text(KEY) == key
