"""The iSCSI target (RFC 7143): login, full-feature phase, and the edge where SCSI meets disks.

Read ``wire`` first, then the tables ``keys`` and ``login``, then ``session`` and ``engine``
(pure), then ``server`` (one connection) and ``portal`` (all of them).
"""
