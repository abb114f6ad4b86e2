"""Writes a report of workdirs as one self-contained HTML file.

    delg report runs/a runs/b --output=report.html

The report has tables with confidence intervals, training curves, precision-recall curves and the
average precision of each query. For each query it shows the results of every method and how
re-ranking moved them; a click on a result shows matches, inliers and attention. Workdirs on the
same data are compared with the first of them. The workdirs are not changed.
"""

from absl import flags

from delg_jax.cli import arguments

POSITIONAL = "WORKDIR..."


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_path(values, "output", "report.html", "File to write.")
    flags.DEFINE_string("title", "DELG image retrieval", "Title of the page.", flag_values=values)
    text = "Folder of the data set, if it moved since the evaluation."
    arguments.define_path(values, "data_root", "", text)
    text = "Images shown per method and query."
    flags.DEFINE_integer("top", 10, text, flag_values=values)
    flags.DEFINE_integer("queries", 1000, "Queries listed; 0 lists all.", flag_values=values)
    text = "Queries to list first: changed (most, by re-ranking or between runs), worst or best."
    flags.DEFINE_string("choose", "changed", text, flag_values=values)
    text = "Number of queries, from the start of the list, with images and matches."
    flags.DEFINE_integer("pictures", 60, text, flag_values=values)
    flags.DEFINE_float("megabytes", 16.0, "Maximum size of all images.", flag_values=values)


def run(values: flags.FlagValues, *workdirs: str) -> None:
    """Writes the report and prints its path."""
    from delg_jax.reports.explorer import PageSettings
    from delg_jax.reports.html import write_report

    settings = PageSettings(
        values.top, values.queries, values.choose, values.pictures, values.megabytes
    )
    print(write_report(workdirs, values.output, values.title, values.data_root, settings))
