"""Gathers retrieval tables, training curves and configurations of workdirs in one HTML file.

    delg report runs/a runs/b --output=report.html

The file needs neither the workdirs nor a network.
"""

from absl import flags

POSITIONAL = "WORKDIR..."


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_string("output", "report.html", "File to write.", flag_values=values)
    flags.DEFINE_string("title", "DELG image retrieval", "Heading.", flag_values=values)


def run(values: flags.FlagValues, *workdirs: str) -> None:
    """Writes the report and says where."""
    from delg_jax.reports.html import write_report

    print(write_report(workdirs, values.output, values.title))
