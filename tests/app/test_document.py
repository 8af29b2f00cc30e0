"""The API's document: every route with its bodies, limits and errors, and examples that work."""

import json
import shutil
import time
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app.parameters import EXAMPLE_MODELS
from app.server import create_api
from app.settings import Settings
from tests.app.conftest import ROOT, configure, post


def test_document_describes_every_route_with_bodies_and_errors(client: TestClient):
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) > {
        "/healthz",
        "/readyz",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}:predict",
        "/v1/models/{model}:explain",
        "/v1/compare",
    }
    form = document["paths"]["/v1/compare"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    look = {"scale", "colormap", "smooth", "opacity", "minus"}
    assert set(form["properties"]) == {"image", "models", "labels", "threshold", "kind", "format"} | look
    assert form["properties"]["format"]["enum"] == ["json", "npz", "png", "pdf"]
    assert form["properties"]["labels"]["type"] == "array"
    assert "split at its commas" in form["properties"]["labels"]["description"]
    body = document["paths"]["/v1/models/{model}:explain"]["post"]["requestBody"]["content"]
    assert set(body) == {"multipart/form-data", "application/json"}
    assert body["application/json"]["example"]["instances"][0]["image"]["b64"]
    assert "null" not in json.dumps(body["multipart/form-data"]["schema"]), "a field of a form is there or not"
    assert not [path for path, operations in document["paths"].items() if "head" in operations], "said of all of them, not of each"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert "$defs" not in json.dumps(document)


def test_document_tells_the_limits_of_its_server_and_what_an_npz_holds(settings: Settings):
    document = create_api(settings.model_copy(update={"max_instances": 5, "max_upload_bytes": 3 * 2**20})).openapi()
    for limit in ("3 MiB", "50,000,000 pixels", "models in a request: 8", "labels: 128", "pictures in one of JSON: 5", "JPEG, PNG, WEBP"):
        assert limit in document["info"]["description"].replace("\n", " ")
    told = document["paths"]["/v1/compare"]["post"]["description"].replace("\n", " ")
    assert "`NAME/maps` (L, h, w): NaN for labels that the model does not know" in told
    for described in (told, document["components"]["schemas"]["ModelAnswer"]["properties"]["maps"]["description"]):
        assert "by the number of its cells" in described


def test_operations_have_short_names_and_links_of_an_ordered_job_lead_to_some(client: TestClient):
    document = client.get("/openapi.json").json()
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    known = set(names)
    assert len(known) == len(names)
    assert {"predict_pictures", "explain_pictures", "compare_models", "submit_job"} <= known
    links = document["paths"]["/v1/jobs"]["post"]["responses"]["202"]["links"]
    assert links.keys() == {"show", "cancel", "stop", "resume", "delete"}
    assert {link["operationId"] for link in links.values()} <= known


def test_examples_of_the_document_work_and_strict_readers_take_it(client: TestClient):
    document = client.get("/openapi.json").json()
    # Imported where it is used: a part of what attacks the document elsewhere.
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    assert document["openapi"].startswith("3.1.")
    OPENAPI_31_VALIDATOR.validate(document)
    events = document["paths"]["/v1/jobs/{job}/events"]["get"]["responses"]["200"]["content"]
    assert events == {"text/event-stream": {}}
    for verb in ("predict", "explain"):
        example = document["paths"][f"/v1/models/{{model}}:{verb}"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post(f"/v1/models/alien:{verb}", json=example).status_code == 200


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The API with those models that come with the program and that its examples name."""
    folder = tmp_path_factory.mktemp("shipped")
    for name in EXAMPLE_MODELS:
        shutil.copytree(ROOT / "checkpoints" / name, folder / "checkpoints" / name)
    # Networks that were converted once need not be again.
    settings = configure(folder / "checkpoints").model_copy(update={"cache": ROOT / "runs" / "cache"})
    with TestClient(create_api(settings)) as client:
        while not client.app.state.engine.ready:
            time.sleep(0.05)
        yield client


@pytest.mark.parametrize("path", ["/v1/compare", "/v1/models/{model}:predict", "/v1/models/{model}:explain"])
def test_every_field_of_a_form_has_an_example_that_the_shipped_models_answer(shipped: TestClient, upload: bytes, path: str):
    operation = shipped.get("/openapi.json").json()["paths"][path]["post"]
    fields = operation["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    given = {name: field["examples"][0] for name, field in fields.items() if name != "image"}
    address = path.format(**{parameter["name"]: parameter["schema"]["examples"][0] for parameter in operation.get("parameters", [])})
    answer = post(shipped, upload, address, **given)
    assert answer.status_code == 200, answer.text
    if path == "/v1/compare":
        assert [model["name"] for model in answer.json()["models"]] == given["models"]
        assert answer.json()["labels"] == given["labels"]
        assert post(shipped, upload, address, **given | {"format": "png"}).headers["content-type"] == "image/png"


def test_docs_need_no_other_server(client: TestClient):
    page = client.get("/docs").text
    assert "https://" not in page
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
