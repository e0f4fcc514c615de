"""Where blocks live: golden images, copy-on-write overlays, the image library.

Read in this order: ``disk`` (the verbs) → ``raw`` (a golden image) → ``qcow2`` (the layout,
pure) → ``overlay`` (the copy-on-write disk) → ``files`` with ``locks`` and ``live`` (what an
overlay is on disk) → ``identity`` and ``attach`` (from a DiskSpec to a Disk) → ``library``,
``convert`` and ``recipe`` (versions of images) → ``filters`` (disks around a disk, for tests).

Nothing here awaits, knows SCSI, or talks SQL.
"""
