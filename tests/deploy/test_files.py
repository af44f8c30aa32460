"""The files under deploy/ against the schemas of who reads them: nothing misspelt, nothing left out in silence."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BIN = Path(sys.executable).parent
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
IMAGE = re.compile(r"^\S+@sha256:[0-9a-f]{64}$")
VERSION = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
OWN_IMAGE = f"stillhouse:{VERSION}"


def load(name: str) -> Any:
    return YAML(typ="safe").load(DEPLOY / name)


def documents(path: Path) -> list[Any]:
    return list(YAML(typ="safe").load_all(path))


def unknown_keys(model: type[BaseModel], values: dict[str, Any]) -> set[str]:
    """Keys that a model of Prefect's would drop without a word."""
    known = {field.alias or name for name, field in model.model_fields.items()} | set(model.model_fields)
    return set(values) - known


def test_no_key_of_the_deployments_is_ignored() -> None:
    from prefect.cli.deploy import _models as models

    content = load("prefect.yaml")
    assert not unknown_keys(models.PrefectYamlModel, content)
    assert len(models.PrefectYamlModel.model_validate(content).deployments) == 4
    for deployment in content["deployments"]:
        assert not unknown_keys(models.DeploymentConfig, deployment), deployment["name"]
        assert not unknown_keys(models.WorkPoolConfig, deployment["work_pool"])
        assert not unknown_keys(models.ConcurrencyLimitSpec, deployment.get("concurrency_limit", {}))
        for schedule in deployment.get("schedules", []):
            models.RawScheduleConfig.model_validate(schedule)  # refuses what it does not know


def test_a_misspelt_key_would_be_found() -> None:
    from prefect.cli.deploy import _models as models

    assert unknown_keys(models.DeploymentConfig, {"name": "x", "paramters": {}}) == {"paramters"}


def test_the_parameters_of_the_deployments_are_the_flows_own() -> None:
    from prefect.flows import load_flow_from_entrypoint

    for deployment in load("prefect.yaml")["deployments"]:
        flow = load_flow_from_entrypoint(str(DEPLOY.parent / deployment["entrypoint"]))
        for schedule in [{}, *deployment.get("schedules", [])]:
            parameters = deployment["parameters"] | schedule.get("parameters", {})
            assert not set(parameters) - set(flow.parameters.properties)
            given_later = dict.fromkeys(flow.parameters.required, 1)  # a sign-off's version
            flow.validate_parameters(given_later | parameters)
        if flow.name == "rebuild" and deployment["parameters"]["recipe"]:
            assert (DEPLOY.parent / deployment["parameters"]["recipe"]).is_file()


def test_no_key_of_the_automations_is_ignored() -> None:
    from prefect.events.schemas.automations import AutomationCore

    for automation in [*load("automations.yaml")["automations"], *load("recovery.yaml")["automations"]]:
        for action in automation["actions"]:
            if action["type"] == "send-notification":
                assert action["block_document_id"] == "BLOCK_DOCUMENT_ID"  # put in when they are created
                action["block_document_id"] = "00000000-0000-0000-0000-000000000000"
        read = AutomationCore.model_validate(automation).model_dump(mode="json", exclude_unset=True)
        assert keys(automation) == keys(read)


def keys(values: Any) -> Any:
    """The keys of nested mappings; of an event trigger the lists that it matches are as they are read."""
    if isinstance(values, dict):
        return {name: keys(value) for name, value in values.items()}
    return (
        [keys(one) for one in values] if isinstance(values, list) and values and isinstance(values[0], dict) else None
    )


def test_the_stack_is_a_compose_file() -> None:
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_variable_of_the_stack_stands_in_the_example_and_no_secret_has_a_value() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOY / "compose.yaml").read_text(encoding="utf-8")))
    example = dict(
        line.split("=", 1)
        for line in (DEPLOY / ".env.example").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    assert used == set(example)
    assert not [name for name, value in example.items() if value and re.search(r"PASSWORD|SECRET|AUTH|KEY", name)]


def test_the_stack_s_servers_are_open_to_this_machine_alone_and_keep_no_right_they_do_not_need() -> None:
    services = load("compose.yaml")["services"]
    for name, service in services.items():
        assert all(port.startswith("${LISTEN:-127.0.0.1}:") for port in service.get("ports", [])), name
        if service["image"] == OWN_IMAGE:
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        else:
            assert IMAGE.match(service["image"]), f"{name}: no digest"
    assert "PREFECT_SERVER_API_AUTH_STRING" in services["prefect"]["environment"]
    assert services["mlflow"]["command"] == ["mlflow-server"]


def test_files_and_guides_name_the_image_of_this_version() -> None:
    guides = [*DEPLOY.rglob("*"), *(DEPLOY.parent / "docs/guides").glob("*.md")]
    texts = [path.read_text(encoding="utf-8") for path in guides if path.is_file() and path.suffix != ".pyc"]
    named = {image for text in texts for image in re.findall(r"\bstillhouse:\d[\w.]*", text)}
    assert named == {OWN_IMAGE}


def test_the_image_passes_its_linter_and_is_pinned() -> None:
    done = subprocess.run([BIN / "hadolint", DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert IMAGE.match(re.findall(r"^FROM (\S+)$", text, re.M)[0])
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\S+)$", text, re.M) == ["10001"]
    allowed = [line[1:] for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (\S+) ", text, re.M)
    assert sorted(copied) == sorted(allowed)
    assert all((DEPLOY.parent / name).is_file() for name in copied)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_every_manifest_is_what_kubernetes_expects(path: Path) -> None:
    import kubernetes_validate

    for document in documents(path):
        kubernetes_validate.validate(document, "1.31", strict=True)
        assert document["metadata"]["namespace"] == "stillhouse"
        template = document.get("spec", {}).get("template", {}).get("spec")
        if template:
            check_pod(template)


def check_pod(pod: dict[str, Any]) -> None:
    """No root, no rights, images by digest, passwords from secrets."""
    assert pod["securityContext"]["runAsNonRoot"]
    # A service `mlflow` would put MLFLOW_PORT=tcp://... into every pod, which MLflow takes for its port.
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["image"] == OWN_IMAGE or IMAGE.match(container["image"])
        for variable in container.get("env", []):
            if re.search(r"PASSWORD|SECRET|AUTH_STRING", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_the_job_template_is_one_that_the_worker_takes() -> None:
    import kubernetes_validate
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads((DEPLOY / "job-template.json").read_text(encoding="utf-8"))
    known = set(KubernetesWorkerJobConfiguration.model_fields)
    assert set(template["job_configuration"]) <= known
    variables = {name: one.get("default", "retrain") for name, one in template["variables"]["properties"].items()}
    (cluster,) = [one for one in load("prefect.yaml")["deployments"] if one["work_pool"]["name"] == "cluster"]
    assert set(cluster["work_pool"]["job_variables"]) <= set(variables)
    for machines in (variables["machines"], 2):
        values = variables | {"command": [], "env": [], "machines": machines}
        manifest = apply_values(template["job_configuration"]["job_manifest"], values)
        manifest["metadata"].pop("labels")  # none
        kubernetes_validate.validate(manifest, "1.31", strict=True)
        check_pod(manifest["spec"]["template"]["spec"])
        check_machines(manifest, machines)
    assert len(cluster["parameters"]["devices"]) == int(cluster["work_pool"]["job_variables"]["gpus"])


def check_machines(job: dict[str, Any], machines: int) -> None:
    """The script is told how many pods there are, and all have the service that makes their names addresses."""
    spec, pod = job["spec"], job["spec"]["template"]
    assert spec["completions"] == spec["parallelism"] == machines
    assert pod["spec"]["containers"][0]["command"] == ["sh", "deploy/machine.sh", f"--machines={machines}"]
    services = [one for path in MANIFESTS for one in documents(path) if one["kind"] == "Service"]
    (service,) = [one for one in services if one["metadata"]["name"] == pod["spec"]["subdomain"]]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_the_shell_scripts_are_valid_and_executable() -> None:
    for path in DEPLOY.glob("*.sh"):
        assert os.access(path, os.X_OK), path.name
        subprocess.run(["sh", "-n", path], check=True)
