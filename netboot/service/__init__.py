"""The control process's own parts: what ``app`` needs beside protocols, brain, state and disks.

Read in this order: ``preflight`` and ``fitness`` (is this machine fit to serve) → ``ledger``
(which version and overlay a client has) → ``sight`` (what happens to the machines) →
``journal`` (kept) and ``overview`` (shown) → ``control`` (the command line's back door).
"""
