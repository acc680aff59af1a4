"""A Deployment that mp did not make, told as an entry of models.yaml; what an entry cannot say is said as a remark. Pure."""

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.core.size import PATTERN as SIZE
from pipeline.resources.cluster.health import Object
from pipeline.resources.cluster.products import GPU, PRODUCT
from pipeline.resources.cluster.scalers import REPLICAS
from pipeline.targets.described import Described, Gpus, appliers, is_scaled

# How engines are told their model: vLLM, text-generation-inference, SGLang, llama.cpp.
MODEL_FLAGS = ("--model", "--model-id", "--model-path", "--hf-repo")
# Words that name a secret, and addresses with a password; never "tokenizer" or "max-tokens".
SECRET_NAME = re.compile(
    r"(?i)(^|[-_])(token|secret|password|passwd|api[-_]?key|key|credentials?)([-_=]|$)|://[^/\s]+:[^/\s]+@"
)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
NAME, VARIABLE = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?"), re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# What people set, and what an entry has no words for; Kubernetes 1.36.
OF_POD = (
    "volumes", "initContainers", "serviceAccountName", "affinity", "tolerations", "nodeSelector", "imagePullSecrets",
    "runtimeClassName", "priorityClassName", "hostNetwork", "hostIPC", "topologySpreadConstraints", "securityContext",
)  # fmt: skip
OF_CONTAINER = (
    "ports", "volumeMounts", "envFrom", "workingDir", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle",
    "securityContext",
)  # fmt: skip


def describe(deployment: Object) -> Described | None:
    """The entry of a Deployment; None where its name can be none of an entry's."""
    name = str(deployment["metadata"]["name"])
    if not NAME.fullmatch(name):
        return None
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    container = _server(pod["containers"])
    words = [*_words(container.get("command")), *_words(container.get("args"))]
    env, left_out = _env(container.get("env") or ())
    runs, secret_words = _runs(container)
    memory = str((_limits(container)).get("memory") or "")
    options: dict[str, Any] = {"name": name, "replicas": spec.get("replicas", 1)}
    if re.fullmatch(SIZE, memory):
        options["memory"] = memory
    source, guessed = _source(words)
    remarks = [
        *guessed,
        *(f"env {each} is left as it is" for each in left_out),
        *(f"{each} hold what looks like a key: they are left as they are" for each in secret_words),
        *_others(pod, container),
        *appliers(deployment),
    ]
    return Described(
        name,
        source,
        _after(words, ("--revision",)) or ("main" if source and source.startswith("hf://") else None),
        _gpus(pod, container),
        env,
        {**options, "runs": runs},
        (REPLICAS,) if is_scaled(deployment) else (),
        tuple(remarks),
    )


def _server(containers: list[Object]) -> Object:
    """The one with GPUs, else the first."""
    return next((one for one in containers if GPU in _limits(one)), containers[0])


def _limits(container: Object) -> Object:
    found: Object = (container.get("resources") or {}).get("limits") or {}
    return found


def _runs(container: Object) -> tuple[dict[str, Any], list[str]]:
    """What runs, and what of it may hold a secret: nothing of that leaves the cluster."""
    runs: dict[str, Any] = {"container": container["name"], "image": container["image"]}
    secret = []
    for part in ("command", "args"):
        if part not in container:
            continue
        if any(SECRET_NAME.search(word) for word in _words(container[part])):
            secret.append(part)
        else:
            runs[part] = list(container[part])
    return runs, secret


def _words(found: Any) -> list[str]:
    """Arguments one by one, also those of a shell's line."""
    words: list[str] = []
    for text in found or ():
        try:
            words += shlex.split(text, comments=True) if " " in text else [text]
        except ValueError:  # an open quotation mark
            words += text.split()
    return words


def _source(words: list[str]) -> tuple[str | None, list[str]]:
    """Where the weights are, as far as the arguments tell, and what is unsure about it."""
    named = _after(words, MODEL_FLAGS) or _served(words)
    if named is None:
        return None, ["source: its arguments name no model"]
    if "://" in named:
        return named, ["source: as its arguments say"]
    if REPOSITORY.fullmatch(named):
        revision = [] if _after(words, ("--revision",)) else [", its version is not known"]
        return f"hf://{named}", [f"source: as its arguments say{''.join(revision)}"]
    return None, [f"source: it serves {named}, whose origin is not known"]


def _after(words: list[str], flags: tuple[str, ...]) -> str | None:
    for index, word in enumerate(words):
        flag, separator, value = word.partition("=")
        if flag in flags and separator:
            return value
        if word in flags and index + 1 < len(words):
            return words[index + 1]
    return None


def _served(words: list[str]) -> str | None:
    """ "vllm serve MODEL" """
    at = words.index("serve") if "serve" in words else None
    following = words[at + 1 : at + 2] if at is not None else words[:1]
    named = next(iter(following), None)
    return named if named and (at is not None or REPOSITORY.fullmatch(named)) and named[0] != "-" else None


def _env(variables: Iterable[Object]) -> tuple[dict[str, str | tuple[str, str]], list[str]]:
    """Texts and references to Secrets; what is neither, or looks like a secret that was written down, stays there."""
    found: dict[str, str | tuple[str, str]] = {}
    left_out = []
    for one in variables:
        name, secret = str(one["name"]), (one.get("valueFrom") or {}).get("secretKeyRef")
        if secret:
            found[name] = (secret["name"], secret["key"])
        elif "valueFrom" in one or not VARIABLE.fullmatch(name) or _looks_secret(name, one.get("value")):
            left_out.append(name)
        else:
            found[name] = str(one.get("value") or "")
    return found, left_out


def _looks_secret(name: str, value: object) -> bool:
    return any(SECRET_NAME.search(text) for text in (name, str(value)))


def _gpus(pod: Object, container: Object) -> Gpus:
    return Gpus(int(_limits(container).get(GPU) or 0), next(_products(pod), None))


def _products(pod: Object) -> Iterator[str]:
    if label := (pod.get("nodeSelector") or {}).get(PRODUCT):
        yield str(label)
    affinity = (pod.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for rule in term.get("matchExpressions") or ():
            if rule.get("key") == PRODUCT and rule.get("operator") == "In":
                yield from map(str, rule.get("values") or ())


def _others(pod: Object, container: Object) -> list[str]:
    """What stays as it is because an entry has no word for it."""
    found = [key for key in OF_POD if pod.get(key)]
    found += [key for key in OF_CONTAINER if container.get(key)]
    resources = container.get("resources") or {}
    rest = {key for key in _limits(container) if key not in ("memory", GPU)}
    if rest or resources.get("requests"):
        found.append("other resources")
    found += [f"container {one['name']}" for one in pod["containers"] if one is not container]
    return [f"not in this entry, and left as it is: {', '.join(found)}"] if found else []
