"""Old APIs beside OpenAI's: who serves them, and what they change of a launch."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from pipeline.core.image import Launch
from pipeline.core.model import Model
from pipeline.manifest.spec import ServeSpec
from pipeline.templates import TEMPLATES
from tests.parts.deployments import a_model, deployment
from tests.parts.workspaces import A100, workspace

FACES = ("llama2-generate", "llama2-chat")


def launched(model: Model) -> Launch:
    template = TEMPLATES[model.template]
    return template.launch(model, template.variant(model.engine.version, model.hardware))


def test_the_manifest_has_a_word_for_every_face_of_a_template_and_for_no_other() -> None:
    words, _ = get_args(ServeSpec.model_fields["faces"].annotation)
    assert set(get_args(words)) == {face for template in TEMPLATES.values() for face in template.faces()}


def test_a_launch_is_as_ever_until_a_face_is_asked_for() -> None:
    plain = launched(a_model())
    old = launched(a_model(faces=FACES))
    assert not [word for word in plain.argv if "face" in word]
    added = [word for word in old.argv if word not in plain.argv]
    assert added == ["--faces", "llama2-chat", "llama2-generate"]
    assert replace(old, argv=plain.argv) == plain


def test_neither_order_nor_repetition_restarts_a_deployment() -> None:
    assert launched(a_model(faces=FACES)) == launched(a_model(faces=(*reversed(FACES), FACES[0])))


def test_clusters_start_the_server_with_the_faces() -> None:
    made = [deployment(a_model(faces=FACES)), workspace(a_model(hardware=A100, faces=FACES))]
    for resource in made:
        argv = _launch(resource.desired.objects)["argv"]
        place = argv.index("--faces")
        assert argv[place + 1 : place + 3] == ["llama2-chat", "llama2-generate"]


def _launch(objects: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: objects of the API, JSON
    (written,) = [one["data"]["launch.json"] for one in objects.values() if one["kind"] == "ConfigMap"]
    found: Mapping[str, Any] = json.loads(written)
    return found
