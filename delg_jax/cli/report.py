"""Writes one HTML file about workdirs that needs neither them nor a network.

    delg report runs/a runs/b --output=report.html

It holds the tables with their intervals, training curves, precision-recall curves and the average
precision of each query; and for each query what every method found, what re-ranking moved, and on
a click the matches with inlier lines and the attention. Workdirs on the same data are compared
with the first of them. Nothing in the workdirs is changed.
"""

from absl import flags

from delg_jax.cli import arguments

POSITIONAL = "WORKDIR..."


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_path(values, "output", "report.html", "File to write.")
    flags.DEFINE_string("title", "DELG image retrieval", "Heading.", flag_values=values)
    text = "Where the data set lies now, if not where the configuration says."
    arguments.define_path(values, "data_root", "", text)
    text = "Images shown of each method for each query."
    flags.DEFINE_integer("top", 10, text, flag_values=values)
    flags.DEFINE_integer("queries", 1000, "Queries listed; 0 = all.", flag_values=values)
    text = "Which queries come first: changed (most, by re-ranking or between runs), worst or best."
    flags.DEFINE_string("choose", "changed", text, flag_values=values)
    text = "Queries, the first of the list, that come with pictures and matches."
    flags.DEFINE_integer("pictures", 60, text, flag_values=values)
    flags.DEFINE_float("megabytes", 16.0, "Of pictures, at most.", flag_values=values)


def run(values: flags.FlagValues, *workdirs: str) -> None:
    """Writes the report and says where."""
    from delg_jax.reports.explorer import PageSettings
    from delg_jax.reports.html import write_report

    names = ("top", "queries", "choose", "pictures", "megabytes")
    settings = PageSettings(**{name: values[name].value for name in names})
    print(write_report(workdirs, values.output, values.title, values.data_root, settings))
