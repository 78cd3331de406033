"""Pictures: what is drawn where, at every size, and what is left alone."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from refseg_core import visualization
from refseg_core.masks.rle import Masks, Rle, encode_masks
from refseg_core.visualization import (
    category_colors,
    contact_sheet,
    side_by_side,
    to_jpeg,
    to_png,
    to_small_jpeg,
)
from refseg_core.visualization import mask_coverage as coverage
from refseg_core.visualization.label_placement import make_labels, place_labels
from refseg_core.visualization.palette import letters_on
from refseg_core.visualization.text import fit, readable, text_width

Picture = npt.NDArray[np.uint8]
NUM_LVIS_CATEGORIES = 1203


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(0).integers(40, 200, (height, width, 3), dtype=np.uint8)


def rectangles(height: int, width: int, *xyxy: tuple[int, int, int, int]) -> Masks:
    masks = np.zeros((len(xyxy), height, width), dtype=bool)
    for mask, (left, top, right, bottom) in zip(masks, xyxy, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def changed(before: Picture, after: Picture) -> Masks:
    return np.asarray((before != after).any(axis=2))


def grown(mask: Masks, by: int = 1) -> Masks:
    padded = np.pad(mask, by)
    shifts = range(2 * by + 1)
    height, width = mask.shape
    shifted = np.stack([padded[y : y + height, x : x + width] for y in shifts for x in shifts])
    return np.asarray(shifted.any(axis=0))


def as_rles(masks: Any) -> list[Rle | None]:
    """Masks [N, H, W] as run lengths; what is no array stays."""
    return list(encode_masks(masks)) if isinstance(masks, np.ndarray) else list(masks)


def draw_instances(image: Picture, masks: Any, *args: Any, **options: Any) -> Picture:
    return visualization.draw_instances(image, as_rles(masks), *args, **options)


def cover(mask: Masks, picture: tuple[int, int]) -> coverage.Coverage | None:
    return coverage.cover(encode_masks(mask[None])[0], picture)


def full(patch: coverage.Coverage | None, picture: tuple[int, int]) -> npt.NDArray[np.float64]:
    """A coverage in its whole picture, in [0, 1]."""
    whole = np.zeros(picture)
    if patch is not None:
        height, width = patch.alpha.shape
        whole[patch.top : patch.top + height, patch.left : patch.left + width] = patch.alpha / 255
    return whole


class TestColors:
    def test_do_not_depend_on_how_many_there_are(self) -> None:
        many = category_colors(NUM_LVIS_CATEGORIES)
        for num in (0, 1, 7, 80, 300):
            assert np.array_equal(category_colors(num), many[:num])

    def test_all_of_a_large_dataset_differ(self) -> None:
        colors = category_colors(NUM_LVIS_CATEGORIES)
        assert colors.shape == (NUM_LVIS_CATEGORIES, 3)
        assert colors.dtype == np.uint8
        assert len(np.unique(colors, axis=0)) == NUM_LVIS_CATEGORIES

    def test_there_are_always_more(self) -> None:
        assert category_colors(2500).shape == (2500, 3)

    def test_the_first_are_far_apart_even_without_red_or_green_cones(self) -> None:
        # Someone with deuteranopia sees about what remains when red and green are averaged.
        colors = category_colors(12).astype(float)
        as_seen = np.stack([colors[:, 0] * 0.4 + colors[:, 1] * 0.6, colors[:, 2]], axis=1)
        for values, least in ((colors, 40), (as_seen, 12)):
            distances = np.linalg.norm(values[:, None] - values[None], axis=2)
            assert distances[~np.eye(12, dtype=bool)].min() > least

    def test_letters_can_be_read_on_every_color(self) -> None:
        def luminance(color: Any) -> float:
            scaled = np.asarray(color) / 255
            linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
            return float(linear @ [0.2126, 0.7152, 0.0722])

        for color in category_colors(NUM_LVIS_CATEGORIES):
            label, letters = luminance(color), luminance(letters_on(tuple(color.tolist())))
            contrast = (max(label, letters) + 0.05) / (min(label, letters) + 0.05)
            assert contrast >= 4.5  # WCAG 2, level AA


class TestCoverage:
    @settings(max_examples=50)
    @given(
        hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))),
        st.integers(1, 40),
        st.integers(1, 40),
    )
    def test_of_a_reduced_mask_is_the_share_of_each_pixel(self, mask: Masks, height: int, width: int) -> None:
        def shares(length: int, reduced: int) -> npt.NDArray[np.float64]:
            """How much of each original pixel lies in each reduced one [reduced, length], rows summing to one."""
            edges = np.arange(reduced + 1) * length / reduced
            first, last = np.maximum(edges[:-1, None], range(length)), np.minimum(edges[1:, None], range(1, length + 1))
            return (last - first).clip(0) * reduced / length

        picture = (min(height, mask.shape[0]), min(width, mask.shape[1]))
        expected = shares(mask.shape[0], picture[0]) @ mask @ shares(mask.shape[1], picture[1]).T
        assert np.allclose(full(cover(mask, picture), picture), expected, atol=0.51 / 255)

    @settings(max_examples=50)
    @given(hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(2, 30))
    def test_of_an_enlarged_mask_stays_near_the_mask(self, mask: Masks, times: int) -> None:
        picture = (mask.shape[0] * times, mask.shape[1] * times)
        covered = full(cover(mask, picture), picture)
        blocks = covered.reshape(mask.shape[0], times, mask.shape[1], times).mean(axis=(1, 3))
        whole_3x3 = ~grown(~mask)
        assert np.allclose(blocks[whole_3x3], 1, atol=0.01)
        assert np.allclose(blocks[~grown(mask)], 0)
        assert (blocks[mask] > 0.4).all()

    def test_of_an_empty_mask_is_none(self) -> None:
        empty = np.zeros((6, 8), dtype=bool)
        for picture in ((6, 8), (3, 4), (12, 16)):
            assert cover(empty, picture) is None


class TestDrawInstances:
    def test_leaves_what_lies_outside_the_masks_alone(self) -> None:
        image, masks = noise(640, 480), rectangles(640, 480, (50, 60, 200, 300), (300, 400, 333, 500))
        picture = draw_instances(image, masks, None, ["", ""], [0, 5])
        assert picture.shape == image.shape
        assert changed(image, picture)[masks.any(axis=0)].mean() > 0.99
        assert not changed(image, picture)[~grown(masks[0] | masks[1], 2)].any()

    def test_lets_the_image_shine_through_but_not_the_contour(self) -> None:
        image, masks = noise(640, 480), rectangles(640, 480, (50, 60, 200, 300))
        picture = draw_instances(image, masks, None, [""], [0])
        inside = (slice(80, 280), slice(70, 180))
        for before, after in zip(image[inside].reshape(-1, 3).T, picture[inside].reshape(-1, 3).T, strict=True):
            assert np.corrcoef(before, after)[0, 1] > 0.99
        assert picture[100:250, 49:51].std(axis=0).max() < 15 < picture[inside].std(axis=(0, 1)).min()

    def test_draws_boxes_along_their_outermost_pixels(self) -> None:
        image = noise(480, 640)
        picture = draw_instances(image, [None], np.array([[100.0, 50, 300, 200]]), [""], [3])
        rows, columns = np.nonzero(changed(image, picture))
        assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 50, 300, 200)
        assert not changed(image, picture)[55:195, 105:295].any()

    def test_colors_tell_the_category_whatever_else_is_in_the_picture(self) -> None:
        image, masks = np.full((640, 640, 3), 128, dtype=np.uint8), rectangles(640, 640, (10, 10, 90, 90))
        alone = draw_instances(image, masks, None, [""], [4])
        other = rectangles(640, 640, (300, 300, 400, 400))
        together = draw_instances(image, np.concatenate([other, masks]), None, ["", ""], [900, 4])
        assert np.array_equal(alone[:100, :100], together[:100, :100])

    def test_small_instances_lie_on_large_ones_in_any_order(self) -> None:
        image, masks = noise(640, 640), rectangles(640, 640, (0, 0, 600, 600), (200, 200, 260, 260))
        first = draw_instances(image, masks, None, ["", ""], [0, 1])
        second = draw_instances(image, masks[::-1], None, ["", ""], [1, 0])
        assert np.array_equal(first, second)

    def test_is_deterministic_and_leaves_its_inputs_alone(self) -> None:
        image, masks = noise(300, 400), rectangles(300, 400, (10, 10, 100, 100), (50, 50, 200, 200))
        boxes = np.array([[10, 10, 100, 100], [50, 50, 200, 200]])
        copies = image.copy(), masks.copy(), boxes.copy()
        pictures = [draw_instances(image, masks, boxes, ["a", "b"], [0, 1], scores=[0.5, 0.9]) for _ in range(2)]
        assert np.array_equal(pictures[0], pictures[1])
        assert all(np.array_equal(*pair) for pair in zip((image, masks, boxes), copies, strict=True))

    def test_accepts_read_only_and_strided_arrays(self) -> None:
        image, masks = noise(300, 400)[:, ::-1], rectangles(300, 400, (10, 10, 100, 100))[:, ::-1]
        image.flags.writeable = False
        plain = draw_instances(image.copy(), masks.copy(), None, ["a"], [0])
        assert np.array_equal(draw_instances(image, masks, None, ["a"], [0]), plain)

    def test_without_instances_is_the_image(self) -> None:
        image = noise(480, 640)
        assert np.array_equal(draw_instances(image, np.zeros((0, 480, 640), dtype=bool), None, [], []), image)
        assert np.array_equal(draw_instances(image, [], np.zeros((0, 4)), [], [], scores=[]), image)

    def test_does_not_decode_the_masks_of_large_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rles = encode_masks(rectangles(3000, 4000, (500, 500, 2500, 2000)))
        monkeypatch.setattr(coverage, "decode_mask", lambda rle: pytest.fail("decoded"))
        picture = draw_instances(np.zeros((3000, 4000, 3), dtype=np.uint8), rles, None, [""], [1])
        assert picture.shape == (1200, 1600, 3)
        assert changed(np.zeros_like(picture), picture)[201:799, 201:999].all()

    @pytest.mark.parametrize(
        ("original", "picture"),
        [
            ((48, 64), (480, 640)),
            ((1, 1), (640, 640)),
            ((480, 640), (480, 640)),
            ((1000, 1600), (1000, 1600)),
            ((3200, 2400), (1600, 1200)),
            ((2, 5000), (1, 1600)),
        ],
    )
    def test_sizes_can_be_looked_at(self, original: tuple[int, int], picture: tuple[int, int]) -> None:
        image = np.full((*original, 3), 77, dtype=np.uint8)
        masks = np.ones((1, *original), dtype=bool)
        drawn = draw_instances(image, masks, np.array([[0, 0, original[1], original[0]]]), ["a"], [0], scores=[0.5])
        assert drawn.shape == (*picture, 3)
        assert (drawn != 77).any(axis=2).all()

    @pytest.mark.parametrize("side", [640, 4000])
    def test_a_single_pixel_can_be_found(self, side: int) -> None:
        image, place = np.full((side, side, 3), 90, dtype=np.uint8), side // 2
        picture = draw_instances(image, rectangles(side, side, (place, place, place + 1, place + 1)), None, [""], [0])
        rows, columns = np.nonzero((picture != 90).any(axis=2))
        middle = picture.shape[0] // 2
        assert np.ptp(rows) > 8
        assert np.ptp(columns) > 8
        assert abs(rows.mean() - middle) < 2
        assert np.abs(picture[middle, middle].astype(int) - 90).max() > 60

    @settings(max_examples=25)
    @given(st.data())
    def test_draws_anything(self, data: st.DataObject) -> None:
        height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
        num = data.draw(st.integers(0, 4))
        masks = data.draw(hnp.arrays(bool, (num, height, width)))
        boxes = data.draw(hnp.arrays(np.float64, (num, 4), elements=st.floats(-20, 80)))
        boxes = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
        names = data.draw(st.lists(st.text(max_size=12), min_size=num, max_size=num))
        picture = draw_instances(noise(height, width), masks, boxes, names, [0] * num, scores=[0.5] * num)
        assert max(picture.shape) == 640

    def test_accepts_columns_of_a_table(self) -> None:
        image, masks = noise(100, 100), rectangles(100, 100, (10, 10, 30, 30), (50, 50, 90, 90))
        names, indices, scores = np.array(["a", "b"], dtype=object), np.array([3, 0]), np.array([0.2, 0.9], np.float32)
        plain = draw_instances(image, masks, None, ["a", "b"], [3, 0], scores=[0.2, 0.9])
        assert np.array_equal(draw_instances(image, masks, None, names.tolist(), indices, scores=scores), plain)

    def test_names_everything_that_does_not_fit(self) -> None:
        masks = rectangles(30, 40, (1, 1, 5, 5), (2, 2, 9, 9))
        with pytest.raises(ValueError, match=r"a mask of \[30, 40\]"):
            draw_instances(noise(40, 30), masks, None, ["a", "b"], [0, 1])
        with pytest.raises(ValueError, match=r"1 labels, 3 color indices, 1 scores, boxes of shape \[1, 4\]"):
            draw_instances(noise(30, 40), masks, np.zeros((1, 4)), ["a"], [0, 1, 2], scores=[0.1])
        with pytest.raises(ValueError, match=r"uint8 RGB \[H, W, 3\], got float64 \[30, 40, 3\]"):
            draw_instances(noise(30, 40) / 255, masks, None, ["a", "b"], [0, 1])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"got uint8 \[30, 40\]"):
            draw_instances(noise(30, 40)[..., 0], masks, None, ["a", "b"], [0, 1])
        with pytest.raises(ValueError, match="negative"):
            draw_instances(noise(30, 40), masks, None, ["a", "b"], [0, -1])


class TestLabels:
    @staticmethod
    def place(texts: list[tuple[str, str]], boxes: Any, picture: tuple[int, int]) -> list[tuple[int, int, int, int]]:
        """The plates that found a place, as boxes."""
        plates = make_labels(texts, 13, picture)
        corners = place_labels(plates, np.asarray(boxes, dtype=np.float64).reshape(-1, 4), range(len(texts)), picture)
        placed = [(plate, corner) for plate, corner in zip(plates, corners, strict=True) if corner is not None]
        return [(x, y, x + plate.width, y + plate.height) for plate, (x, y) in placed]

    @settings(max_examples=30)
    @given(st.lists(st.tuples(*[st.integers(-50, 700)] * 4, st.text(max_size=20)), max_size=25))
    def test_stay_in_the_picture_and_off_each_other(self, rows: list[tuple[int, int, int, int, str]]) -> None:
        boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d, _ in rows]
        boxes_N4 = np.array(boxes).reshape(-1, 4).clip(0, [640, 480] * 2)
        placed = self.place([(row[4], "0.50") for row in rows], boxes_N4, (480, 640))
        assert all(left >= 0 and top >= 0 and right <= 640 and bottom <= 480 for left, top, right, bottom in placed)
        for i, first in enumerate(placed):
            for second in placed[:i]:
                apart_x = first[2] <= second[0] or second[2] <= first[0]
                apart_y = first[3] <= second[1] or second[3] <= first[1]
                assert apart_x or apart_y

    def test_sit_on_top_of_their_box(self) -> None:
        ((left, _, _, bottom),) = self.place([("boat", "")], [[100, 100, 300, 300]], (480, 640))
        assert (left, bottom) == (100, 100)

    def test_of_instances_in_one_place_are_nudged_apart(self) -> None:
        placed = self.place([("boat", "0.87")] * 6, [[300, 200, 360, 260]] * 6, (480, 640))
        assert len(set(placed)) == 6

    def test_stay_off_other_small_instances(self) -> None:
        neighbor = np.array([100, 70, 160, 100])
        (plate, _) = self.place([("boat", ""), ("bird", "")], [[100, 100, 160, 160], neighbor], (480, 640))
        overlap = np.minimum(plate[2:], neighbor[2:]) - np.maximum(plate[:2], neighbor[:2])
        assert (overlap <= 0).any()

    def test_of_a_crowd_are_smaller_and_the_first_keep_theirs(self) -> None:
        boxes = [(x, y, x + 30, y + 30) for y in range(10, 460, 45) for x in range(10, 600, 45)]
        plates = make_labels([("wine glass", "0.87")] * len(boxes), 13, (480, 640))
        corners = place_labels(plates, np.array(boxes, dtype=float), range(len(boxes)), (480, 640))
        assert plates[0].text_size == 10
        assert all(corner is not None for corner in corners[:10])

    def test_in_a_narrow_picture_keep_their_score(self) -> None:
        (plate,) = make_labels([("a very long name of a category", "0.87")], 13, (400, 120))
        assert plate.width <= 120
        assert plate.text.startswith("a very")
        assert plate.text.endswith("... 0.87")

    def test_are_left_out_where_the_picture_is_lower_than_a_line(self) -> None:
        assert self.place([("boat", "0.87")], [[0, 0, 640, 5]], (5, 640)) == []

    def test_are_drawn_in_the_color_of_the_category(self) -> None:
        image, masks = np.zeros((480, 640, 3), dtype=np.uint8), rectangles(480, 640, (200, 200, 300, 300))
        without = draw_instances(image, masks, None, [""], [2])
        labeled = draw_instances(image, masks, None, ["boat"], [2], scores=[0.87])
        rows, columns = np.nonzero(changed(without, labeled))
        plate = labeled[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        color = np.median(plate.reshape(-1, 3), axis=0)
        assert rows.max() < 200
        assert np.allclose(color / color.max(), category_colors(3)[2] / category_colors(3)[2].max(), atol=0.03)


class TestLettering:
    @pytest.mark.parametrize(
        ("name", "spelled"),
        [
            ("traffic light", "traffic light"),
            ("  two\n lines ", "two lines"),
            ("Äpfel", "Apfel"),
            ("A\u0308pfel", "Apfel"),
            ("Fußgänger", "Fussganger"),
            ("Ørsted łódź", "Orsted lodz"),
            ("Щука", "Shchuka"),
            ("σκύλος", "skylos"),
            ("さくら", "sakura"),
            ("한국", "hangug"),
            ("🚤 boat", ":speedboat: boat"),
            ("x ≥ ²", "x >= 2"),
            ("日本", "<65E5><672C>"),
            ("\ud800", "<D800>"),
            ("", ""),
        ],
    )
    def test_spells_what_the_font_lacks(self, name: str, spelled: str) -> None:
        assert readable(name) == spelled

    @given(st.text())
    def test_everything_it_writes_can_be_drawn_and_measured(self, text: str) -> None:
        spelled = readable(text)
        assert readable(spelled) == spelled
        assert text_width(spelled, 14) >= 0

    @given(st.text(max_size=40), st.integers(0, 200))
    def test_fits_any_width(self, text: str, width: int) -> None:
        assert text_width(fit(text, 14, width, ending="0.50"), 14) <= width


class TestSideBySide:
    def test_has_both_panels_at_one_height_below_their_titles(self) -> None:
        red, blue = (200, 0, 0), (0, 0, 200)
        left, right = np.zeros((480, 640, 3), dtype=np.uint8), np.zeros((960, 1280, 3), dtype=np.uint8)
        left[:], right[:] = red, blue
        picture = side_by_side(left, right, ("ground truth", "predictions (score >= 0.5)"))
        for color in (red, blue):
            rows, columns = np.nonzero((picture == color).all(axis=2))
            assert np.ptp(rows) + 1 == 480
            assert np.ptp(columns) + 1 == 640
        assert (picture[:, -5:] == 255).all()
        title = picture[: rows.min()]
        assert (title[:, : picture.shape[1] // 2] < 128).any()
        assert (title[:, picture.shape[1] // 2 :] < 128).any()

    def test_gives_narrow_panels_room_for_their_titles(self) -> None:
        narrow = np.zeros((640, 20, 3), dtype=np.uint8)
        picture = side_by_side(narrow, narrow, ("ground truth", "predictions (score >= 0.5)"))
        assert picture.shape[1] > 2 * text_width("predictions (score >= 0.5)", 12)

    def test_takes_the_smallest_pictures(self) -> None:
        speck = np.zeros((1, 1, 3), dtype=np.uint8)
        assert side_by_side(speck, noise(500, 3), ("", "日本")).shape[2] == 3


class TestReferencePanel:
    @staticmethod
    def panel(image: Picture, box: Any, mask: Any, **changes: Any) -> Picture:
        described = {
            "category_name": "boat",
            "color_index": 3,
            "annotation_id": "17",
            "mask_source": "dataset",
            **changes,
        }
        rle = mask if mask is None or isinstance(mask, Rle) else encode_masks(mask[None])[0]
        return visualization.reference_panel(image, box, rle, **described)

    def test_shows_the_reference_bright_and_its_surroundings_dimmed(self) -> None:
        image, masks = np.full((400, 400, 3), 200, dtype=np.uint8), rectangles(400, 400, (150, 150, 250, 250))
        panel = self.panel(image, [150, 150, 250, 250], masks[0], side=220)
        assert panel[110, 110].mean() > 170
        assert panel[20, 20].mean() < 140

    def test_has_one_size_for_every_image_and_box(self) -> None:
        shapes = set()
        for height, width, box in ((1, 1, (0, 0, 1, 1)), (300, 50, (0, 0, 50, 300)), (90, 900, (880, 0, 900, 9))):
            mask = rectangles(height, width, box)[0]
            for shown in (mask, None, np.zeros_like(mask)):
                shapes.add(self.panel(noise(height, width), np.array(box), shown).shape)
        assert len(shapes) == 1
        assert shapes.pop()[1] == 224

    def test_draws_the_box_while_there_is_no_mask(self) -> None:
        image = np.full((400, 400, 3), 200, dtype=np.uint8)
        panel = self.panel(image, [150, 150, 250, 250], None, mask_source="none", side=200)
        rows = np.flatnonzero((panel[:200] != 200).any(axis=(1, 2)))
        assert np.ptp(rows) == pytest.approx(200 / 1.7, abs=2)
        assert (panel[100, 100] == 200).all()

    def test_refuses_a_mask_of_another_image(self) -> None:
        with pytest.raises(ValueError, match=r"size \[20, 30\], got \[30, 20\]"):
            self.panel(noise(20, 30), [1, 1, 5, 5], np.ones((30, 20), dtype=bool))

    def test_captions_tell_references_apart(self) -> None:
        image, mask, box = noise(100, 100), rectangles(100, 100, (20, 20, 60, 60))[0], (20, 20, 60, 60)
        panels = [
            self.panel(image, box, mask),
            self.panel(image, box, mask, category_name="Bär"),
            self.panel(image, box, mask, annotation_id="18"),
            self.panel(image, box, mask, mask_source="segmenter", mask_score=0.91),
            self.panel(image, box, mask, mask_source="segmenter", mask_score=0.42),
        ]
        assert len({panel[224:].tobytes() for panel in panels}) == len(panels)
        assert len({panel[:224].tobytes() for panel in panels}) == 1


class TestContactSheet:
    def test_shows_tiles_in_reading_order(self) -> None:
        tiles = [np.full((90, 120, 3), level, dtype=np.uint8) for level in (10, 40, 70, 100, 130)]
        sheet = contact_sheet(tiles, columns=2, titles=list("abcde"), heading="references")
        centers = [np.argwhere((sheet == level).all(axis=2)).mean(axis=0) for level in (10, 40, 70, 100, 130)]
        assert [tuple(np.sign(np.round(center - centers[0]))) for center in centers] == [
            (0, 0), (0, 1), (1, 0), (1, 1), (1, 0)
        ]  # fmt: skip
        assert centers[4][0] > centers[2][0]

    def test_is_bounded_and_says_what_it_leaves_out(self) -> None:
        tile = np.full((96, 96, 3), 50, dtype=np.uint8)
        few, many = contact_sheet([tile] * 20), contact_sheet([tile] * 5000)
        assert many.shape[0] * many.shape[1] <= 17_000_000
        assert max(many.shape) <= 16_100
        assert many.shape[0] * many.shape[1] > 10_000_000
        footer = many[-15:]
        assert (footer < 150).any()
        assert (few[-8:] == 255).all()

    @pytest.mark.parametrize("columns", [1, 7, 10_000])
    def test_is_bounded_for_any_number_of_columns(self, columns: int) -> None:
        sheet = contact_sheet([np.zeros((10, 8, 3), dtype=np.uint8)] * 3000, columns)
        assert max(sheet.shape) <= 16_100
        assert sheet.shape[0] * sheet.shape[1] <= 17_000_000

    def test_is_somewhat_wider_than_high(self) -> None:
        for shape in ((300, 200, 3), (200, 300, 3)):
            sheet = contact_sheet([np.zeros(shape, dtype=np.uint8)] * 60)
            assert 1 < sheet.shape[1] / sheet.shape[0] < 1.8

    def test_keeps_the_shape_of_tiles_and_does_not_enlarge_them(self) -> None:
        tall, small = np.full((500, 100, 3), 60, dtype=np.uint8), np.full((20, 30, 3), 90, dtype=np.uint8)
        sheet = contact_sheet([tall, small], tile_side=250)
        for level, shape in ((60, (250, 50)), (90, (20, 30))):
            rows, columns = np.nonzero((sheet == level).all(axis=2))
            assert [np.ptp(rows) + 1, np.ptp(columns) + 1] == list(shape)

    def test_has_room_for_its_heading_whatever_the_number_of_tiles(self) -> None:
        heading = "glass (negative): 1 reference, each as the encoder sees it"
        sheet = contact_sheet([np.zeros((96, 96, 3), dtype=np.uint8)], heading=heading)
        assert sheet.shape[1] > text_width(heading, 15)
        assert contact_sheet([noise(96, 96)], heading=heading * 9).shape[1] <= 4 * 256

    def test_without_tiles_says_so(self) -> None:
        assert (contact_sheet([], heading="references") < 128).any()

    def test_needs_a_title_per_tile(self) -> None:
        with pytest.raises(ValueError, match="got 1 for 2 tiles"):
            contact_sheet([noise(9, 9)] * 2, titles=["one"])


class TestEncoding:
    def test_png_is_exact_and_jpeg_close(self) -> None:
        smooth = np.dstack([np.tile(np.arange(200, dtype=np.uint8), (100, 1))] * 3)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(to_png(smooth)))), smooth)
        decoded = np.asarray(Image.open(io.BytesIO(to_jpeg(smooth)))).astype(int)
        assert np.abs(decoded - smooth).max() < 8

    def test_quality_trades_size(self) -> None:
        assert len(to_jpeg(noise(200, 200), 40)) < len(to_jpeg(noise(200, 200), 95))

    @pytest.mark.parametrize("most_bytes", [200_000, 20_000, 2_000])
    def test_small_files_are_as_large_as_they_may_be_at_most_and_not_much_smaller(self, most_bytes: int) -> None:
        content = to_small_jpeg(noise(600, 400), most_bytes)
        assert most_bytes / 3 < len(content) <= most_bytes
        width, height = Image.open(io.BytesIO(content)).size
        assert width / height == pytest.approx(2 / 3, rel=0.1)

    def test_pictures_that_are_small_anyway_keep_their_size(self) -> None:
        assert Image.open(io.BytesIO(to_small_jpeg(noise(60, 40), 100_000))).size == (40, 60)

    def test_accepts_any_memory_layout(self) -> None:
        picture = noise(20, 30)
        assert to_png(picture[:, ::-1]) == to_png(picture[:, ::-1].copy())
