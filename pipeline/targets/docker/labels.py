"""The labels on containers: whose they are, what they were made from, and the names of their secrets. Pure."""

import json
from collections.abc import Mapping

from pipeline.core.digest import Json, canonical
from pipeline.core.resource import Address, Mark

PROJECT, ENVIRONMENT, ADDRESS = "dev.mp.project", "dev.mp.environment", "dev.mp.address"
FINGERPRINT = "dev.mp.fingerprint"
SECRETS = "dev.mp.secrets"  # JSON: environment variable → name of the secret, never its value


def labels_of(mark: Mark, fingerprint: str, secrets: Mapping[str, str]) -> dict[str, str]:
    return {
        PROJECT: mark.project,
        ENVIRONMENT: mark.environment,
        ADDRESS: mark.address,
        FINGERPRINT: fingerprint,
        SECRETS: canonical(dict(secrets)).decode(),
    }


def mark_of(labels: Mapping[str, str]) -> Mark | None:
    """Whose a container is; None when mp did not make it."""
    if not {PROJECT, ENVIRONMENT, ADDRESS} <= labels.keys():
        return None
    return Mark(labels[PROJECT], labels[ENVIRONMENT], Address(labels[ADDRESS]))


def secrets_of(labels: Mapping[str, str]) -> dict[str, Json]:
    try:
        names = json.loads(labels.get(SECRETS, "{}"))
    except ValueError:
        return {}
    return names if isinstance(names, dict) else {}
