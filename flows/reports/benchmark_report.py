"""Prints the list of benchmarks, and the numbers of one."""

from rich.table import Table as TextTable

from flows.benchmarks.comparison import as_text
from flows.benchmarks.spec import benchmark_names, load_benchmark
from flows.reports.charts import draw_benchmark
from flows.terminal import results, text_table
from refseg_core.tables import BenchmarkNumbers
from tasks.storage.objects import write_uri
from tasks.storage.uris import redact
from tasks.store.store import Artifact, Store


def report_benchmarks() -> None:
    """Prints all benchmarks and the data that each needs."""
    table = TextTable("name", "what it is", "runs", "needs below --data", "verified", show_lines=True)
    for name in benchmark_names():
        benchmark = load_benchmark(name)
        needs = "\n".join(need.path for need in benchmark.needs)
        table.add_row(name, benchmark.title, str(len(benchmark.points({}))), needs, benchmark.verified)
    results.print(table)
    results.print("refseg benchmark NAME --data DIR")


def report_benchmark(store_uri: str, artifact: Artifact) -> None:
    """Prints the numbers and the published ones, and draws a chart of both."""
    numbers = Store(store_uri).load(artifact, BenchmarkNumbers)
    header, *rows = as_text(numbers)
    title = f"{numbers.benchmark[0]}, {numbers.metric[0]} in percent, conventions {numbers.conventions[0]}"
    results.print(text_table(header, rows, title))
    chart = f"{store_uri}/benchmark.png"
    write_uri(chart, [draw_benchmark(numbers)])
    results.print(f"Numbers:    {redact(store_uri)}/{artifact.name}/benchmark_numbers.parquet")
    results.print(f"Chart:      {redact(chart)}")
