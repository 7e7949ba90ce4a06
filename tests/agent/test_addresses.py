"""URLs of the ledger: which are taken, and that no password is shown."""

import pytest
from click.testing import CliRunner

from wattribute.agent.cli.config import command
from wattribute.agent.config.addresses import problems_of_ledger, without_password
from wattribute.agent.config.load import load
from wattribute.agent.config.schema import Ledger
from wattribute.agent.core.errors import ConfigError


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgresql://db/fleet",
        "postgres://a:b@db:5432/fleet",
        "postgresql://a:p%40ss@[::1]:5432/fleet?sslmode=verify-full&sslrootcert=/etc/ca.pem",
        "postgresql:///fleet?host=/run/postgresql",
        "sqlite:///var/lib/wattribute/archive.db",
        "sqlite:////var/lib/my archive.db",
    ],
)
def test_archives(url: str) -> None:
    assert list(problems_of_ledger(Ledger(url=url))) == []


@pytest.mark.parametrize(
    "url",
    [
        "db",
        "/var/x.db",
        "sqlite://x",
        "sqlite:///",
        "mysql://db/x",
        "postgresql://db",
        "postgresql://a:geheim@db",
        "postgresql://a:not@geheim@db/x",  # SQLAlchemy takes geheim@db for the host, and says so
        "postgresql:/a:geheim@db/x",
        "a:geheim@db/x",
        "host=db user=a password=geheim",
        "x y",
    ],
)
def test_what_is_no_archive_is_refused_with_the_fix(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://USER@HOST/DATABASE is one") as caught:
        load(None, {"WATTRIBUTE_LEDGER__URL": url}, {})
    assert "WATTRIBUTE_LEDGER__URL" in str(caught.value)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("http://127.0.0.1:9090", True),
        ("https://mimir.example/prometheus", True),
        ("http://[::1]:9090/", True),
        ("127.0.0.1:9090", False),
        ("ftp://x", False),
        ("http://a:geheim@x", False),
        ("http://x/?y", False),
    ],
)
def test_addresses_of_a_prometheus(url: str, fine: bool) -> None:
    problems = list(problems_of_ledger(Ledger(divisor_url=url)))
    assert (problems == []) is fine
    assert "geheim" not in str(problems)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://a:geheim@db/x", "postgresql://a:***@db/x"),
        ("postgresql://a:ge@he/im@db/x", "postgresql://a:***@db/x"),
        ("postgresql://a@db/x?password=geheim&sslmode=require", "postgresql://a@db/x?password=***&sslmode=require"),
        ("postgresql://a@db/x?sslpassword=geheim", "postgresql://a@db/x?sslpassword=***"),
        ("postgresql://a:geheim/x", "postgresql://a:***/x"),
        ("postgresql://a:geheim@db1:5432,db2/x", "postgresql://a:***@db1:5432,db2/x"),
        ("a:geheim@db/x", "***"),
        ("host=db password=geheim", "***"),
        ("postgresql://a@db/x", "postgresql://a@db/x"),
        ("postgresql://[::1]:5432/x", "postgresql://[::1]:5432/x"),
        ("postgresql://db:5432", "postgresql://db:5432"),
        ("sqlite:///a:b@c", "sqlite:///a:b@c"),
        ("", ""),
    ],
)
def test_a_password_is_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize("options", [[], ["--json"], ["--origin"]])
def test_config_show_hides_it(options: list[str]) -> None:
    url = "postgresql://a:geheim@db/x"
    done = CliRunner().invoke(command, ["show", *options], env={"WATTRIBUTE_LEDGER__URL": url})
    assert done.exit_code == 0, done.output
    assert "postgresql://a:***@db/x" in done.output
    assert "geheim" not in done.output
