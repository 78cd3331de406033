"""The files in `deployments/`: they parse, refer to what exists, and hold no secret."""

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.automations import Automation
from prefect.client.schemas.objects import ConcurrencyOptions
from prefect.utilities.importtools import import_object

from flows.cli.main import main
from flows.config.run_config import RunConfig, keys
from flows.execution import gpu_workers
from flows.execution.names import BUILD_BANK, CPU_POOL, GPU_POOL, LABEL_SHARDS
from flows.local_stack.programs import server_part, worker_part
from flows.service.schedules import nightly

_FOLDER = Path(__file__).resolve().parents[3] / "deployments"
_PREFECT: dict[str, Any] = yaml.safe_load((_FOLDER / "prefect.yaml").read_text())
_AUTOMATIONS: list[dict[str, Any]] = yaml.safe_load((_FOLDER / "automations.yaml").read_text())
_COMPOSE: dict[str, Any] = yaml.safe_load((_FOLDER / "compose.yaml").read_text())
_DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.cuda")


def _flow(entry: dict[str, Any]) -> Flow[..., Any]:
    found = import_object(entry["entrypoint"])
    assert isinstance(found, Flow)
    return found


def _whole_name(entry: dict[str, Any]) -> str:
    return f"{_flow(entry).name}/{entry['name']}"


def test_every_deployment_is_of_a_flow_and_says_what_it_does() -> None:
    names = [_whole_name(entry) for entry in _PREFECT["deployments"]]
    assert len(set(names)) == len(names)
    assert {"refseg/label-now", "refseg/label-nightly", "benchmark/benchmark", "evaluate run/evaluate"} <= set(names)
    for entry in _PREFECT["deployments"]:
        assert len(entry["description"]) > 40
        assert "refseg" in entry["tags"]


def test_child_runs_go_to_the_gpu_pool_and_all_others_to_the_cpu_pool() -> None:
    for entry in _PREFECT["deployments"]:
        is_gpu = _whole_name(entry) in (LABEL_SHARDS, BUILD_BANK)
        assert entry["work_pool"]["name"] == (GPU_POOL if is_gpu else CPU_POOL)
        assert ("gpu" in entry["tags"]) == is_gpu
    assert {LABEL_SHARDS, BUILD_BANK} <= {_whole_name(entry) for entry in _PREFECT["deployments"]}


def test_the_form_of_a_run_explains_every_key() -> None:
    (now,) = (entry for entry in _PREFECT["deployments"] if entry["name"] == "label-now")
    definitions = _flow(now).parameters.model_dump()["definitions"]
    assert RunConfig.__name__ in definitions
    for name, definition in definitions.items():
        for key, described in definition.get("properties", {}).items():
            section = definitions.get(str(described.get("$ref", "")).rpartition("/")[2], {})
            assert described.get("description") or section.get("description"), f"{name}.{key}"


def test_forms_begin_with_gpu_workers_and_with_settings_that_there_are() -> None:
    places = {"store": "s", "references": {"images": "i", "annotations": "a"}, "targets": {"images": "t"}}
    for entry in _PREFECT["deployments"]:
        assert entry["enforce_parameter_schema"] is True
        if entry["name"] == "benchmark":
            known = {key.name for key in keys()}
            assert set(entry["parameters"]["changes"]) <= known
            assert entry["parameters"]["changes"]["execution.engine"] == "workers"
        elif entry["work_pool"]["name"] == CPU_POOL:
            config = RunConfig.model_validate({**entry["parameters"]["config"], **places})
            assert config.execution.engine == "workers"


def test_the_form_of_a_benchmark_explains_its_fields() -> None:
    (entry,) = (entry for entry in _PREFECT["deployments"] if entry["name"] == "benchmark")
    fields = _flow(entry).parameters.model_dump()["properties"]
    assert {"name", "data", "store", "chosen", "corrected", "changes"} == set(fields)
    assert all(field.get("description") for field in fields.values())


def test_a_night_does_not_begin_while_another_works() -> None:
    (nightly,) = (entry for entry in _PREFECT["deployments"] if entry["name"] == "label-nightly")
    assert nightly["concurrency_limit"] == {"limit": 1, "collision_strategy": "CANCEL_NEW"}
    assert [schedule["active"] for schedule in nightly["schedules"]] == [False]


def test_a_night_that_a_command_schedules_is_as_the_one_here() -> None:
    (here,) = (entry for entry in _PREFECT["deployments"] if entry["name"] == "label-nightly")
    places = {"store": "s", "references": {"images": "r", "annotations": "r.json"}, "targets": {"images": "boats"}}
    night = nightly(RunConfig.model_validate(places), cron="0 2 * * *", timezone="UTC", name=None)
    assert night.name == "boats-nightly"
    assert sorted(night.tags) == sorted(here["tags"])  # by which automations know it
    assert night.work_pool_name == here["work_pool"]["name"]
    assert (night.concurrency_limit, night.concurrency_options) == (
        here["concurrency_limit"]["limit"],
        ConcurrencyOptions(collision_strategy=here["concurrency_limit"]["collision_strategy"]),
    )


def test_automations_are_what_prefect_takes() -> None:
    names = [Automation.model_validate(_with_ids(entry)).name for entry in _AUTOMATIONS]
    assert names == [
        "refseg-run-failed",
        "refseg-run-stalled",
        "refseg-run-not-started",
        "refseg-run-not-cancelled",
        "refseg-worker-lost",
        "refseg-worker-gone",
        "refseg-no-gpu-worker",
    ]


def _with_ids(entry: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(entry).replace("refseg-notify", "00000000-0000-0000-0000-000000000000")
    known: dict[str, Any] = json.loads(text)
    return known


def test_a_run_is_stalled_after_several_heartbeats_and_one_that_has_ended_stays_as_it_is() -> None:
    automation_of = {entry["name"]: entry for entry in _AUTOMATIONS}
    template = json.loads((_FOLDER / "kubernetes-work-pool.json").read_text())
    for environment in (
        worker_part("gpu0", GPU_POOL).environment,
        template["variables"]["properties"]["env"]["default"],
    ):
        seconds = int(str(environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]))
        assert automation_of["refseg-run-stalled"]["trigger"]["within"] >= 3 * seconds
    for name in ("refseg-run-stalled", "refseg-run-not-started"):
        (action,) = automation_of[name]["actions"]
        assert action["force"] is False  # the server then leaves runs that have ended as they are
        assert {f"prefect.flow-run.{end}" for end in ("Completed", "Failed", "Crashed", "Cancelled")} <= set(
            automation_of[name]["trigger"]["expect"]
        )


def test_automations_expect_events_that_are_emitted() -> None:
    expected = {event for entry in _AUTOMATIONS for event in entry["trigger"]["expect"]}
    assert gpu_workers._LOST in expected
    tags = {
        related.removeprefix("prefect.tag.")
        for entry in _AUTOMATIONS
        if (related := entry["trigger"].get("match_related", {}).get("prefect.resource.id"))
    }
    assert tags <= {tag for entry in _PREFECT["deployments"] for tag in entry["tags"]}


@pytest.mark.parametrize("name", _DOCKERFILES)
def test_images_run_as_a_user_without_rights_from_a_fixed_version(name: str) -> None:
    lines = (_FOLDER / name).read_text().splitlines()
    base = [line for line in lines if line.startswith("FROM ")]
    assert base
    assert all(re.search(r":\d", line) and "latest" not in line for line in base)
    assert [line for line in lines if line.startswith("USER ")][-1] == "USER 1000"
    assert not [line for line in lines if line.startswith("ADD ")]
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    assert all((_FOLDER.parent / source).exists() for sources in copied for source in sources)


def test_containers_are_built_from_what_exists_are_checked_and_hold_no_secret() -> None:
    services = _COMPOSE["services"]
    for name, service in services.items():
        if "build" in service:
            assert (_FOLDER.parent / service["build"]["dockerfile"]).exists(), name
        else:
            assert re.search(r":\d", service["image"]), name
        assert set(service.get("depends_on", {})) <= set(services), name
    assert all("healthcheck" in service for service in services.values() if "restart" in service)
    assert {"postgres", "server", "s3", "cpu-worker", "gpu-worker"} <= set(services)
    for key, value in re.findall(
        r"(\w*(?:PASSWORD|SECRET|ACCESS_KEY|AUTH_STRING)\w*): \"?([^,}\"]*)", (_FOLDER / "compose.yaml").read_text()
    ):
        assert value.startswith("${"), key


def test_containers_ask_for_a_login_and_have_it() -> None:
    services = {name: service.get("environment", {}) for name, service in _COMPOSE["services"].items()}
    assert services["server"]["PREFECT_SERVER_API_AUTH_STRING"] == "${PREFECT_LOGIN:?}"
    clients = {name for name, environment in services.items() if "PREFECT_API_URL" in environment}
    assert clients == {"deploy", "cpu-worker", "gpu-worker"}
    assert {services[name]["PREFECT_API_AUTH_STRING"] for name in clients} == {"${PREFECT_LOGIN:?}"}


def test_the_server_in_a_container_has_the_settings_of_the_local_one() -> None:
    local = server_part(host="h", port=1, api_url="u", home="h", database="d", login="l", log="l").environment
    of_place = {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_UI_API_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"}
    expected = {name: value for name, value in local.items() if value is not None and name.startswith("PREFECT_SERVER")}
    there = _COMPOSE["services"]["server"]["environment"]
    assert of_place <= set(there)
    assert {name: there.get(name) for name in expected if name not in of_place} == {
        name: value for name, value in expected.items() if name not in of_place
    }


def test_containers_keep_their_data_wait_for_what_they_need_and_are_open_to_the_host_only() -> None:
    services = _COMPOSE["services"]
    mounted = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert {name for name in mounted if not name.startswith("./")} == set(_COMPOSE["volumes"])
    runbook = (_FOLDER / "runbook.md").read_text()
    for file in (name.removeprefix("./") for name in mounted if name.startswith("./")):
        assert (_FOLDER / file).exists() or f"`{file}`" in runbook, file
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"} and "healthcheck" in services[needed], name
        if name != "proxy":
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    proxy = services["proxy"]
    for variable, name in (("REFSEG_PREFECT", "server"), ("REFSEG_S3", "s3")):
        (published,) = services[name]["ports"]
        assert proxy["environment"][variable] == f"{name}:{published.rpartition(':')[2]}"
    assert {port.partition(":")[0] for port in proxy["ports"]} == {"80", "443", "8443"}
    assert "./Caddyfile:/etc/caddy/Caddyfile:ro" in proxy["volumes"]


def test_the_proxy_is_before_both_servers_and_only_where_it_is_wanted() -> None:
    proxy, file = _COMPOSE["services"]["proxy"], (_FOLDER / "Caddyfile").read_text()
    assert proxy["profiles"] == ["tls"]
    for name, default in re.findall(r"{\$(REFSEG_\w+):?([^}]*)}", file):
        assert default or name == "REFSEG_TLS", "outside of containers it has to work as well"
        assert name in {*proxy["environment"], "REFSEG_S3_PORT"}
    published = {port for service in ("server", "s3") for port in _COMPOSE["services"][service]["ports"]}
    assert published == {"127.0.0.1:4200:4200", "127.0.0.1:8333:8333"}, "others come through the proxy"


def test_the_kubernetes_template_uses_its_variables_and_asks_for_a_gpu() -> None:
    template = json.loads((_FOLDER / "kubernetes-work-pool.json").read_text())
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    job = template["job_configuration"]["job_manifest"]["spec"]
    assert job["backoffLimit"] == 0  # runs are handed out again by refseg, which knows what is done
    (container,) = job["template"]["spec"]["containers"]
    assert "nvidia.com/gpu" in container["resources"]["limits"]
    # What prefect-kubernetes insists on.
    assert container["name"] == "prefect-job"
    assert job["completions"] == job["parallelism"] == 1


def test_the_unit_runs_as_a_user_without_rights_and_holds_no_secret() -> None:
    unit = configparser.ConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(_FOLDER / "refseg-worker.service")
    service = dict(unit["Service"])
    assert service["User"] == "refseg"
    assert "EnvironmentFile" in service
    assert "Environment" not in service
    program, *words = service["ExecStart"].split()
    assert program.startswith("/")
    assert main.commands["service"].commands[words[1]].params  # type: ignore[attr-defined]
