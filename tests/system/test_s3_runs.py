"""Runs that lie in a bucket of a real S3 server as a whole: through a network that fails, their labels stay exact.

Exact are labels that equal those of the same run on a local folder, row for row, in a store that `verify` finds whole.
"""

import os
import random
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner, Result

from flows import pipeline
from flows.cli.main import main
from flows.run import PREFECT_SETTINGS
from refseg_core.tables import Detections
from tasks.label_shard import label_shard
from tasks.models.loading import load_models
from tasks.storage.retry import ATTEMPTS_VARIABLE
from tasks.store.kept_proposals import kept_status
from tasks.store.label_store import newest_labels
from tasks.store.store import Store
from tasks.store.verify import verify_store
from tests.support.counts import count
from tests.support.label_rows import LabelRows, assert_exact
from tests.support.projects.project import Project, write_project
from tests.support.samples import table_rows
from tests.support.servers.fault_proxy import CALM, HEAVY, LIGHT, MEDIUM, Fault, FaultProxy, Level, Request, Rule
from tests.support.servers.object_stores import ObjectStore
from tests.support.servers.seaweedfs import ADMIN, READER, STRANGER, TENANT, TENANT_BUCKET, Account

pytest_plugins = [
    "tests.support.servers.stores",
    "tests.support.projects.tiny_project",
    "tests.support.projects.bucket_project",
]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_prefect")]

_SECRETS = (ADMIN.secret, READER.secret, "wrong-secret")
_FAULTS = (Fault.LOSE_REPLY, Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.CUT_BODY)


@pytest.fixture(autouse=True)
def quiet_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line's settings for Prefect are gone afterwards."""
    for name, value in PREFECT_SETTINGS.items():
        monkeypatch.setenv(name, value)


def _refseg(*arguments: str | Path) -> Result:
    """A command; it ends by itself, and shows neither a traceback nor a secret."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.output
    assert not any(secret in result.output for secret in _SECRETS)
    return result


def _done(*arguments: str | Path) -> str:
    """What a command prints that must succeed."""
    result = _refseg(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def _failed(*arguments: str | Path, exit_code: int) -> str:
    """The error of a command that must fail: one line."""
    result = _refseg(*arguments)
    assert result.exit_code == exit_code, result.output
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.stderr.rstrip().endswith(error)
    return error


def _objects(server: ObjectStore, project: Project) -> dict[str, bytes]:
    """Everything in the store, read past the proxy: name -> content."""
    root = project.config.store.removeprefix("s3://")
    filesystem = server.filesystem()
    return {path.removeprefix(f"{root}/"): filesystem.cat_file(path) for path in filesystem.find(root)}


# How many objects of each kind a run of the project makes; keys are left out.
_MADE_BY_A_RUN = {
    "dataset": 8,
    "references": 2,
    "memory_bank": 3,
    "prototypes": 2,
    "labels": 1,
    "labels/requests": 1,
    "labels/plans": 1,
    "labels/plans/parts": 1,
    "labels/detections": 3,
    "labels/labeled_images": 3,
    "labels/shards": 3,
    "gone_labels": 2,
    "metrics": 4,
}


def _count_kinds(objects: Iterable[str]) -> Counter[str]:
    return Counter(str(PurePosixPath(re.sub(r"^(\w+)/\w+/", r"\1/", name)).parent) for name in objects)


# --- storms ----------------------------------------------------------------------------------------------------------


def _quick(level: Level) -> Level:
    return replace(level, delay_seconds=0.02, outage_seconds=0.3)


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize(
    ("level", "seed"),
    [(CALM, 0), (LIGHT, 1), (LIGHT, 2), (MEDIUM, 1), (MEDIUM, 2), (HEAVY, 1), (HEAVY, 2)],
    ids=lambda value: value.name if isinstance(value, Level) else str(value),
)
def test_a_run_through_a_storm_ends_well_with_exact_labels(
    level: Level, seed: int, bucket_project: Project, fault_proxy: FaultProxy, local_labels: LabelRows
) -> None:
    fault_proxy.start_storm(_quick(level), seed)
    printed = _done("run", bucket_project.write_config())
    fault_proxy.level = CALM
    assert "5 images: 8 instances in 5, none in 0, 0 unreadable." in printed
    assert_exact(bucket_project.config.store, local_labels)
    count(f"S3: runs at level {level.name}")


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_runs_that_a_storm_ends_say_so_in_a_line_and_the_next_goes_on_to_exact_labels(
    seed: int,
    bucket_project: Project,
    fault_proxy: FaultProxy,
    local_labels: LabelRows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = bucket_project.write_config()
    with monkeypatch.context() as impatience:
        impatience.setenv(ATTEMPTS_VARIABLE, "1")
        _start_storm_over(fault_proxy, "/labels/|/targets/t", seed)
        codes = [_ended_by_a_storm(file)]
        while codes[-1] and len(codes) < 8:
            codes.append(_ended_by_a_storm(file))
    fault_proxy.rules = []
    _done("run", file)
    assert_exact(bucket_project.config.store, local_labels)
    count("S3: runs that a heavy storm ended", codes.count(1))


@pytest.mark.usefixtures("short_pauses")
def test_what_is_kept_through_a_storm_gives_the_labels_of_a_local_run(
    bucket_project: Project, fault_proxy: FaultProxy, tmp_path: Path, tiny_weights: Path
) -> None:
    """Of the run that keeps proposals, and of one with other settings that labels by these."""
    local = write_project(tmp_path, tiny_weights)
    for seed, thresh in enumerate((0.9, 0.5)):
        _start_storm_over(fault_proxy, "/proposals/", seed)
        _done("run", bucket_project.write_config(labeling__keep_proposals=True, labeling__box_nms_thresh=thresh))
        fault_proxy.rules = []
        from_nothing = {"store": f"{tmp_path}/{thresh}", "labeling.keep_proposals": True}
        pipeline.run_pipeline(local.config_with({**from_nothing, "labeling.box_nms_thresh": thresh}))
        assert _newest_rows(bucket_project.config.store) == _newest_rows(str(from_nothing["store"]))
    (kept,) = kept_status(Store(bucket_project.config.store))
    assert (kept.num_images, kept.num_parts) == (5, 5)
    assert verify_store(Store(bucket_project.config.store)).problems == []


def _newest_rows(store: str) -> list[dict[str, Any]]:
    run, _ = newest_labels(Store(store))
    rows = table_rows(Detections.concatenate([detections for detections, _ in run.read()]))
    assert len(rows) > 0
    return rows


def _start_storm_over(proxy: FaultProxy, path: str, seed: int) -> None:
    """From here on requests of these paths alone meet the faults of a heavy storm, until the proxy has other rules."""
    generator = random.Random(seed)
    proxy.level = _quick(CALM)
    proxy.rules = [lambda request: HEAVY.draw(generator) if re.search(path, request.path) else None]


def _ended_by_a_storm(file: Path) -> int:
    result = _refseg("run", file)
    if result.exit_code:
        assert re.fullmatch(
            r"Error: (s3://.*This may be temporary.*|\d of \d shards could not be labeled: .* The first: .*)",
            result.stderr.splitlines()[-1],
        )
    return result.exit_code


def test_an_outage_of_ten_seconds_amid_labeling_is_waited_out(
    bucket_project: Project, fault_proxy: FaultProxy, local_labels: LabelRows
) -> None:
    fault_proxy.level = replace(CALM, outage_seconds=10)
    fault_proxy.rules = [Rule(Fault.OUTAGE, "GET", r"/targets/t2\.png", nth=1)]
    started = time.monotonic()
    _done("run", bucket_project.write_config())
    assert time.monotonic() - started > 10
    assert fault_proxy.fault_counts == {Fault.OUTAGE: 1}
    assert_exact(bucket_project.config.store, local_labels)
    count("S3: outages of ten seconds survived")


# --- one fault at a time ---------------------------------------------------------------------------------------------

_DECIDING = {
    "part of detections": "/detections/0000-00001.parquet",
    "part of labeled images": "/labeled_images/0000-00001.parquet",
    "manifest of a shard": "/shards/0000-00001.json",
    "plan": "/plans/0000.json",
    "part of a plan": "/plans/parts/",
    "request": "/requests/0000.json",
    "recipe": "/recipe.json",
    "table of an artifact": "/memory_bank.parquet",
    "manifest of an artifact": "/prototypes/[^/]*/manifest.json",
}


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("put", _DECIDING.values(), ids=_DECIDING)
def test_whose_reply_is_lost_put_it_once(
    put: str, bucket_project: Project, fault_proxy: FaultProxy, local_labels: LabelRows, seaweedfs: ObjectStore
) -> None:
    fault_proxy.rules = [Rule(Fault.LOSE_REPLY, "PUT", put, nth=1)]
    _done("run", bucket_project.write_config())
    assert fault_proxy.fault_counts == {Fault.LOSE_REPLY: 1}
    attempts = [request for request in fault_proxy.requests if request.method == "PUT" and re.search(put, request.path)]
    assert [request.status for request in attempts] == [200, 412]
    assert len(_images_read_to_label(fault_proxy)) == 5  # no image is labeled again
    assert_exact(bucket_project.config.store, local_labels)
    assert _count_kinds(_objects(seaweedfs, bucket_project)) == _MADE_BY_A_RUN
    count("S3: lost replies to what decides something")


def _images_read_to_label(proxy: FaultProxy) -> list[Request]:
    """Returns the requests for images since the first plan; before, their headers are read."""
    planned = next(row for row, one in enumerate(proxy.requests) if one.method == "PUT" and "/plans/" in one.path)
    return [one for one in proxy.requests[planned:] if one.method == "GET" and "/targets/t" in one.path]


@pytest.mark.usefixtures("short_pauses")
@pytest.mark.parametrize("fault", _FAULTS, ids=lambda fault: fault.name.lower())
def test_of_every_object_and_listing_the_first_request_may_fail(
    fault: Fault, bucket_project: Project, fault_proxy: FaultProxy, local_labels: LabelRows, seaweedfs: ObjectStore
) -> None:
    """Images, parts, manifests and weights: cut ones are read again, none is taken for damaged or unreadable."""
    seen: set[tuple[str, str, str]] = set()

    def first(request: Request) -> Fault | None:
        asked = (request.method, request.path, request.query)
        is_new = asked not in seen
        seen.add(asked)
        return fault if is_new else None

    fault_proxy.rules = [first]
    printed = _done("run", bucket_project.write_config())
    assert "0 unreadable" in printed
    fault_proxy.rules = []
    met = [request.path for request in fault_proxy.requests if request.method == "GET" and request.fault is fault]
    for read in (r"/targets/t\d", r"/references/r\d", "/weights/", "/plans/parts/", "/detections/", "manifest.json"):
        assert any(re.search(read, path) for path in met), read
    assert_exact(bucket_project.config.store, local_labels)
    assert _count_kinds(_objects(seaweedfs, bucket_project)) == _MADE_BY_A_RUN


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_shard_costs_two_small_requests_its_two_parts_and_its_images(
    bucket_project: Project, fault_proxy: FaultProxy
) -> None:
    """What is common to a worker's shards is read once: the plan's part and the prototypes with their manifest."""
    num_images, num_shards = 5, 5
    config = bucket_project.config_with({"batches.images_per_shard": 1})
    prototypes = pipeline.build_bank(config)
    plan = pipeline.plan_labels(config, prototypes)
    load_models(config.models)
    fault_proxy.forget_requests()
    for shard in plan.pending:
        label_shard.fn(pipeline.label_job(config, prototypes, plan), shard)
    assert fault_proxy.request_counts == {
        ("GET", "/*/store/labels/*/shards/*.json"): num_shards,  # is it labeled?
        ("PUT", "/*/store/labels/*/shards/*.json"): num_shards,  # now it is
        ("PUT", "/*/store/labels/*/detections/*.parquet"): num_shards,
        ("PUT", "/*/store/labels/*/labeled_images/*.parquet"): num_shards,
        ("GET", "/*/targets/*.png"): num_images,
        ("GET", "/*/store/labels/*/plans/parts/*.parquet"): 1,
        ("GET", "/*/store/labels/*/recipe.json"): 1,  # are the weights here those of these labels?
        ("GET", "/*/store/prototypes/*/manifest.json"): 2,
        ("GET", "/*/store/prototypes/*/prototypes.parquet"): 1,
    }


# --- accounts, and places that cannot be used ------------------------------------------------------------------------


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model or starts a flow fails the test."""
    for name in ("tasks.models.loading.load_weights", "flows.pipeline.run_pipeline"):
        monkeypatch.setattr(name, _fail)


def _fail(*_: object, **__: object) -> None:
    raise AssertionError("it came too far")


def test_who_may_only_read_looks_at_labels_and_takes_them_out_and_is_refused_a_run_at_once(
    bucket_project: Project, seaweedfs: ObjectStore, request: pytest.FixtureRequest
) -> None:
    file, store, out = bucket_project.write_config(), bucket_project.config.store, bucket_project.folder / "out"
    _done("run", file)
    _done("export", store, "--out", f"{store}-exported/labels.json")
    _done("show", store, "--out", f"{store}/pictures")
    seaweedfs.filesystem().rm_file(_manifest_of_a_shard(store))  # something is left to do
    request.getfixturevalue("no_models")
    with seaweedfs.used_by(READER).in_environment():
        assert "missing  0000-00001" in _done("status", store)
        assert "no problems" in _done("verify", store)
        _done("export", store, "--partial", "--format", "coco", "--out", out / "labels.json")
        _done("show", store, "--out", out / "pictures")
        started = time.monotonic()
        for command in ("run", "label", "bank", "evaluate"):
            assert f"{store}/.refseg-may-write: access denied" in _failed(command, file, exit_code=2)
        assert time.monotonic() - started < 4 * 15  # which each would take at least, if it were tried again
        assert "access denied" in _failed(
            "export", store, "--partial", "--out", f"{store}-exported/mine.json", exit_code=2
        )
        assert "access denied" in _failed("gc", store, "--min-age", "0", "--yes", exit_code=2)
    assert len(list((out / "pictures" / "images").iterdir())) == 3
    assert f"{store.removeprefix('s3://')}-exported/mine.json" not in seaweedfs.filesystem().find(f"{store}-exported")


def test_who_may_read_images_and_write_below_the_store_can_do_a_whole_run(
    bucket_project: Project, seaweedfs: ObjectStore, local_labels: LabelRows
) -> None:
    filesystem = seaweedfs.filesystem()
    if not filesystem.exists(TENANT_BUCKET):
        filesystem.mkdir(TENANT_BUCKET)
    store = f"s3://{TENANT_BUCKET}/{uuid.uuid4().hex}"
    images = bucket_project.config.targets.images
    with seaweedfs.used_by(TENANT).in_environment():
        _done("run", bucket_project.write_config(store=store))
        assert_exact(store, local_labels)
        assert "access denied" in _failed("export", store, "--out", f"{images}-exported/labels.json", exit_code=2)


def _manifest_of_a_shard(store: str) -> str:
    run, _ = newest_labels(Store(store))
    return f"{store}/{run.root}/shards/0000-00001.json"


def _commands(project: Project, store: str) -> Iterator[tuple[str | Path, ...]]:
    out = project.folder / "out"
    yield "run", project.write_config(), "--store", store
    yield "index", project.write_config(), "--store", store
    for command in ("status", "verify", "gc"):
        yield command, store
    for command in ("export", "show"):
        yield command, store, "--out", out / command


@pytest.mark.usefixtures("no_models")
def test_a_bucket_that_does_not_exist_is_named_by_every_command(bucket_project: Project) -> None:
    for command in _commands(bucket_project, "s3://no-such-bucket-at-all/store"):
        error = _failed(*command, exit_code=2)
        assert re.search(r"s3://no-such-bucket-at-all/store.*(not found|holds no labels).*[Cc]heck", error), error


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("account", [STRANGER, ADMIN._replace(secret="wrong-secret")], ids=["unknown", "wrong secret"])
def test_whom_the_server_does_not_know_is_told_so_by_every_command(
    account: Account,
    bucket_project: Project,
    seaweedfs: ObjectStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with seaweedfs.used_by(account).in_environment(), caplog.at_level("INFO"):
        for command in _commands(bucket_project, bucket_project.config.store):
            assert re.search(r"s3://bucket-.*access denied.*credentials", _failed(*command, exit_code=2))
    assert account.secret not in caplog.text


@pytest.mark.usefixtures("short_pauses", "no_models")
@pytest.mark.parametrize("attempts", ["1", "8"])
def test_a_server_that_does_not_answer_is_named_by_every_command(
    attempts: str,
    bucket_project: Project,
    seaweedfs: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(ATTEMPTS_VARIABLE, attempts)
    with seaweedfs.behind("http://127.0.0.1:9").in_environment(), caplog.at_level("INFO"):
        for command in _commands(bucket_project, bucket_project.config.store):
            started = time.monotonic()
            error = _failed(*command, exit_code=1)
            assert re.search(r"s3://bucket-.*Could not connect.*127\.0\.0\.1:9.*the same command resumes\.$", error), (
                error
            )
            assert time.monotonic() - started < 90  # the S3 client's own patience would be minutes
    assert ADMIN.secret not in caplog.text


# --- a process of its own, with Prefect ------------------------------------------------------------------------------

_PROGRAM = """
from refseg_core.models.registry import REGISTRY
from tests.support.models import TINY_DEMO
REGISTRY.update(TINY_DEMO)
from tasks.label_shard import label_shard
label_shard.retry_delay_seconds = [0, 0, 0]
from flows.cli.main import main
main(prog_name="refseg")
"""


def test_a_process_that_cannot_write_its_labels_ends_with_a_line_and_keeps_the_secret(
    bucket_project: Project, fault_proxy: FaultProxy, local_labels: LabelRows, seaweedfs: ObjectStore
) -> None:
    prefect_home = bucket_project.folder / "prefect"
    fault_proxy.rules = [Rule(Fault.INTERNAL_ERROR, "PUT", "/detections/")]
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "run", bucket_project.write_config(batches__images_per_shard=5)],
        capture_output=True,
        text=True,
        env=os.environ | {ATTEMPTS_VARIABLE: "1", "PREFECT_HOME": str(prefect_home)},
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("Error: 1 of 1 shard could not be labeled: 0000-00000. The first: s3://bucket-")
    assert "We encountered an internal error" in error
    assert fault_proxy.fault_counts == {Fault.INTERNAL_ERROR: 4}  # with three retries of the task
    fault_proxy.rules = []
    _done("run", bucket_project.write_config())
    assert_exact(bucket_project.config.store, local_labels)
    written = [path.read_bytes() for path in prefect_home.rglob("*") if path.is_file()]
    stored = _objects(seaweedfs, bucket_project)
    assert len(written) > 0 < len(stored)
    for content in (done.stderr.encode(), *written, *stored.values()):
        assert ADMIN.secret.encode() not in content
