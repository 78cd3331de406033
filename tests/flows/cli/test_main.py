"""The command line: help texts, flags, and messages for mistakes."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from flows.cli import main as cli
from flows.cli.main import main
from flows.cli.options.config_file import parse_changes
from flows.config.loading import load_config
from flows.config.run_config import RunConfig, keys
from flows.run import PREFECT_SETTINGS
from refseg_core.images import decode_image
from tests.support.commands import refseg_process
from tests.support.projects.project import Project

pytest_plugins = ["tests.support.projects.tiny_project"]

COMMANDS = [
    (),
    ("init",),
    ("run",),
    ("index",),
    ("bank",),
    ("bank", "diff"),
    ("pilot",),
    ("label",),
    ("evaluate",),
    ("study",),
    ("export",),
    ("show",),
    ("status",),
    ("verify",),
    ("gc",),
    ("thresholds",),
    ("review",),
    ("review", "serve"),
    ("review", "import"),
    ("references",),
    ("demo",),
    ("completion",),
    ("weights",),
    ("weights", "list"),
    ("weights", "pull"),
    ("bench",),
    ("bench", "scale"),
    ("bench", "accuracy"),
    ("benchmark",),
    ("service",),
    *(("service", name) for name in ("up", "down", "status", "worker", "deploy", "schedule", "label")),
]
_CONFIGURED = ["run", "index", "bank", "pilot", "label", "evaluate", "study", "references"]


def _invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def _refseg(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return refseg_process(*arguments, environment=os.environ | environment)


def _failed(result: Result) -> str:
    """The message of a command that failed by a mistake of the user."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    return result.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration in which only the required keys are given."""
    file = tmp_path / "run.yaml"
    content = {
        "store": "store",
        "references": {"images": "references", "annotations": "references.json"},
        "targets": {"images": "images"},
    }
    file.write_text(yaml.safe_dump(content))
    return file


# --- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = _invoke(*command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage: ")
    assert _invoke(*command, "-h").output == result.output


def test_no_command_is_missing_here() -> None:
    groups = {name: command for name, command in main.commands.items() if isinstance(command, click.Group)}
    below = {(name, inner) for name, group in groups.items() for inner in group.commands}
    assert {(name,) for name in main.commands} | below | {()} == set(COMMANDS)


@pytest.mark.parametrize("command", _CONFIGURED)
def test_every_key_is_a_flag_with_its_meaning(command: str) -> None:
    shown = " ".join(_invoke(command, "--help").output.split())
    for key in keys():
        assert re.search(rf"--{re.escape(key.name)}(, --[a-z-]+)? VALUE", shown), key.name
        assert " ".join(str(key.field.description).split())[:40] in shown


def test_help_is_quick_because_heavy_modules_are_imported_by_the_commands_that_need_them() -> None:
    program = (
        "import sys\n"
        "from flows.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'prefect', 'pandas', 'pyarrow', 'sam2', 'pycocotools', 'numpy', 'fsspec', 'PIL', 'rich'}\n"
        "sys.exit(' '.join(sorted(heavy & sys.modules.keys())) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert "Find and segment every instance" in done.stdout


def test_every_number_that_an_option_takes_has_a_least() -> None:
    def options(command: click.Command, path: str = "") -> Iterator[str]:
        for option in command.params:
            is_number = isinstance(option.type, click.types.IntParamType | click.types.FloatParamType)
            if is_number and getattr(option.type, "min", None) is None:
                yield f"{path} {option.opts[0]}"
        for name, inner in getattr(command, "commands", {}).items():
            yield from options(inner, f"{path} {name}")

    assert list(options(main)) == []
    assert "-5 is not in the range x>=1" in _failed(_invoke("show", "store", "--out", "x", "--limit", "-5"))


def test_the_version_is_shown() -> None:
    result = _invoke("--version")
    assert result.exit_code == 0
    assert "0." in result.output


# --- init ------------------------------------------------------------------------------------------------------------


def test_init_writes_a_configuration_that_only_lacks_paths(tmp_path: Path) -> None:
    result = _invoke("init", tmp_path / "mine.yaml")
    assert result.exit_code == 0
    assert f"refseg run {tmp_path / 'mine.yaml'}" in result.stdout
    assert load_config(str(tmp_path / "mine.yaml")).store == str(tmp_path / "runs/boats")


def test_init_overwrites_only_with_force(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("mine")
    assert "exists already" in _failed(_invoke("init", tmp_path / "run.yaml"))
    assert (tmp_path / "run.yaml").read_text() == "mine"
    assert _invoke("init", tmp_path / "run.yaml", "--force").exit_code == 0
    assert load_config(str(tmp_path / "run.yaml"))


def test_init_into_a_folder_that_does_not_exist_is_answered_clearly(tmp_path: Path) -> None:
    result = _invoke("init", tmp_path / "new" / "run.yaml")
    assert (tmp_path / "new" / "run.yaml").exists() or "new" in _failed(result)


# --- flags -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def configured(file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `refseg run FILE` with flags, and gives the configuration it would run."""
    seen: list[RunConfig] = []
    monkeypatch.setattr(cli, "execute", seen.append)

    def run(*flags: str) -> RunConfig:
        result = _invoke("run", file, *flags)
        assert result.exit_code == 0, (result.output, result.exception)
        return seen.pop()

    return run


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("store", "s3://bucket/a", "s3://bucket/a"),
        ("store", "123", "123"),
        ("store", "relative/to/here", "relative/to/here"),
        ("pictures", "null", None),
        ("pictures", "a: b, [c", "a: b, [c"),
        ("segmenter.model", "sam2.1_hiera_tiny", "sam2.1_hiera_tiny"),
        ("labeling.points_per_side", "16", 16),
        ("labeling.pred_iou_thresh", "0.25", 0.25),
        ("labeling.pred_iou_thresh", "1e-3", 0.001),
        ("labeling.pred_iou_thresh", "1", 1.0),
        ("references.sampling.num_shots", "5", 5),
        ("references.sampling.split", "null", None),
        ("references.sampling.on_shortage", "fewer", "fewer"),
        ("references.sampling.categories", "boat,bird", ("boat", "bird")),
        ("references.sampling.categories", "boat, fire hydrant", ("boat", "fire hydrant")),
        ("references.sampling.categories", "[boat, fire hydrant]", ("boat", "fire hydrant")),
        ("references.sampling.categories", "null", None),
        ("references.sampling.categories", "no,on", ("no", "on")),
        ("references.sampling.categories", "7", ("7",)),
        ("references.annotation_ids", "12", ("12",)),
        ("references.annotation_ids", "12,99", ("12", "99")),
        ("references.annotation_ids", "[12, 99]", ("12", "99")),
        ("targets.image_ids", "a.jpg,b/c.jpg", ("a.jpg", "b/c.jpg")),
        ("targets.image_ids", "000000000127", ("000000000127",)),
        ("targets.image_ids", "2026-01-01", ("2026-01-01",)),
        ("targets.image_ids", "12:30,1_000", ("12:30", "1_000")),
        ("evaluation.score_threshes", "0.2,0.6", (0.2, 0.6)),
        ("device", "cuda:1", "cuda:1"),
    ],
)
def test_flags_are_read_as_what_their_keys_hold(flag: str, value: str, expected: Any, configured: Any) -> None:
    config = configured(f"--{flag}", value)
    for part in flag.split("."):
        config = getattr(config, part)
    assert config == expected


@pytest.mark.parametrize("secret", ["s3://KEY:hunter2@bucket/p", "https://host/x?X-Amz-Signature=hunter2"])
@pytest.mark.parametrize(
    "command",
    [
        ("init", "{}"),
        ("index", "{}"),
        ("status", ".", "{}"),
        ("export", ".", "--format", "{}"),
        ("{}",),
        ("index", "--{}"),
    ],
)
def test_no_secret_of_an_address_that_was_typed_is_shown(command: tuple[str, ...], secret: str) -> None:
    output = _failed(_invoke(*(part.format(secret) for part in command)))
    assert "hunter2" not in output
    assert secret.partition("://")[0] in output


def test_changes_are_read_as_flags_are() -> None:
    given = {"targets.image_ids": "007,off,1_000", "targets.images": "2026-01-01", "labeling.points_per_side": "16"}
    assert parse_changes([*given.items(), ("no.key", "off"), ("evaluation.exclude_references", "off")]) == {
        "targets.image_ids": ["007", "off", "1_000"],
        "targets.images": "2026-01-01",
        "labeling.points_per_side": 16,
        "no.key": "off",
        "evaluation.exclude_references": False,
    }


def test_flags_win_over_the_file_and_may_be_many(configured: Any) -> None:
    config = configured("--labeling.points_per_side", "8", "--device=cpu", "--targets.image_ids", "3")
    assert (config.labeling.points_per_side, config.device, config.targets.image_ids) == (8, "cpu", ("3",))


@pytest.mark.parametrize("flag", ["segmenter.weights", "encoder.weights"])
def test_weights_are_given_by_a_flag_alone(flag: str, configured: Any) -> None:
    section, _, _ = flag.partition(".")
    assert getattr(configured(f"--{flag}", "s3://bucket/weights.pt"), section).weights == "s3://bucket/weights.pt"


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("store", "null"),
        ("labeling.points_per_side", "many"),
        ("labeling.points_per_side", "0"),
        ("labeling.points_per_side", "[1,"),
        ("labeling.pred_iou_thresh", "{"),
        ("references.annotation_ids", "[1, 2"),
        ("references.sampling.on_shortage", "ignore"),
        ("segmenter.model", "sam3"),
    ],
)
def test_a_wrong_value_of_a_flag_is_named(flag: str, value: str, file: Path) -> None:
    assert flag in _failed(_invoke("run", file, f"--{flag}", value))


def test_an_unknown_flag_is_answered_with_the_nearest() -> None:
    message = _failed(_invoke("run", "run.yaml", "--labeling.points_per_sid", "3"))
    assert "--labeling.points_per_side" in message


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_prefect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a flow fails the test, and the settings for Prefect are gone afterwards."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("Prefect was started")

    for name in ("run_pipeline", "build_bank", "label_targets", "evaluate_labels"):
        monkeypatch.setattr(f"flows.pipeline.{name}", start)
    monkeypatch.setattr("flows.execution.temporary_server.start_temporary_server", lambda: None)
    for name, value in PREFECT_SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("no_prefect")
@pytest.mark.parametrize("command", ["run", "bank", "label", "evaluate"])
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"labeling__points_per_sid": 3}, "labeling.points_per_sid"),
        ({"references__annotations": "/nowhere/refs.json"}, "/nowhere/refs.json"),
        ({"references__sampling": {"categories": ["boat"]}}, "boat"),
    ],
    ids=["key", "path", "category"],
)
def test_a_mistake_is_named_at_once_with_exit_code_2(
    command: str, changes: dict[str, Any], named: str, project: Project
) -> None:
    message = _failed(_invoke(command, project.write_config(**changes)))
    assert message.startswith("Error: ")
    assert named in message
    assert "Prefect" not in message


@pytest.mark.usefixtures("no_prefect")
def test_a_temporary_fault_is_reported_in_a_line_with_exit_code_1(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ConnectionResetError("by peer")

    monkeypatch.setattr("flows.config.preflight.check", fail)
    result = _invoke("run", project.write_config())
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"Error: ConnectionResetError: by peer. {cli._KEPT}\n"


@pytest.mark.usefixtures("no_prefect")
def test_a_bug_keeps_its_traceback(project: Project) -> None:
    assert isinstance(_invoke("run", project.write_config()).exception, AssertionError)


def test_index_names_mistakes_too(project: Project) -> None:
    message = _failed(_invoke("index", project.write_config(references__annotations="/nowhere/refs.json")))
    assert "/nowhere/refs.json: not found" in message


@pytest.mark.parametrize("number", ["nan", "inf", "1e308", "1_0"])
@pytest.mark.parametrize("command", [("export", "--simplify"), ("thresholds", "--precision")], ids=" ".join)
def test_numbers_that_are_none_or_without_end_are_refused(command: tuple[str, str], number: str) -> None:
    name, option = command
    assert f"Invalid value for '{option}'" in _failed(_invoke(name, "store", option, number, "--out", "out"))


_NUMBERS = (click.types.IntParamType, click.types.FloatParamType)


def _numeric_options(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Option]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from _numeric_options(below, f"{path} {name}".strip())
    for parameter in command.params:
        if isinstance(parameter, click.Option) and isinstance(parameter.type, _NUMBERS):
            yield path, parameter


@pytest.mark.parametrize("text", ["1_0", "\uff11", "many"])
def test_every_option_that_is_a_number_refuses_what_only_python_takes_for_one(text: str) -> None:
    options = list(_numeric_options(main))
    assert {"bench", "export", "pilot", "review serve", "service up", "show"} <= {path for path, _ in options}
    for path, option in options:
        with pytest.raises(click.BadParameter, match="is not a"):
            pytest.fail(f"{path} {option.opts[0]} is {option.type.convert(text, option, None)}")


def test_a_missing_configuration_file_is_answered_with_how_to_get_one(tmp_path: Path) -> None:
    assert "refseg init" in _failed(_invoke("run", tmp_path / "none.yaml"))


@pytest.mark.usefixtures("no_prefect")
def test_evaluating_needs_ground_truth(project: Project) -> None:
    message = _failed(_invoke("evaluate", project.write_config(targets__annotations=None)))
    assert "targets.annotations is null" in message


@pytest.mark.parametrize("command", [("export", "--out"), ("show", "--out")], ids=lambda command: command[0])
def test_a_store_without_labels_is_named(command: tuple[str, str], tmp_path: Path) -> None:
    name, flag = command
    message = _failed(_invoke(name, tmp_path, flag, tmp_path / "out"))
    assert f"{tmp_path}: holds no labels" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["verify", "gc"])
def test_a_folder_that_holds_no_store_is_said_to_be_none(command: str, tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_bytes(b"")
    assert f"{tmp_path}: holds no store: expected the folders that runs write" in _failed(_invoke(command, tmp_path))


@pytest.mark.parametrize("command", ["export", "show"])
def test_labels_that_do_not_exist_are_named(command: str, tmp_path: Path) -> None:
    message = _failed(_invoke(command, tmp_path, "--out", tmp_path / "out", "--labels", "0123"))
    assert "has no labels '0123'" in message


def test_pulling_an_unknown_model_is_answered_with_the_nearest() -> None:
    assert "Did you mean sam2_hiera_large" in _failed(_invoke("weights", "pull", "sam2_hiera_larg"))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EFBIG, "larger than the place or the system allows"),
        (errno.ENOSPC, "no space left. Make room"),
        (errno.EACCES, "access denied"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.ENOENT, "not found"),
    ],
)
def test_errors_of_the_system_are_one_message_with_the_place_and_what_to_do(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise OSError(number, os.strerror(number), "pictures/a.png")

    monkeypatch.setattr(cli, "template", fail)
    message = _failed(_invoke("init", tmp_path / "run.yaml"))
    assert message.startswith("Error: pictures/a.png: ")
    assert words in message


def test_an_unknown_benchmark_is_answered_with_all() -> None:
    message = _failed(_invoke("benchmark", "nope"))
    assert "No benchmark is called 'nope'; there are " in message
    assert "coco-tiny" in message


# --- what needs no run -----------------------------------------------------------------------------------------------


def test_index_opens_images_without_annotations_too_and_with_images_reads_all_whole(project: Project) -> None:
    targets = project.folder / "targets"
    whole = (targets / "t1.png").read_bytes()
    (targets / "t1.png").write_bytes(whole[:-12])  # as headers do not show
    (targets / "t2.png").write_bytes(b"no image")
    config = project.write_config(targets__annotations=None)
    result = _invoke("index", config)
    assert "Opened:  5 of 5 target images, opened by their headers; --images reads all of them whole" in result.stdout
    assert "Weights:" not in result.stdout
    (heading,) = [line for line in result.stdout.splitlines() if "header cannot be read" in line]
    assert heading == "Odd: images whose header cannot be read: a run leaves them out and names them (1)"
    wrong = ("--segmenter.weights", project.config.models.encoder.weights, "--encoder.weights", "/nowhere/else.pt")
    result = _invoke("index", config, "--images", *wrong)
    assert result.exit_code == 0, "datasets are indexed without weights"
    assert "of other names or shapes than 'sam2_demo' has. Correct segmenter.weights" in result.stdout
    assert "Weights: encoder.weights: /nowhere/else.pt" in result.stdout
    assert "Opened:  5 of 5 target images, read whole" in result.stdout
    assert "Odd: 2 images that cannot be read: a run leaves them out and names them" in result.stdout
    assert "t1.png: the PNG file is truncated" in result.stdout
    assert "t2.png: not an image in a known format" in result.stdout


def test_index_says_what_references_and_targets_hold(project: Project) -> None:
    result = _invoke("index", project.write_config(references__sampling={"num_shots": 3}))
    assert result.exit_code == 0, result.exception
    lines = [line.split() for line in result.stdout.splitlines()]
    assert "References: 2 images of 128 x 96 px" in result.stdout
    assert "Targets: 5 images" in result.stdout
    assert "10 annotations, read as coco: 10 with mask, 0 box only, 0 crowds" in result.stdout
    assert sum("box" in line and "3" in line for line in lines) == 2
    assert f"{project.config.store}/dataset/" in result.stdout
    assert "Odd: 2 categories with fewer annotations than num_shots (3)" in result.stdout
    assert "under 32 px" in result.stdout
    assert [line[-6:-1:2] for line in lines if line[:1] == ["│"] and len(line) == 21] == [["2", "0", "0"]] * 2
    assert "  box (2)" in result.stdout
    pictures = [line.removeprefix("Picture: ") for line in result.stdout.splitlines() if line.startswith("Picture: ")]
    sheets = [decode_image(Path(picture).read_bytes(), max_pixels=10**8) for picture in pictures]
    assert len(sheets) == 2
    assert min(min(sheet.shape[:2]) for sheet in sheets) > 300


def test_index_draws_what_it_can_read(project: Project) -> None:
    (project.folder / "targets" / "t0.png").write_bytes(b"no image")
    (project.folder / "targets" / "t1.png").unlink()
    result = _invoke("index", project.write_config())
    assert result.exit_code == 0, result.exception
    assert result.stdout.count("Picture: ") == 2


def test_index_of_a_plain_folder_says_how_many_images(project: Project) -> None:
    result = _invoke("index", project.write_config(targets__annotations=None))
    assert result.exit_code == 0, result.exception
    assert "Targets: 5 images\n" in result.stdout
    assert result.stdout.count("Picture: ") == 1


def test_index_names_every_bad_file_of_a_folder(project: Project) -> None:
    for name in ("r0", "r1"):
        (project.folder / "voc").mkdir(exist_ok=True)
        (project.folder / "voc" / f"{name}.xml").write_bytes(b"<annotation><object></annotation>")
    message = _failed(_invoke("index", project.write_config(references__annotations=str(project.folder / "voc"))))
    assert "2 problems" in message
    assert "r0.xml: mismatched tag" in message
    assert "r1.xml: mismatched tag" in message


def test_the_known_weights_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFSEG_WEIGHTS", str(tmp_path))
    result = _invoke("weights", "list")
    assert result.exit_code == 0, result.exception
    for name in ("sam2_hiera_tiny", "sam2.1_hiera_large", "dinov2_vitg14_reg", "sam2_demo"):
        assert name in result.stdout
    assert "missing" in result.stdout
    assert "898 MB" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_refseg_itself(shell: str) -> None:
    result = _invoke("completion", shell)
    assert result.exit_code == 0
    assert f"_REFSEG_COMPLETE={shell}_complete" in result.stdout


def test_other_shells_are_refused() -> None:
    assert "bash" in _failed(_invoke("completion", "powershell"))


# --- real processes --------------------------------------------------------------------------------------------------


def test_commands_are_completed() -> None:
    done = _refseg(_REFSEG_COMPLETE="bash_complete", COMP_WORDS="refseg e", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,evaluate", "plain,export"]


def test_flags_are_completed() -> None:
    done = _refseg(_REFSEG_COMPLETE="zsh_complete", COMP_WORDS="refseg run --labeling.points", COMP_CWORD="2")
    assert "--labeling.points_per_side" in done.stdout
    assert "--labeling.max_detections" not in done.stdout


def test_a_process_that_fails_by_a_mistake_says_so_on_stderr_alone_with_exit_code_2(file: Path) -> None:
    done = _refseg("run", file, "--labeling.points_per_side", "0")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "labeling.points_per_side" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_installed_command_is_this_one() -> None:
    installed = Path(sys.executable).with_name("refseg")
    if not installed.exists():
        pytest.skip(f"{installed} is not there: refseg is not installed in this environment")
    done = subprocess.run([installed, "--help"], capture_output=True, text=True, check=False)
    assert done.stdout == _refseg("--help").stdout
    assert done.returncode == 0


@pytest.mark.slow
def test_a_mistake_is_reported_by_a_real_process_without_prefect(project: Project) -> None:
    file = project.write_config(references__sampling={"categories": ["boat"]})
    done = _refseg("run", file, PREFECT_HOME=str(project.folder / "prefect"))
    assert done.returncode == 2
    assert "boat" in done.stderr
    assert "Prefect" not in done.stderr
    assert not (project.folder / "prefect" / "prefect.db").exists()


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["demo", "--data-only", "data"], ["study", "none.yaml"], ["run", "none.yaml"]])
def test_the_terminal_is_quiet_because_prefect_is_imported_after_its_settings(
    arguments: list[str], tmp_path: Path
) -> None:
    program = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from flows.cli.main import main\n"
        "CliRunner().invoke(main, sys.argv[1:])\n"
        "if 'prefect' in sys.modules:\n"
        "    from prefect.settings import PREFECT_LOGGING_LEVEL\n"
        "    assert PREFECT_LOGGING_LEVEL.value() == 'WARNING', PREFECT_LOGGING_LEVEL.value()\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-c", program, *arguments]
    subprocess.run(command, cwd=tmp_path, env={**environment, "PYTHONPATH": str(Path(__file__).parents[3])}, check=True)


@pytest.mark.parametrize("number", ["1_0", "010", "1:30", "0x10"])
def test_numbers_that_yaml_reads_unlike_people_are_refused_in_flags_and_in_run_files(
    number: str, project: Project
) -> None:
    file = project.write_config()
    assert f"--labeling.points_per_side: '{number}' cannot be read: write '{number}' in quotes" in _failed(
        _invoke("index", file, "--labeling.points_per_side", number)
    )
    file.write_text(re.sub(r"points_per_side: \d+", f"points_per_side: {number}", file.read_text()))
    assert re.search(rf"write '{number}' in quotes where it is text.* in line \d+", _failed(_invoke("index", file)))
