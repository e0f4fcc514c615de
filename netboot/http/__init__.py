"""HTTP: scripts, loaders and files for machines on their way up; a JSON API for everyone else.

``routes.py`` is the table, ``views.py`` what the server is given, ``files.py`` and ``api.py``
the answers, ``server.py`` the sockets (aiohttp).
"""
