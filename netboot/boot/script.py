"""iPXE scripts from templates (Jinja2): the user's own folder first, then the product's.

A template sees only the variables of ``variables`` below; one that does not exist is an error,
never an empty string. iPXE expands ``${...}`` and splits lines at ``&&`` and ``||``, so a *value*
that holds one of them, or a line break, is refused: a template may write them, data may not.
Every mistake is a ConfigError that names the template, the line and the variable.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jinja2 import (
    FileSystemLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    Undefined,
)
from jinja2.sandbox import SandboxedEnvironment

from netboot.boot import profiles
from netboot.boot.plan import http_url, root_path, script_path
from netboot.errors import ConfigError
from netboot.model import BootPlan, Chap, Site, hyphenated

#: The product's own templates: a link to ``templates/`` in a clone, a folder in a wheel.
PRODUCT = Path(__file__).resolve().parents[1] / "templates" / "ipxe"

#: The script that every machine gets when its profile names none and it asks all the same.
DEFAULT = "boot.ipxe.j2"

#: What no value may bring into a script.
FORBIDDEN: Mapping[str, str] = MappingProxyType(
    {"${": "iPXE would expand it", "&&": "iPXE splits there", "||": "iPXE splits there"}
)


class Variable(NamedTuple):
    """One variable of the templates; the documentation lists these rows."""

    name: str
    help: str


VARIABLES: tuple[Variable, ...] = (
    Variable("mac", "the machine's MAC, 52:54:00:12:34:56"),
    Variable("mac_hyphens", "the same as 52-54-00-12-34-56"),
    Variable("name", "its host name, one DNS label"),
    Variable("profile", "the name of its profile"),
    Variable("image", "the golden image of its profile"),
    Variable("overlay", "persistent or ephemeral"),
    Variable("root_path", "the iSCSI URI of its own disk, LUN 0"),
    Variable("target", "the iSCSI name of its own target"),
    Variable("initiator", "the iSCSI name that the target expects of it"),
    Variable("server", "our IPv4 address"),
    Variable("domain", "the site's DNS domain"),
    Variable("http", "the URL of our HTTP server, without a slash at its end"),
    Variable("script_url", "the URL of this script"),
    Variable("username", "the user name that it logs in with (CHAP); empty: none"),
    Variable("password", "its secret, told to the machine itself alone; else empty"),
    Variable("reverse_username", "the user name by which the target proves itself; empty: none"),
    Variable("reverse_password", "the target's secret, told as the other one is"),
    Variable("vars", "the profile's and the machine's own variables: vars.kernel"),
)


class Scripts:
    """Renders templates by name; reads the files anew when they change.

    >>> Scripts([Path("/etc/netboot/ipxe")]).render(plan, site, "menu.ipxe")
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self.folders = (*folders, PRODUCT)
        self._environment = SandboxedEnvironment(
            loader=FileSystemLoader([str(folder) for folder in self.folders]),
            undefined=StrictUndefined,
            finalize=harmless,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            autoescape=False,  # this is not HTML; ``harmless`` is the guard
        )

    def render(
        self, plan: BootPlan, site: Site, template: str = DEFAULT, chap: Chap | None = None
    ) -> str:
        """The script for the machine of ``plan``; ConfigError says what is wrong, and where.

        ``chap``: what that machine, and nobody else, is told to prove at its login.
        """
        loaded = self._load(template)
        try:
            text = loaded.render(variables(plan, site, chap))
        except Exception as error:  # a template can divide by zero, and worse
            raise ConfigError(f"{_where(error, loaded.filename)}: {error}") from error
        if not text.startswith("#!ipxe"):
            raise ConfigError(f"template {loaded.filename}, line 1: a script begins with #!ipxe")
        return text

    def _load(self, name: str) -> Template:
        """``menu.ipxe`` means ``menu.ipxe.j2``, and so does ``menu``."""
        given = name.removesuffix(".j2").removesuffix(".ipxe")
        try:
            return self._environment.get_template(f"{given}.ipxe.j2")
        except TemplateNotFound as error:
            folders = ", ".join(str(folder) for folder in self.folders)
            missing = f"template {error.name or name} is in none of the folders {folders}"
            raise ConfigError(f"{missing}: create it, or mend the profile's script") from error
        except TemplateSyntaxError as error:
            place = f"template {error.filename or name}, line {error.lineno}"
            raise ConfigError(f"{place}: {error.message}") from error
        except (TemplateError, OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"template {name} cannot be read: {error}") from error


def variables(plan: BootPlan, site: Site, chap: Chap | None = None) -> dict[str, object]:
    """The values of ``VARIABLES``; of the packet itself only the MAC is among them."""
    mac = plan.client.mac
    return {
        "mac": mac,
        "mac_hyphens": hyphenated(mac),
        "name": plan.name,
        "profile": plan.profile.name,
        "image": plan.profile.image,
        "overlay": plan.profile.overlay.value,
        "root_path": root_path(site, mac),
        "target": site.target_name(mac),
        "initiator": plan.initiator or site.initiator_name(mac),
        "server": str(site.address.ip),
        "domain": site.domain,
        "http": http_url(site, ""),
        "script_url": http_url(site, script_path(mac)),
        "username": chap.name if chap else "",
        "password": chap.secret if chap else "",
        "reverse_username": chap.mutual_name if chap else "",
        "reverse_password": chap.mutual_secret if chap else "",
        "vars": profiles.variables_of(site.hosts.get(mac), plan.profile),
    }


def harmless(value: object) -> object:
    """The value as it is, or ConfigError: Jinja2 calls this for each ``{{ expression }}``."""
    if isinstance(value, Undefined):
        return value  # StrictUndefined raises, with its name, as soon as it is written
    text = str(value)
    for sign, reason in FORBIDDEN.items():
        if sign in text:
            raise ConfigError(f"the value {text!r} holds {sign!r}: {reason}")
    if not text.isprintable():
        raise ConfigError(f"the value {text!r} holds a line break or another control character")
    return value


def _where(error: BaseException, filename: str | None) -> str:
    """``template FILE, line N``: the innermost line of a template that the error came through.

    Jinja2 rewrites tracebacks so that a template's frames carry its file name and line.
    """
    line, file, trace = 0, filename or "", error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name.endswith(".j2"):
            line, file = trace.tb_lineno, name
        trace = trace.tb_next
    return f"template {file}, line {line}" if line else f"template {file}"
