"""The export formats by name: what the command line, error messages and the documentation list.

A format's implementation is called with the labels (`labels.py`) and yields the pieces of one file.
"""

from refseg_core.settings.choices import Choice, Choices

EXPORT_FORMATS = Choices(
    "export format",
    Choice(
        name="coco-results",
        help="a list of results, as COCO's evaluation takes it",
        implementation="tasks.outputs.exports.coco:write_results",
    ),
    Choice(
        name="coco",
        help="a whole COCO dataset: images, categories and annotations",
        implementation="tasks.outputs.exports.coco:write_dataset",
    ),
    Choice(
        name="parquet",
        help="one table with the columns of detections",
        implementation="tasks.outputs.exports.parquet:write_table",
    ),
)
