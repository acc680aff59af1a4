"""What an account may do in a namespace, as the API server lists it (SelfSubjectRulesReview, Kubernetes 1.36). Used by clients/kube."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.frozen import frozen


@frozen
class Rule:
    verbs: tuple[str, ...]
    groups: tuple[str, ...]
    resources: tuple[str, ...]

    def allows(self, verb: str, group: str, resource: str) -> bool:
        """A rule for named objects counts: which ones it names is told when they are asked for."""
        subresource = resource.partition("/")[2]
        wanted = (resource, "*", f"*/{subresource}" if subresource else "*")
        return (
            any(one in self.verbs for one in (verb, "*"))
            and any(one in self.groups for one in (group, "*"))
            and any(one in self.resources for one in wanted)
        )


@frozen
class Rules:
    """Everything that is allowed; `complete` is False where an authorizer does not list its rules (webhooks of clouds)."""

    rules: tuple[Rule, ...]
    complete: bool = True

    def allow(self, verb: str, group: str, resource: str) -> bool:
        return any(one.allows(verb, group, resource) for one in self.rules)


def rules_of(status: Mapping[str, Any]) -> Rules:
    """From the status of a SelfSubjectRulesReview."""
    found = [
        Rule(_texts(one, "verbs"), _texts(one, "apiGroups"), _texts(one, "resources"))
        for one in status.get("resourceRules") or ()
    ]
    return Rules(tuple(found), not status.get("incomplete"))


def _texts(rule: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values: Sequence[Any] = rule.get(name) or ()
    return tuple(str(value) for value in values)
