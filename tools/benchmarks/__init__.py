"""The benchmark suite: `./tools/bench`. Contenders, what is measured of them, and the tables that come out of it.

Each measurement runs in a process of its own (`child`), and contenders take turns within each repeat, so that a machine
that gets slower meanwhile slows all of them.
"""
