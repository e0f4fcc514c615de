"""Router advertisements that say "there is no IPv6 router here" (RFC 4861).

A story: iPXE, once DHCP has given it an IPv4 address, still waits about 16 seconds for an
answer to its IPv6 router solicitation before it boots. An advertisement with a lifetime of 0 and
no flags is the standard's way to say that nothing is to be waited for; it was measured to take
those seconds off every boot. It makes nobody use us as a router.

Read in this order: ``wire`` → ``engine`` → ``server``.
"""
