"""`wattribute dashboards export`: the Grafana dashboards that come with wattribute, as files to import."""

from importlib.resources import files
from pathlib import Path

import click

from wattribute.agent.cli import write_file
from wattribute.agent.core.errors import WattributeError

NAMES = ("fleet", "node", "job", "product")


@click.group()
def command() -> None:
    """Grafana dashboards: of all nodes, of a node, of a job, of a product.

    \b
    Example:
      wattribute dashboards export
    """


@command.command()
@click.argument(
    "folder", metavar="[DIR]", type=click.Path(path_type=Path, file_okay=False), default=Path("wattribute-dashboards")
)
@click.option("--stdout", "name", type=click.Choice(NAMES), help="Print this one instead of writing files.")
def export(folder: Path, name: str | None) -> None:
    """Write the dashboards into DIR, which is made if need be [wattribute-dashboards]; older files are replaced.

    Import them in Grafana (Dashboards, New, Import), or let Grafana read the folder: docs/grafana.md. The dashboard of
    the fleet needs the recording rules in deploy/prometheus/rules.

    \b
    Example:
      wattribute dashboards export /var/lib/grafana/dashboards
    """
    if name is not None:
        click.echo(_text(name), nl=False)
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WattributeError(
            f"can't make the folder {folder}: {error.strerror or error}. Fix: name one that you may write, e.g. "
            "wattribute dashboards export ./dashboards"
        ) from error
    for each in NAMES:
        path = folder / f"{each}.json"
        write_file(path, _text(each))
        click.echo(path)


def _text(name: str) -> str:
    return files("wattribute.exporters.grafana").joinpath("dashboards", f"{name}.json").read_text(encoding="utf-8")
