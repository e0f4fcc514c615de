"""DNS: the names of the clients and of this server; all other names are somebody else's."""
