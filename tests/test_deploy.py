"""The files of `deploy` and the Dockerfile: valid by their published schemas, and as closed as they say."""

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.commands import run_command
from app.settings import Settings

ROOT = Path(__file__).parents[1]
OBJECTS = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text(encoding="utf-8")))
COMPOSE = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
POD = next(item for item in OBJECTS if item["kind"] == "Deployment")["spec"]["template"]["spec"]
CONTAINERS = {container["name"]: container for container in POD["containers"]}


def finds_no_worker(words: list[str]) -> bool:
    """Whether these words are a command of ours that misses a worker where there is none."""
    assert words[:3] == ["python", "-m", "app"]
    return run_command(words[3:], Settings(state=Path("nowhere"))) == 1


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: item["kind"])
def test_kubernetes_knows_every_field(item: dict[str, Any]):
    kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_a_field_that_kubernetes_does_not_know_is_found():
    wrong = json.loads(json.dumps(OBJECTS[1]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_compose_knows_every_field():
    schema = json.loads((resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json").read_text("utf-8"))
    jsonschema.validate(COMPOSE, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(COMPOSE | {"services": {"app": {"imagee": "l2d"}}}, schema)


def test_pods_have_probes_limits_and_no_rights():
    app = CONTAINERS["app"]
    assert [app[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")] == [
        "/readyz",
        "/readyz",
        "/healthz",
    ]
    assert (POD["securityContext"]["runAsNonRoot"], POD["automountServiceAccountToken"]) == (True, False)
    # The variables by which Kubernetes names a service to pods would pass for settings.
    assert POD["enableServiceLinks"] is False
    # What a worker is probed with has to be a command of ours.
    assert finds_no_worker(CONTAINERS["worker"]["livenessProbe"]["exec"]["command"])
    for container in CONTAINERS.values():
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}
        (threads,) = (variable for variable in container["env"] if variable["name"] == "OMP_NUM_THREADS")
        assert threads["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
        rights = container["securityContext"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}


def test_composed_services_have_limits_and_no_rights():
    assert set(COMPOSE["services"]) == set(CONTAINERS) == {"app", "worker"}
    for service in COMPOSE["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["mem_limit"]
    worker = COMPOSE["services"]["worker"]
    assert finds_no_worker(worker["healthcheck"]["test"][1:])
    assert worker["cpu_shares"] < 1024
    # Not on every address of the machine.
    assert COMPOSE["services"]["app"]["ports"] == ["127.0.0.1:7860:7860"]


def test_files_name_settings_and_folders_that_exist():
    known = {f"L2D_{name}".upper() for name in Settings.model_fields} | {"L2D_CACHE"}
    for text in (DOCKERFILE, *((ROOT / "deploy" / name).read_text(encoding="utf-8") for name in ("compose.yaml", "kubernetes.yaml"))):
        assert set(re.findall(r"\bL2D_[A-Z_]+", text)) <= known
    user = re.search(r"--uid (\d+)", DOCKERFILE)
    assert user is not None
    assert POD["securityContext"]["runAsUser"] == int(user[1])
    assert {mount["mountPath"] for mount in CONTAINERS["app"]["volumeMounts"]} == {"/state", "/tmp"}


def test_image_runs_without_rights_and_says_whether_it_is_well():
    assert re.search(r"^USER l2d$", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*\\\n.*readyz", DOCKERFILE, re.MULTILINE)
    assert re.search(r"^VOLUME /state$", DOCKERFILE, re.MULTILINE)
    assert "--only-binary :all:" in DOCKERFILE
