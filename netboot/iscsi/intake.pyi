from netboot.iscsi.inlet import Inlet as Inlet
