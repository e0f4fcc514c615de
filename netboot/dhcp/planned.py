"""The plans of machines that are about to ask again.

A REQUEST follows its DISCOVER at once, and says the same of its sender: what was planned for the
one holds for the other, and is not made twice while a machine waits. Nothing here decides, and
nothing is remembered past a change of the settings.
"""

from collections import OrderedDict
from collections.abc import Callable

from netboot.model import BootPlan, Client

#: The machines that we remember: so many are between their DISCOVER and REQUEST at most.
REMEMBERED = 1024


class Planned:
    """``plan``'s answers; it gives the same for the same client until ``forget``."""

    def __init__(self, plan: Callable[[Client], BootPlan | None]) -> None:
        self._plan = plan
        self._latest: OrderedDict[str, BootPlan] = OrderedDict()

    def of(self, client: Client) -> BootPlan | None:
        """What it boots; None: not our machine."""
        plan = self._latest.get(client.mac)
        if plan is not None and plan.client == client:
            return plan
        plan = self._plan(client)
        if plan is not None:
            self._latest[client.mac] = plan
            if len(self._latest) > REMEMBERED:
                self._latest.popitem(last=False)
        return plan

    def forget(self) -> None:
        """The settings have changed."""
        self._latest.clear()
