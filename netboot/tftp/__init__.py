"""TFTP, read-only: the protocol with which firmware fetches its first program."""
