"""DHCP, PXE and proxyDHCP: the address of a machine and where its boot program lies.

Read in this order: ``wire`` (bytes ⇄ packets), ``options`` (the table of options), ``clients``
(who speaks), ``leases`` (the pool), ``replies`` (the table of who is told what), ``boots`` (what
begins a boot), ``effects`` (what the engine asks of the world), ``engine`` (what we answer),
``link`` (raw Ethernet) and ``server`` (the sockets).
"""
