"""What outlives the service: leases, the image catalogue, overlays, boot events, clients seen.

``schema.py`` has the tables and the numbered steps that lead to them, ``store.py`` the questions
and answers. Nothing else in the product talks SQL.
"""
