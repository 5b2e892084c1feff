"""Every attack by its name, in the order in which they run."""

import asyncio

from hostile import files, images, messages, pages, peers, resources, store, strings
from hostile.attack import Attack, Scene, attack


@attack(source="none: it is what the others are compared with")
async def no_attack(scene: Scene) -> None:
    """Does nothing: measures the innocent caller on this machine without an attack."""
    await scene.begin()
    await asyncio.Event().wait()


ATTACKS = {no_attack.name: no_attack} | {
    entry.name: entry
    for module in (images, messages, peers, store, strings, files, pages, resources)
    for entry in vars(module).values()
    if isinstance(entry, Attack)
}
