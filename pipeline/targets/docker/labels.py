"""The labels on containers: whose they are, what they were made from, and the names of their secrets. Pure."""

import json
from collections.abc import Mapping

from pipeline.core.digest import Json, canonical
from pipeline.core.mark import as_texts
from pipeline.core.resource import Mark

FINGERPRINT = "dev.mp.fingerprint"
SECRETS = "dev.mp.secrets"  # JSON: environment variable → name of the secret, never its value


def labels_of(mark: Mark, fingerprint: str, secrets: Mapping[str, str]) -> dict[str, str]:
    return {
        **as_texts(mark),
        FINGERPRINT: fingerprint,
        SECRETS: canonical(dict(secrets)).decode(),
    }


def secrets_of(labels: Mapping[str, str]) -> dict[str, Json]:
    try:
        names = json.loads(labels.get(SECRETS, "{}"))
    except ValueError:
        return {}
    return names if isinstance(names, dict) else {}
