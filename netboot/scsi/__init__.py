"""SCSI without a wire: CDBs go in, Actions come out (SAM-5, SPC-4, SBC-3).

Read in this order: ``action`` (what a command may want of the world), ``sense`` (why it was
refused), ``commands`` (the table of everything we speak), ``unit`` (what one disk and its
initiators remember), ``target`` (the door: ``LogicalUnits.execute``).
"""
