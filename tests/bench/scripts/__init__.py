"""Scripts that are run as they are, by path: the plugins and hosts whose start-up is measured.

Each host takes the plugin's command as its arguments, starts the plugin twice, one after the other,
and prints one JSON object: ``first`` and ``again``, the seconds from the spawn to the first reply
(the first start in a process also pays for what the host itself loads late), and the idle plugin's
memory.
"""

from __future__ import annotations
