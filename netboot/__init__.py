"""Network boot in one service: DHCP, TFTP, HTTP, DNS and an iSCSI target over golden images."""

__version__ = "0.1.0"
