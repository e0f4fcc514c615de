"""The lab: real machines in QEMU on a network that nobody else can see.

Read in this order: ``namespace`` (a network of our own) → ``machine`` (a machine as a QEMU
command line) → ``accel`` (how QEMU may run it) → ``console`` (talking to its serial line) →
``service`` (``netboot serve`` inside) → ``run`` (one lab, start to end) → ``demo``.
"""
