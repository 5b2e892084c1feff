"""Every attack by its name, in the order in which they run."""

from hostile import images, messages, peers
from hostile.attack import Attack

ATTACKS = {
    attack.name: attack
    for module in (images, messages, peers)
    for attack in vars(module).values()
    if isinstance(attack, Attack)
}
