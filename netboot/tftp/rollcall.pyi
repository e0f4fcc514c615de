from netboot.tftp.ready import Ready as Ready
from netboot.tftp.roll import Roll as Roll
