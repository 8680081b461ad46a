"""The view of the model."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from llamora.app import i18n
from llamora.app.i18n import gettext as _
from llamora.llm.addresses import is_loopback
from llamora.llm.model import Model
from llamora.persistence.entries import BUILT_IN_MODEL


@dataclass(slots=True, frozen=True)
class ModelView:
    """The model in words. `leaves_machine`: prompts are sent to another machine."""

    available: bool
    problem: str = ""
    name: str = ""
    description: str = ""
    endpoint: str = ""
    leaves_machine: bool = False
    embedded: bool = False
    is_unreachable: bool = False
    """It did not answer when asked for its name."""
    hidden: bool = False
    """The user has turned the model off: only the page that turns it on mentions it."""


def model_name(name: str) -> str:
    """Return the name to show for the model of a record."""
    return _("small built-in model") if name == BUILT_IN_MODEL else name


async def model_view(
    model: Model, *, name: str = "", with_name: bool = False, is_disabled: bool = False
) -> ModelView:
    """Return the view of the model of the endpoint `name`.

    `with_name` asks the server for the name of its model, which may take a moment. `is_disabled`:
    the user has turned the model off.
    """
    if is_disabled:
        return ModelView(available=False, hidden=True)
    if why_not := model.unavailable_reason(name):
        return ModelView(available=False, problem=i18n.describe(why_not))
    built_in = model.is_built_in(name)
    description = _("the small built-in model") if built_in else _("the model you connected")
    if not with_name:
        return ModelView(available=True, description=description)
    info = await model.info(name)
    if info is None and built_in:  # it starts with the first prompt
        return ModelView(available=True, description=description, embedded=True)
    if info is None:
        return _unreachable(description, model.host_of(name))
    return ModelView(
        available=True,
        name=info.name,
        description=description if info.is_embedded else info.name,
        endpoint="" if info.is_embedded else info.endpoint,
        leaves_machine=not info.is_local,
        embedded=info.is_embedded,
    )


def _unreachable(description: str, address: str) -> ModelView:
    url = address if "//" in address else f"//{address}"
    return ModelView(
        available=True,
        description=_("%(model)s; %(host)s does not answer just now")
        % {"model": description, "host": urlsplit(url).hostname or address},
        leaves_machine=not is_loopback(url),
        is_unreachable=True,
    )
