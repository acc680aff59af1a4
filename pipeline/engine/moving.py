"""What runs an image under another name, as a registry that moved leaves it: whether the image is the same. Pure; used by plan."""

from collections.abc import Mapping

from pipeline.core.digest import Digest
from pipeline.core.protocols import Answer
from pipeline.core.resource import Absent, Address, Observed


def settled(answers: Mapping[Address, Answer]) -> dict[Address, Answer]:
    """Answers that rest on digests of needs, with what those are now. A need that cannot be read says nothing new."""
    return {address: _settled(answer, answers) for address, answer in answers.items()}


def _settled(answer: Answer, answers: Mapping[Address, Answer]) -> Answer:
    if not isinstance(answer, Observed) or answer.otherwise is None:
        return answer
    other = any(_differs(answers.get(need), digest) for need, digest in answer.runs.items())
    return answer.otherwise if other else answer


def _differs(answer: "Answer | None", digest: Digest) -> bool:
    """What is not there yet may become something else."""
    return isinstance(answer, Absent) or (isinstance(answer, Observed) and answer.digest != digest)
