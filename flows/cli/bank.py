"""`refseg bank`: builds the prototypes, changes what they are made from, and compares two of them.

Commands import heavy modules when they run, so that `refseg --help` stays quick.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli.options.config_file import config_flags, load_with_flags
from flows.execution.stopping import when_stopped
from flows.run import checked_session
from refseg_core.errors import shortened
from refseg_core.settings.numbers import to_float
from tasks.storage.uris import typed

if TYPE_CHECKING:
    from tasks.models.new_references import NewReference, ReadReference

_MARKS = ("box", "mask", "points")
_ORDER = "refseg.order_of_marks"
_BOX_LENGTH, _POINT_LENGTH = 4, 2
_DEFAULT = ""  # the name of the command that nobody has to name


class _OrBuild(click.Group):
    """A group that takes arguments which name none of its commands for those of `build`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Names the default command where none is named."""
        is_named = bool(args) and args[0] in self.commands
        return super().parse_args(ctx, args if is_named else [_DEFAULT, *args])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command of a name."""
        return build if cmd_name == _DEFAULT else super().get_command(ctx, cmd_name)


class _Unnamed(click.Context):
    """Of the command that nobody has to name."""

    @property
    def command_path(self) -> str:
        """Its path: that of its group."""
        return self.parent.command_path if self.parent else super().command_path


class _InOrder(click.Command):
    """Remembers in which order --add and the marks were given, since each mark belongs to the --add before it."""

    context_class = _Unnamed

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Notes the order."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order if parameter.name in ("add", *_MARKS)]
        return super().parse_args(ctx, args)


@click.group(cls=_OrBuild)
def bank() -> None:
    """Sample, segment and encode the references into prototypes."""


@click.command(cls=_InOrder)
@click.option(
    "--add",
    multiple=True,
    metavar="CATEGORY=PICTURE",
    help="Add a reference from a picture of its own, marked by the --box, --mask or --points behind it. It is kept in "
    "the store, for every later run with these references. The category may be new.",
)
@click.option(
    "--box", multiple=True, metavar="X1,Y1,X2,Y2", help="The box around the instance, in the picture's pixels."
)
@click.option("--mask", multiple=True, metavar="FILE", help="An image of the picture's size, black outside.")
@click.option("--points", multiple=True, metavar="X,Y;...", help="Points on the instance, which SAM2 segments.")
@click.option("--drop", multiple=True, metavar="ID", help="Leave a reference out from now on, added or sampled.")
@click.option("--restore", multiple=True, metavar="ID", help="Take a reference back that was dropped.")
@click.option(
    "--out",
    default="reference-sheets",
    show_default=True,
    help="Folder for the sheets of categories that a reference was added to.",
)
@config_flags
@click.pass_context
def build(
    ctx: click.Context,
    /,
    *,
    config_file: str,
    add: tuple[str, ...],
    out: str,
    drop: tuple[str, ...],
    restore: tuple[str, ...],
    **given: Any,
) -> None:
    """Sample, segment and encode the references into prototypes.

    What the store holds of a reference is not computed again. What was added is drawn with its mask, and named where
    the mask is doubtful. `refseg bank diff A B` compares two banks.
    """
    values = {"add": add} | {name: given.pop(name) for name in _MARKS}
    wanted = list(_new_references(ctx.meta[_ORDER], values))
    if add or drop or restore:  # the same command would add again
        when_stopped("changes made so far are kept", f"`refseg bank {typed(config_file)}` lists them and goes on")
    config = load_with_flags(config_file, given)
    new = _read(wanted)  # before a server is started
    with checked_session(config):
        from flows.pipeline import make_bank
        from flows.trials.edit_references import WantedEdits, edit

        added, edits = edit(config, WantedEdits(new, drop, restore))
        prototypes = make_bank(config)
    from flows.reports.bank_report import report_bank

    report_bank(config.store, prototypes, added, edits, Path(out))


def _read(wanted: "Sequence[NewReference]") -> "list[ReadReference]":
    from tasks.models.new_references import read_reference

    return [read_reference(one) for one in wanted]


def _new_references(order: Sequence[str], values: dict[str, tuple[str, ...]]) -> "Iterator[NewReference]":
    """Yields the references to add: each --add with the mark that follows it."""
    left = {name: iter(given) for name, given in values.items()}
    names = iter(order)
    for name in names:
        if name != "add":
            raise click.UsageError(
                f"--{name} stands behind no --add of its own. Put it behind the --add that it marks."
            )
        mark = next(names, None)
        if mark not in _MARKS:
            raise click.UsageError(
                "Each --add takes one --box, --mask or --points behind it, as: --add boat=boat.jpg --box 10,20,200,180"
            )
        yield _new_reference(next(left["add"]), mark, next(left[mark]))


def _new_reference(add: str, mark: str, value: str) -> "NewReference":
    from tasks.models.new_references import NewReference

    category, _, picture = add.partition("=")
    if not category or not picture:
        raise click.UsageError(f"--add: expected CATEGORY=PICTURE, as boat=boat.jpg; got {shortened(add)!r}.")
    if mark == "mask":
        return NewReference(category, picture, mask=value)
    if mark == "box":
        return NewReference(category, picture, box_xyxy=_numbers(value, _BOX_LENGTH, "--box: expected x1,y1,x2,y2"))
    expected = "--points: expected x,y of each, as '10,20;30,40'"
    points = [_numbers(point, _POINT_LENGTH, expected) for point in value.split(";")]
    return NewReference(category, picture, points=tuple((x, y) for x, y in points))


def _numbers(text: str, length: int, expected: str) -> tuple[float, ...]:
    try:
        numbers = tuple(to_float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != length:
        raise click.UsageError(f"{expected}; got {shortened(text)!r}.")
    return numbers


@bank.command()
@click.argument("first", metavar="STORE/prototypes/KEY")
@click.argument("second", metavar="STORE/prototypes/KEY")
def diff(first: str, second: str) -> None:
    """Show what two banks differ in: references, categories, prototypes, and the labels made with both.

    `refseg bank` prints a bank's address. Labels of a pilot are compared, too.
    """
    from flows.reports.bank_report import report_difference
    from tasks.outputs.bank_difference import Bank, compare_banks

    report_difference(compare_banks(Bank.at(first), Bank.at(second)))
