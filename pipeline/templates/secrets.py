"""Which environment variables of a server hold secrets. A target says which file each value is in."""

from pipeline.core.model import Model


def secrets(model: Model, api_key: str) -> dict[str, str]:
    """Environment variable → name of the secret; `api_key` is the variable in which an engine expects its key."""
    named = {variable: secret.name for variable, secret in model.secret_env.items()}
    return named if model.api_key is None else {**named, api_key: model.api_key.name}
