"""The table is whole: each row has its handler, and the handlers have no row too few."""

import inspect

import pytest

from netboot.http.api import Api
from netboot.http.machines import Machines
from netboot.http.routes import ROUTES, Route


def handlers(owner: type) -> set[str]:
    return {
        name
        for name, member in vars(owner).items()
        if inspect.iscoroutinefunction(member) and not name.startswith("_")
    }


def test_every_handler_has_one_row_and_every_row_one_handler() -> None:
    named = [route.handler for route in ROUTES]
    assert sorted(named) == sorted(handlers(Api) | handlers(Machines))
    assert not handlers(Api) & handlers(Machines)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_each_row(route: Route) -> None:
    assert route.method in ("GET", "POST")
    assert route.path.startswith("/")
    assert route.help
    assert route.help == route.help.strip(". ")


def test_no_two_rows_answer_the_same() -> None:
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_the_paths_that_machines_and_programs_rely_on() -> None:
    assert {(route.method, route.path) for route in ROUTES} == {
        ("GET", "/boot/{mac}.ipxe"),
        ("GET", "/loaders/{name:.+}"),
        ("GET", "/files/{name:.+}"),
        ("GET", "/autoexec.ipxe"),
        ("POST", "/api/v1/ready"),
        ("GET", "/healthz"),
        ("GET", "/metrics"),
        ("GET", "/api/v1/clients"),
        ("GET", "/api/v1/clients/{mac}"),
        ("GET", "/api/v1/images"),
        ("GET", "/api/v1/overlays"),
        ("GET", "/api/v1/explain/{mac}"),
        ("GET", "/api/v1/events"),
    }
