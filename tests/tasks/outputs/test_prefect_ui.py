"""What is published of a run: its names, its texts and its tables, and that publishing is never in a run's way."""

import json
import logging
import socket
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.settings import PREFECT_API_URL, temporary_settings

from refseg_core.analysis.label_statistics import CategoryStatistics, LabelStatistics, PromptShare
from tasks.outputs.prefect_ui.keys import artifact_name
from tasks.outputs.prefect_ui.markdown import code, escaped
from tasks.outputs.prefect_ui.progress import ProgressArtifact, _Sender, progress_key
from tasks.outputs.prefect_ui.publishing import MOST_BYTES, Cell, fitting, is_shown
from tasks.outputs.prefect_ui.rows import ShardRow, category_rows, failed_rows, shard_rows, text_rows
from tasks.outputs.prefect_ui.summary import LabelSummary, headline, summary_text
from tasks.outputs.prefect_ui.throughput import Pace, duration
from tasks.runtime.progress import report

_RECIPE = {
    "settings": {"images": "s3://bucket/images"},
    "inputs": {"prototypes": "prototypes/0123"},
    "weights": {"segmenter": "a" * 64, "encoder": "b" * 64},
    "created": "2026-01-02T03:04:05+00:00",
    "created_by": "ann@host",
    "refseg_version": "0.1.0",
}


class TestNames:
    def test_say_which_store_it_is_and_stay_the_same(self) -> None:
        assert artifact_name("s3://bucket/labels/boats").startswith("boats-")
        assert artifact_name("s3://bucket/labels/boats") == artifact_name("s3://bucket/labels/boats/")

    def test_tell_stores_of_one_name_apart(self) -> None:
        assert artifact_name("s3://one/boats") != artifact_name("s3://two/boats")

    def test_do_not_depend_on_credentials(self) -> None:
        assert artifact_name("s3://user:secret@bucket/boats") == artifact_name("s3://bucket/boats")

    @given(st.text())
    def test_are_keys_that_prefect_takes(self, uri: str) -> None:
        for key in (artifact_name(uri), progress_key("s3://b/c", uri)):
            assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
            assert 8 <= len(key) <= 110

    def test_progress_has_one_for_the_run_and_one_for_each_worker(self) -> None:
        keys = {progress_key("s3://b/c"), progress_key("s3://b/c", "gpu 1"), progress_key("s3://b/c", "gpu 2")}
        assert len(keys) == 3


class TestMarkdown:
    def test_shows_names_as_they_stand(self) -> None:
        assert escaped("a_b*c*") == r"a\_b\*c\*"
        assert escaped("<img src=x>\n# no") == r"\<img src=x\> \# no"
        assert "[" not in escaped("[x](http://y)").replace(r"\[", "")

    def test_keeps_code_together_whatever_it_holds(self) -> None:
        assert code("a_b") == "`a_b`"
        assert code("a`b``c") == "``` a`b``c ```"
        assert code("a|b\nc") == r"`a\|b c`"


class TestPace:
    def test_tells_how_far_how_fast_and_how_long(self) -> None:
        pace = Pace(0.0, total=4096)
        pace.mark(84.5, 1024)
        assert pace.describe(84.5, "images") == "1,024 of 4,096 images, 12.1 images/s, 4 min left"
        assert pace.percentage == 25.0

    def test_looks_back_on_the_last_minute_only(self) -> None:
        pace = Pace(0.0, total=100_000)
        for second in range(1, 1001):
            pace.mark(float(second), second if second <= 800 else 800 + 10 * (second - 800))
        assert pace.per_second(1000.0) == pytest.approx(10)

    def test_looks_back_further_where_little_is_done_in_a_minute(self) -> None:
        pace = Pace(0.0, total=1000)
        for number in range(1, 41):
            pace.mark(35.0 * number, number)
        assert pace.per_second(1400.0) == pytest.approx(1 / 35)

    def test_slows_down_when_nothing_goes_on(self) -> None:
        pace = Pace(0.0, total=1000)
        pace.mark(10.0, 100)
        assert pace.per_second(20.0) == pytest.approx(5)

    def test_says_nothing_that_it_does_not_know(self) -> None:
        pace = Pace(0.0)
        assert pace.describe(0.0, "images") == "0 images"
        assert pace.percentage == 0
        pace.total = 8
        assert pace.describe(3.0, "images") == "0 of 8 images"

    def test_is_full_once_all_is_done_and_not_before(self) -> None:
        pace = Pace(0.0, total=100_000)
        pace.mark(1.0, 99_999)
        assert pace.percentage == 99.9
        pace.mark(2.0, 100_000)
        assert pace.percentage == 100.0
        assert pace.describe_end(2.0, "images") == "100,000 of 100,000 images in 2 s, 50,000 images/s"

    def test_has_nothing_to_do_when_everything_is_labeled(self) -> None:
        pace = Pace(0.0, total=0)
        assert (pace.percentage, pace.describe_end(3.0, "images")) == (100.0, "nothing was to do")

    def test_durations_are_as_exact_as_estimates(self) -> None:
        assert [duration(seconds) for seconds in (0.4, 89, 95, 3540, 3600, 7500, 400_000)] == [
            "0 s", "89 s", "2 min", "59 min", "1 h 00 min", "2 h 05 min", "111 h 07 min"
        ]  # fmt: skip


class TestTables:
    @staticmethod
    def shard(name: str, second: int | None = None, error: str | None = None) -> ShardRow:
        made = {"created": f"2026-01-02T03:04:{second:02d}+00:00", "created_by": "ann@host"} if second else None
        counts = {"images": {"ok": 2, "empty": 0, "unreadable": 1}, "tables": [{"num_rows": 7}]}
        return ShardRow(name, 3, None if made is None else {**made, **counts}, error)

    def test_shards_that_failed_come_first_then_missing_ones_then_the_newest(self) -> None:
        shards = [self.shard("a", 1), self.shard("b"), self.shard("c", 9), self.shard("d", None, "no\nmemory")]
        rows = shard_rows(shards)
        assert [row["shard"] for row in rows] == ["d", "b", "c", "a"]
        assert [row["state"] for row in rows] == ["failed", "missing", "labeled", "labeled"]
        assert [row["by, or reason"] for row in rows] == ["no memory", "", "ann@host", "ann@host"]
        assert rows[2]["labeled at"] == "2026-01-02 03:04:09"
        assert (rows[2]["instances"], rows[1]["instances"]) == (7, None)

    def test_categories_come_by_frequency_and_those_without_instances_too(self) -> None:
        statistics = {1: CategoryStatistics(2, 1, 1, 1.0), 2: CategoryStatistics(5, 4, 3, 2.5)}
        rows = category_rows({1: "bar", 2: "box", 3: "bee"}, statistics, "score at least 0.5")
        assert [row["category"] for row in rows] == ["box", "bar", "bee"]
        assert [row["instances"] for row in rows] == [5, 2, 0]
        assert [row["score at least 0.5"] for row in rows] == [3, 1, 0]
        assert [row["mean score"] for row in rows] == [0.5, 0.5, None]

    def test_reasons_are_cut_where_they_are_endless(self) -> None:
        (row,) = failed_rows([("a" * 1000, "b\n" * 1000)])
        assert [len(str(value)) for value in row.values()] == [300, 300]

    def test_text_gets_a_name_for_the_corner(self) -> None:
        assert text_rows([("", "bbox"), ("AP", "0.5")], "metric") == [{"metric": "AP", "bbox": "0.5"}]

    def test_rows_are_left_out_where_they_would_be_too_much(self) -> None:
        rows: list[dict[str, Cell]] = [{"image": "日本" * 100, "number": number} for number in range(500)]
        shown = fitting(rows)
        assert 10 < len(shown) < 500
        assert len(json.dumps(list(shown))) < MOST_BYTES
        assert fitting(rows[:3]) == rows[:3]


class TestSummary:
    @staticmethod
    def summary(**changes: object) -> LabelSummary:
        statistics = LabelStatistics(lambda labels: labels.score >= 0.5, most_failed=1, most_shown=1)
        statistics.images = Counter(ok=900, empty=90, unreadable=10)
        statistics.categories = {1: CategoryStatistics(num_instances=1234)}
        known: dict[str, object] = {
            "store": "s3://bucket/boats",
            "key": "4567",
            "dataset": "dataset/89ab",
            "recipe": _RECIPE,
            "statistics": statistics,
            "num_images": 1024,
            "num_open_shards": 0,
            "num_gone": 0,
            "category_names": {1: "boat"},
            "pages": {"shards": "../artifact/1"},
        }
        return LabelSummary(**{**known, **changes})  # type: ignore[arg-type]

    def test_says_what_was_labeled_from_what_and_how_to_read_it(self) -> None:
        text = summary_text(self.summary())
        assert headline(self.summary()) == "1,000 of 1,024 images labeled: 1,234 instances"
        assert "900 images, 90 images without any, 10 unreadable" in text
        for lineage in ("labels/4567", "dataset/89ab", "prototypes/0123", "a" * 12, "s3://bucket/images"):
            assert f"`{lineage}`" in text
        assert "read_parquet(\n    's3://bucket/boats/labels/4567/detections'\n)" in text
        assert (
            "refseg review s3://bucket/boats --labels 4567\n" in text
            and "[review page](http://127.0.0.1:8100/)" in text
        )
        assert "refseg export s3://bucket/boats --labels 4567 --format coco" in text
        assert "[shards](../artifact/1)" in text

    def test_says_how_much_was_prompted_where_not_everything_was(self) -> None:
        guided = {**_RECIPE, "settings": {**_RECIPE["settings"], "points_per_side": 10, "guidance_thresh": 0.25}}
        summary = self.summary(recipe=guided)
        summary.statistics.prompts = PromptShare(num_images=990, num_skipped=700, num_prompts=9900)
        assert "10.0% of the points prompted, 700 of 990 images skipped" in summary_text(summary)
        assert "prompted" not in summary_text(self.summary())

    def test_says_what_is_not_as_it_should_be_and_else_nothing_of_it(self) -> None:
        worries = summary_text(
            self.summary(num_open_shards=3, num_gone=5, category_names={1: "boat", 2: "<b>uoy", 3: "pier"})
        )
        assert "3 shards are not labeled" in worries
        assert r"Nothing was found of \<b\>uoy, pier" in worries
        assert "5 labels are of images that were removed or changed" in worries
        fine = summary_text(self.summary())
        assert not any(word in fine for word in ("not labeled", "Nothing was found", "removed or changed"))


class TestWithoutServer:
    def test_nothing_is_shown_by_a_temporary_server(self) -> None:
        with temporary_settings(restore_defaults={PREFECT_API_URL}):
            assert not is_shown()
        with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
            assert is_shown()

    @pytest.mark.slow
    def test_a_server_that_is_not_there_is_told_of_once_and_holds_nothing_up(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        started = time.monotonic()
        with (
            caplog.at_level(logging.WARNING),
            temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
            ProgressArtifact("s3://user:hunter2@bucket/boats", total=3, seconds=0.01),
        ):
            for _ in range(3):
                time.sleep(0.1)
                report("label", advanced=1)
        assert time.monotonic() - started < 30  # three at most for the goodbye; Prefect alone tries for minutes
        (record,) = [record for record in caplog.records if record.name.startswith("tasks.")]
        assert "progress is not shown" in record.getMessage()
        assert "hunter2" not in caplog.text

    @pytest.mark.slow
    def test_a_server_that_does_not_answer_delays_the_end_by_seconds_only(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
            started = time.monotonic()
            with temporary_settings({PREFECT_API_URL: address}), ProgressArtifact("s3://bucket/boats", seconds=0.01):
                report("label", total=1)
            assert time.monotonic() - started < 30  # Prefect alone waits for a minute, several times


def test_progress_of_other_steps_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(_Sender, "send", lambda _sender, _percentage, description: sent.append(description))
    with ProgressArtifact("s3://bucket/boats", seconds=0.01):
        report("label", total=10)
        report("label", advanced=4)
        report("fill the memory bank", advanced=3, total=9)
    assert sent[-1].startswith("4 of 10 images")
