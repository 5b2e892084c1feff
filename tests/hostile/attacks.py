"""Every attack by its name, in the order in which they run."""

from hostile import files, images, messages, pages, peers, resources, store, strings
from hostile.attack import Attack

ATTACKS = {
    attack.name: attack
    for module in (images, messages, peers, store, strings, files, pages, resources)
    for attack in vars(module).values()
    if isinstance(attack, Attack)
}
